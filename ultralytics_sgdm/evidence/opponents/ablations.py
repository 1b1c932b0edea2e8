"""Ablations: SGDM with one thing changed.

They stand in rows of their own behind the block, which is the same computation with the same parameters as `C2fSGDM` in
one row.
"""

from __future__ import annotations

from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from ...nn import SGDM, RDConv, register_layer
from ...nn.dynamic import zero_init
from .form import kept


class One(nn.Module):
    """A branch of SGDM that is switched off: weights of 1, which SGDM still multiplies with, at the cost of time."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.weights = branch.generate.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to ones of shape (B, weights, 1, 1)."""
        return x.new_ones(len(x), self.weights, 1, 1)


@register_layer(like=Conv)
class SGDMStatic(SGDM):
    """SGDM without both branches, a static separable convolution."""

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__(c1, c2, ratio)
        self.channel, self.spatial = One(self.channel), One(self.spatial)


@register_layer(like=Conv)
class SGDMNoSpatial(SGDM):
    """SGDM without the spatial branch."""

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__(c1, c2, ratio)
        self.spatial = One(self.spatial)


@register_layer(like=Conv)
class SGDMNoChannel(SGDM):
    """SGDM without the channel branch."""

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__(c1, c2, ratio)
        self.channel = One(self.channel)


@register_layer(like=Conv)
class SGDMFree(RDConv):
    """SGDM without the guide, the free 3x3 kernel of RDConv inside."""

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__(kept(c1, c2), c2, ratio=ratio)
        self.expand = zero_init(nn.Conv2d(self.razor.conv.out_channels, c2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to the same shape."""
        return x + super().forward(x)


@register_layer(like=Conv)
class SGDMShort(SGDM):
    """SGDM with the kernels 1x3 and 3x1 alone."""

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__(c1, c2, ratio, kernels=((1, 3), (3, 1)))
