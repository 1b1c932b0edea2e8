"""RDConv, Razor Dynamic Convolution: a dynamic depthwise kernel per sample and position, on a few features only.

Paper: SGDM, Xing, Cui, Qi, arXiv 2403.18282; reconstructed from its abstract. The mixture of `dynamic.py` over the k
* k one-hot taps around a learned base kernel w: S[m,c] is w[c] at tap m and zero elsewhere.
"""

from __future__ import annotations

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from .dynamic import ChannelBranch, SpatialBranch, check_kernel, check_positive, mix, razor_width
from .registry import register_layer

torch.fx.wrap("mix")  # a leaf of symbolic tracing: it chooses between training and inference


@register_layer(like=Conv)
class RDConv(nn.Module):
    """Razor, dynamic k x k depthwise kernel, expand: replaces a `Conv` row, `RDConv, [c2, k, s, ratio]`.

    At initialisation it is an ordinary depthwise-separable convolution with the kernel `base`.

    Args:
        c1: Input channels.
        c2: Output channels.
        k: Kernel size, odd.
        s: Stride.
        ratio: The Razor Operation keeps about `c1 / ratio` features, in blocks of 16.

    Raises:
        ValueError: If c1, c2 or s is not a positive integer, k is not odd, or ratio is not a number from 1 to c1.
    """

    replaces_stock = True  # `equip` puts it in the place of strided Conv rows, not behind blocks

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1, ratio: float = 4) -> None:
        super().__init__()
        check_positive(c1, "c1", "input channels")
        check_positive(c2, "c2", "output channels")
        check_positive(s, "s", "the stride")
        c = razor_width(c1, ratio)
        self.razor = Conv(c1, c, 1)
        self.base = nn.Conv2d(c, c, check_kernel(k), s, k // 2, groups=c, bias=False)
        self.channel = ChannelBranch(c, k * k)
        self.spatial = SpatialBranch(c, k * k)
        self.act = Conv.default_act
        self.expand = Conv(c, c2, 1)
        if s > 1:
            one_hot = torch.eye(k * k).reshape(k * k, 1, k, k).repeat_interleave(c, 0)
            self.register_buffer("one_hot", one_hot, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, ceil(H / s), ceil(W / s))."""
        u = self.razor(x)
        static = self.base(u)
        c = self.base.out_channels
        kernel = self.base.weight.flatten(1).transpose(0, 1).reshape(1, -1, 1, 1)  # in the order of alpha
        alpha = (self.channel(static) * kernel).split(c, 1)
        gamma = self.spatial(static).split(1, 1)
        return self.expand(self.act(mix(self.taps(u), alpha, gamma)))

    def taps(self, u: Tensor) -> list[Tensor]:
        """Return the k * k shifted `u` that `base` weighs and sums, row by row of the kernel.

        They are strided views, which cost PyTorch least. Tracing implies export, and ncnn has no slice with a step:
        there they are convolutions with `one_hot`.

        Args:
            u: Tensor of shape (B, C, H, W).

        Returns:
            k * k tensors of shape (B, C, ceil(H / s), ceil(W / s)).
        """
        c, k, s = self.base.out_channels, self.base.kernel_size[0], self.base.stride[0]
        if s > 1 and torch.jit.is_tracing():
            kernels = [self.one_hot[i : i + c] for i in range(0, k * k * c, c)]
            return [F.conv2d(u, kernel, stride=s, padding=k // 2, groups=c) for kernel in kernels]
        u = F.pad(u, (k // 2,) * 4)
        window = [slice(i, i - k + 1 or None, s) for i in range(k)]
        return [u[:, :, rows, columns] for rows in window for columns in window]
