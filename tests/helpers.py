"""What several test files need."""

import torch
from torch import nn


def randomize(module: nn.Module) -> nn.Module:
    """Give every weight, bias and running statistic a random value, so that no branch is idle; return `module`."""
    for p in module.parameters():
        nn.init.normal_(p, std=p[0].numel() ** -0.5 if p.dim() > 1 else 0.3)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.running_mean, std=0.3)
            nn.init.uniform_(m.running_var, 0.5, 1.5)
    return module


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    """Whether two tensors agree relative to the largest value."""
    return bool((a - b).abs().max() <= tolerance * b.abs().max())
