"""What must hold of a model YAML before anything is built from it; every error names file, section, row and fix.

`read_yaml` looks at the text, `check_model` at the dictionary, `check_layers` at the arguments of its rows. None of
them knows how Ultralytics parses: what the parser knows is handed in.
"""

from __future__ import annotations

import ast
import codecs
import inspect
import re
from collections.abc import Callable, Container, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .configs import ConfigError, ConfigIndexError, ConfigKeyError, ConfigTypeError, layer_place, yaml_name

SECTIONS = ("backbone", "head")
ROW = "[from, repeats, module, arguments]"
POSITIVE = ("nc", "channels", "reg_max", "depth_multiple", "width_multiple")  # values of the top level
CHANNELS = ("c2", "cm")  # arguments that layers call so
SIZES = ("k", "s")  # of kernels and strides
MOST_CHANNELS = 2**20  # far above any layer's: one with as many would not fit into memory


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads YAML as PyYAML does, and refuses a key that a mapping has twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[tuple[str, Any], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                line = key.start_mark.line + 1
                if (key.tag, key.value) in lines:
                    first = lines[key.tag, key.value]
                    raise ConfigError(f"the key {key.value!r} in line {line} stands in line {first} already")
                lines[key.tag, key.value] = line
        return super().construct_mapping(node, deep)


def read_yaml(file: str | Path) -> dict[str, Any]:
    """Return the mapping that a YAML holds.

    Args:
        file: An existing file. Bytes that are no UTF-8 are left out, as Ultralytics does.

    Raises:
        ConfigError: If it is a folder, empty, no YAML, no mapping, or has a key twice; the message gives the line.
    """
    file = Path(file)
    if file.is_dir():
        raise ConfigError(f"{file} is a folder; give the YAML in it")
    data = file.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{file} is text in UTF-16; save it as UTF-8")
    text = re.sub(r"[\x00-\x08\x0B\x0C\x0E-\x1F\x7F]", "", data.decode("utf-8-sig", errors="ignore"))
    try:
        content = yaml.load(text, _Loader)
    except ConfigError as e:
        raise ConfigError(f"{file}: {e}; keep one of them") from None
    except yaml.YAMLError as e:
        raise ConfigError(f"{file} is no YAML: {_syntax(text, e)}") from e
    if content is None:
        raise ConfigError(f"{file} is empty; a model YAML has 'nc', 'backbone' and 'head'")
    if not isinstance(content, dict):
        what = f"{file} holds {_kind(content)} at the top level"
        raise ConfigTypeError(f"{what}; a model YAML is a mapping with 'nc', 'backbone' and 'head'")
    return content


def _syntax(text: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or line[mark.column : mark.column + 1] == "\t":
        return f"line {mark.line + 1} is indented by a tab; YAML takes spaces only"
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', None) or error}"


def check_model(spec: Mapping[str, Any]) -> None:
    """Raise unless a dictionary read from a file has the form of a model: sections, scales, numbers and rows.

    Args:
        spec: Content of a model YAML; `yaml_file` is what errors call it, `scale` the letter that was asked for.

    Raises:
        ConfigError: If anything is missing or of another form.
    """
    name = yaml_name(spec)
    if not any(section in spec for section in SECTIONS) and {"train", "val", "names", "path"} & set(spec):
        raise ConfigKeyError(f"{name} is the YAML of a data set, it lacks 'backbone' and 'head'; give it as data=")
    for section in SECTIONS:
        if section not in spec:
            raise ConfigKeyError(f"{name} is no model YAML: it lacks the list '{section}' of rows {ROW}")
        if not isinstance(spec[section], Sequence) or isinstance(spec[section], str):
            raise ConfigTypeError(f"{name}: '{section}' is {_kind(spec[section])}, it must be a list of rows {ROW}")
        if not spec[section]:
            raise ConfigIndexError(f"{name}: '{section}' is empty, it must be a list of rows {ROW}")
    for key in POSITIVE:
        if spec.get(key) is not None and not _positive(spec[key]):
            raise ConfigTypeError(f"{name}: {key} is {spec[key]!r}, it must be a number above 0")
    _check_scales(spec)
    check_rows(spec)
    for i, (*_, args) in enumerate([*spec["backbone"], *spec["head"]]):
        if "nc" in args and not spec.get("nc"):
            raise ConfigKeyError(f"{layer_place(spec, i)}: 'nc' is missing; write nc: 80, the data set's replaces it")


def _check_scales(spec: Mapping[str, Any]) -> None:
    name, scales = yaml_name(spec), spec.get("scales")
    if not scales:
        return
    form = "a mapping such as {n: [0.33, 0.25, 1024]}, for each letter depth, width and the most channels"
    if not isinstance(scales, Mapping):
        raise ConfigTypeError(f"{name}: 'scales' is {_kind(scales)}, it must be {form}")
    for letter, values in scales.items():
        if not isinstance(values, Sequence) or len(values) != 3 or not all(map(_positive, values)):
            raise ConfigTypeError(f"{name}: scale {letter!r} is {values!r}, 'scales' must be {form}")
    scale = spec.get("scale")
    if scale and scale not in scales:
        letters = ", ".join(map(str, scales))
        raise ConfigKeyError(f"{name}: there is no scale {scale!r} in the file, its 'scales' are {letters}")


def check_rows(spec: Mapping[str, Any]) -> None:
    """Raise unless every row has its four entries, each of its type, and reads layers that come before it.

    Raises:
        ConfigError: If a row has another form.
    """
    for i, row in enumerate([*spec["backbone"], *spec["head"]]):
        problem = _row_problem(row, i)
        if problem:
            raise ConfigTypeError(f"{layer_place(spec, i)}: {problem}")


def _row_problem(row: Any, i: int) -> str | None:
    if not isinstance(row, Sequence) or isinstance(row, str):
        return f"this is {_kind(row)}, a row is a list {ROW}"
    if len(row) != 4:
        return f"a row has the four entries {ROW}, this one has {len(row)}"
    f, n, name, args = row
    if not isinstance(name, str):
        return f"the third entry is the module's name, such as Conv, got {name!r}"
    if isinstance(n, bool) or not isinstance(n, Real):
        return f"the second entry is the number of repeats, got {n!r}"
    if not isinstance(args, Sequence) or isinstance(args, str):
        return f"the fourth entry is the list of the module's arguments, such as [64, 3, 2], got {args!r}"
    sources = f if isinstance(f, Sequence) and not isinstance(f, str) else [f]
    if not sources:
        return "the first entry is the layer to read from, such as -1, or a list of layers, got an empty list"
    for j in sources:
        if isinstance(j, bool) or not isinstance(j, int):
            return f"the first entry is the layer to read from, such as -1, or a list of layers, got {j!r}"
        if j >= i or j < -max(i, 1):
            if i == 0:
                return f"the first layer can only read the image, from: -1, got {j}"
            where = "is the layer itself" if j == i else "comes later" if j > i else f"would be layer {i + j}"
            return f"reads from {j}, which {where}; earlier layers are 0 to {i - 1}, or -1 (the one before) to -{i}"
    return None


class Form(NamedTuple):
    """How a row gives a layer its arguments: those of the class but what the parser puts in itself.

    Attributes:
        name: The layer's name.
        parameters: Arguments that the row may give, in order.
        options: The mapping of further options that may stand behind them, as it is written, or an empty string.
    """

    name: str
    parameters: tuple[inspect.Parameter, ...]
    options: str = ""

    def __str__(self) -> str:
        """Return the form as a row is written: `RDConv, [c2, k=3, s=1, ratio=4]`."""
        arguments = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in self.parameters]
        return f"{self.name}, [{', '.join([*arguments, *filter(None, [self.options])])}]"


def form(cls: type, inserted: Container[int]) -> Form | None:
    """Return the form of a layer's row, or None if the class does not say what it takes.

    Args:
        cls: The layer; a class of its own may show its options in an attribute `row_options`.
        inserted: Positions of the arguments that the parser puts in, such as 0 for the input channels.
    """
    try:
        parameters = list(inspect.signature(cls).parameters.values())
    except ValueError:
        return None
    options = getattr(cls, "row_options", "")
    if not options and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return Form(cls.__name__, tuple(p for i, p in enumerate(positional) if i not in inserted), options)


def check_layers(
    spec: Mapping[str, Any], form_of: Callable[[str], Form | None], is_name: Callable[[str], bool]
) -> None:
    """Raise unless the arguments of every row fit the form of its layer.

    Args:
        spec: Model dictionary whose rows have passed `check_rows`.
        form_of: Gives the form of a layer by its name, or None where the parser reads its row in a way of its own.
        is_name: Tells whether a text among the arguments stands for a value that the parser knows, such as "nc".

    Raises:
        ConfigError: If an argument is missing, one too many, or no number where one is needed.
    """
    for i, (_, _, name, args) in enumerate([*spec["backbone"], *spec["head"]]):
        shape = form_of(name)
        problem = shape and _argument_problem(shape, args, is_name)
        if problem:
            raise ConfigTypeError(f"{layer_place(spec, i)}: {problem}; the row is written {shape}")


def _argument_problem(shape: Form, args: Sequence[Any], is_name: Callable[[str], bool]) -> str | None:
    given = [a for a in args if not isinstance(a, Mapping)] if shape.options else list(args)
    needed = [p.name for p in shape.parameters if p.default is p.empty]
    if len(given) < len(needed):
        return f"{' and '.join(needed[len(given) :])} missing"
    if len(given) > len(shape.parameters):
        return f"{len(given)} arguments, {shape.name} takes at most {len(shape.parameters)}"
    for parameter, value in zip(shape.parameters, given, strict=False):
        value = _literal(value) if isinstance(value, str) and not is_name(value) else value
        named = isinstance(value, str) and is_name(value)
        if parameter.name in CHANNELS and not named and not _positive(value):
            return f"{parameter.name} must be a number of channels above 0, got {value!r}"
        if parameter.name in CHANNELS and not named and value > MOST_CHANNELS:
            return f"{parameter.name} must be a number of channels up to {MOST_CHANNELS}, got {value!r}"
        if parameter.name in SIZES and isinstance(value, int) and value < 1:
            return f"{parameter.name} must be 1 or more, got {value!r}"
        if type(parameter.default) in (int, float) and isinstance(value, str) and not is_name(value):
            return f"{parameter.name} must be a number, got {value!r}"
    return None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _positive(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < float("inf")


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: f"the text {value!r}", type(None): "empty"}
    return names.get(type(value), repr(value))
