"""The one exception of this package, and what its messages are made of."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import re
from collections.abc import Iterable, Iterator
from types import ModuleType

import torch

NOT_OURS = (MemoryError, torch.cuda.OutOfMemoryError)  # no mistake of the user's: passed on as they are


class ConfigError(ValueError):
    """A mistake in a YAML, an option or a command of this package; the message names the fix, in one line if it can."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'A' or 'B'?" with the names of `known` closest to `name`, or an empty string.

    Case does not count, nor does the suffix of a YAML: `sgdm` is as close to `SGDM` as a name can be, and then alone.
    """
    bare = {_bare(k): k for k in known}
    near = [_bare(name)] if _bare(name) in bare else difflib.get_close_matches(_bare(name), bare, 2, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(bare[n]) for n in near)}?" if near else ""


def _bare(name: str) -> str:
    return re.sub(r"\.ya?ml$", "", str(name).casefold())


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line; PyTorch appends pages about the possible signatures of a call."""
    text = f"no key {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {os.fsdecode(error.filename)}" if error.filename else error.strerror
    return " ".join(text.split()).partition(", but expected one of:")[0][:300]


@contextlib.contextmanager
def wrap_errors(what: str, fix: str = "") -> Iterator[None]:
    """Make one line of what a file, Ultralytics or torch reports about an option: `what`, the reason, and `fix`."""
    try:
        yield
    except (ConfigError, *NOT_OURS):
        raise
    except Exception as e:
        reason = one_line(e)
        if isinstance(e, OSError) and e.filename and e.strerror:
            is_named = os.fsdecode(e.filename).removesuffix(".part") in re.split(r"[\s=,]+", what)
            reason = e.strerror if is_named else reason
        raise ConfigError(f"{what}: {reason}{fix}") from e


def pluralize(number: int, noun: str) -> str:
    """Return a number with its noun: "1 box", "2 boxes"."""
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('x') else 's'}"


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra of this package, which is on no package index."""
    return f"in the clone, pip install '.[{extra}]'"


def import_extra(module: str, extra: str) -> ModuleType:
    """Import and return a module that needs an optional dependency.

    Args:
        module: Full name of the module.
        extra: Extra of this package that installs what the module needs.

    Raises:
        ConfigError: If a package is not installed; the message gives the install command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        package = (e.name or module).partition(".")[0]
        raise ConfigError(f"this needs {package}: {how_to_install(extra)}") from e
