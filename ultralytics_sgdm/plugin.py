"""The only file that touches Ultralytics' internals: one function per seam, each run once a process.

Ultralytics has no plugin API. Every seam here names the fact it rests on, and `install` proves the one that could
change silently, the model parser, on a small model.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

import ultralytics
import ultralytics.data.utils
import ultralytics.engine.model
import ultralytics.nn
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER, ROOT, checks
from ultralytics.utils.callbacks import base as callbacks
from ultralytics.utils.torch_utils import unwrap_model

from .configs import (
    ConfigError,
    ConfigNotFoundError,
    equipped_from,
    find_yaml,
    layer_place,
    near_names,
    shipped,
    with_scale,
)
from .equipment import equip
from .nn.registry import Registered, identity, register_layer, registered_layers
from .skeleton import count
from .transfer import added_modules, follow_rows, rename, report, row_names

_PARSES_LIKE = "_sgdm_parses_like"  # the name under which parse_model finds `parses_like`


def install() -> None:
    """Make Ultralytics parse, find, load and distribute models with registered layers.

    Raises:
        RuntimeError: If the installed Ultralytics parses models in a way this plugin does not know.
    """
    install_parser()
    install_yaml_names()
    install_worker_setup()
    install_transfer()
    install_freezing()
    install_node_order()


# Seam 1: nn.tasks.parse_model looks a layer up in its module's globals and then compares the class with the stock
# ones to decide how its row is read. So registered classes become globals there, and every comparison of the class
# sees the stock class it is parsed like.


def parses_like(cls: Any) -> Any:
    """Return the stock class that rows of `cls` are parsed like: itself, unless it is a registered layer."""
    return next((entry.like for _, entry in registered_layers() if entry.cls is cls), cls)


class _CompareLikes(ast.NodeTransformer):
    """Rewrites `m is X` and `m in {X, Y}` into the same of `parses_like(m)`."""

    def visit_Compare(self, node: ast.Compare) -> ast.Compare:
        self.generic_visit(node)
        if isinstance(node.left, ast.Name) and node.left.id == "m":
            call = ast.Call(ast.Name(_PARSES_LIKE, ast.Load()), [node.left], [])
            node.left = ast.fix_missing_locations(ast.copy_location(call, node.left))
        return node


def _rewritten_parser() -> CodeType:
    lines, first = inspect.getsourcelines(tasks.parse_model)
    tree = _CompareLikes().visit(ast.parse("".join(lines)))
    ast.increment_lineno(tree, first - 1)
    return compile(tree, inspect.getsourcefile(tasks.parse_model), "exec")


@functools.cache
def install_parser() -> None:
    """Rebind `parse_model` to one that knows the registered layers and names the row of an error."""
    stock = tasks.parse_model
    try:
        namespace = {}
        exec(_rewritten_parser(), vars(tasks), namespace)
        parser = _with_row_errors(namespace[stock.__name__])
        setattr(tasks, _PARSES_LIKE, parses_like)
        _probe(parser)
    except Exception as e:
        raise RuntimeError(
            f"ultralytics_sgdm cannot extend the model parser of Ultralytics {ultralytics.__version__} ({e!r}); "
            "install a version that it supports, see the README"
        ) from e
    tasks.parse_model = ultralytics.nn.parse_model = parser


def _probe(parser: Callable) -> None:
    """Raise unless rows like Conv and C2f get their input channels, scaled widths and repeats."""
    rows = [[-1, 1, "Conv", [32, 3, 2]], [-1, 1, "RDConv", [64, 3, 2]], [-1, 4, "C2fSGDM", [128, True, {"ratio": 2}]]]
    spec = {"nc": 1, "depth_multiple": 0.5, "width_multiple": 0.5, "backbone": rows, "head": []}
    _, conv, block = parser(spec, ch=3, verbose=False)[0]
    got = conv.razor.conv.in_channels, conv.expand.conv.out_channels, block.cv2.conv.out_channels, len(block.m)
    if got != (16, 32, 64, 2):
        raise ValueError(f"a probe model came out as {got}")


def _expose_layers() -> None:
    for name, entry in registered_layers():
        known = getattr(tasks, name, entry.cls)
        if not isinstance(known, type) or identity(known) != identity(entry.cls):
            raise ConfigError(f"the layer name {name!r} means something else inside Ultralytics; rename your class")
        setattr(tasks, name, entry.cls)


def _with_row_errors(parser: Callable) -> Callable:
    @functools.wraps(parser)
    def parse_model(d: dict, ch: int, verbose: bool = True) -> tuple[nn.Sequential, list[int]]:
        _expose_layers()
        rows = [*d["backbone"], *d["head"]]
        for i, (_, _, name, args) in enumerate(rows):
            if not name.startswith(("nn.", "torchvision.ops.")) and not hasattr(tasks, name):
                raise ConfigError(f"{layer_place(d, i)}: unknown module {name!r}{near_names(name, _layer_names())}")
            _keep_options(name, args)
        try:
            return parser(d, ch, verbose)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
            i = _row_being_built(e, parser)
            if i is None:
                raise
            raise ConfigError(f"{layer_place(d, i)}: {e}{_usage(rows[i][2])}") from e

    return parse_model


def _keep_options(name: str, args: list) -> None:
    """Put C3k2's default in front of a mapping that stands where the parser writes for scales m, l and x."""
    if parses_like(getattr(tasks, name, None)) is tasks.C3k2 and len(args) > 1 and isinstance(args[1], dict):
        args.insert(1, False)


