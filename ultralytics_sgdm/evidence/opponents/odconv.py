"""ODConv: Omni-Dimensional Dynamic Convolution. Li et al., ICLR 2022, arXiv 2209.07947."""

from __future__ import annotations

import torch.nn.functional as F
from timm.layers import CondConv2d
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from ...nn import register_layer
from .form import Residual


class ODConv2d(CondConv2d):
    """Omni-dimensional dynamic convolution: n kernels, weighed in all four dimensions by what the sample holds.

        y = (sum_i a_w[i] * a_f * a_c * a_s * W[i]) (*) x

    Li et al., ICLR 2022, arXiv 2209.07947: a_w by softmax over the kernels, a_f (per filter), a_c (per input channel)
    and a_s (per tap) by sigmoid, from one squeezed vector with reduction 16 (width 16 at least, as the authors have
    it). The temperature of the softmax is 1 throughout: annealing it needs the trainer.

    Args:
        c: Channels.
        k: Kernel size, odd.
        n: Kernels.
    """

    def __init__(self, c: int, k: int = 3, n: int = 4) -> None:
        super().__init__(c, c, k, num_experts=n)
        hidden = max(16, c // 16)
        self.squeeze = nn.Linear(c, hidden)
        self.kernels, self.filters = nn.Linear(hidden, n), nn.Linear(hidden, c)
        self.inputs, self.taps = nn.Linear(hidden, c), nn.Linear(hidden, k * k)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c, H, W) to the same shape."""
        b, c, h, w = x.shape
        z = self.squeeze(x.mean((2, 3))).relu()
        weight = (self.kernels(z).softmax(1) @ self.weight).reshape(b, c, c, -1)
        weight = weight * self.filters(z).sigmoid()[:, :, None, None] * self.inputs(z).sigmoid()[:, None, :, None]
        weight = weight * self.taps(z).sigmoid()[:, None, None, :]
        weight = weight.reshape(b * c, c, *self.kernel_size)
        return F.conv2d(x.reshape(1, b * c, h, w), weight, padding=self.padding, groups=b).reshape(b, c, h, w)


@register_layer(like=Conv)
class ResidualODConv(Residual):
    """ODConv, a mixture of four 3x3 kernels, weighed in four dimensions per sample."""

    convolution = ODConv2d
