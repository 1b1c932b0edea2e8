"""Modules under the names that checkpoints of 0.1.0 and 0.2.0 hold: importing an old name gives the new module."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_BASELINES = ("cbam", "coord_attention", "condconv", "odconv", "rfaconv", "form")
MOVED = {
    "insertion": "placing.insert",
    "evidence.opponents": "evidence.baselines",
    **{f"evidence.opponents.{name}": "evidence.baselines" for name in _BASELINES},
}
RENAMED = {"insertion": {"_through": "run_inserted"}}


class _MovedModules(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        moved = name.removeprefix(f"{__package__}.") in MOVED and name.startswith(f"{__package__}.")
        return ModuleSpec(name, self, is_package=name.endswith("opponents")) if moved else None

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__.removeprefix(f"{__package__}.")
        new = importlib.import_module(f"{__package__}.{MOVED[old]}")
        vars(module).update({k: v for k, v in vars(new).items() if not k.startswith("__")})
        vars(module).update({name: getattr(new, now) for name, now in RENAMED.get(old, {}).items()})


def install() -> None:
    """Let pickles find what has moved."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModules())
