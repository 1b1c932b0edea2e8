"""Where the parser is one that cannot be extended: stock models are built as ever, ours are refused by one line.

The fact: every model is built by `nn.tasks.parse_model`, whatever it does inside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ultralytics
from ultralytics.nn import tasks

from .. import versions
from ..configs import ConfigVersionError, layer_place, yaml_name
from ..nn.registry import registered_layers
from .patching import wrap


def install() -> None:
    """Refuse models with registered layers."""
    if hasattr(tasks, "parse_model"):
        wrap(tasks, "parse_model", _refusing, everywhere=True)
    else:
        tasks.parse_model = _no_parser  # for what of ours builds models


def _refusing(parser: Callable) -> Callable:
    def parse_model(d: dict, *args: Any, **kwargs: Any) -> Any:
        known = {name for name, _ in registered_layers()}
        for i, row in enumerate([*d["backbone"], *d["head"]]):
            if row[2] in known:
                raise ConfigVersionError(f"{layer_place(d, i)}: {row[2]} {_needs()}")
        return parser(d, *args, **kwargs)

    return parse_model


def _no_parser(d: dict, *_: Any, **__: Any) -> Any:
    raise ConfigVersionError(f"{yaml_name(d)}: its layers cannot be built, ultralytics_sgdm {_needs()}")


def _needs() -> str:
    return f"needs another Ultralytics than {ultralytics.__version__}; tested is {versions.TESTED}"
