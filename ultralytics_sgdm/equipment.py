"""Put SGDM, or another registered layer, behind the blocks of any model YAML.

A block that has a composite class (`C2fSGDM` for `C2f`) is equipped in its own row, so that layers keep their numbers
and stock weights their names. Behind a plain row, a row is inserted and every reference is moved.
"""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from ultralytics.nn import tasks

from .configs import ConfigError, layer_place, near_names, with_scale
from .errors import import_extra as extra
from .evidence.opponents import register
from .nn.registry import registered_layers
from .skeleton import Feature, count, features, skeleton
from .transfer import row_names

DEEPEST = "deepest"
AT = DEEPEST  # where maps are smallest and channels most, so a parameter costs least time and memory
FIRST_STAGE = 3  # of a section; at P2 and before, a module costs most time and holds fewest parameters
RATIO, FAMILY_RATIOS = 2.25, {"yolov5": 1.75}  # within the paper's +0.19 M on YOLOv8n and +0.33 M on YOLOv5n
RATIOS = (  # what a budget chooses from: whole numbers first, then quarters, then twentieths for one or two places
    *range(1, 257),
    *(r / 4 for r in range(5, 32) if r % 4),
    *(r / 20 for r in range(21, 160) if r % 5),
)
PLAIN = ("Conv", "Bottleneck")  # a block if repeated, or if the head reads it: the stages of YOLOv3 and YOLOv6


class Equipped(NamedTuple):
    """A model dictionary with modules in it, and what was done to it.

    Attributes:
        spec: What `yaml_model_load` returns, equipped.
        source: File name of the YAML that was equipped.
        module: Layer that was put in.
        at: Selection that was asked for.
        ratio: Razor ratio of the modules, or None if they have none or keep their default.
        blocks: Layer numbers where the modules are, each with the block it stands behind.
        inserted: Number of rows that were inserted.
        untouched: Layers of the selection that cannot be equipped.
        parameters: Parameters of the model before, at the scale asked for.
        added: Parameters that the modules add.
        outline: What each layer gives.
    """

    spec: dict[str, Any]
    source: str
    module: str
    at: str
    ratio: float | None
    blocks: dict[int, str]
    inserted: int
    untouched: tuple[str, ...]
    parameters: int
    added: int
    outline: list[Feature | None]

    @property
    def scale(self) -> str:
        """The scale that the parameters are counted at, or an empty string if the model has none."""
        return self.spec.get("scale") or next(iter(self.spec.get("scales") or {}), "")

    def summary(self) -> str:
        """Return what was equipped, where and at what cost, and in a second line what could not be."""
        ratio = "" if self.ratio is None else f", ratio {self.ratio:g}"
        scale = f" at scale {self.scale}" if self.scale else ""
        cost = f"{self.added:+,} parameters ({self.added / self.parameters:+.1%}){scale}"
        lines = [f"{self.source}: {self.module} {self._where()}{ratio}: {cost}"]
        if self.untouched:
            lines.append(f"not equipped, {self.module} has no place behind them: {', '.join(self.untouched)}")
        return "\n".join(lines)

    def _where(self) -> str:
        layers: dict[str, list[str]] = {}
        for i, block in self.blocks.items():
            layers.setdefault(block, []).append(str(i))
        return "; ".join(f"behind {block} in layer{'s' * (len(i) > 1)} {', '.join(i)}" for block, i in layers.items())

    def text(self, name: str) -> str:
        """Return the YAML, commented, for a file of that name; the scale it was asked at stands first in it."""
        blocks = [*_comment(self._header(name)), ""]
        spec = {k: v for k, v in self.spec.items() if k not in ("scale", "yaml_file", "backbone", "head")}
        if spec.get("scales") and self.scale in spec["scales"]:
            spec["scales"] = {self.scale: spec["scales"][self.scale], **spec["scales"]}
        notes = {"nc": " # classes; the dataset's number replaces it", "scales": " # [depth, width, max_channels]"}
        for key, value in spec.items():
            if isinstance(value, dict):
                blocks += [f"{key}:{notes.get(key, '')}", *(f"  {k}: {_flow(v)}" for k, v in value.items())]
            else:
                blocks.append(f"{key}: {_flow(value)}{notes.get(key, '')}")
        return "\n".join([*blocks, *self._rows()]) + "\n"

    def _header(self, name: str) -> Iterator[str]:
        source, scaled = Path(self.source), with_scale(self.source, self.scale)
        options = [f"model={source.name}", f"at={self.at}"]
        options += [] if self.ratio is None else [f"ratio={self.ratio:g}"]
        options += [] if self.module == "SGDM" else [f"module={self.module}"]
        yield f"{self.summary().splitlines()[0]}. Written by"
        yield f"  yolo sgdm equip {' '.join(options)} out={name}"
        yield "and trained, from the weights of the model without the modules if you have them, by"
        yield f"  yolo train model={with_scale(name, self.scale)} pretrained={Path(scaled).stem}.pt"
        if self.inserted:
            yield f"Inserted rows shift the layers of {source.name} behind them; its weights follow when loaded."
        else:
            yield f"Layers have the numbers of {source.name}, so its weights transfer to the last tensor."
        if self.module == "SGDM":
            where = "the mapping at a row's end" if len(self.blocks) > self.inserted else "a row's list after c2"
            yield f"Options of SGDM, in {where}: ratio (larger = fewer parameters), kernels ([height, width] pairs)."

    def _rows(self) -> Iterator[str]:
        before = len(self.spec["backbone"])
        stages = [feature and feature.stage for feature in (*self.outline, None)]
        for i, row in enumerate(_rows(self.spec)):
            if i in (0, before):
                yield f"\n{'head' if i else 'backbone'}: # [from, repeats, module, args]"
            if i > before and stages[i] != stages[i - 1]:
                yield ""
            feature = self.outline[i] if i < len(self.outline) else None
            yield f"  - {_flow(row)} # {i}" + (f", {feature}" if feature else "")


