"""The form of SGDM around another convolution, in which the dynamic convolutions stand.

A razor, the convolution in place of the mixture, BatchNorm, activation, and an expand that starts at zero, added to the
input: so what differs is the convolution, not the residual path around it or where training starts.
"""

from __future__ import annotations

from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from ...nn.dynamic import zero_init


def kept(c1: int, c2: int) -> int:
    """Return the channels of a layer that stands behind a block.

    Raises:
        ValueError: If the layer is to change them.
    """
    if c1 != c2:
        raise ValueError(f"this layer stands behind a block and keeps its channels, so c2 must be {c1}, got {c2}")
    return c1


class Residual(nn.Module):
    """The form of SGDM around another convolution, a class built with its channels; exactly the identity at the start.

    Args:
        c1: Input channels.
        c2: Output channels, as many.
        ratio: The razor keeps `c1 / ratio` features, rounded.

    Raises:
        ValueError: If c1 != c2.
    """

    convolution: type[nn.Module]

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__()
        c = round(kept(c1, c2) / ratio)
        self.razor = Conv(c1, c, 1)
        self.conv = self.convolution(c)
        self.bn = nn.BatchNorm2d(c)
        self.act = Conv.default_act
        self.expand = zero_init(nn.Conv2d(c, c2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to the same shape."""
        return x + self.expand(self.act(self.bn(self.conv(self.razor(x)))))
