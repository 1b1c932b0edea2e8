"""timm's attention layers, as rows of a YAML and `equip module=`, by the names of timm's `create_attn`.

They multiply a block's output by weights that are about 0.5 at the start, so pretrained weights behind them see another
input, except `nl` (non-local, which adds). `start=identity` puts a residual scale around them that starts at zero.
Sources: the docstrings of `timm.layers`. They need the extra `compare`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from ..errors import import_extra
from .registry import register_layer
from .timm_names import ATTENTION

STARTS = ("timm", "identity")
create_attn = import_extra("timm.layers", "compare").create_attn


class TimmAttention(nn.Module):
    """An attention layer of timm behind a block, `se, [c2]` or `se, [c2, identity]`; each name is a class.

    Args:
        c1: Input channels.
        c2: Output channels, as many.
        start: "timm" for the layer as it is; "identity" for x + scale * (attention(x) - x), the scale starting at 0.

    Raises:
        ValueError: If c1 != c2, or `start` is neither.
    """

    attention: str

    def __init__(self, c1: int, c2: int, start: str = "timm") -> None:
        super().__init__()
        if c1 != c2:
            raise ValueError(f"{self.attention} keeps its channels, so c2 must be {c1}, got {c2}")
        if start not in STARTS:
            raise ValueError(f"start must be one of {', '.join(STARTS)}, got {start!r}")
        self.attn = create_attn(self.attention, c1)
        self.scale = nn.Parameter(torch.zeros(1)) if start == "identity" else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to the same shape."""
        y = self.attn(x)
        return y if self.scale is None else x + self.scale * (y - x)


def _define(name: str) -> type[TimmAttention]:
    return type(name, (TimmAttention,), {"attention": name, "__module__": __name__, "__doc__": ATTENTION[name]})


globals().update({name: register_layer(_define(name), like=Conv) for name in ATTENTION})
