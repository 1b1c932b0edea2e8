"""CondConv: Conditionally Parameterized Convolutions for Efficient Inference. Yang et al., arXiv 1904.04971."""

from __future__ import annotations

import math

from thop.profile import register_hooks
from timm.layers import CondConv2d
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from ...nn import register_layer
from .form import Residual


class RoutedConv2d(CondConv2d):
    """CondConv, Yang et al., arXiv 1904.04971, by timm, with the paper's routing: sigmoid(mean over (H, W), linear).

    Args:
        c: Channels.
        k: Kernel size, odd.
        n: Experts.
    """

    def __init__(self, c: int, k: int = 3, n: int = 4) -> None:
        super().__init__(c, c, k, num_experts=n)
        self.route = nn.Linear(c, n)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c, H, W) to the same shape."""
        return super().forward(x, self.route(x.mean((2, 3))).sigmoid())


@register_layer(like=Conv)
class ResidualCondConv(Residual):
    """CondConv, a mixture of four 3x3 kernels per sample."""

    convolution = RoutedConv2d


def _count_operations(conv: CondConv2d, _: tuple, y: Tensor) -> None:
    conv.total_ops += y.numel() * math.prod(conv.weight_shape[1:]) + len(y) * conv.weight.numel()


register_hooks[CondConv2d] = _count_operations  # Ultralytics' GFLOPs leave out a convolution with computed weights
