"""The table of models: every family, task and scale of Ultralytics' detectors beside its equipped counterpart."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ultralytics.nn import tasks
from ultralytics.utils import ROOT

from .configs import ConfigError, shipped, stock_name, with_scale
from .skeleton import count, gflops, skeleton

SCALES = "tnsmbclex"  # by size
_STOCK = re.compile(r"(yolov?\d+|rtdetr)-?[a-z]?(-(seg|pose|obb|cls))?(-p[26])?")
_SCALED = re.compile(r"(yolov?\d+|rtdetr)-?([a-z])(?=[-.])")


class Row(NamedTuple):
    """One model and its stock counterpart; GFLOPs at 640 x 640 pixels."""

    name: str
    parameters: int
    gflops: float
    stock: str
    stock_parameters: int
    stock_gflops: float


def family_of(name: str) -> str:
    """Return the name of a model's family: `yolov9t-seg-sgdm.yaml` gives `yolov9-seg-sgdm`."""
    return Path(_SCALED.sub(r"\1", name, count=1)).stem


def scale_of(name: str) -> str:
    """Return the scale letter of a model's name, or an empty string."""
    match = _SCALED.match(name)
    return match[2] if match else ""


def families() -> dict[str, list[str]]:
    """Return the models of each family by size: every stock detector with SGDM in every task, then other shipped."""
    stock = sorted((f.stem for f in (ROOT / "cfg/models").rglob("*.yaml") if _STOCK.fullmatch(f.stem)), key=_by_number)
    models: dict[str, dict[str, None]] = {}
    for file in dict.fromkeys([*(f"{stem}-sgdm.yaml" for stem in stock), *(f.name for f in shipped("models"))]):
        scales = tasks.yaml_model_load(stock_name(file)).get("scales")
        models.setdefault(family_of(file), {}).update(dict.fromkeys(with_scale(file, s) for s in scales or [""]))
    return {family: sorted(names, key=lambda n: SCALES.index(scale_of(n))) for family, names in models.items()}


def _by_number(stem: str) -> tuple[int, str]:
    number = re.search(r"\d+", stem)
    return (int(number[0]) if number else 99, stem)


def table(scales: str = "") -> Iterator[Row]:
    """Return the row of the smallest model of each family, or of each at one of `scales`, or with "all" of every model.

    Raises:
        ConfigError: If a scale is unknown.
    """
    if scales != "all" and not set(scales) <= set(SCALES):
        raise ConfigError(f"scale={scales!r} must be letters of {SCALES!r}, such as scale=n or scale=nsm, or all")
    names = (
        name
        for family in families().values()
        for name in (family if scales else family[:1])
        if scales in ("", "all") or scale_of(name) in tuple(scales)
    )
    return map(row, names)


def row(name: str) -> Row:
    """Return the row of one model by its name, such as `yolo11n-seg-sgdm.yaml`."""
    return Row(name, *_measure(name), stock_name(name), *_measure(stock_name(name)))


@functools.cache
def _measure(name: str) -> tuple[int, float]:
    model = skeleton(tasks.yaml_model_load(name))
    return count(model), gflops(model)
