"""What of a model is stock and what was added to it, and how stock weights reach a model with inserted rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .nn.registry import registered_layers


def added_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield name and module of each registered layer in a model that is no stock block with something behind it."""
    layers = {entry.cls: entry.like for _, entry in registered_layers()}
    for name, module in model.named_modules():
        like = layers.get(type(module))
        if like and not isinstance(module, like):
            yield name, module


def stock_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield name and parameter of all that is in a model but its added modules."""
    kept = {id(p) for _, module in added_modules(model) for p in module.parameters()}
    yield from ((name, p) for name, p in model.named_parameters() if id(p) not in kept)


def stock_norms(model: nn.Module) -> Iterator[tuple[str, nn.BatchNorm2d]]:
    """Yield name and module of each BatchNorm of a model but those of its added modules."""
    kept = {id(m) for _, module in added_modules(model) for m in module.modules()}
    yield from ((n, m) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and id(m) not in kept)


def is_untrained(model: nn.Module) -> bool:
    """Return whether the stock part of a model is as it was initialised: no batch has passed a BatchNorm of it."""
    norms = [m for _, m in stock_norms(model) if m.running_mean is not None]
    return bool(norms) and not any(m.running_mean.any() for m in norms)


def row_names(spec: Mapping[str, Any]) -> list[str]:
    """Return the layer of each row of a model dictionary, a composite block (`C2fSGDM`) as its stock block (`C2f`)."""
    stock = {name: entry.like.__name__ for name, entry in registered_layers() if issubclass(entry.cls, entry.like)}
    return [stock.get(row[2], row[2]) for row in (*spec["backbone"], *spec["head"])]


def follow_rows(source: Sequence[str], target: Sequence[str]) -> dict[int, int] | None:
    """Return where each row of `source` stands in `target`, or None unless `target` is `source` with rows inserted."""
    places: dict[int, int] = {}
    for j, name in enumerate(target):
        if len(places) < len(source) and source[len(places)] == name:
            places[len(places)] = j
    return places if len(places) == len(source) else None


def rename(state: Mapping[str, Tensor], places: Mapping[int, int]) -> dict[str, Tensor]:
    """Return a state dictionary of `model.<row>.<name>` keys with each row moved to its place."""
    return {re.sub(r"(?<=^model\.)\d+", lambda row: str(places[int(row[0])]), k): v for k, v in state.items()}


def halves(given: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """Return the tensors that fit an added module of `model` while others of it do not, as where its ratio differs.

    A bias of SGDM's `expand` without its weight would shift what the block gives: the module starts anew instead.
    """
    own = model.state_dict()
    found: dict[str, None] = {}  # ordered, and once each where an added module has another inside
    for name, _ in added_modules(model):
        fits = {k: given[k].shape == own[k].shape for k in own if k.startswith(f"{name}.") and k in given}
        found |= dict.fromkeys(k for k, fit in fits.items() if fit and not all(fits.values()))
    return list(found)


def report(
    given: Mapping[str, Tensor],
    left: Mapping[str, Tensor],
    model: nn.Module,
    places: Mapping[int, int] | None,
    adapted: Collection[str] = (),
    apart: Sequence[str] = (),
) -> str:
    """Return one line on what moved into `model`, what did not and why.

    Args:
        given: Tensors of the weights, under the names they have in `model`.
        left: Those of `given` that Ultralytics did not match by class name.
        model: The model after loading.
        places: Where each row of the weights stands in the model; None if the rows are others.
        adapted: Those of another shape that Ultralytics made fit, as for other input channels.
        apart: Those that stayed behind because the rest of their module did, see `halves`.
    """
    own = model.state_dict()
    unknown = [k for k in left if k not in own]
    unfit = [k for k in left if k in own and own[k].shape != left[k].shape and k not in adapted]
    text = f"{len(given) - len(unknown) - len(unfit) - len(apart)} of {len(given)} pretrained tensors moved"
    if shifted := sum(i != j for i, j in (places or {}).items()):
        text += f", {shifted} rows of them behind inserted rows"
    if adapted:
        text += f", {len(adapted)} of them made to fit another shape ({_some(list(adapted))})"
    if unfit:
        text += f"; {len(unfit)} did not because the shape differs ({_some(unfit)})"
    if apart:
        text += f"; {len(apart)} did not because the rest of their module does not fit ({_some(apart)})"
    if unknown:
        why = "the rows of the two models differ" if places is None else "the model has no such tensor"
        text += f"; {len(unknown)} did not because {why} ({_some(unknown)})"
    if new := own.keys() - given.keys():
        added = (type(m).__name__ for name, m in added_modules(model) if any(k.startswith(f"{name}.") for k in new))
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(added).items())
        text += f"; {len(new)} tensors of the model are new{f' ({kinds})' if kinds else ''}"
    return text


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
