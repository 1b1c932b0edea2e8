"""A function as a command: its signature says what the command takes, its docstring is the command's help.

Arguments are written as Ultralytics' are, `key=value`; `--key value` is the same. Parameters without default, and a
variadic one, may be given by position. An annotation says how a value is read: text annotated as `str` stays text.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ultralytics import cfg
from ultralytics.utils import DEFAULT_CFG_DICT

from .configs import ConfigError, near_names

WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
KINDS = {int: "a whole number", float: "a number", bool: "True or False"}


def call(name: str, function: Callable[..., object], argv: Sequence[str]) -> object:
    """Call `function` with the arguments of a command line, or print its help if they ask for it; return its result.

    Args:
        name: What the command is called, for messages, such as `yolo sgdm voc`.
        function: The command.
        argv: Its arguments.

    Raises:
        ConfigError: If an argument is unknown, missing, given twice, or no value of its kind.
    """
    if {"-h", "--help"} & set(argv) or list(argv[:1]) == ["help"]:
        print(help_text(name, function))
        return None
    args, kwargs = parse(name, function, argv)
    return function(*args, **kwargs)


def parse(name: str, function: Callable[..., object], argv: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the keyword arguments that a command line means.

    Raises:
        ConfigError: As `call` does.
    """
    parameters = inspect.signature(function).parameters
    hints = typing.get_type_hints(function)
    named = [k for k, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    variadic = next((k for k, p in parameters.items() if p.kind is p.VAR_POSITIONAL), None)
    others = next((k for k, p in parameters.items() if p.kind is p.VAR_KEYWORD), None)
    by_place = [k for k, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
    keys = {*named, *(DEFAULT_CFG_DICT if others else ())}
    given: dict[str, str] = {}
    free: list[Any] = []

    def put(key: str, value: str) -> None:
        if key in given and not _several(hints.get(key)):
            raise ConfigError(f"'{name}': {key}= is given twice")
        if not value:
            raise ConfigError(f"'{name}': {key}= needs a value")
        given[key] = f"{given[key]},{value}" if key in given else value

    for argument in _merged(argv, hints):
        key, equals, value = argument.partition("=")
        place = next((k for k in by_place if k not in given), None)
        if variadic and equals and key not in named and key in (variadic, variadic.removesuffix("s")):
            form = " ".join([name, *(k.upper() for k in by_place), value.replace(",", " ")])
            raise ConfigError(f"'{name}' has no argument {key}=; {variadic} are written by themselves: {form} ...")
        if (equals and key in named) or (equals and others and key.isidentifier() and not Path(argument).exists()):
            put(key, value)
        elif not equals and key in keys and not place and not Path(argument).exists():
            raise ConfigError(f"'{name}': {key}= needs a value")
        elif (place or variadic) and not (equals and key.isidentifier() and not Path(argument).exists()):
            if place:
                put(place, argument)
            elif not argument:
                raise ConfigError(f"'{name}': {str(variadic).upper()} has an empty name among them")
            else:
                free.append(convert(str(variadic), hints[str(variadic)], argument))
        else:
            hint = near_names(key, named)
            if equals and not hint and (place or variadic):
                hint = f"; a file of that name is written ./{argument}"
            places = [f"{variadic.upper()} ..."] if variadic else []
            allowed = ", ".join([*places, *(f"{k}=" for k in named)]) or "none"
            raise ConfigError(f"'{name}' has no argument {argument!r}, its arguments are: {allowed}{hint}")
    missing = [k for k in named if parameters[k].default is inspect.Parameter.empty and k not in given]
    if missing:
        words = " and ".join(k.upper() if k in by_place else f"{k}=" for k in missing)
        by_name = f"; or by name: {', '.join(f'{k}=' for k in missing)}" if {*missing} & {*by_place} else ""
        raise ConfigError(f"{words} missing; usage: {usage(name, function)}{by_name}")
    values = {k: convert(k, hints[k], v) for k, v in given.items() if k in named}
    values |= {k: cfg.parse_key_value_pair(f"{k}={v}")[1] for k, v in given.items() if k not in named}
    if not variadic:
        return [], values
    return [*(values.pop(k) for k in by_place), *free], values


def _merged(argv: Sequence[str], hints: dict[str, Any]) -> list[str]:
    """Return the arguments with `--key value ...` and `key = value` in the form `key=value`."""
    merged: list[str] = []
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        if argument.startswith("--") and len(argument) > 2:
            key, equals, value = argument[2:].partition("=")
            key, values = key.replace("-", "_"), [value] if equals else []
            if not equals and bool in _kinds(hints.get(key)):
                values = ["True"]
            elif not equals:
                several = _several(hints.get(key))
                while rest and not rest[0].startswith("--") and (several or not values) and "=" not in rest[0]:
                    values.append(rest.pop(0))
            argument = f"{key}={','.join(values)}"
        elif rest and argument == "=" and merged:
            argument = f"{merged.pop()}={rest.pop(0)}"
        elif merged and argument.startswith("=") and "=" not in merged[-1]:
            argument = merged.pop() + argument
        elif rest and re.fullmatch(r"\w+=", argument) and "=" not in rest[0]:
            argument += rest.pop(0)
        merged.append(argument)
    return merged


def _kinds(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def _several(hint: Any) -> bool:
    """Return whether an annotation is that of a list."""
    return any(typing.get_origin(kind) is list for kind in _kinds(hint))


def convert(key: str, hint: Any, text: str) -> Any:
    """Return the value that a text means for a parameter with an annotation.

    Raises:
        ConfigError: If it means none.
    """
    kinds = _kinds(hint)
    if type(None) in kinds and text.lower() == "none":
        return None
    kind = next(k for k in kinds if k is not type(None))
    if typing.get_origin(kind) in (list, tuple):
        (member, *_) = typing.get_args(kind)
        parts = text.split(",") if member is str else re.split(r"[,\s\[\]()]+", text)
        return [convert(key, member, part) for part in parts if part]
    try:
        if kind is float and text.lstrip("+-").isdecimal():
            return int(text)  # written out as it was written
        return WORDS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ConfigError(f"{key}={text} must be {KINDS.get(kind, kind.__name__)}") from None


def usage(name: str, function: Callable[..., object]) -> str:
    """Return a line that says how a command is written."""
    words = [name]
    for k, p in inspect.signature(function).parameters.items():
        if p.kind is p.VAR_POSITIONAL:
            words.append(f"{k.upper()} ...")
        elif p.kind is p.VAR_KEYWORD:
            words.append("[key=value ...]")
        elif p.default is p.empty:
            words.append(k.upper() if p.kind is p.POSITIONAL_OR_KEYWORD else f"{k}=")
        else:
            words.append(f"[{k}=]")
    return " ".join(words)


def help_text(name: str, function: Callable[..., object]) -> str:
    """Return what a command does and takes, each argument with its meaning and default, from its docstring."""
    text, _, rest = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    arguments = re.split(r"\n(?=\S)", f"\n{rest}")[0]
    lines = [f"usage: {usage(name, function)}", "", text.strip()]
    parameters = inspect.signature(function).parameters
    found = re.findall(r"^ {4}\*{0,2}(\w+): (.*(?:\n {8}.*)*)", arguments, re.M)
    if found:
        lines += ["", "arguments:"]
    width = 4 + max((len(key) for key, _ in found), default=0)
    for key, meaning in found:
        p = parameters[key]
        default = "" if p.default in (p.empty, None, "") else f" (default: {_shown(p.default)})"
        label = key if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) else f"{key}="
        meaning = f"{' '.join(meaning.split())}{default}"
        lines += textwrap.wrap(
            f"  {label:<{width}}{meaning}", 110, subsequent_indent=" " * (width + 2), break_on_hyphens=False
        )
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
