"""CoordAttention: Coordinate Attention for Efficient Mobile Network Design. Hou et al., arXiv 2103.02907."""

from __future__ import annotations

from timm.layers.coord_attn import CoordAttn
from ultralytics.nn.modules import Conv

from ...nn import register_layer
from .form import kept


@register_layer(like=Conv)
class CoordAttention(CoordAttn):
    """CoordAttention, attention by row and by column.

    Hou et al., arXiv 2103.02907, by timm, with the paper's reduction 32 and the authors' least width 8.
    """

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__(kept(c1, c2), rd_channels=max(8, c1 // 32))