def _row_being_built(error: BaseException, parser: Callable) -> int | None:
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code is parser.__code__:
            return trace.tb_frame.f_locals.get("i")
        trace = trace.tb_next
    return None


def _usage(name: str) -> str:
    cls = getattr(tasks, name, None)
    if not isinstance(cls, type):
        return ""
    return f"; {name} is built as {name}{inspect.signature(cls)}"


def _layer_names() -> list[str]:
    return [name for name, value in vars(tasks).items() if isinstance(value, type) and issubclass(value, nn.Module)]


# Seam 2: check_file searches the working directory and Ultralytics' own tree, and yaml_model_load drops the first
# digit+letter of the whole path that looks like a scale. A file that check_file finds under the first name it is
# asked for is never asked for under the second, so finding by the file's stem there mends both.


@functools.cache
def install_yaml_names() -> None:
    """Let YAMLs be found by their shipped names, and a model's by its scaled name in any folder."""
    checks.check_file = ultralytics.data.utils.check_file = _finding_yamls(checks.check_file)
    load = _naming_what_was_asked(tasks.yaml_model_load)
    tasks.yaml_model_load = ultralytics.nn.yaml_model_load = ultralytics.engine.model.yaml_model_load = load


def _finding_yamls(check_file: Callable) -> Callable:
    @functools.wraps(check_file)
    def find(file: str | Path, *args: Any, **kwargs: Any) -> str | list:
        name = str(file).strip()
        if "://" in name or not name.lower().endswith((".yaml", ".yml")):
            return check_file(file, *args, **kwargs)
        try:
            return check_file(str(find_yaml(name) or name), *args, **kwargs)
        except FileNotFoundError as e:
            raise _not_found(name) from e

    return find


def _naming_what_was_asked(yaml_model_load: Callable) -> Callable:
    @functools.wraps(yaml_model_load)
    def load(path: str | Path) -> dict:
        stock = equipped_from(path)
        try:
            return {**equip(stock).spec, "yaml_file": str(path)} if stock else yaml_model_load(path)
        except ConfigNotFoundError as e:  # of the name without its scale letter
            raise _not_found(str(path)) from e

    return load


def _not_found(name: str) -> ConfigNotFoundError:
    stock = [f.stem for f in (ROOT / "cfg/models").rglob("*.yaml")]
    models = {
        *(f"{stem}{suffix}.yaml" for stem in stock for suffix in ("", "-sgdm")),
        *(f.name for f in shipped("models")),
    }
    names = {with_scale(model, s) for model in models for s in ("", *"nsmlx")}
    names |= {f.name for f in (*shipped("datasets"), *(ROOT / "cfg").glob("*/*.yaml"))}
    return ConfigNotFoundError(f"'{name}' does not exist{near_names(Path(name).name, sorted(names))}")


# Seam 3: several GPUs mean worker processes that import nothing of ours: they load the trainer's pickled state and
# build the model from its YAML. Callbacks are part of that state, so one of ours, which does nothing when called,
# makes the worker import this file and register the user's own layers.


class _WorkerSetup:
    def __call__(self, trainer: Any) -> None:
        """Do nothing; being unpickled in the worker is what this callback is for."""

    def __deepcopy__(self, memo: dict) -> _WorkerSetup:
        return self

    def __reduce__(self) -> tuple:
        return _set_up_worker, (tuple(entry for _, entry in registered_layers()),)


