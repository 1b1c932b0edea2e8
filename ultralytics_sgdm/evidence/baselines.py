"""Baselines: five published modules at the places of SGDM, as registered layers. They need the extra `compare`.

Attention (CBAM, CoordAttention) multiplies the block's output, as in its paper, and costs what it costs there. Dynamic
convolutions (CondConv, ODConv, RFAConv) are placed inside SGDM's residual branch: the dense 3x3 convolution of their
paper with its settings, with the narrowest razor that gives them SGDM's parameters or more. So compare their accuracy
at the same size, and their times with that in mind.
"""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from thop.profile import register_hooks
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from ..errors import import_extra
from ..nn import register_layer
from ..nn.dynamic import zero_init

layers: Any = import_extra("timm.layers", "compare")
cbam: Any = import_extra("timm.layers.cbam", "compare")
coord_attn: Any = import_extra("timm.layers.coord_attn", "compare")


def check_channels(c1: int, c2: int) -> int:
    """Return the channels of a layer that is placed behind a block; raise ValueError if it is to change them."""
    if c1 != c2:
        raise ValueError(f"this layer is placed behind a block and keeps its channels, so c2 must be {c1}, got {c2}")
    return c1


@register_layer(like=Conv)
class TimmCBAM(cbam.CbamModule):
    """CBAM, attention by channel, then by position. Woo et al., arXiv 1807.06521, by timm.

    Unlike Ultralytics' own `CBAM` it has the paper's maximum pooling and its MLP with reduction 16.
    """

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__(check_channels(c1, c2))


@register_layer(like=Conv)
class CoordAttention(coord_attn.CoordAttn):
    """CoordAttention, attention by row and by column. Hou et al., arXiv 2103.02907, by timm.

    With the paper's reduction 32 and the authors' least width 8.
    """

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__(check_channels(c1, c2), rd_channels=max(8, c1 // 32))


class Residual(nn.Module):
    """SGDM's residual branch around another `convolution`, a class built with its channels; starts as the identity.

    So what differs is the convolution, not the residual path around it or the start of training. The razor keeps
    `c1 / ratio` features, rounded; c2 must be c1, else a ValueError is raised.
    """

    convolution: type[nn.Module]
    match_sgdm = True  # `<model>-<baseline>.yaml` has SGDM's parameters or more

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__()
        c = round(check_channels(c1, c2) / ratio)
        self.razor = Conv(c1, c, 1)
        self.conv = self.convolution(c)
        self.bn = nn.BatchNorm2d(c)
        self.act = Conv.default_act
        self.expand = zero_init(nn.Conv2d(c, c2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to the same shape."""
        return x + self.expand(self.act(self.bn(self.conv(self.razor(x)))))


class RoutedConv2d(layers.CondConv2d):
    """CondConv of n experts with the paper's routing, sigmoid(linear(mean over (H, W))).

    Yang et al., arXiv 1904.04971, by timm.
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


class ODConv2d(layers.CondConv2d):
    """Omni-dimensional dynamic convolution: n kernels, weighted in all four dimensions per sample.

        y = (sum_i a_w[i] * a_f * a_c * a_s * W[i]) (*) x

    Li et al., ICLR 2022, arXiv 2209.07947: a_w by softmax over the kernels, a_f (per filter), a_c (per input channel)
    and a_s (per tap) by sigmoid, from one squeezed vector with reduction 16 (width 16 at least, as the authors have
    it). The temperature of the softmax is 1 throughout: annealing it needs the trainer.
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
    """ODConv, a mixture of four 3x3 kernels, weighted in four dimensions per sample."""

    convolution = ODConv2d


class RFAConv2d(nn.Module):
    """Receptive-field attention convolution: every position has k * k own features, and own weights for them.

        F = relu(norm(group k x k (x))),  A = softmax over the k * k of (group 1 x 1 (average k x k (x)))
        y = k x k convolution with stride k of A * F, laid out as (k H, k W)

    Zhang et al., arXiv 2304.03198. The last line equals a 1x1 convolution of the k * k * c features of each position,
    which is how it is computed here.
    """

    def __init__(self, c: int, k: int = 3) -> None:
        super().__init__()
        n = k * k
        self.feature = Conv(c, n * c, k, g=c, act=nn.ReLU())
        self.pool = nn.AvgPool2d(k, 1, k // 2)
        self.weigh = nn.Conv2d(c, n * c, 1, groups=c, bias=False)
        self.conv = nn.Conv2d(n * c, c, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c, H, W) to the same shape."""
        attention = self.weigh(self.pool(x)).unflatten(1, (x.shape[1], -1)).softmax(2)
        return self.conv(self.feature(x) * attention.flatten(1, 2))


@register_layer(like=Conv)
class ResidualRFAConv(Residual):
    """RFAConv, 3x3 features of each position with softmax weights."""

    convolution = RFAConv2d


def _count_operations(conv: Any, _: tuple, y: Tensor) -> None:
    conv.total_ops += y.numel() * math.prod(conv.weight_shape[1:]) + len(y) * conv.weight.numel()


register_hooks[layers.CondConv2d] = _count_operations  # Ultralytics leaves out convolutions with computed weights
