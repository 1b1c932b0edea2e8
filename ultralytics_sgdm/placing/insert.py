"""Put SGDM, or another registered layer, behind named modules of any torch model: classifiers, segmenters, detectors.

The inserted layer is a child `sgdm` of the chosen module, whose class and keys stay as they are. A Sequential runs its
last child by itself; any other module gets a forward hook that runs the child on its output, before other hooks see it.
Hooks are part of what `copy` and `pickle` take along and of what `torch.compile` and the ONNX exporters trace.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import LOGGER

from ..errors import ConfigError, did_you_mean, wrap_errors
from ..nn.registry import require_layer

Model = TypeVar("Model", bound=nn.Module)
CHILD = "sgdm"  # name of the inserted layer inside the chosen module
SIDE = 224  # pixels of the image with which channels are found


def insert(
    model: Model,
    places: Mapping[str, Mapping[str, Any]] | Iterable[str],
    module: str = "SGDM",
    example: Any = None,
) -> Model:
    """Put a layer behind named modules of a model, in place; SGDM leaves the output as it was until it is trained.

        insert(torchvision.models.resnet18(), {"layer3": {}, "layer4": {"ratio": 2}})

    Call it before the optimizer is made, which otherwise lacks the new parameters. Keys of the state dictionary stay,
    and those of the inserted layers are added (`layer3.sgdm.razor.conv.weight`), so weights of the bare model load with
    `strict=False`. `model.sgdm_places` maps each name to the channels and the parameters added there.

    Args:
        model: Any module.
        places: Names of modules, as `model.named_modules()` has them, each with options of the layer such as `ratio`;
            or the names alone, or one. Each must give a feature map (B, C, H, W) and be called once in a forward pass.
        module: Registered layer to insert.
        example: Input of a forward pass, a tensor or a tuple of arguments (default: an image (1, 3, 224, 224)).

    Returns:
        The model.

    Raises:
        ConfigError: If a name is not found, an option is unknown, a module does not give (B, C, H, W), is used twice or
            not at all, has a layer inserted already, or the inserted layer does not reach the model's output. The model
            is then as it was.
    """
    wanted = _read_places(places)
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ConfigError(f"insert takes a torch.nn.Module that is not scripted or traced, got {type(model).__name__}")
    named = dict(model.named_modules())
    for name in wanted:
        _check_place(model, named, name)
    cls = require_layer(module).cls
    _check_options(module, cls, wanted)
    channels = _find_channels(model, {name: named[name] for name in wanted}, example)
    built = {}
    for name, options in wanted.items():
        with wrap_errors(f"{name!r}, {channels[name]} channels"):
            built[name] = cls(channels[name], channels[name], **options)
    done = {}
    with ExitStack() as undo:
        for name, layer in built.items():
            owner = named[name]
            like = next(iter(owner.parameters()), None)
            like = like if like is not None else next(model.parameters(), torch.empty(0))
            layer.to(like.device, like.dtype).train(owner.training)
            owner.add_module(CHILD, layer)
            undo.callback(delattr, owner, CHILD)
            if type(owner).forward is not nn.Sequential.forward:
                undo.callback(owner.register_forward_hook(run_inserted, prepend=True).remove)
            done[name] = {"channels": channels[name], "parameters": sum(p.numel() for p in layer.parameters())}
        for name, layer in built.items():
            _prove(model, name, layer, example)
        undo.pop_all()
    model.sgdm_places = {**getattr(model, "sgdm_places", {}), **done}
    if any(isinstance(m, BaseModel) for m in named.values()):
        LOGGER.warning("insert: Ultralytics trains a model rebuilt from its YAML, without the layers; use equip there")
    return model


def run_inserted(owner: nn.Module, _: Any, output: Tensor) -> Tensor:
    """Run the inserted layer on the output of its owner: a forward hook, public because pickles hold its name."""
    return getattr(owner, CHILD)(output)


def _read_places(places: Mapping[str, Mapping[str, Any]] | Iterable[str]) -> dict[str, Mapping[str, Any]]:
    if isinstance(places, str):
        places = [places]
    try:
        wanted = dict(places) if isinstance(places, Mapping) else {name: {} for name in places}
    except TypeError:  # a number, or lists
        wanted = {}
    if not wanted or not all(isinstance(k, str) and isinstance(v, Mapping) for k, v in wanted.items()):
        example = "['layer3'], or {'layer3': {'ratio': 2}} with options"
        raise ConfigError(f"insert takes names of modules such as {example}, got {places!r}")
    return wanted


def _check_place(model: nn.Module, named: Mapping[str, nn.Module], name: str) -> None:
    if name == "" or name not in named:
        there = ", ".join(repr(n) for n in [n for n in named if n][:3])
        hint = did_you_mean(name, [n for n in named if n]) or (
            f"; there are {there}, ..." if there else "; it has none"
        )
        raise ConfigError(f"the model has no module {name!r}{hint}")
    if hasattr(named[name], CHILD):
        raise ConfigError(f"{name!r} has a layer inserted already")
    for other, m in model.named_modules(remove_duplicate=False):
        if m is named[name] and other != name:
            raise ConfigError(f"{name!r} is {other!r} too, so a layer behind it would be used twice; choose another")


def _check_options(name: str, cls: type[nn.Module], wanted: Mapping[str, Mapping[str, Any]]) -> None:
    options = list(inspect.signature(cls).parameters)[2:]
    for place, given in wanted.items():
        if unknown := [key for key in given if key not in options]:
            raise ConfigError(f"{place!r}: {name} has no option {unknown[0]!r}, its options are {', '.join(options)}")


def _find_channels(model: nn.Module, chosen: Mapping[str, nn.Module], example: Any) -> dict[str, int]:
    """Return the channels of the output of each chosen module, by one forward pass in evaluation mode."""
    square = example is None or (isinstance(example, Tensor) and len({*example.shape[-2:]}) == 1)
    found: dict[str, list[Any]] = {name: [] for name in chosen}
    failure = wrap_errors(f"{type(model).__name__} failed in a forward pass", "; give example=, its input")
    with failure, ExitStack() as stack, torch.no_grad():
        for name, m in chosen.items():
            stack.callback(m.register_forward_hook(lambda _, __, y, name=name: found[name].append(y)).remove)
        _run(model, example)
    for name, outputs in found.items():
        if len(outputs) != 1:
            times = "not used" if not outputs else f"used {len(outputs)} times"
            raise ConfigError(f"{name!r} is {times} in a forward pass; choose a module that is used once")
        if not isinstance(outputs[0], Tensor) or outputs[0].dim() != 4:
            shape = tuple(outputs[0].shape) if isinstance(outputs[0], Tensor) else type(outputs[0]).__name__
            raise ConfigError(
                f"{name!r} gives {shape}, a layer needs a feature map (B, C, H, W); choose another module"
            )
        _, c, h, w = outputs[0].shape
        if square and c == h != w:  # of a square image
            raise ConfigError(f"{name!r} gives (B, H, W, C), a layer needs (B, C, H, W); choose another module")
    return {name: outputs[0].shape[1] for name, outputs in found.items()}


def _run(model: nn.Module, example: Any) -> Any:
    """Return the output of a forward pass in evaluation mode, random numbers being the same in each."""
    like = next(model.parameters(), torch.empty(0))
    if example is None:
        example = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(like.device, like.dtype)
    modes = {m: m.training for m in model.modules()}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return model.eval()(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for m, mode in modes.items():
            m.training = mode


def _prove(model: nn.Module, name: str, layer: nn.Module, example: Any) -> None:
    """Raise unless the layer, moved off its initial state, runs once and gradients from the model's outputs reach it.

    A detector may find nothing in a random image, and a model may give whole numbers alone; then the inputs of the
    model's parts stand for its outputs.
    """
    runs: list[None] = []
    inputs: list[Any] = []
    inside = {*layer.modules()}
    state = {k: v.clone() for k, v in layer.state_dict().items()}
    fix = "; the model runs its parts in a way of its own: choose a module inside or around it"
    with wrap_errors(f"{name!r} cannot hold a layer", fix), ExitStack() as stack:
        stack.callback(layer.load_state_dict, state)
        for p in layer.parameters():
            nn.init.normal_(p, generator=torch.Generator(p.device).manual_seed(0))
        stack.enter_context(torch.enable_grad())
        stack.callback(layer.register_forward_hook(lambda *_: runs.append(None)).remove)
        for m in model.modules():
            if m not in inside and not any(m.children()):
                stack.callback(m.register_forward_pre_hook(lambda _, given: inputs.extend(given)).remove)
        outputs = [t for t in tree_leaves(_run(model, example)) if isinstance(t, Tensor)]
        judged = [t for t in outputs if t.is_floating_point() and t.numel()] or inputs
        if len(runs) != 1 or not _is_reached(layer, judged):
            raise ValueError("no gradient from the model's output reaches it")


def _is_reached(layer: nn.Module, tensors: Iterable[Any]) -> bool:
    """Return whether a parameter of the layer has a gradient from some tensors."""
    total = sum(t.float().square().sum() for t in tensors if isinstance(t, Tensor) and t.requires_grad)
    if not isinstance(total, Tensor):
        return False
    gradients = torch.autograd.grad(total, [*layer.parameters()], allow_unused=True)
    return any(g is not None and bool(g.any()) for g in gradients)
