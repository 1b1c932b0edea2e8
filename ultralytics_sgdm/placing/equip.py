"""Put SGDM, or another registered layer, into any model YAML.

A block with a composite (`C2fSGDM` for `C2f`) is changed in its own row, so that layers keep their numbers and stock
weights their names. Behind other blocks a row is inserted and every reference is moved. A layer that replaces a stock
one (RDConv for Conv) takes the place of strided rows of that.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from ultralytics.nn import tasks
from ultralytics.utils.torch_utils import get_num_params

from ..errors import ConfigError, did_you_mean, one_line, wrap_errors
from ..nn.registry import registered_layers, require_layer
from .equipped import Equipped, replaces_stock
from .outline import Feature, build_outline, read_features
from .ratios import choose_ratios, match_parameters, parse_budget
from .rows import check_rows, list_rows, row_location
from .weights import layer_names

DEEPEST = "deepest"  # where maps are smallest and channels most, so a parameter costs least time and memory
FIRST_STAGE = 3  # of a section; at P2 and before, a module costs most time and holds fewest parameters
FIRST_REPLACED = 4  # stage from which RDConv replaces Conv
PLAIN = ("Conv", "Bottleneck")  # a block if repeated, or if the head reads it: the stages of YOLOv3 and YOLOv6


def equip(
    model: str | Path,
    ratio: float | Sequence[float] | None = None,
    at: str | int | Sequence[str | int] | None = None,
    module: str = "SGDM",
    budget: str | float | None = None,
    start: str | None = None,
    out: str | Path | None = None,
) -> Equipped:
    """Put a module into a model YAML, as `yolo sgdm equip` does.

    Args:
        model: YAML of a model, of Ultralytics or your own; a scale letter in its name is the scale that counts.
        ratio: Razor ratio of the modules, larger means fewer parameters; one, or one for each place (default for SGDM:
            2.25; on YOLOv5: 1.5 and 1.6).
        at: Where, separated by commas: sections (backbone, neck), stages (P2, P3, ..., or `deepest`, the last that has
            blocks), numbers of layers. Sections and stages narrow each other down, numbers come on top. A section
            without a stage means from P3 on (default: deepest; for RDConv, from P4 on).
        module: Registered layer. RDConv replaces strided 3x3 Conv rows; others go behind blocks.
        budget: Parameters to add, such as `190000` or "0.19M", in place of `ratio`: the ratios that come nearest.
        start: "identity" to let a layer with such an argument (timm's attention layers) start as the identity.
        out: File to write the YAML to, which must not exist.

    Returns:
        The equipped model dictionary and what was done.

    Raises:
        ConfigError: If an argument is wrong, there is no place for the module, or `out` exists.
    """
    target = None if out is None else _check_new(Path(out))
    cls = require_layer(str(module)).cls
    if ratio is not None and budget is not None:
        raise ConfigError("give ratio= or budget=, not both: one follows from the other")
    goal = None if budget is None else parse_budget(budget)
    spec = _load(model)
    rows = list_rows(spec)
    numbers, candidates = _find_candidates(rows, module)
    if not candidates and not re.search(r"\d", str(at)):  # before anything is built: a row may download weights
        raise ConfigError(f"{spec['yaml_file']}: {module} has no place here: there are no {_describe_places(module)}")
    with wrap_errors(f"{spec['yaml_file']} cannot be built"):
        stock = build_outline(spec)
    features = read_features(stock)
    at, chosen = _choose(spec, at, module, candidates, numbers, features)
    channels = [feature.channels for i in chosen if (feature := features[i])]
    if len(channels) < len(chosen):
        raise _no_place(spec, next(i for i in chosen if not features[i]), module)
    if start is not None and "start" not in inspect.signature(cls).parameters:
        raise ConfigError(f"module={module} does not take start=")
    ratios = choose_ratios(cls, spec, channels, ratio, goal)
    new, places = _put(spec, chosen, cls, ratios or [None] * len(chosen), [] if start is None else [start])
    built = build_outline(new)
    result = read_features(built) if len(list_rows(new)) > len(rows) else features
    for i, place in zip(chosen, places, strict=True):
        after, before = result[place], features[i]
        if not (after and before) or after.channels != before.channels:
            raise _no_place(spec, i, module)
    equipped = Equipped(
        spec=new,
        source=Path(spec["yaml_file"]).name,
        module=module,
        at=at,
        ratios=ratios,
        start=start,
        places={place: rows[i][2] for i, place in zip(chosen, places, strict=True)},
        inserted=len(list_rows(new)) - len(rows),
        parameters=get_num_params(stock),
        added=get_num_params(built) - get_num_params(stock),
        features=result,
    )
    if target:
        text = equipped.text(target.name)
        with wrap_errors(f"out={target} cannot be written"), target.open("x", encoding="utf-8") as f:
            f.write(text)
    return equipped


def equip_by_name(model: Path, module: str) -> Equipped:
    """Return a model equipped as its name says; a baseline with a razor has at least SGDM's parameters.

    Raises:
        ConfigError: As `equip` does, or if a package that the layer needs is not installed.
    """
    cls = require_layer(str(module)).cls
    if not getattr(cls, "match_sgdm", False):
        return equip(model, module=module)
    sgdm = equip(model)
    channels = [feature.channels for i in sgdm.places if (feature := sgdm.features[i])]
    return equip(model, match_parameters(cls, channels, sgdm.added), module=module)


def _check_new(path: Path) -> Path:
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"out={path} must end in .yaml: it is the name that the model is trained by")
    if path.exists():
        raise ConfigError(f"out={path} exists and is left as it is; give another name, or remove it first")
    if not path.parent.is_dir():
        raise ConfigError(f"out={path}: there is no folder {path.parent}")
    return path


def _load(model: str | Path) -> dict[str, Any]:
    if Path(model).suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"model={model} is not a YAML; equip the YAML, and give weights to training with pretrained=")
    try:
        spec = tasks.yaml_model_load(model)
    except ConfigError:
        raise
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as e:
        raise ConfigError(f"model={model} is not a model YAML: {one_line(e)}") from e
    if not isinstance(spec.get("backbone"), list) or not isinstance(spec.get("head"), list):
        raise ConfigError(f"model={model} is not a model YAML: it has no lists 'backbone' and 'head'")
    check_rows(spec, names=False)  # another plugin's parser may know more
    return spec


def _find_candidates(rows: list[list], module: str) -> tuple[set[int], set[int]]:
    """Return the rows at which a module may be placed by number, and those that sections and stages select."""
    if replaces_stock(module):
        stock = require_layer(module).like.__name__
        plain = {i for i, (_, _, name, args) in enumerate(rows) if name == stock and len(args) < 4}
        numbers = {i for i in plain if i and len(rows[i][3]) > 1 and isinstance(k := rows[i][3][1], int) and k % 2}
        return numbers, {i for i in numbers if rows[i][3][1:] == [3, 2]}
    names = {name for name, _ in registered_layers()}
    heads = rows[-1][0] if isinstance(rows[-1][0], list) else [len(rows) - 2]
    read_by_head = {f % (len(rows) - (f < 0)) for f in heads}
    blocks = {
        i
        for i, (_, n, name, _) in enumerate(rows[:-1])
        if f"{name}SGDM" in names or (name in PLAIN and (n > 1 or i in read_by_head))
    }
    sized = {i for i, row in enumerate(rows[:-1]) if row[3] and isinstance(row[3][0], int)}
    return sized, blocks


def _choose(
    spec: dict[str, Any],
    at: str | int | Sequence[str | int] | None,
    module: str,
    candidates: set[int],
    numbers: set[int],
    features: list[Feature | None],
) -> tuple[str, list[int]]:
    """Return the selection as text, and the rows that it selects."""
    rows = list_rows(spec)
    stage = {i: feature.stage for i, feature in enumerate(features) if feature}
    done = {i for i, row in enumerate(rows[1:]) if row[0] == -1 and row[2] == module}  # the module is behind the row
    equipped = [[*row[:2], name, row[3]] for row, name in zip(rows, layer_names(spec), strict=True)]
    done |= {i for i in _find_candidates(equipped, module)[1] if rows[i][2] != equipped[i][2]}
    if at is None:
        late = [i for i in candidates if stage.get(i, 0) >= FIRST_REPLACED]
        stages_of_late = ",".join(f"P{s}" for s in sorted({stage[i] for i in late})) or f"P{FIRST_REPLACED},P5"
        at = stages_of_late if replaces_stock(module) else DEEPEST
    at = ",".join(part.strip() for part in (str(at).split(",") if isinstance(at, (str, int)) else map(str, at)))
    last, neck = len(rows) - 1, len(spec["backbone"])
    sections = {"backbone": range(min(neck, last)), "neck": range(neck, last)}
    region: set[int] = set()
    stages: set[int] = set()
    named: set[int] = set()
    for part in at.split(","):
        if part in sections:
            region.update(sections[part])
        elif re.fullmatch(r"P\d", part):
            stages.add(int(part[1]))
        elif part.isdecimal() and int(part) < last:
            named.add(int(part))
        elif part != DEEPEST:
            allowed = f"backbone, neck, stages such as P3, deepest, layers from 0 to {last - 1}"
            near = did_you_mean(part, [*sections, DEEPEST, *(f"P{n}" for n in range(1, 7))])
            raise ConfigError(f"at={at}: {part!r} is not one of {allowed}{near}")
    if (stages or DEEPEST in at) and not region:
        region.update(range(last))
    if DEEPEST in at:
        stages.add(max((stage[i] for i in region & (candidates | done) if i in stage), default=0))
    wanted = {i for i in region & (candidates | done) if stage.get(i, 0) in (stages or range(FIRST_STAGE, 10))}
    if bad := sorted(named - numbers):
        raise _no_place(spec, bad[0], module)
    chosen = sorted((wanted | named) - done)
    if not chosen and (wanted | named) & done:
        raise ConfigError(f"{spec['yaml_file']}: the rows at={at} have {module} already")
    if not chosen:
        there = ", ".join(sorted({f"P{stage[i]}" for i in candidates | done if i in stage}))
        what = _describe_places(module)
        have = f"its stages with {what} are {there}" if there else f"it has no {what}"
        raise ConfigError(f"{spec['yaml_file']}: at={at} selects no row for {module}; {have}")
    return at, chosen


def _describe_places(module: str) -> str:
    return "strided 3x3 Conv rows" if replaces_stock(module) else "blocks"


def _no_place(spec: dict[str, Any], i: int, module: str) -> ConfigError:
    if replaces_stock(module):
        return ConfigError(f"{row_location(spec, i)}: {module} replaces rows Conv, [c2, k, s] with an odd k alone")
    return ConfigError(
        f"{row_location(spec, i)}: {module} cannot be placed behind a row whose first argument is not c2"
    )


def _put(
    spec: dict[str, Any], chosen: list[int], cls: type[torch.nn.Module], ratios: Sequence[float | None], more: list
) -> tuple[dict[str, Any], list[int]]:
    """Return the model dictionary with the module at the chosen rows, and the rows where it is."""
    rows, module = list_rows(spec), cls.__name__
    replaced = chosen if replaces_stock(module) else []
    known = {name for name, _ in registered_layers()}
    composites = {i: f"{rows[i][2]}{module}" for i in chosen if f"{rows[i][2]}{module}" in known}
    inserted = set(chosen) - composites.keys() - set(replaced)
    start = [i + sum(j < i for j in inserted) for i in range(len(rows))]
    end = [at + (i in inserted) for i, at in enumerate(start)]

    def source(f: int, i: int) -> int:
        return f if f == -1 else end[f] if f >= 0 else end[i + f] - start[i]

    new = {**spec, "backbone": [], "head": []}
    of = dict(zip(chosen, ratios, strict=True))
    for i, (f, n, name, args) in enumerate(rows):
        section = new["backbone" if i < len(spec["backbone"]) else "head"]
        f = [source(j, i) for j in f] if isinstance(f, list) else source(f, i)
        if i in replaced:
            section.append([f, n, module, [*args, *([1] if len(args) < 3 else []), of[i]] if of[i] else args])
        elif i in composites:
            section.append([f, n, composites[i], [*args, {"ratio": of[i]}] if of[i] else args])
        else:
            section.append([f, n, name, args])
        if i in inserted:
            section.append([-1, 1, module, [args[0], *_arguments(cls, of[i]), *more]])
    return new, [end[i] for i in chosen]


def _arguments(cls: type[torch.nn.Module], ratio: float | None) -> list:
    """Return the arguments of a row of `cls` behind c2, up to its ratio."""
    if ratio is None:
        return []
    defaults = {p.name: p.default for p in list(inspect.signature(cls).parameters.values())[2:]}
    names = list(defaults)
    return [*(defaults[name] for name in names[: names.index("ratio")]), ratio]