_worker_setup = _WorkerSetup()


def _set_up_worker(entries: tuple[Registered, ...]) -> _WorkerSetup:
    for cls, like in entries:
        register_layer(cls, like=like)
    return _worker_setup


@functools.cache
def install_worker_setup() -> None:
    """Make the worker processes of multi-GPU training install this plugin and the user's layers."""
    callbacks.default_callbacks["on_pretrain_routine_start"].append(_worker_setup)


# Seam 4: BaseModel.load matches tensors by name, `model.<row>.<name>`. Where rows were inserted, it is given the
# weights under the names they have in this model; everything else it does stays its own.


@functools.cache
def install_transfer() -> None:
    """Let weights follow the rows of a model with inserted ones, and say what moved, what did not and why."""
    tasks.BaseModel.load = _following_rows(tasks.BaseModel.load)


def _following_rows(load: Callable) -> Callable:
    @functools.wraps(load)
    def follow(self: tasks.BaseModel, weights: dict | nn.Module, verbose: bool = True) -> None:
        if not any(added_modules(self)):
            return load(self, weights, verbose)
        source = (weights.get("ema") or weights["model"]) if isinstance(weights, dict) else weights
        places = _places(source, self)
        state = source.float().state_dict()
        left = rename(state, places) if places else state
        given = dict(left)
        renamed = copy.copy(source)
        renamed.float, renamed.state_dict = lambda: renamed, lambda: left
        load(self, renamed, verbose)
        if verbose:
            LOGGER.info(f"ultralytics_sgdm: {report(given, left, self, places)}")

    return follow


def _places(source: nn.Module, model: tasks.BaseModel) -> dict[int, int] | None:
    spec = getattr(source, "yaml", None)
    if not isinstance(spec, dict):
        return None
    rows, target = row_names(spec), row_names(model.yaml)
    return {i: i for i in range(len(rows))} if len(rows) == len(target) else follow_rows(rows, target)


# Seam 5: a trainer takes any value for `freeze`, acts on integers and lists only, keeps the BatchNorm layers named in
# freeze_layer_names in evaluation mode, and gives no optimizer step to a parameter without a gradient.


def _check_freeze(trainer: Any) -> None:
    freeze = trainer.args.freeze
    if isinstance(freeze, str) and freeze != "stock":
        raise ConfigError(f"freeze={freeze!r} must be 'stock', a number of layers, or a list of layers")


def _freeze_stock(trainer: Any) -> None:
    """Freeze all but the added modules, once the trainer has built everything."""
    if trainer.args.freeze != "stock":
        return
    model = unwrap_model(trainer.model)
    added = [module for _, module in added_modules(model)]
    if not added:
        raise ConfigError("freeze='stock' leaves nothing to train: the model has no SGDM nor other registered layer")
    kept = {id(m) for module in added for m in (*module.modules(), *module.parameters())}
    for p in model.parameters():
        p.requires_grad_(p.requires_grad and id(p) in kept)
    trainer.freeze_layer_names += [
        name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and id(m) not in kept
    ]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    LOGGER.info(f"freeze=stock: {len(added)} modules train, {trained:,} of {count(model):,} parameters")


@functools.cache
def install_freezing() -> None:
    """Add the value `stock` to the argument `freeze` of training: only SGDM and other added modules learn."""
    callbacks.default_callbacks["on_pretrain_routine_start"].append(_check_freeze)
    callbacks.default_callbacks["on_pretrain_routine_end"].append(_freeze_stock)


# Seam 6: half=True on the CPU goes through ONNX Runtime's converter, which leaves the Cast of the input behind nodes
# that use it: ONNX Runtime runs such a file, but it is not valid ONNX, and onnx.checker and other readers refuse it.


def _sort_nodes(exporter: Any) -> None:
    file = exporter.file.with_suffix(".onnx")
    if exporter.args.format == "onnx" and exporter.args.quantize == 16 and exporter.device.type == "cpu":
        import onnx
        from onnxruntime.transformers.onnx_model import OnnxModel

        model = onnx.load(file)
        OnnxModel(model).topological_sort()
        onnx.save(model, file)


@functools.cache
def install_node_order() -> None:
    """Put the nodes of a half-precision ONNX export in the order of their use."""
    callbacks.default_callbacks["on_export_end"].append(_sort_nodes)
