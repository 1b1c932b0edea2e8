"""An equipped model: what was added where, and its YAML, with a header that says how to train it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..configs import with_scale
from ..nn.registry import require_layer
from .outline import Feature
from .ratios import join_ratios
from .rows import list_rows


def replaces_stock(module: str) -> bool:
    """Return whether a registered layer takes the place of stock rows, as RDConv does of Conv rows."""
    return getattr(require_layer(module).cls, "replaces_stock", False)


@dataclass(frozen=True)
class Equipped:
    """A model dictionary with modules in it, and what was done."""

    spec: dict[str, Any]  # as `yaml_model_load` returns it, equipped
    source: str  # file name of the YAML that was equipped
    module: str  # layer that was added
    at: str  # selection of the places
    ratios: tuple[float, ...]  # razor ratio of each module; empty if they have none or keep their default
    start: str | None  # their argument `start`, or None for its default
    places: dict[int, str]  # row of each module, and the block behind which, or in whose place, it is
    inserted: int  # number of rows that were inserted
    parameters: int  # of the model before, at the scale asked for
    added: int  # parameters that the modules add
    features: list[Feature | None]  # output of each row

    @property
    def scale(self) -> str:
        """The scale that the parameters are counted at, or an empty string if the model has none."""
        return self.spec.get("scale") or next(iter(self.spec.get("scales") or {}), "")

    def summary(self) -> str:
        """Return what was added, where, and how many parameters it costs, in one line."""
        rows: dict[str, list[str]] = {}
        for i, block in self.places.items():
            rows.setdefault(block, []).append(str(i))
        how = "in place of" if replaces_stock(self.module) else "behind"
        where = "; ".join(f"{how} {block} in layer{'s' * (len(i) > 1)} {', '.join(i)}" for block, i in rows.items())
        ratio = f", ratio {join_ratios(self.ratios)}" if self.ratios else ""
        scale = f" at scale {self.scale}" if self.scale else ""
        cost = f"{self.added:+,} parameters ({self.added / self.parameters:+.1%}){scale}"
        return f"{self.source}: {self.module} {where}{ratio}: {cost}"

    def text(self, name: str) -> str:
        """Return the YAML, commented, for a file of that name; the scale it was asked at is the first in it."""
        options = [f"model={Path(self.source).name}", f"at={self.at}"]
        options += [f"ratio={join_ratios(self.ratios)}"] if self.ratios else []
        options += [] if self.module == "SGDM" else [f"module={self.module}"]
        options += [] if self.start is None else [f"start={self.start}"]
        lines = [*_comment(_header(self, name, " ".join(options))), ""]
        spec = {k: v for k, v in self.spec.items() if k not in ("scale", "yaml_file", "backbone", "head")}
        if spec.get("scales") and self.scale in spec["scales"]:
            spec["scales"] = {self.scale: spec["scales"][self.scale], **spec["scales"]}
        notes = {"nc": " # classes; the dataset's number replaces it", "scales": " # [depth, width, max_channels]"}
        for key, value in spec.items():
            if isinstance(value, dict):
                lines += [f"{key}:{notes.get(key, '')}", *(f"  {k}: {_flow(v)}" for k, v in value.items())]
            else:
                lines.append(f"{key}: {_flow(value)}{notes.get(key, '')}")
        return "\n".join([*lines, *_rows(self)]) + "\n"


def _header(equipped: Equipped, name: str, options: str) -> Iterator[str]:
    source = Path(equipped.source)
    weights = Path(with_scale(source.name, equipped.scale)).stem
    yield f"{equipped.summary()}. Written by"
    yield f"  yolo sgdm equip {options} out={name}"
    yield "and trained, from the weights of the model without the modules if you have them, by"
    yield f"  yolo train model={with_scale(name, equipped.scale)} pretrained={weights}.pt"
    if replaces_stock(equipped.module):
        yield f"The weights of {source.name} transfer except those of the replaced rows."
    elif equipped.inserted:
        yield f"Inserted rows shift the layers of {source.name} behind them; its weights follow when loaded."
    else:
        yield f"Layers have the numbers of {source.name}, so its weights transfer to the last tensor."
    if equipped.module == "SGDM":
        where = "the mapping at a row's end" if len(equipped.places) > equipped.inserted else "a row's list after c2"
        yield f"Options of SGDM, in {where}: ratio (larger = fewer parameters), kernels ([height, width] pairs)."


def _rows(equipped: Equipped) -> Iterator[str]:
    backbone, features = len(equipped.spec["backbone"]), equipped.features
    stages = [feature and feature.stage for feature in (*features, None)]
    for i, row in enumerate(list_rows(equipped.spec)):
        if i in (0, backbone):
            yield f"\n{'head' if i else 'backbone'}: # [from, repeats, module, args]"
        if i > backbone and stages[i] != stages[i - 1]:
            yield ""
        feature = features[i] if i < len(features) else None
        yield f"  - {_flow(row)} # {i}" + (f", {feature}" if feature else "")


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
