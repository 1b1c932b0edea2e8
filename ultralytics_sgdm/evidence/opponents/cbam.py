"""CBAM: Convolutional Block Attention Module. Woo et al., arXiv 1807.06521."""

from __future__ import annotations

from timm.layers.cbam import CbamModule
from ultralytics.nn.modules import Conv

from ...nn import register_layer
from .form import kept


@register_layer(like=Conv)
class TimmCBAM(CbamModule):
    """CBAM, attention by channel, then by position.

    Woo et al., arXiv 1807.06521, by timm: unlike Ultralytics' own `CBAM` it has the paper's maximum pooling and its
    MLP with reduction 16.
    """

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__(kept(c1, c2))
