"""Packages that only some commands need, each in an extra of this one."""

from __future__ import annotations

import importlib
from types import ModuleType

from .configs import ConfigError


def extra(module: str, name: str) -> ModuleType:
    """Import and return a module that needs the extra `name`.

    Raises:
        ConfigError: If a package is not installed; the message holds the command that mends it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        raise ConfigError(
            f"this needs {(e.name or module).partition('.')[0]}: pip install 'ultralytics-sgdm[{name}]'"
        ) from e
