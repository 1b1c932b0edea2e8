"""A command line from a function: its signature says what the command takes, its docstring is the command's help.

Arguments are written as Ultralytics' are, `key=value`; pydantic converts them to the types of the signature, and
Ultralytics' own parser reads those that are passed on to it. Parameters before a variadic one, and those without
default, may be given by position.
"""

from __future__ import annotations

import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ultralytics import cfg

from .errors import ConfigError, did_you_mean


def call(name: str, function: Callable[..., object], argv: Sequence[str]) -> object:
    """Call `function` with the arguments of a command line, or print its help if they ask for it; return its result.

    Args:
        name: Name of the command in messages, such as `yolo sgdm voc`.
        function: The command.
        argv: Its arguments.

    Raises:
        ConfigError: If an argument is unknown, missing, given twice, or not of its type.
    """
    if {"-h", "--help"} & set(argv) or list(argv[:1]) == ["help"]:
        print(write_help(name, function))
        return None
    args, kwargs = parse(name, function, argv)
    return function(*args, **kwargs)


def parse(name: str, function: Callable[..., object], argv: Sequence[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments that a command line means.

    Raises:
        ConfigError: As `call` does.
    """
    signature, hints = inspect.signature(function), typing.get_type_hints(function)
    kinds = {key: p.kind for key, p in signature.parameters.items()}
    variadic = next((key for key, kind in kinds.items() if kind is inspect.Parameter.VAR_POSITIONAL), None)
    others = next((key for key, kind in kinds.items() if kind is inspect.Parameter.VAR_KEYWORD), None)
    named = [key for key in kinds if key not in (variadic, others)]
    free: list[str] = []
    given: dict[str, str] = {}
    for argument in argv:
        key, equals, value = argument.removeprefix("--").partition("=")
        if not equals or not key.isidentifier() or (key not in kinds and os.path.lexists(argument)):
            free.append(argument)
        elif not value:
            raise ConfigError(f"'{name}': {key}= needs a value")
        elif key == variadic:
            free += value.split(",")
        elif key not in named and not others:
            allowed = ", ".join(f"{k}=" for k in named) or "none"
            raise ConfigError(
                f"'{name}' has no argument {key}=, its arguments are: {allowed}{did_you_mean(key, named)}"
            )
        elif key in given:
            raise ConfigError(f"'{name}': {key}= is given twice")
        else:
            given[key] = value
    first = [key for key in named if kinds[key] is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    positional = [
        given.pop(key) if key in given else free.pop(0) for key in first if variadic and (key in given or free)
    ]
    try:
        bound = signature.bind(*positional, *free, **given)
    except TypeError as e:
        raise ConfigError(f"'{name}': {e}; usage: {write_usage(name, function)}") from None
    for key, value in bound.arguments.items():
        if key == variadic:
            bound.arguments[key] = tuple(_convert(key, hints[key], text) for text in value)
        elif key == others:
            bound.arguments[key] = {k: cfg.parse_key_value_pair(f"{k}={v}")[1] for k, v in value.items()}
        else:
            bound.arguments[key] = _convert(key, hints[key], value)
    return bound.args, bound.kwargs


def _convert(key: str, hint: Any, text: str) -> Any:
    """Return the value that a text means for a parameter with an annotation.

    Raises:
        ConfigError: If it is not of that type.
    """
    members = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if type(None) in members and text.lower() == "none":
        return None
    several = any(typing.get_origin(member) is list for member in members)
    value = [part.strip() for part in text.strip("[]()").split(",") if part.strip()] if several else text
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as e:
        raise ConfigError(f"{key}={text}: {e.errors()[-1]['msg'].lower()}") from None


def write_usage(name: str, function: Callable[..., object]) -> str:
    """Return the line that shows how a command is written, with the defaults of its arguments."""
    words = [name]
    for key, p in inspect.signature(function).parameters.items():
        if p.kind is p.VAR_POSITIONAL:
            words.append(f"{key.upper()} ...")
        elif p.kind is p.VAR_KEYWORD:
            words.append("[key=value ...]")
        elif p.default is p.empty:
            words.append(key.upper() if p.kind is p.POSITIONAL_OR_KEYWORD else f"{key}=")
        else:
            words.append(f"[{key}={'' if p.default is None else p.default}]")
    return " ".join(words)


def write_help(name: str, function: Callable[..., object]) -> str:
    """Return what a command does and takes, from its docstring."""
    text, _, rest = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    arguments = re.split(r"\n(?=\S)", rest)[0].rstrip()
    return "\n".join([f"usage: {write_usage(name, function)}", "", text.strip(), "", arguments]).rstrip()
