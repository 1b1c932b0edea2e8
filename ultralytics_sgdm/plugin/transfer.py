"""Weights follow the rows of a model with inserted ones, and one line says what moved.

The fact: `BaseModel.load` matches tensors by name, `model.<row>.<name>`. Where rows were inserted, it is given the
weights under the names they have in this model; everything else it does stays its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

from ..transfer import added_modules, follow_rows, halves, rename, report, row_names
from .patching import wrap


def install() -> None:
    """Let weights follow the rows of a model with inserted ones, and say what moved, what did not and why."""
    wrap(tasks.BaseModel, "load", _following_rows)


def _following_rows(load: Callable) -> Callable:
    def follow(self: tasks.BaseModel, weights: dict | nn.Module, *args: Any, **kwargs: Any) -> None:
        if not any(added_modules(self)):
            return load(self, weights, *args, **kwargs)
        source = (weights.get("ema") or weights["model"]) if isinstance(weights, dict) else weights
        places = _places(source, self)
        state = source.float().state_dict()
        given = rename(state, places) if places else state
        apart = halves(given, self)
        left = {k: v for k, v in given.items() if k not in apart}
        before = {k: v.clone() for k, v in self.state_dict().items() if k in given and v.shape != given[k].shape}
        renamed = copy.copy(source)
        renamed.float, renamed.state_dict = lambda: renamed, lambda: left
        load(self, renamed, *args, **kwargs)
        if _is_verbose(*args, **kwargs):
            own = self.state_dict()
            adapted = {k for k, v in before.items() if v.shape != own[k].shape or not torch.equal(v, own[k])}
            LOGGER.info(f"ultralytics_sgdm: {report(given, left, self, places, adapted, apart)}")

    return follow


def _is_verbose(verbose: bool = True, *_: Any, **__: Any) -> bool:
    return verbose


def _places(source: nn.Module, model: tasks.BaseModel) -> dict[int, int] | None:
    spec = getattr(source, "yaml", None)
    if not isinstance(spec, dict):
        return None
    rows, target = row_names(spec), row_names(model.yaml)
    return {i: i for i in range(len(rows))} if len(rows) == len(target) else follow_rows(rows, target)
