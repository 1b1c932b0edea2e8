"""SGDM, Static-Guided Dynamic Module: a dynamic kernel within the span of shared static kernels.

Paper: SGDM, Xing, Cui, Qi, arXiv 2403.18282; reconstructed from its abstract. The mixture of `dynamic.py` over a set
of asymmetric static kernels, each a depthwise convolution shared by all samples and positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from ..errors import ConfigError
from .dynamic import ChannelBranch, SpatialBranch, check_kernel, check_positive, mix, razor_width, zero_init
from .registry import register_layer

KERNELS = ((1, 3), (3, 1), (1, 11), (11, 1))

torch.fx.wrap("mix")  # a leaf of symbolic tracing: it chooses between training and inference


def check_kernels(kernels: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return the (height, width) pairs of `kernels`, each size an odd positive integer.

    Raises:
        ValueError: If `kernels` is anything but a non-empty sequence of such pairs.
    """
    allowed = f"kernels must be a non-empty list of (height, width) pairs such as {[list(k) for k in KERNELS]}"
    if not isinstance(kernels, Sequence) or not kernels:
        raise ValueError(f"{allowed}, got {kernels!r}")
    for kernel in kernels:
        if not isinstance(kernel, Sequence) or len(kernel) != 2:
            raise ValueError(f"{allowed}, got {kernel!r} in it")
    return [(check_kernel(h, "each height in kernels"), check_kernel(w, "each width in kernels")) for h, w in kernels]


@register_layer(like=Conv)
class SGDM(nn.Module):
    """Razor, mixture of static kernels, expand, added to the input.

    A row of its own, `SGDM, [c2, ratio]`, or behind a block in one row (`with_sgdm`). `expand` starts at zero, so with
    c1 == c2 the module starts as exactly the identity. With c1 != c2 the input reaches the sum through a 1x1 Conv.

    Args:
        c1: Input channels.
        c2: Output channels.
        ratio: The Razor Operation keeps about `c1 / ratio` features, in blocks of 16.
        kernels: (height, width) of each static kernel, odd.
        channel: Whether the mixture has channel weights; without, they are 1 (an ablation).
        spatial: Whether the mixture has spatial weights; without, they are 1 (an ablation).

    Raises:
        ValueError: If c1 or c2 is not a positive integer, ratio not a number from 1 to c1, or kernels not a list of
            pairs of odd sizes.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        ratio: float = 3,
        kernels: Sequence[Sequence[int]] = KERNELS,
        channel: bool = True,
        spatial: bool = True,
    ) -> None:
        super().__init__()
        check_positive(c1, "c1", "input channels")
        check_positive(c2, "c2", "output channels")
        kernels = check_kernels(kernels)
        c = razor_width(c1, ratio)
        self.razor = Conv(c1, c, 1)
        self.static = nn.ModuleList(
            nn.Conv2d(c, c, (h, w), padding=(h // 2, w // 2), groups=c, bias=False) for h, w in kernels
        )
        self.channel = ChannelBranch(c, len(kernels)) if channel else None
        self.spatial = SpatialBranch(c, len(kernels)) if spatial else None
        self.act = Conv.default_act
        self.expand = zero_init(nn.Conv2d(c, c2, 1))
        self.shortcut = nn.Identity() if c1 == c2 else Conv(c1, c2, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        return self.expanded(x).add_(self.shortcut(x))

    def expanded(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to the expanded mixture (B, c2, H, W), which is zero at the start."""
        u = self.razor(x)
        alpha = None if self.channel is None else self.channel(u).split(self.razor.conv.out_channels, 1)
        gamma = None if self.spatial is None else self.spatial(u).split(1, 1)
        responses = [conv(u) for conv in self.static]
        return self.expand(self.act(mix(responses, alpha, gamma)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled state; reject checkpoints from before 0.1.0."""
        super().__setstate__(state)
        if not all(isinstance(conv, nn.Conv2d) for conv in (*self.static, self.expand)):
            raise ConfigError(
                "this checkpoint holds SGDM from before 0.1.0, with BatchNorm behind its static kernels; this version "
                "cannot run it, train again from the stock weights"
            )
