"""Candidates for the form of SGDM that docs/plans/tiny-forms.yaml compares.

All start as exactly the identity and have constant weights in the exported graph. With e the expanded mixture of SGDM:

    additive  y = x + e                SGDM as it is
    gate      y = x * 2 sigmoid(e)
    product   y = x * (1 + e)
    both      y = x * (1 + e) + f      e and f from one expand of twice the width
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from ultralytics_sgdm import SGDM, register_layer
from ultralytics_sgdm.nn.dynamic import zero_init


class Nothing(nn.Module):
    """A shortcut that adds nothing, so that SGDM's forward gives the expanded mixture."""

    def forward(self, x: Tensor) -> int:
        """Return 0."""
        return 0


class Expanded(SGDM):
    """The expanded mixture (B, C, H, W) of SGDM without its shortcut."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shortcut = Nothing()


@register_layer(like=Conv)
class SGDMGate(Expanded):
    """y = x * 2 sigmoid(e)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return x * (2 * super().forward(x).sigmoid())


@register_layer(like=Conv)
class SGDMProduct(Expanded):
    """y = x * (1 + e)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return x * (1 + super().forward(x))


@register_layer(like=Conv)
class SGDMBoth(Expanded):
    """y = x * (1 + e) + f."""

    def __init__(self, c1: int, c2: int, ratio: float = 3, *args: Any) -> None:
        super().__init__(c1, c2, ratio, *args)
        self.expand = zero_init(nn.Conv2d(self.expand.in_channels, 2 * c2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        e, f = super().forward(x).chunk(2, 1)
        return x * (1 + e) + f
