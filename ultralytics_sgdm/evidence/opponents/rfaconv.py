"""RFAConv: Innovating Spatial Attention and Standard Convolutional Operation. Zhang et al., arXiv 2304.03198."""

from __future__ import annotations

from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from ...nn import register_layer
from .form import Residual


class RFAConv2d(nn.Module):
    """Receptive-field attention convolution: every position has k * k own features, and own weights for them.

        F = relu(norm(group k x k (x))),  A = softmax over the k * k of (group 1 x 1 (average k x k (x)))
        y = k x k convolution with stride k of A * F, laid out as (k H, k W)

    Zhang et al., arXiv 2304.03198. The last line is the same as a 1x1 convolution of the k * k * c features of each
    position, which is how it is computed here.

    Args:
        c: Channels.
        k: Kernel size, odd.
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
