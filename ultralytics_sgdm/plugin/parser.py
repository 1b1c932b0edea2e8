"""Model YAMLs may name registered layers.

Ultralytics behaviour: `nn.tasks.parse_model` looks a layer up in its module's globals and then compares the class with
the stock ones to decide how its row is read. So registered classes become globals there, and every comparison of the
class sees the stock class it is parsed like. The function itself is edited, so that existing references to it and
wrappers around it see the change. Rows of stock layers are read as before.
"""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import torch
import ultralytics.nn
from ultralytics.nn import tasks

from ..errors import NOT_OURS, ConfigError, one_line
from ..nn.registry import find_layer, registered_layers
from ..placing.outline import read_features
from ..placing.rows import check_rows, known_layers, list_rows, row_location, write_signature, yaml_name
from ..placing.weights import added_modules
from .patching import wrap

_PARSES_LIKE, _CHECK, _EXPLAIN = "_sgdm_parses_like", "_sgdm_check", "_sgdm_explain"  # names in the edited function


def install() -> None:
    """Edit `parse_model`, and prove it on a small model.

    Raises:
        Exception: If the installed Ultralytics parses in another way; `parse_model` is then as it was.
    """
    function = _find_stock_function()
    vars(tasks).update({_PARSES_LIKE: parses_like, _CHECK: _check, _EXPLAIN: _explain})
    if _PARSES_LIKE not in function.__code__.co_names:
        stock = function.__code__
        try:
            function.__code__ = _edit(function)
            _prove()
        except Exception:
            function.__code__ = stock
            raise
    wrap(tasks.DetectionModel, "__init__", _name_failing_row)


def _find_stock_function() -> FunctionType:
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


def _edit(function: FunctionType) -> CodeType:
    """Return the code of `parse_model` with a check before, rewritten comparisons, and an explanation of errors.

    Lines keep their numbers, so tracebacks show the lines of Ultralytics' file.
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
    """Raise unless a probe model gets what its rows say: input channels, scaled widths, repeats, and a stock head."""
    rows = [[-1, 1, "Conv", [32, 3, 2]], [-1, 1, "RDConv", [64, 3, 2]], [-1, 4, "C2fSGDM", [128, True, {"ratio": 2}]]]
    spec = {"nc": 1, "depth_multiple": 0.5, "width_multiple": 0.5, "backbone": rows}
    legacy = tasks.Detect.legacy  # which parsing sets on the class
    with torch.random.fork_rng(devices=[]):
        model = tasks.DetectionModel({**spec, "head": [[[1, 2], 1, "Detect", ["nc"]]]}, verbose=False)
    tasks.Detect.legacy = legacy
    _, conv, block, head = model.model
    got = conv.razor.conv.in_channels, conv.expand.conv.out_channels, block.cv2.conv.out_channels, len(block.m)
    if got != (16, 32, 64, 2) or [m[0].conv.in_channels for m in head.cv2] != [32, 64]:
        raise ValueError(f"a probe model came out as {got}")


def parses_like(cls: Any) -> Any:
    """Return the stock class that rows of `cls` are parsed like: itself, unless it is a registered layer."""
    return next((entry.like for _, entry in registered_layers() if entry.cls is cls), cls)


def _names_ours(d: dict) -> bool:
    """Return whether a row names a registered layer, or a name that Ultralytics lacks and that is closest to one."""
    ours = {name for name, _ in registered_layers()}
    for row in list_rows(d):
        name = row[2] if isinstance(row, list) and len(row) > 2 and isinstance(row[2], str) else ""
        if find_layer(name):
            return True
        if not hasattr(tasks, name):
            folded = {known.casefold(): known for known in known_layers()}
            near = difflib.get_close_matches(name.casefold(), folded, 1)
            if near and folded[near[0]] in ours:
                return True
    return False


def _check(d: dict) -> None:
    """Make the registered layers known to the parser; raise unless rows that name ours can be parsed."""
    vars(tasks).update((name, entry.cls) for name, entry in registered_layers())
    if not _names_ours(d):
        return
    vars(tasks).update((name, entry.cls) for name, entry in registered_layers())  # with those that were provided now
    check_rows(d)
    for _, _, name, args in list_rows(d):
        if parses_like(getattr(tasks, name, None)) is tasks.C3k2 and len(args) > 1 and isinstance(args[1], dict):
            args.insert(1, False)  # its default, where the parser writes for scales m, l and x


def _explain(error: Exception, d: dict, names: dict[str, Any]) -> Exception:
    """Return what to raise for an error inside `parse_model`: for a YAML that names our layers, with row and fix.

    Args:
        error: What was raised.
        d: Model dictionary.
        names: Local variables of `parse_model` at that moment.
    """
    if isinstance(error, (ConfigError, *NOT_OURS)) or not _names_ours(d):
        return error
    i = names.get("i")
    if i is None:
        return ConfigError(f"{yaml_name(d)}: {one_line(error)}")
    name = list_rows(d)[i][2]
    written = f"; the row is written {write_signature(name)}" if find_layer(name) else ""
    explained = ConfigError(f"{row_location(d, i)}: {one_line(error)}{written}")
    explained.__cause__ = error
    return explained


def _name_failing_row(init: Callable) -> Callable:
    """Let the forward pass that finds the strides of a model with our layers name the row that fails."""

    def build(self: tasks.DetectionModel, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except Exception as error:
            if not isinstance(error, ConfigError) and "model" in self._modules and any(added_modules(self)):
                read_features(self)
            raise

    return build