def equip(
    model: str | Path,
    ratio: float | None = None,
    at: str | int | Sequence[str | int] = AT,
    module: str = "SGDM",
    budget: str | float | None = None,
    out: str | Path | None = None,
) -> Equipped:
    """Put a module behind the blocks of a model YAML, as `yolo sgdm equip` does.

    Args:
        model: YAML of a model, of Ultralytics or your own; a scale letter in its name is the scale that counts.
        ratio: Razor ratio of the modules, larger means fewer parameters; for SGDM 2.25 unless given, on YOLOv5 1.75.
        at: Where, separated by commas: sections (backbone, neck), stages (P2, P3, ..., or `deepest`, the last that has
            blocks), numbers of layers. Sections and stages narrow each other down, numbers come on top. A section
            without a stage means from P3 on.
        module: Registered layer to put there. Others than SGDM go into rows of their own.
        budget: Parameters to add, such as `190000` or "0.19M", in place of `ratio`: the ratio that comes nearest.
        out: File to write the YAML to, which must not exist.

    Returns:
        The equipped model dictionary and what was done.

    Raises:
        ConfigError: If an argument is wrong, nothing can be equipped, or `out` exists.
    """
    target = None if out is None else _new_file(Path(out))
    at = ",".join(part.strip() for part in (str(at).split(",") if isinstance(at, str | int) else map(str, at)))
    cls = _layer(module)
    budget = None if budget is None else _parameters(budget)
    if ratio is not None and budget is not None:
        raise ConfigError("give ratio= or budget=, not both: the one follows from the other")
    spec = _load(model)
    rows = _rows(spec)
    region, stages, named = _select(at, spec)
    followed = {i for i, row in enumerate(rows[1:]) if row[0] == -1 and row[2] == module}  # equipped already
    wanted = region & _blocks(rows) - followed
    if not wanted | named:  # before anything is built: a row may fetch weights
        raise _nothing_to_equip(spec, at, region)
    stock = skeleton(spec)
    outline = features(stock)
    if DEEPEST in stages:  # where it is equipped already, it is the deepest still
        bare = _blocks([[f, n, name, args] for (f, n, _, args), name in zip(rows, row_names(spec), strict=True)])
        stages = {*stages, max((feature.stage for i in region & bare if (feature := outline[i])), default=0)}
    region = {i for i in region if (feature := outline[i]) and feature.stage in stages}
    chosen = sorted(wanted & region | named)
    if not chosen:
        raise _nothing_to_equip(spec, at, region)
    for i in named:
        if not (outline[i] and rows[i][3] and isinstance(rows[i][3][0], int)):
            raise _no_place(spec, i, module)
    if budget is not None:
        ratio = _nearest_ratio(cls, [feature.channels for i in chosen if (feature := outline[i])], budget)
    elif ratio is None and module == "SGDM":
        ratio = next((r for name, r in FAMILY_RATIOS.items() if Path(spec["yaml_file"]).name.startswith(name)), RATIO)
    new, places = _put(spec, chosen, module, _arguments(cls, ratio), {} if ratio is None else {"ratio": ratio})
    built = skeleton(new)
    result = features(built) if len(_rows(new)) > len(rows) else outline
    for i, place in zip(chosen, places, strict=True):
        after, here = result[place], outline[i]
        if not (after and here) or after.channels != here.channels:
            raise _no_place(spec, i, module)
    equippable = {rows[i][2] for i in chosen}
    equipped = Equipped(
        spec=new,
        source=Path(spec["yaml_file"]).name,
        module=module,
        at=at,
        ratio=ratio,
        blocks={place: rows[i][2] for i, place in zip(chosen, places, strict=True)},
        inserted=len(_rows(new)) - len(rows),
        untouched=tuple(dict.fromkeys(rows[i][2] for i in sorted(region) if rows[i][2] not in equippable)),
        parameters=count(stock),
        added=count(built) - count(stock),
        outline=result,
    )
    if target:
        try:
            with target.open("x", encoding="utf-8") as f:
                f.write(equipped.text(target.name))
        except OSError as e:
            raise ConfigError(f"out={target} cannot be written: {e.strerror or e}") from e
    return equipped


