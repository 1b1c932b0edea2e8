"""Layers that model YAMLs may name besides the stock ones, each with the stock layer whose row it imitates."""

from __future__ import annotations

import builtins
import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar, overload

import torch
import ultralytics.nn.modules
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv

from ..errors import ConfigError, did_you_mean

Layer = TypeVar("Layer", bound=type[nn.Module])


class Registered(NamedTuple):
    """A registered layer: its class and the stock class that its YAML row is parsed like."""

    cls: type[nn.Module]
    like: type[nn.Module]


_layers: dict[str, Registered] = {}
_providers: dict[str, str] = {}  # module that registers a layer when it is imported, by the layer's name


@overload
def register_layer(cls: Layer, *, like: type[nn.Module] | str = Conv) -> Layer: ...
@overload
def register_layer(cls: None = None, *, like: type[nn.Module] | str = Conv) -> Callable[[Layer], Layer]: ...
def register_layer(cls: Any = None, *, like: type[nn.Module] | str = Conv) -> Any:
    """Let model YAMLs name the layer `cls`, as a call or as a class decorator.

        @register_layer(like=Conv)          # rows are [from, repeats, MyConv, [c2, k, s]]
        class MyConv(nn.Module):
            def __init__(self, c1, c2, k=1, s=1): ...

    The YAML name is the class's name. Checkpoints find the class by its module, as any pickle does; keep it in a
    file that can be imported. Running the same definition again (a notebook cell) replaces it.

    Args:
        cls: Layer to register; leave it out to decorate.
        like: Stock or registered layer, or its name, whose YAML row the new one imitates: whether the input channels
            are put in front, the output channels scaled by the width, and the repeats inserted.

    Returns:
        `cls`, or a decorator.

    Raises:
        TypeError: If `cls` is not an nn.Module class.
        ValueError: If the name is taken by a stock layer, by what the parser uses or by another class, or `like` is
            unknown.
    """
    if cls is None:
        return lambda decorated: register_layer(decorated, like=like)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise TypeError(f"register_layer takes a class derived from torch.nn.Module, got {cls!r}")
    name = cls.__name__
    if hasattr(ultralytics.nn.modules, name):
        raise ValueError(f"{name!r} is a stock Ultralytics layer; give your class another name")
    if name in _layers and identity(_layers[name].cls) != identity(cls):
        taken = ".".join(identity(_layers[name].cls))
        raise ValueError(f"the layer name {name!r} is taken by {taken}; give your class another name")
    meant = getattr(tasks, name, getattr(builtins, name, None))  # where the parser looks names up
    if meant is not None and not (isinstance(meant, type) and identity(meant) == identity(cls)):
        raise ValueError(f"the name {name!r} means something else inside Ultralytics; give your class another name")
    _layers[name] = Registered(cls, stock_layer(like))
    torch.serialization.add_safe_globals([cls])  # for ULTRALYTICS_SAFE_LOAD
    return cls


def stock_layer(like: type[nn.Module] | str) -> type[nn.Module]:
    """Return the stock class that rows of `like` (a layer or its name) are parsed like.

    Raises:
        ValueError: If `like` is neither a stock nor a registered layer.
    """
    name = like if isinstance(like, str) else like.__name__
    if name in _layers:
        return _layers[name].like
    stock = getattr(ultralytics.nn.modules, name, None)
    if stock is None or not (isinstance(like, str) or stock is like):
        raise ValueError(f"like={name!r} is neither a stock Ultralytics layer nor a registered one")
    return stock


def identity(cls: type) -> tuple[str, str]:
    """Return the module and qualified name under which a pickle finds `cls`."""
    return cls.__module__, cls.__qualname__


def registered_layers() -> Iterator[tuple[str, Registered]]:
    """Yield name and entry of each registered layer, by name."""
    yield from sorted(_layers.items())


def provide_layers(module: str, names: Iterable[str]) -> None:
    """State that importing `module` registers the layers `names`, so that it is imported when one is asked for."""
    _providers.update(dict.fromkeys(names, module))


def find_layer(name: str) -> Registered | None:
    """Return the entry of a layer, registered already or by the module that provides it; None if there is none.

    Raises:
        ConfigError: If the module needs a package that is not installed.
    """
    if name not in _layers and name in _providers:
        importlib.import_module(_providers[name])
    return _layers.get(name)


def require_layer(name: str) -> Registered:
    """Return the entry of a layer as `find_layer` does.

    Raises:
        ConfigError: If there is none; the message names the ones there are.
    """
    entry = find_layer(name)
    if entry is None:
        hint = did_you_mean(name, [*_layers, *_providers]) or f"; registered are {', '.join(sorted(_layers))}"
        raise ConfigError(f"module={name!r} is not a registered layer{hint}")
    return entry
