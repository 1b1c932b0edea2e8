"""Rows of a model dictionary, `[from, repeats, module, arguments]`: where they are, and what is wrong with one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn
from ultralytics.nn import tasks

from ..errors import ConfigError, did_you_mean
from ..nn.registry import find_layer, registered_layers


def list_rows(spec: Mapping[str, Any]) -> list[Any]:
    """Return the rows of a model dictionary, backbone and head."""
    return [*spec["backbone"], *spec["head"]]


def yaml_name(spec: Mapping[str, Any]) -> str:
    """Return the file of a model dictionary as messages name it."""
    return str(spec.get("yaml_file") or "model YAML")


def row_location(spec: Mapping[str, Any], i: int) -> str:
    """Return the location of row `i` of a model dictionary: file, section, row and its content."""
    section, row = ("backbone", i) if i < len(spec["backbone"]) else ("head", i - len(spec["backbone"]))
    return f"{yaml_name(spec)}, {section} row {row + 1} (layer {i}), {spec[section][row]}"


def known_layers() -> list[str]:
    """Return the names of the layers that rows may name."""
    return [name for name, value in vars(tasks).items() if isinstance(value, type) and issubclass(value, nn.Module)]


def check_rows(spec: Mapping[str, Any], names: bool = True) -> None:
    """Raise ConfigError for the first row that cannot be parsed; without `names`, any name of a module will do."""
    for i, row in enumerate(list_rows(spec)):
        if problem := _find_problem(row, i, names):
            raise ConfigError(f"{row_location(spec, i)}: {problem}")


def _find_problem(row: Any, i: int, names: bool) -> str | None:
    if not isinstance(row, list) or len(row) != 4:
        number = len(row) if isinstance(row, list) else "none"
        return f"a row has the four entries [from, repeats, module, arguments], this one has {number}"
    f, n, name, args = row
    for value, kind, what in (
        (name, str, "third entry is the module's name"),
        (n, int, "second entry is a whole number"),
        (args, list, "fourth entry is the list of the module's arguments"),
    ):
        if not isinstance(value, kind):
            return f"the {what}, got {value!r}"
    for j in f if isinstance(f, list) else [f]:
        if not isinstance(j, int) or j >= i or j < -max(i, 1):
            allowed = f"earlier layers, from 0 to {i - 1} or -1 (the one before)" if i else "the image, -1"
            return f"the first entry names {allowed}, got {j!r}"
    if find_layer(name):
        if not args or not _is_channels(args[0]):
            got = f"must be a number of channels above 0, got {args[0]!r}" if args else "is missing"
            return f"c2 {got}; the row is written {write_signature(name)}"
    elif names and "." not in name and not hasattr(tasks, name):
        return f"unknown module {name!r}{did_you_mean(name, known_layers())}"
    return None


def _is_channels(value: Any) -> bool:
    """Return whether a row's c2 is a number above 0, as text too, or `nc`; the parser evaluates text."""
    if isinstance(value, str):
        return value == "nc" or (value.isdecimal() and int(value) > 0)
    return isinstance(value, (int, float)) and value > 0


def write_signature(name: str) -> str:
    """Return the row of a registered layer as it is written: `RDConv, [c2, k=3, s=1, ratio=4]`."""
    entry = dict(registered_layers())[name]
    repeats = [i for i, p in enumerate(inspect.signature(entry.like).parameters) if p == "n"]
    parameters = [p for p in inspect.signature(entry.cls).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    words = [
        p.name if p.default is p.empty else f"{p.name}={p.default!r}"
        for i, p in enumerate(parameters)
        if i not in (0, *repeats)
    ]
    options = getattr(entry.cls, "row_options", "")
    return f"{name}, [{', '.join([*words, options] if options else words)}]"
