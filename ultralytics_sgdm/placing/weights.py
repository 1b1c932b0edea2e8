"""Stock weights in a model with other rows: which modules were added, which rows correspond, what moved.

Ultralytics matches tensors by name, `model.<row>.<name>`. Here rows are aligned first: a row corresponds to one of the
same layer, in the same order, whatever was inserted, replaced or removed around it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Detect

from ..errors import pluralize
from ..nn.registry import registered_layers
from .rows import list_rows

IMAGE = -1  # the source of the first row
UNTRAINED = "sgdm_untrained"  # attribute of a model: names of the added modules that loaded weights did not bring


def added_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield name and module of each registered layer in a model.

    Composites (`C2fSGDM`) extend a stock block; what counts is the layer that they hold.
    """
    layers = {entry.cls: entry.like for _, entry in registered_layers()}
    for name, module in model.named_modules():
        like = layers.get(type(module))
        if like and not isinstance(module, like):
            yield name, module


def stock_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield name and parameter of everything in a model except its added modules."""
    added = {id(p) for _, module in added_modules(model) for p in module.parameters()}
    yield from ((name, p) for name, p in model.named_parameters() if id(p) not in added)


def stock_norms(model: nn.Module) -> Iterator[tuple[str, nn.BatchNorm2d]]:
    """Yield name and module of each BatchNorm of a model except those of its added modules."""
    added = {id(m) for _, module in added_modules(model) for m in module.modules()}
    yield from ((n, m) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and id(m) not in added)


def is_untrained(norms: Iterable[nn.Module]) -> bool:
    """Return whether BatchNorm layers are as they were initialised, as no batch has passed through them."""
    found = [m for m in norms if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None]
    return bool(found) and not any(m.running_mean.any() for m in found)


def is_idle(module: nn.Module) -> bool:
    """Return whether an added module is as it was initialised: its BatchNorm is, or a weight or scale of it is zero."""
    weights = (p for name, p in module.named_parameters() if not name.endswith("bias"))
    return is_untrained(module.modules()) or any(not p.any() for p in weights)


def find_untrained(source: nn.Module, model: nn.Module, given: Collection[str], pairs: Mapping[int, int]) -> set[str]:
    """Return the added modules of `model` that weights did not bring, or brought as untrained as they were there.

    Args:
        source: The model that the weights are of.
        model: The model after loading.
        given: Names of the tensors that moved.
        pairs: Row of the model for each aligned row of the weights.
    """
    fresh = {name for name, _ in added_modules(model) if not any(key.startswith(f"{name}.") for key in given)}
    carried = rename(dict.fromkeys(getattr(source, UNTRAINED, ()), torch.empty(0)), pairs)
    return fresh | {name for name, _ in added_modules(model) if name in carried}


class Row(NamedTuple):
    """What identifies a row of a model."""

    layer: str  # name of its layer; for a composite (`C2fSGDM`), of its stock block (`C2f`)
    sources: tuple[int, ...]  # numbers of the rows that it reads
    shapes: dict[str, tuple[int, ...]]  # of its tensors by name, except of modules that were added behind the block


def read_rows(model: tasks.BaseModel) -> list[Row]:
    """Return the rows of a model that was built from a YAML."""
    added = tuple(f"{name}." for name, _ in added_modules(model) if name.count(".") > 1)
    shapes: dict[int, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for name, tensor in model.state_dict().items():
        if (match := re.fullmatch(r"model\.(\d+)\.(.+)", name)) and not name.startswith(added):
            shapes[int(match[1])][match[2]] = tuple(tensor.shape)
    spec, rows = model.yaml, []
    for i, (layer, (f, *_)) in enumerate(zip(layer_names(spec), list_rows(spec), strict=True)):
        sources = tuple(j if j >= 0 else max(i + j, IMAGE) for j in ([f] if isinstance(f, int) else f))
        rows.append(Row(layer, sources, shapes[i]))
    return rows


def layer_names(spec: Mapping[str, Any]) -> list[str]:
    """Return the layer of each row of a model dictionary, a composite (`C2fSGDM`) as its stock block (`C2f`)."""
    stock = {name: entry.like.__name__ for name, entry in registered_layers() if issubclass(entry.cls, entry.like)}
    return [stock.get(row[2], row[2]) for row in list_rows(spec)]


def align_rows(source: Sequence[Row], target: Sequence[Row]) -> dict[int, int]:
    """Return the row of `target` for each row of `source` that has a counterpart.

    The longest common subsequence, in which rows of the same layer and shapes count most and rows of the same layer
    alone count little; pairs whose sources are known to be other rows are left out.
    """
    n, m = len(source), len(target)
    best = [[0] * (m + 1) for _ in range(n + 1)]  # of the rows from i and from j on
    for i in reversed(range(n)):
        for j in reversed(range(m)):
            pair = _similarity(source[i], target[j])
            best[i][j] = max(best[i + 1][j], best[i][j + 1], pair and pair + best[i + 1][j + 1])
    pairs: dict[int, int] = {}
    i = j = 0
    while i < n and j < m:
        pair = _similarity(source[i], target[j])
        if pair and best[i][j] == pair + best[i + 1][j + 1]:
            pairs[i] = j
            i, j = i + 1, j + 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            i += 1
    for i in list(pairs):
        if not _same_sources(source, target, pairs, i):
            del pairs[i]
    return pairs


def _similarity(a: Row, b: Row) -> int:
    if a.layer != b.layer:
        return int(_is_head(a.layer) and _is_head(b.layer))
    if a.shapes != b.shapes:
        return 1
    return 8 if a.shapes else 2


def _is_head(layer: str) -> bool:
    """Return whether a layer is a detection head; Segment, Pose and OBB extend Detect and keep its branches."""
    cls = getattr(tasks, layer, None)
    return isinstance(cls, type) and issubclass(cls, Detect)


def _same_sources(source: Sequence[Row], target: Sequence[Row], pairs: Mapping[int, int], i: int) -> bool:
    """Return False if a pair of rows reads rows that correspond to others."""
    mine, theirs = source[i].sources, target[pairs[i]].sources
    if len(mine) != len(theirs):
        return not source[i].shapes
    back = {j: i for i, j in pairs.items()}
    for s, t in zip(mine, theirs, strict=True):
        here, there = _trace(source, pairs, s), _trace(target, back, t)
        if here is not None and there is not None and here != (back[there] if there != IMAGE else IMAGE):
            return False
    return True


def _trace(rows: Sequence[Row], paired: Mapping[int, int], i: int) -> int | None:
    """Return the nearest row with a counterpart from which row `i` comes, or None if several meet before."""
    while i != IMAGE and i not in paired:
        if len(rows[i].sources) != 1:
            return None
        i = rows[i].sources[0]
    return i


def rename(state: Mapping[str, Tensor], pairs: Mapping[int, int]) -> dict[str, Tensor]:
    """Return a state dictionary of `model.<row>.<name>` keys under the numbers of the aligned rows; others are gone."""
    renamed = {}
    for key, value in state.items():
        match = re.fullmatch(r"model\.(\d+)(.*)", key)
        if match is None:
            renamed[key] = value
        elif int(match[1]) in pairs:
            renamed[f"model.{pairs[int(match[1])]}{match[2]}"] = value
    return renamed


def find_partial(given: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """Return the tensors that fit an added module of `model` while others of the module do not (another ratio).

    A bias of SGDM's `expand` without its weight would shift the block's output: the module starts anew instead.
    """
    own = model.state_dict()
    found: dict[str, None] = {}  # ordered, and once each where an added module has another inside
    for name, _ in added_modules(model):
        fits = {k: given[k].shape == own[k].shape for k in own if k.startswith(f"{name}.") and k in given}
        found |= dict.fromkeys(k for k, fit in fits.items() if fit and not all(fits.values()))
    return list(found)


def describe(
    model: tasks.BaseModel,
    layers: Sequence[str],
    state: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    pairs: Mapping[int, int],
    adapted: Sequence[str],
    stayed: Mapping[str, Sequence[str]],
) -> str:
    """Return one line on what moved into `model`, and what did not and why.

    Args:
        model: The model after loading.
        layers: Layer of each row of the weights.
        state: Tensors of the weights, under their own names.
        given: Those of aligned rows, under the names of the model.
        pairs: Row of the model for each aligned row of the weights.
        adapted: Tensors of another shape that Ultralytics converted, as for other input channels.
        stayed: Those of `given` that did not move, by the reason.
    """
    text = f"{len(given) - sum(map(len, stayed.values()))} of {len(state)} pretrained tensors moved"
    if shifted := sum(i != j for i, j in pairs.items()):
        text += f", {pluralize(shifted, 'row')} of them to rows of another number"
    if adapted:
        text += f", {len(adapted)} of them converted to another shape ({_shorten(adapted)})"
    for reason, names in stayed.items():
        if names:
            text += f"; {len(names)} did not because {reason} ({_shorten(names)})"
    behind = Counter(int(match[1]) for k in state if (match := re.match(r"model\.(\d+)\.", k)))
    if rows := [f"{i} ({layers[i]})" for i in sorted(behind.keys() - pairs.keys())]:
        count = sum(behind[i] for i in behind.keys() - pairs.keys())
        text += f"; {count} did not because the model has no counterpart of their rows {', '.join(rows)}"
    if new := model.state_dict().keys() - given.keys():
        inside = {m: {k for k in new if k.startswith(f"{name}.")} for name, m in added_modules(model)}
        added = Counter(type(m).__name__ for m, names in inside.items() if names)
        stock = {int(k.split(".")[1]) for k in new.difference(*inside.values())}
        kinds = [f"{n} {kind}" for kind, n in added.items()]
        kinds += [f"row {i}, {type(model.model[i]).__name__}" for i in sorted(stock)]
        text += f"; {len(new)} tensors of the model are new{f' ({_shorten(kinds, 8)})' if kinds else ''}"
    return text


def _shorten(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
