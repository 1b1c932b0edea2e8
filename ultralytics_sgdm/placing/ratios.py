"""Razor ratios of placed modules: the default, those that the user gives, or those that meet a budget of parameters."""

from __future__ import annotations

import bisect
import functools
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ultralytics.utils.torch_utils import get_num_params

from ..errors import ConfigError

RATIOS: tuple[float, ...] = (2.25,)  # the paper's +0.19 M on YOLOv8n
FAMILY_RATIOS: dict[str, tuple[float, ...]] = {"yolov5": (1.5, 1.6)}  # and +0.33 M on YOLOv5n
CHOICES = sorted({r / 20 for r in range(20, 160)} | {float(r) for r in range(8, 257)})  # what a budget chooses from


def parse_budget(budget: str | float) -> float:
    """Return the parameters that `190000`, "190k" or "0.19M" means.

    Raises:
        ConfigError: If it is not such a number.
    """
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)([kM]?)", str(budget))
    number = float(match[1]) * {"": 1, "k": 1e3, "M": 1e6}[match[2]] if match else 0
    if number < 1:
        raise ConfigError(f"budget={budget} must be a number of parameters, such as 190000, 190k or 0.19M")
    return number


def join_ratios(values: Sequence[float]) -> str:
    """Return ratios as the argument `ratio=` is written."""
    return ",".join(f"{value:g}" for value in (values if len({*values}) > 1 else values[:1]))


def choose_ratios(
    cls: type[torch.nn.Module],
    spec: dict[str, Any],
    channels: list[int],
    ratio: float | Sequence[float] | None,
    budget: float | None,
) -> tuple[float, ...]:
    """Return the ratio for each place, whose channels are given; none if the layer keeps its default.

    The default is that of the model's family, else `ratio`, which the user gave, or what adds `budget` parameters.

    Raises:
        ConfigError: If the layer has no ratio, the number of ratios is not that of the places, or the budget is out of
            reach.
    """
    if ratio is None and budget is None:
        if cls.__name__ != "SGDM":
            return ()
        name = Path(spec["yaml_file"]).name
        default = next((ratios for family, ratios in FAMILY_RATIOS.items() if name.startswith(family)), RATIOS)
        return tuple(default[k % len(default)] for k in range(len(channels)))
    if "ratio" not in inspect.signature(cls).parameters or (getattr(cls, "replaces_stock", False) and budget):
        raise ConfigError(f"module={cls.__name__} does not take {'ratio= or budget=' if not budget else 'budget='}")
    if ratio is not None:
        ratios = _simplify((ratio,) if isinstance(ratio, (int, float)) else ratio)
        if len(ratios) not in (1, len(channels)):
            raise ConfigError(f"ratio={join_ratios(ratios)}: give one, or one for each of the {len(channels)} places")
        return ratios * len(channels) if len(ratios) == 1 else ratios
    return _simplify(_meet_budget(cls, channels, budget or 0))


def _simplify(ratios: Sequence[float]) -> tuple[float, ...]:
    """Return ratios as a person writes them: 11 in place of 11.0."""
    return tuple(int(r) if r == int(r) else r for r in ratios)


def _meet_budget(cls: Any, channels: list[int], budget: float) -> tuple[float, ...]:
    """Return a ratio for each place so that the modules add as nearly `budget` parameters as widths allow."""
    choices = [r for r in CHOICES if r <= min(channels)]

    def added(ratios: Sequence[float]) -> int:
        return sum(_count(cls, c, r) for c, r in zip(channels, ratios, strict=True))

    low, high = added([choices[-1]] * len(channels)), added([choices[0]] * len(channels))
    if not low <= budget <= high:
        raise ConfigError(
            f"budget={budget:.0f} cannot be met here: {cls.__name__} adds from {low:,} to {high:,} parameters; choose "
            "in between, or other places with at="
        )
    best = min(([r] * len(channels) for r in choices), key=lambda ratios: abs(added(ratios) - budget))
    while True:  # widen or narrow one module at a time while that comes nearer
        others = [[*best[:k], r, *best[k + 1 :]] for k in range(len(best)) for r in choices]
        nearer = min(others, key=lambda ratios: (abs(added(ratios) - budget), max(ratios) / min(ratios)))
        if abs(added(nearer) - budget) >= abs(added(best) - budget):
            return tuple(best)
        best = nearer


def match_parameters(cls: Any, channels: Sequence[int], parameters: int) -> float:
    """Return the largest ratio, to a twentieth, at which layers at some places have so many parameters or more."""
    ratios = [r / 20 for r in range(20, 20 * min(channels) + 1)]
    found = bisect.bisect_right(ratios, -parameters, key=lambda r: -sum(_count(cls, c, r) for c in channels))
    return ratios[max(0, found - 1)]


@functools.cache
def _count(cls: Any, channels: int, ratio: float) -> int:
    with torch.device("meta"):
        return get_num_params(cls(channels, channels, ratio=ratio))
