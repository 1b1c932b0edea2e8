"""Put SGDM, or another registered layer, behind named modules of any torch model: classifiers, segmenters, detectors.

The inserted module is a child `sgdm` of the chosen one, whose class, own keys and everything that looks at it stay as
they are. A Sequential runs its last child by itself; any other module gets a forward hook that runs the child on its
output. Hooks are part of what `copy` and `pickle` take along, of what `torch.compile` and the ONNX exporters trace.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import LOGGER

from .configs import ConfigError, reason
from .evidence.opponents import register
from .nn.registry import registered_layers

Model = TypeVar("Model", bound=nn.Module)
CHILD = "sgdm"  # name of the inserted module inside the chosen one
SIDE = 224  # pixels of the picture that channels are found with


def insert(
    model: Model,
    places: Mapping[str, Mapping[str, Any]] | Iterable[str],
    module: str = "SGDM",
    example: Any = None,
) -> Model:
    """Put a layer behind named modules of a model, in place; at the start the model's output is what it was.

        insert(torchvision.models.resnet18(), {"layer3": {}, "layer4": {"ratio": 2}})

    Keys of the state dictionary stay, and those of the inserted layers come on top (`layer3.sgdm.razor.conv.weight`),
    so weights of the bare model load with `strict=False`. What was done stands in `model.sgdm_places`, a mapping from
    each name to the channels and the parameters added there.

    Args:
        model: Any module.
        places: Names of modules, as `model.named_modules()` has them, each with options of the layer such as `ratio`;
            or the names alone, or one. Each must give a feature map (B, C, H, W) and be called once in a forward pass.
        module: Registered layer to insert; SGDM starts as exactly the identity.
        example: What a forward pass takes, a tensor or a tuple of arguments; a picture (1, 3, 224, 224) unless given.

    Returns:
        The model.

    Raises:
        ConfigError: If a name is not found, an option is unknown, a module gives no (B, C, H, W), is used twice or not
            at all in a forward pass, or has a layer inserted already. The model is then as it was.
    """
    wanted = _wanted(places)
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ConfigError(f"insert takes a torch.nn.Module that is not scripted or traced, got {type(model).__name__}")
    named = dict(model.named_modules())
    for name in wanted:
        if name == "" or name not in named:
            near = difflib.get_close_matches(name, named, 3, cutoff=0.5) or [n for n in named if n][:3]
            there = f"there are {', '.join(map(repr, near))}, ..." if near else "it has none"
            raise ConfigError(f"the model has no module {name!r}; {there}")
        if hasattr(named[name], CHILD):
            raise ConfigError(f"{name!r} has a layer inserted already")
        shared = [
            other for other, m in model.named_modules(remove_duplicate=False) if m is named[name] and other != name
        ]
        if shared:
            raise ConfigError(
                f"{name!r} is {shared[0]!r} too, so a layer behind it would be used twice; choose another"
            )
    cls = _layer(module, wanted)
    channels = _channels(model, {name: named[name] for name in wanted}, example)
    built = {}
    for name, options in wanted.items():
        try:
            built[name] = cls(channels[name], channels[name], **options)
        except (TypeError, ValueError) as e:
            raise ConfigError(f"{name!r}, {channels[name]} channels: {e}") from e
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
                undo.callback(owner.register_forward_hook(_through).remove)
            done[name] = {"channels": channels[name], "parameters": sum(p.numel() for p in layer.parameters())}
        _prove(model, built, example)
        undo.pop_all()
    model.sgdm_places = {**getattr(model, "sgdm_places", {}), **done}
    if any(isinstance(m, BaseModel) for m in named.values()):
        LOGGER.warning(
            "insert: Ultralytics trains a model built anew from its YAML, without the layers; there use equip"
        )
    return model


def _wanted(places: Mapping[str, Mapping[str, Any]] | Iterable[str]) -> dict[str, Mapping[str, Any]]:
    if isinstance(places, str):
        places = [places]
    try:
        wanted = dict(places) if isinstance(places, Mapping) else {name: {} for name in places}
    except TypeError:  # no names, but a number or lists
        wanted = {}
    if not wanted or not all(isinstance(k, str) and isinstance(v, Mapping) for k, v in wanted.items()):
        form = "['layer3'], or {'layer3': {'ratio': 2}} with options"
        raise ConfigError(f"insert takes names of modules such as {form}, got {places!r}")
    return wanted


def _through(owner: nn.Module, _: Any, output: Tensor) -> Tensor:
    """Run the inserted layer on what its owner gives."""
    return getattr(owner, CHILD)(output)


def _layer(name: str, wanted: Mapping[str, Mapping[str, Any]]) -> type[nn.Module]:
    register(name)
    layers = {layer: entry.cls for layer, entry in registered_layers()}
    if name not in layers:
        raise ConfigError(f"module={name!r} is no registered layer; registered are {', '.join(layers)}")
    options = list(inspect.signature(layers[name]).parameters)[2:]
    for place, given in wanted.items():
        for key in given:
            if key not in options:
                raise ConfigError(f"{place!r}: {name} has no option {key!r}, its options are {', '.join(options)}")
    return layers[name]


def _channels(model: nn.Module, chosen: Mapping[str, nn.Module], example: Any) -> dict[str, int]:
    """Return the channels that each chosen module gives, by one forward pass in evaluation mode."""
    square = example is None or (isinstance(example, Tensor) and len({*example.shape[-2:]}) == 1)
    try:
        outputs = _outputs(model, chosen, example)
    except Exception as e:
        name = type(model).__name__
        raise ConfigError(f"{name} failed in a forward pass ({reason(e)}); give example=, its input") from e
    for name, found in outputs.items():
        if len(found) != 1:
            times = "not used" if not found else f"used {len(found)} times"
            raise ConfigError(f"{name!r} is {times} in a forward pass; choose a module that is used once")
        if not isinstance(found[0], Tensor) or found[0].dim() != 4:
            shape = tuple(found[0].shape) if isinstance(found[0], Tensor) else type(found[0]).__name__
            raise ConfigError(
                f"{name!r} gives {shape}, a layer needs a feature map (B, C, H, W); choose another module"
            )
        _, c, h, w = found[0].shape
        if square and c == h != w:  # of a square picture
            raise ConfigError(f"{name!r} gives (B, H, W, C), a layer needs (B, C, H, W); choose another module")
    return {name: found[0].shape[1] for name, found in outputs.items()}


def _prove(model: nn.Module, layers: Mapping[str, nn.Module], example: Any) -> None:
    """Raise unless one forward pass runs each inserted layer once: an owner may run its children in its own way."""
    try:
        runs = {name: len(found) for name, found in _outputs(model, layers, example).items()}
    except Exception:
        runs = dict.fromkeys(layers, 0)
    for name, n in runs.items():
        if n != 1:
            raise ConfigError(f"{name!r} runs its children in a way of its own; choose a module inside or around it")


def _outputs(model: nn.Module, watched: Mapping[str, nn.Module], example: Any) -> dict[str, list[Any]]:
    """Return what each watched module gives, call by call, in one forward pass in evaluation mode."""
    outputs: dict[str, list[Any]] = {name: [] for name in watched}
    like = next(model.parameters(), torch.empty(0))
    if example is None:
        example = torch.zeros(1, 3, SIDE, SIDE, device=like.device, dtype=like.dtype)
    arguments = example if isinstance(example, tuple) else (example,)
    modes = {m: m.training for m in model.modules()}
    with ExitStack() as stack, torch.no_grad():
        for name, m in watched.items():
            handle = m.register_forward_hook(lambda _, __, y, name=name: outputs[name].append(y))
            stack.callback(handle.remove)
        try:
            model.eval()(*arguments)
        finally:
            for m, mode in modes.items():
                m.training = mode
    return outputs
