"""Dynamic depthwise convolution as a mixture of the responses of constant kernels.

The idea of SGDM (Xing, Cui, Qi, arXiv 2403.18282), reconstructed from its abstract. For M basis kernels S[m],

    K[b,c,:,:,h,w] = sum_m  alpha[b,c,m] * gamma[b,m,h,w] * S[m,c,:,:]
    y[b,c,h,w]     = sum_m  alpha[b,c,m] * gamma[b,m,h,w] * (S[m] (*) u)[b,c,h,w]

The second line is the first by linearity: the dynamics scale *responses*, so no per-sample kernel is ever built and
every convolution of an exported graph has constant weights.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

LARGEST_KERNEL = 255
BLOCK = 16  # widths are multiples of it: others are slower on SIMD units and tensor cores, for no benefit


def razor_width(channels: int, ratio: float) -> int:
    """Return how many of `channels` features the Razor Operation keeps: about `channels / ratio`, in blocks of 16.

    Args:
        channels: Features before the Razor Operation.
        ratio: Reduction, from 1 (keep all) to `channels` (keep one, rounded up to a block).

    Raises:
        ValueError: If `ratio` is not a number in that range.
    """
    if isinstance(ratio, bool) or not isinstance(ratio, Real) or not 1 <= ratio <= channels:
        raise ValueError(f"ratio must be a number from 1 to {channels} (the channels it divides), got {ratio!r}")
    return min(channels, max(BLOCK, int(channels / ratio / BLOCK + 0.5) * BLOCK))


def check_positive(value: int, name: str, meaning: str) -> int:
    """Return `value` if it is a positive integer.

    Raises:
        ValueError: If it is anything else; `name` and `meaning` are what the message calls it.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer ({meaning}), got {value!r}")
    return value


def check_kernel(k: int, name: str = "k") -> int:
    """Return `k` if it is an odd positive integer (the sizes that keep a map's centre in place) up to LARGEST_KERNEL.

    Raises:
        ValueError: If it is anything else; `name` is what the message calls it.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1 or k % 2 == 0:
        raise ValueError(f"{name} must be an odd positive integer such as 3, 5 or 7, got {k!r}")
    if k > LARGEST_KERNEL:
        raise ValueError(f"{name} must be at most {LARGEST_KERNEL}, got {k!r}")
    return k


def mix(
    responses: Sequence[Tensor], alpha: Sequence[Tensor] | None = None, gamma: Sequence[Tensor] | None = None
) -> Tensor:
    """Return `sum_m alpha[m] * gamma[m] * responses[m]`, the equation above.

    Args:
        responses: M tensors of shape (B, C, H, W).
        alpha: M channel weights of shape (B, C, 1, 1); None for 1.
        gamma: M spatial weights of shape (B, 1, H, W); None for 1.

    Returns:
        Tensor of shape (B, C, H, W).
    """
    if alpha is None or gamma is None:
        weights = alpha or gamma
        terms = responses if weights is None else [r * w for r, w in zip(responses, weights, strict=True)]
        return functools.reduce(torch.add, terms)
    if torch.is_grad_enabled() and responses[0].requires_grad and not torch.jit.is_tracing():
        return Mixture.apply(*responses, *alpha, *gamma)
    return _mix(responses, alpha, gamma)


def _mix(responses: Sequence[Tensor], alpha: Sequence[Tensor], gamma: Sequence[Tensor]) -> Tensor:
    y = responses[0] * alpha[0] * gamma[0]  # in this order: alpha * gamma would not be in channels_last
    for r, a, g in zip(responses[1:], alpha[1:], gamma[1:], strict=True):
        y += r * a * g  # not addcmul, which converters to ncnn do not know
    return y


class Mixture(torch.autograd.Function):
    """`mix` for training: products are computed again in the backward pass, not kept for it."""

    generate_vmap_rule = True  # for torch.func.vmap of a gradient

    @staticmethod
    def forward(*tensors: Tensor) -> Tensor:
        """Take responses, alpha and gamma one after the other."""
        return _mix(*_thirds(tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep the inputs, which their own layers keep anyway or which are small."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients in the order of the inputs."""
        gradients = []
        for response, alpha, gamma in zip(*_thirds(ctx.saved_tensors), strict=True):
            product = grad * response
            d_alpha = (product * gamma).sum((2, 3), keepdim=True)
            d_gamma = (product * alpha).sum(1, keepdim=True)
            gradients.append((grad * alpha * gamma, d_alpha, d_gamma))
        return tuple(gradient for kind in zip(*gradients, strict=True) for gradient in kind)


def _thirds(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], ...]:
    m = len(tensors) // 3
    return tensors[:m], tensors[m : 2 * m], tensors[2 * m :]


class ChannelBranch(nn.Module):
    """Channel weights of the mixture: mean over (H, W), 1x1, activation, 1x1, `2 * sigmoid`; exactly 1 at the start.

    Args:
        channels: C, the features that the branch looks at, as many as a response has.
        bases: M, the number of basis kernels.
    """

    def __init__(self, channels: int, bases: int) -> None:
        super().__init__()
        hidden = max(8, channels // 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.act = Conv.default_act
        self.generate = zero_init(nn.Conv2d(hidden, bases * channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to alpha of shape (B, M * C, 1, 1), the C of the first basis first, values in (0, 2)."""
        return 2 * self.generate(self.act(self.reduce(self.pool(x)))).sigmoid()


class SpatialBranch(nn.Module):
    """Spatial weights of the mixture: 1x1 to M maps, `2 * sigmoid`; exactly 1 at the start.

    Args:
        channels: C, the features that the branch looks at, as many as a response has.
        bases: M, the number of basis kernels.
    """

    def __init__(self, channels: int, bases: int) -> None:
        super().__init__()
        self.generate = zero_init(nn.Conv2d(channels, bases, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to gamma of shape (B, M, H, W), values in (0, 2)."""
        return 2 * self.generate(x).sigmoid()


def zero_init(conv: nn.Conv2d) -> nn.Conv2d:
    """Set the weight and bias of `conv` to zero in place and return it."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv
