"""Forms of SGDM that the search compares; the code of the winner moves into the package, the others go.

All start as exactly the identity, have constant weights in the exported graph, and keep a razor, a spatial and a
channel branch, and asymmetric static kernels that guide.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from ultralytics_sgdm import register_layer
from ultralytics_sgdm.nn.dynamic import ChannelBranch, SpatialBranch, razor_width, zero_init
from ultralytics_sgdm.nn.sgdm import KERNELS, SGDM

LENGTHS = (3, 11)


def sequence(channels: int, k: int) -> nn.Sequential:
    """Return a depthwise 1 x k, then k x 1 convolution: k x k support from 2 k weights a channel."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, (1, k), padding=(0, k // 2), groups=channels, bias=False),
        nn.Conv2d(channels, channels, (k, 1), padding=(k // 2, 0), groups=channels, bias=False),
    )


@register_layer(like=Conv)
class SGDMGuided(nn.Module):
    """Candidates 1 and 2: bases are sequences of strips, and the spatial weights look at their responses.

    gamma = 2 sigmoid(7x7 of mean and max over the channels of each response).
    """

    normalised = False

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__()
        c, m = razor_width(c1, ratio), len(LENGTHS)
        self.razor = Conv(c1, c, 1)
        self.static = nn.ModuleList(sequence(c, k) for k in LENGTHS)
        self.channel = ChannelBranch(c, m)
        self.guide = zero_init(nn.Conv2d(2 * m, m, 7, padding=3))
        self.norm = nn.BatchNorm2d(c) if self.normalised else nn.Identity()
        self.act = Conv.default_act
        self.expand = zero_init(nn.Conv2d(c, c2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        u = self.razor(x)
        responses = [conv(u) for conv in self.static]
        seen = torch.cat([y for r in responses for y in (r.mean(1, keepdim=True), r.amax(1, keepdim=True))], 1)
        logits = self.guide(seen)
        gamma = len(responses) * logits.softmax(1) if self.normalised else 2 * logits.sigmoid()
        alpha = self.channel(u).split(u.shape[1], 1)
        y = sum(r * a * g for r, a, g in zip(responses, alpha, gamma.split(1, 1), strict=True))
        return x + self.expand(self.act(self.norm(y)))


@register_layer(like=Conv)
class SGDMGuidedNorm(SGDMGuided):
    """Candidates 1 to 4: as SGDMGuided, gamma normalised over the bases (M softmax), BatchNorm after the mixture."""

    normalised = True


@register_layer(like=Conv)
class SGDMGuidedFree(nn.Module):
    """Candidate 6: the strips guide a free 3x3 kernel per position, shared by 8 channels, normalised over its taps.

    The taps are those of RDConv, so the mixture is over the nine shifts; the kernel of a position is a softmax of a 1x1
    convolution of the sum of the static responses, scaled so that a flat one sums to nine.
    """

    shared = 8

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__()
        self.c = c = razor_width(c1, ratio)
        self.razor = Conv(c1, c, 1)
        self.static = nn.ModuleList(sequence(c, k) for k in LENGTHS)
        self.channel = ChannelBranch(c, 1)
        self.kernel = zero_init(nn.Conv2d(c, 9 * c // self.shared, 1))
        self.base = nn.Parameter(torch.randn(9, c, 1, 1) / 3)
        self.norm = nn.BatchNorm2d(c)
        self.act = Conv.default_act
        self.expand = zero_init(nn.Conv2d(c, c2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        u = self.razor(x)
        guide = sum(conv(u) for conv in self.static)
        b, _, h, w = u.shape
        taps = 9 * self.kernel(guide).view(b, 9, -1, 1, h, w).softmax(1).expand(-1, -1, -1, self.shared, -1, -1)
        padded = nn.functional.pad(u, (1, 1, 1, 1))
        shifts = [padded[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        y = sum(s * t.reshape(b, self.c, h, w) * k for s, t, k in zip(shifts, taps.unbind(1), self.base, strict=True))
        return x + self.expand(self.act(self.norm((y + guide) * self.channel(guide))))


@register_layer(like=Conv)
class SGDMGrouped(SGDM):
    """Candidate 5: as SGDM, but the spatial weights are one map per kernel and group of 16 channels."""

    shared = 16

    def __init__(self, c1: int, c2: int, ratio: float = 3, kernels: Sequence[Sequence[int]] = KERNELS) -> None:
        super().__init__(c1, c2, ratio, kernels)
        c = self.razor.conv.out_channels
        self.spatial = SpatialBranch(c, len(kernels) * (c // self.shared))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        u = self.razor(x)
        b, c, h, w = u.shape
        alpha = self.channel(u).split(c, 1)
        gamma = self.spatial(u).split(c // self.shared, 1)
        responses = [conv(u).view(b, -1, self.shared, h, w) for conv in self.static]
        y = sum(
            r * a.view(b, -1, self.shared, 1, 1) * g.unsqueeze(2)
            for r, a, g in zip(responses, alpha, gamma, strict=True)
        )
        return x + self.expand(self.act(y.view(b, c, h, w)))