def equip_by_name(model: Path, name: str) -> Equipped:
    """Equip a model as a name of `configs.EQUIPPED` says: with SGDM, or with what it is compared with.

    Raises:
        ConfigError: As `equip` does, or if the extra `compare` is not installed.
    """
    if name == "sgdm":
        return equip(model)
    return extra(f"{__package__}.evidence.opponents.table", "compare").equipped(model, name)


def _new_file(path: Path) -> Path:
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"out={path} must end in .yaml: it is the name that the model is trained by")
    if path.exists():
        raise ConfigError(f"out={path} exists and is left as it is; give another name, or remove it first")
    if not path.parent.is_dir():
        raise ConfigError(f"out={path}: there is no folder {path.parent}")
    return path


def _layer(name: str) -> type[torch.nn.Module]:
    register(name)
    layers = {layer: entry.cls for layer, entry in registered_layers()}
    if name not in layers:
        allowed = near_names(str(name), list(layers)) or f"; registered are {', '.join(layers)}"
        raise ConfigError(f"module={name!r} is no registered layer{allowed}")
    return layers[name]


def _parameters(budget: str | float) -> float:
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)([kM]?)", str(budget))
    number = float(match[1]) * {"": 1, "k": 1e3, "M": 1e6}[match[2]] if match else 0
    if number < 1:
        raise ConfigError(f"budget={budget} must be a number of parameters, such as 190000, 190k or 0.19M")
    return number


def _load(model: str | Path) -> dict[str, Any]:
    if Path(model).suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"model={model} is no YAML; equip the YAML, and give weights to training with pretrained=")
    return tasks.yaml_model_load(model)


def _rows(spec: dict[str, Any]) -> list[list]:
    return [*spec["backbone"], *spec["head"]]


def _select(at: str, spec: dict[str, Any]) -> tuple[set[int], Collection[int | str], set[int]]:
    """Return what `at` says: the layers of its sections, its stages (or DEEPEST), and the layers that it numbers."""
    last, first_of_neck = len(_rows(spec)) - 1, len(spec["backbone"])
    sections = {"backbone": range(min(first_of_neck, last)), "neck": range(first_of_neck, last)}
    region: set[int] = set()
    stages: set[int | str] = set()
    named: set[int] = set()
    for part in at.split(","):
        if part in sections:
            region.update(sections[part])
        elif re.fullmatch(r"P\d", part):
            stages.add(int(part[1]))
        elif part == DEEPEST:
            stages.add(part)
        elif part.isdecimal() and int(part) < last:
            named.add(int(part))
        else:
            allowed = f"backbone, neck, stages such as P3, deepest, layers from 0 to {last - 1}"
            near = near_names(part, [*sections, DEEPEST, *(f"P{n}" for n in range(1, 7))])
            raise ConfigError(f"at={at}: {part!r} is none of {allowed}{near}")
    if stages and not region:
        region.update(range(last))
    return region, stages or range(FIRST_STAGE, 10), named


