"""The table of models: each shipped YAML at each scale, beside its stock counterpart."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import get_flops

from .configs import ConfigError, shipped, stock_name, with_scale

SCALES = "nsmlx"


class Row(NamedTuple):
    """One model and its stock counterpart; GFLOPs at 640 x 640 pixels."""

    name: str
    parameters: int
    gflops: float
    stock: str
    stock_parameters: int
    stock_gflops: float


def table(scales: str = SCALES) -> Iterator[Row]:
    """Return the row of each shipped model at each of `scales`, measured as they are asked for.

    Raises:
        ConfigError: If a scale is not one of n, s, m, l, x.
    """
    if not scales or not set(scales) <= set(SCALES):
        raise ConfigError(f"scale={scales!r} must be letters of {SCALES!r}, such as scale=n or scale=nsm")
    names = (with_scale(file.name, scale) for file in shipped("models") for scale in scales)
    return (Row(name, *_measure(name), stock_name(name), *_measure(stock_name(name))) for name in names)


@functools.cache
def _measure(name: str) -> tuple[int, float]:
    model = DetectionModel(name, verbose=False)
    return sum(p.numel() for p in model.parameters()), get_flops(model)
