"""Pretrained weights follow the rows of a model with added modules, and one line reports what moved.

Ultralytics behaviour: `BaseModel.load` matches tensors by name, `model.<row>.<name>`. It is given the weights under the
names that they have in this model; everything else stays its own. Models without added modules load as before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

from ..placing import weights
from .patching import wrap


def install() -> None:
    """Align the rows of pretrained weights with those of a model with added modules."""
    wrap(tasks.BaseModel, "load", _align)


def _align(load: Callable) -> Callable:
    def load_aligned(self: tasks.BaseModel, weights_: dict | nn.Module, *args: Any, **kwargs: Any) -> None:
        source = (weights_.get("ema") or weights_["model"]) if isinstance(weights_, dict) else weights_
        if not any(weights.added_modules(self)) or not isinstance(getattr(source, "yaml", None), dict):
            return load(self, weights_, *args, **kwargs)
        state = source.float().state_dict()
        rows = weights.read_rows(source)
        pairs = weights.align_rows(rows, weights.read_rows(self))
        given = weights.rename(state, pairs)
        partial = weights.find_partial(given, self)
        left = {k: v for k, v in given.items() if k not in partial}
        before = {k: v.clone() for k, v in self.state_dict().items() if k in left and v.shape != left[k].shape}
        renamed = copy.copy(source)
        renamed.float, renamed.state_dict = lambda: renamed, lambda: left
        load(self, renamed, *args, **kwargs)
        own = self.state_dict()
        moved = [k for k, v in left.items() if k in own and own[k].shape == v.shape]
        setattr(self, weights.UNTRAINED, weights.find_untrained(source, self, moved, pairs))
        if kwargs.get("verbose", args[0] if args else True):
            # Ultralytics takes class rows that it matches by name out of `left`, and makes others of the head anew
            head = f"model.{len(self.model) - 1}."
            changed = (k for k, v in before.items() if k in left and not torch.equal(v, own[k]))
            adapted = sorted(k for k in changed if not k.startswith(head))
            stayed = {
                "the shape differs": [k for k in left if k in own and k not in moved and k not in adapted],
                "the rest of their module does not fit": partial,
                "the model has no such tensor": [k for k in left if k not in own],
            }
            layers = [row.layer for row in rows]
            LOGGER.info(f"ultralytics_sgdm: {weights.describe(self, layers, state, given, pairs, adapted, stayed)}")

    return load_aligned