def _blocks(rows: list[list]) -> set[int]:
    """Return the layers that are blocks: those with a composite class, and plain ones where a stage ends."""
    composites = {name for name, _ in registered_layers()}
    read_by_head = {f % len(rows) for f in (rows[-1][0] if isinstance(rows[-1][0], list) else [len(rows) - 2])}
    return {
        i
        for i, (_, n, name, _) in enumerate(rows[:-1])
        if f"{name}SGDM" in composites or (name in PLAIN and (n > 1 or i in read_by_head))
    }


def _no_place(spec: dict[str, Any], i: int, module: str) -> ConfigError:
    return ConfigError(f"{layer_place(spec, i)}: {module} has no place behind a row whose first argument is not its c2")


def _nothing_to_equip(spec: dict[str, Any], at: str, region: set[int]) -> ConfigError:
    there = ", ".join(dict.fromkeys(_rows(spec)[i][2] for i in sorted(region))) or "none"
    composites = (name.removesuffix("SGDM") for name, _ in registered_layers() if name.endswith("SGDM"))
    blocks = ", ".join(filter(None, composites))
    return ConfigError(
        f"{spec['yaml_file']}: nothing to equip at={at}, where the layers are: {there}; blocks are {blocks}, and "
        f"{' or '.join(PLAIN)} if repeated or read by the head, unless the module stands behind them already"
    )


def _nearest_ratio(cls: Any, channels: list[int], budget: float) -> float:
    _arguments(cls, RATIO)
    costs: dict[float, int] = {r: sum(_cost(cls, c, r) for c in channels) for r in RATIOS if r <= min(channels)}
    low, high = min(costs, key=lambda r: costs[r]), max(costs, key=lambda r: costs[r])
    if not costs[low] <= budget <= costs[high]:
        raise ConfigError(
            f"budget={budget:.0f} is out of reach here: {cls.__name__} adds from {costs[low]:,} (ratio={low:g}) to "
            f"{costs[high]:,} parameters (ratio={high:g}); choose in between, or other places with at="
        )
    return min(costs, key=lambda r: abs(costs[r] - budget))


@functools.cache
def _cost(cls: Any, channels: int, ratio: float) -> int:
    with torch.device("meta"):
        return count(cls(channels, channels, ratio=ratio))


def _arguments(cls: type[torch.nn.Module], ratio: float | None) -> list:
    """Return the arguments of a row of `cls` behind c2, up to its ratio."""
    if ratio is None:
        return []
    defaults = {p.name: p.default for p in list(inspect.signature(cls).parameters.values())[2:]}
    if "ratio" not in defaults:
        raise ConfigError(f"module={cls.__name__} has no argument ratio, so leave out ratio= and budget=")
    names = list(defaults)
    return [*(defaults[name] for name in names[: names.index("ratio")]), ratio]


def _put(
    spec: dict[str, Any], chosen: list[int], module: str, arguments: list, options: dict[str, Any]
) -> tuple[dict[str, Any], list[int]]:
    """Return the model dictionary with the module behind the chosen layers, and the layers where it is."""
    rows, known = _rows(spec), {name for name, _ in registered_layers()}
    composites = {i: f"{rows[i][2]}{module}" for i in chosen if f"{rows[i][2]}{module}" in known}
    inserted = set(chosen) - composites.keys()
    start = [i + sum(j < i for j in inserted) for i in range(len(rows))]
    end = [at + (i in inserted) for i, at in enumerate(start)]

    def source(f: int, i: int) -> int:
        return f if f == -1 else end[f] if f >= 0 else end[i + f] - start[i]

    new = {**spec, "backbone": [], "head": []}
    for i, (f, n, name, args) in enumerate(rows):
        section = new["backbone" if i < len(spec["backbone"]) else "head"]
        f = [source(j, i) for j in f] if isinstance(f, list) else source(f, i)
        section.append([f, n, composites.get(i, name), [*args, options] if i in composites and options else args])
        if i in inserted:
            section.append([-1, 1, module, [args[0], *arguments]])
    return new, [end[i] for i in chosen]


class _Dumper(yaml.SafeDumper):
    """Writes True and False as Ultralytics' YAMLs do, and every list in full."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(bool, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:bool", str(value)))


def _flow(value: Any) -> str:
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _comment(paragraphs: Iterable[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        indent = "#   " if paragraph.startswith(" ") else "# "
        yield from textwrap.wrap(
            paragraph.strip(), 118, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
        )
