"""Shipped YAMLs: where they are, and which file a name means."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent
CFG = next(d for d in (_PACKAGE / "cfg", _PACKAGE.parent / "cfg") if d.is_dir())  # in a wheel, in a checkout
MODULE_SUFFIXES = ("-sgdm", "-rdconv")


class ConfigError(ValueError):
    """What the user wrote in a YAML or on the command line is wrong; the message names the place and the fix."""


class ConfigNotFoundError(ConfigError, FileNotFoundError):
    """A YAML that was named is nowhere to be found."""


def shipped(kind: str) -> list[Path]:
    """Return the shipped YAMLs of `kind` ("models" or "datasets"), by name."""
    return sorted((CFG / kind).glob("*.yaml"))


def without_scale(name: str) -> str:
    """Return a model file's name without its scale letter: `yolov8n-sgdm.yaml` gives `yolov8-sgdm.yaml`."""
    return re.sub(r"(yolo(?:e-)?v?\d+)[nslmx](?=[-.])", r"\1", name, count=1)


def with_scale(name: str, scale: str) -> str:
    """Return a model file's name with the scale letter put in: `yolov8-sgdm.yaml`, `n` gives `yolov8n-sgdm.yaml`."""
    return re.sub(r"(yolo(?:e-)?v?\d+)(?=[-.])", rf"\g<1>{scale}", name, count=1)


def stock_name(name: str) -> str:
    """Return the name of the stock model beside a shipped one: `yolov8n-sgdm.yaml` gives `yolov8n.yaml`."""
    return re.sub(rf"(?:{'|'.join(MODULE_SUFFIXES)})(?=[-.])", "", name, count=1)


def find_yaml(name: str | Path) -> Path | None:
    """Return the file that a YAML's name means, or None.

    In this order: the file itself; beside it, the file without the scale letter; for a bare name, the shipped file
    of that name, with or without the scale letter.
    """
    path = Path(name)
    folders = [path.parent]
    if path.parent == Path():
        folders += [CFG / "models", CFG / "datasets"]
    candidates = (folder / stem for folder in folders for stem in (path.name, without_scale(path.name)))
    return next((c for c in candidates if c.is_file()), None)


def equipped_from(name: str | Path) -> Path | None:
    """Return the YAML that `<model>-sgdm.yaml` equips: `<model>.yaml`, unless a file of the name exists."""
    path = Path(name)
    if not path.stem.endswith("-sgdm") or find_yaml(path):
        return None
    return path.with_name(path.stem.removesuffix("-sgdm") + path.suffix)


def layer_place(spec: dict[str, Any], i: int) -> str:
    """Return where layer `i` of a model dictionary stands: file, section and row."""
    section, row = ("backbone", i) if i < len(spec["backbone"]) else ("head", i - len(spec["backbone"]))
    file = spec.get("yaml_file", "model YAML")
    return f"{file}, {section} row {row + 1} (layer {i}), {spec[section][row]}"


def near_names(name: str, known: list[str]) -> str:
    """Return "; did you mean 'A' or 'B'?" with the names of `known` nearest to `name`, or an empty string."""
    near = difflib.get_close_matches(name, known, 2, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
