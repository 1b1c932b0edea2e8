"""Packages that only some commands need, each in an extra of this one."""

from __future__ import annotations

import importlib
from types import ModuleType

from .configs import ConfigError


def extra(module: str, name: str) -> ModuleType:
    """Import and return a module of the extra `name`.

    Raises:
        ConfigError: If it is not installed; the message holds the command that mends it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as e:
        package = module.partition(".")[0]
        raise ConfigError(f"this needs {package}: pip install 'ultralytics-sgdm[{name}]' ({e})") from e
