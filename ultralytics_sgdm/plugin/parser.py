"""Model YAMLs may name registered layers.

The fact: `nn.tasks.parse_model` looks a layer up in its module's globals and then compares the class with the stock
ones to decide how its row is read. So registered classes become globals there, and every comparison of the class sees
the stock class it is parsed like. The function itself is edited, so that whoever imported or wrapped it has this too.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import torch
import torchvision.ops
import ultralytics.nn
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import HGBlock, ResNetLayer

from ..configs import (
    ConfigAttributeError,
    ConfigError,
    ConfigKeyError,
    config_error,
    layer_place,
    near_names,
    reason,
    yaml_name,
)
from ..evidence import opponents
from ..nn.registry import registered_layers
from ..skeleton import features
from ..validation import Form, check_layers, check_rows, form
from .patching import wrap

_PARSES_LIKE, _CHECK, _EXPLAIN = "_sgdm_parses_like", "_sgdm_check", "_sgdm_explain"  # how parse_model finds ours
_PREFIXES = {"nn.": nn, "torchvision.ops.": torchvision.ops}
_MISTAKES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def install() -> None:
    """Edit `parse_model`, and prove it on a small model.

    Raises:
        Exception: If the installed Ultralytics parses in another way; `parse_model` is then as it was.
    """
    function = _stock_function()
    vars(tasks).update({_PARSES_LIKE: parses_like, _CHECK: functools.partial(_check, function), _EXPLAIN: _explain})
    if _PARSES_LIKE not in function.__code__.co_names:
        stock = function.__code__
        try:
            function.__code__ = _edited(function)
            _prove()
        except Exception:
            function.__code__ = stock
            raise
    wrap(tasks.DetectionModel, "__init__", _naming_row)


def _naming_row(init: Callable) -> Callable:
    """Let the forward pass that finds a new model's strides name the row that cannot take what reaches it."""

    def build(self: tasks.DetectionModel, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except _MISTAKES as error:
            if not isinstance(error, ConfigError) and "model" in self._modules:
                features(self)
            raise

    return build


def _stock_function() -> FunctionType:
    """Return Ultralytics' own function, also from below what another plugin put around it."""
    current = tasks.parse_model
    cells = [cell.cell_contents for cell in getattr(current, "__closure__", None) or ()]
    for function in (inspect.unwrap(current), *cells, ultralytics.nn.parse_model):
        if isinstance(function, FunctionType) and function.__globals__ is vars(tasks):
            return function
    name = f"{getattr(current, '__module__', '')}.{getattr(current, '__qualname__', type(current).__name__)}"
    raise TypeError(f"parse_model was replaced by {name.lstrip('.')}; import ultralytics_sgdm before it")


class _CompareLikes(ast.NodeTransformer):
    """Rewrites `m is X` and `m in {X, Y}` into the same of `parses_like(m)`."""

    def visit_Compare(self, node: ast.Compare) -> ast.Compare:
        self.generic_visit(node)
        if isinstance(node.left, ast.Name) and node.left.id == "m":
            call = ast.Call(ast.Name(_PARSES_LIKE, ast.Load()), [node.left], [])
            node.left = ast.fix_missing_locations(ast.copy_location(call, node.left))
        return node


def _edited(function: FunctionType) -> CodeType:
    """Return the code of `parse_model` with a check before, rewritten comparisons, and an explanation of errors.

    Lines keep their numbers, so tracebacks show what stands in Ultralytics' file.
    """
    lines, first = inspect.getsourcelines(function)
    tree = _CompareLikes().visit(ast.parse("".join(lines)))
    definition: Any = tree.body[0]
    spec = definition.args.args[0].arg
    frame = ast.parse(
        f"{_CHECK}({spec})\ntry: pass\nexcept Exception as error: raise {_EXPLAIN}(error, {spec}, locals())"
    )
    for node in ast.walk(frame):
        ast.copy_location(node, definition) if hasattr(node, "lineno") else None
    attempt: Any = frame.body[1]
    attempt.body = definition.body
    definition.body = frame.body
    ast.increment_lineno(tree, first - 1)
    namespace: dict[str, Any] = {}
    exec(compile(tree, inspect.getfile(function), "exec"), vars(tasks), namespace)
    return namespace[function.__name__].__code__


def _prove() -> None:
    """Raise unless a model gets what its rows say: input channels, scaled widths, repeats, and a stock head."""
    rows = [[-1, 1, "Conv", [32, 3, 2]], [-1, 1, "RDConv", [64, 3, 2]], [-1, 4, "C2fSGDM", [128, True, {"ratio": 2}]]]
    spec = {"nc": 1, "depth_multiple": 0.5, "width_multiple": 0.5, "backbone": rows}
    with torch.random.fork_rng(devices=[]):
        model = tasks.DetectionModel({**spec, "head": [[[1, 2], 1, "Detect", ["nc"]]]}, verbose=False)
    _, conv, block, head = model.model
    got = conv.razor.conv.in_channels, conv.expand.conv.out_channels, block.cv2.conv.out_channels, len(block.m)
    if got != (16, 32, 64, 2) or [m[0].conv.in_channels for m in head.cv2] != [32, 64]:
        raise ValueError(f"a probe model came out as {got}")


def parses_like(cls: Any) -> Any:
    """Return the stock class that rows of `cls` are parsed like: itself, unless it is a registered layer."""
    return next((entry.like for _, entry in registered_layers() if entry.cls is cls), cls)


def _check(function: FunctionType, d: dict) -> None:
    """Raise unless the rows of a model dictionary can be parsed; make the registered layers known to the parser."""
    _expose_layers()
    check_rows(d)
    for i, (_, _, name, args) in enumerate([*d["backbone"], *d["head"]]):
        _find_layer(d, i, name)
        _keep_options(name, args)
    known = {*function.__code__.co_varnames, "nc"}
    check_layers(d, _form, known.__contains__)


def _expose_layers() -> None:
    vars(tasks).update((name, entry.cls) for name, entry in registered_layers())


def _find_layer(d: dict, i: int, name: str) -> None:
    for prefix, module in _PREFIXES.items():
        if name.startswith(prefix):
            if not hasattr(module, name.removeprefix(prefix)):
                near = near_names(name, (f"{prefix}{member}" for member in dir(module) if member[0].isupper()))
                raise ConfigAttributeError(f"{layer_place(d, i)}: unknown module {name!r}{near}")
            return
    if hasattr(tasks, name):
        return
    if opponents.register(name):
        _expose_layers()
        return
    if hasattr(ultralytics.nn.modules, name):
        way = f"class My{name}({name}): pass; register_layer(My{name})"
        text = f"Ultralytics has {name} but reads it from no YAML; register a class of your own, {way}, and name that"
        raise ConfigKeyError(f"{layer_place(d, i)}: {text}")
    raise ConfigKeyError(f"{layer_place(d, i)}: unknown module {name!r}{near_names(name, _layer_names())}")


def _layer_names() -> list[str]:
    return [name for name, value in vars(tasks).items() if isinstance(value, type) and issubclass(value, nn.Module)]


def _keep_options(name: str, args: list) -> None:
    """Put C3k2's default in front of a mapping that stands where the parser writes for scales m, l and x."""
    if parses_like(getattr(tasks, name, None)) is tasks.C3k2 and len(args) > 1 and isinstance(args[1], dict):
        args.insert(1, False)


def _form(name: str) -> Form | None:
    """Return the form of a layer's row, or None where the parser has a way of its own, as for heads."""
    cls: Any = getattr(tasks, name, None)
    like = parses_like(cls)
    if not isinstance(like, type) or like is ResNetLayer:
        return None
    names = list(inspect.signature(like).parameters)
    if names[:1] != ["c1"]:
        return None
    repeats = 4 if like is HGBlock else 2
    return form(cls, {0, repeats} if names[repeats : repeats + 1] == ["n"] else {0})


def _explain(error: Exception, d: dict, names: dict[str, Any]) -> Exception:
    """Return what to raise for an error inside `parse_model`: the row, what is wrong, and how the row is written.

    Args:
        error: What was raised.
        d: Model dictionary.
        names: Local variables of `parse_model` at that moment.
    """
    if isinstance(error, (ConfigError, torch.cuda.OutOfMemoryError)) or not isinstance(error, _MISTAKES):
        return error
    i = names.get("i")
    if i is None:
        return config_error(
            f"{yaml_name(d)}: activation {d.get('activation')!r}: {reason(error)}; it must be such as nn.SiLU()", error
        )
    source, _, name, _ = [*d["backbone"], *d["head"]][i]
    shape = _form(name)
    text = reason(error)
    if isinstance(source, int) and text == "'int' object is not iterable":
        text = f"{name} reads several layers: the first entry is a list of them, such as [{source}] or [-1, 6]"
    return config_error(f"{layer_place(d, i)}: {text}{f'; the row is written {shape}' if shape else ''}", error)
