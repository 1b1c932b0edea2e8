"""Replacing a function of Ultralytics: once, also beside other plugins, and again after `importlib.reload`."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import ultralytics

_DONE = "__sgdm_replaced__"  # attribute of a module or class: names of the functions that were replaced in it
_FOLDER = Path(ultralytics.__file__).parent


def wrap(owner: Any, name: str, make: Callable[[Callable], Callable], everywhere: bool = False) -> None:
    """Replace the function `name` of a module or class by one that calls it.

    A replacement that another plugin made before is called by ours, and one that it makes later calls ours. A function
    that was reloaded (`importlib.reload`) is replaced again.

    Args:
        owner: Module or class.
        name: Name of the function in it.
        make: Takes the function and returns what replaces it.
        everywhere: Whether to replace it in all modules of Ultralytics that have imported it.

    Raises:
        AttributeError: If there is no such function.
    """
    current = getattr(owner, name)
    done = vars(owner).get(_DONE, frozenset())
    if name in done and not _is_stock(current):
        return
    ours = functools.wraps(current)(make(current))
    setattr(owner, name, ours)
    setattr(owner, _DONE, done | {name})
    if everywhere:
        for key, module in list(sys.modules.items()):
            if key.partition(".")[0] == "ultralytics" and isinstance(module, ModuleType):  # None: not to be imported
                held = vars(module).get(name)
                if held is not None and (held is current or held is inspect.unwrap(current)):
                    setattr(module, name, ours)


def _is_stock(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and _FOLDER in Path(code.co_filename).parents
