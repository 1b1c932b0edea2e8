"""What is refused where a seam does not fit: models with our layers, and `freeze=stock`. Stock use goes on as ever.

The facts: every model is built by `nn.tasks.parse_model`, whatever it does inside, and every trainer has its arguments
in `args` once it is made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import ultralytics
from ultralytics.nn import tasks

from .. import versions
from ..configs import ConfigVersionError, layer_place, yaml_name
from ..nn.registry import registered_layers
from .patching import wrap


def refuse_models(why: str) -> None:
    """Refuse models with registered layers."""
    if hasattr(tasks, "parse_model"):
        wrap(tasks, "parse_model", functools.partial(_refusing_layers, why), everywhere=True)
    else:
        tasks.parse_model = functools.partial(_no_parser, why)  # for what of ours builds models


def refuse_freezing(why: str) -> None:
    """Refuse `freeze=stock`, which would train what it must not."""
    from ultralytics.engine.trainer import BaseTrainer  # only now: a version without it can do the rest

    wrap(BaseTrainer, "__init__", functools.partial(_refusing_stock, why))


def version_error(what: str, why: str) -> ConfigVersionError:
    """Return the error of what does not work with the installed Ultralytics."""
    installed = f"tested is {versions.TESTED}, this is {ultralytics.__version__}"
    return ConfigVersionError(f"{what} does not work here: {why}; {installed}")


def _refusing_layers(why: str, parser: Callable) -> Callable:
    def parse_model(d: dict, *args: Any, **kwargs: Any) -> Any:
        known = {name for name, _ in registered_layers()}
        for i, row in enumerate([*d["backbone"], *d["head"]]):
            if row[2] in known:
                raise version_error(f"{layer_place(d, i)}: {row[2]}", why)
        return parser(d, *args, **kwargs)

    return parse_model


def _no_parser(why: str, d: dict, *_: Any, **__: Any) -> Any:
    raise version_error(f"{yaml_name(d)}: building its layers", why)


def _refusing_stock(why: str, init: Callable) -> Callable:
    def make(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if self.args.freeze == "stock":
            raise version_error("freeze=stock", why)

    return make
