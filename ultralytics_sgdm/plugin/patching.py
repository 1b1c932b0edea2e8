"""Replacing a function of Ultralytics: once, also beside other plugins."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_DONE = "__sgdm_replaced__"  # attribute of a module or class: names of the functions that were replaced in it


def wrap(owner: Any, name: str, make: Callable[[Callable], Callable], everywhere: bool = False) -> None:
    """Replace the function `name` of a module or class by one that calls it.

    A replacement that another plugin made before is called by ours, and one that it makes later calls ours.

    Args:
        owner: Module or class.
        name: Name of the function in it.
        make: Takes the function and returns what replaces it.
        everywhere: Whether to replace it in all modules of Ultralytics that have imported it.

    Raises:
        AttributeError: If there is no such function.
    """
    current, done = getattr(owner, name), vars(owner).get(_DONE, frozenset())
    if name in done:
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
