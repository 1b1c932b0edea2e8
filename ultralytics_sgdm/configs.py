"""Names of YAMLs: where the shipped ones are, which file a name means, and which module its suffix adds."""

from __future__ import annotations

import re
from pathlib import Path

from .nn.registry import registered_layers

_PACKAGE = Path(__file__).resolve().parent
CFG = next(d for d in (_PACKAGE / "cfg", _PACKAGE.parent / "cfg") if d.is_dir())  # in a wheel, in a checkout
BASELINES = {
    "cbam": "TimmCBAM",
    "ca": "CoordAttention",
    "condconv": "ResidualCondConv",
    "odconv": "ResidualODConv",
    "rfaconv": "ResidualRFAConv",
}
MODULES = {"sgdm": "SGDM", "rdconv": "RDConv", **BASELINES}  # layer that a suffix of a model's name adds
_SUFFIX = re.compile(rf"(.+?)-({'|'.join(MODULES)})")
SCALED = re.compile(r"(yolo(?:e-)?v?\d+|rtdetr)-?([a-z])(?=[-.])")  # a name with the letter of a scale or size
_SCALE = re.compile(r"(yolo(?:e-)?v?\d+)([nslmx]?)(?=[-.])")  # where Ultralytics reads a scale


def list_shipped(kind: str) -> list[Path]:
    """Return the shipped YAMLs of `kind` ("models" or "datasets"), by name."""
    return sorted((CFG / kind).glob("*.yaml"))


def scale_of(name: str) -> str:
    """Return the scale letter of a model's name, or an empty string."""
    match = SCALED.match(name)
    return match[2] if match else ""


def without_scale(name: str) -> str:
    """Return a model's name without its scale letter: `yolov8n-sgdm.yaml` gives `yolov8-sgdm.yaml`."""
    return _SCALE.sub(r"\1", name, count=1)


def with_scale(name: str, scale: str) -> str:
    """Return a model's name with the scale letter put in: `yolov8-sgdm.yaml`, `n` gives `yolov8n-sgdm.yaml`."""
    return _SCALE.sub(lambda match: match[1] + (match[2] or scale), name, count=1)


def split_suffix(name: str | Path) -> tuple[Path, str] | None:
    """Return the stock model and the layer that a name `<model>-<suffix>.<ext>` stands for, or None."""
    path = Path(name)
    match = _SUFFIX.fullmatch(path.stem)
    return (path.with_name(match[1] + path.suffix), MODULES[match[2]]) if match else None


def stock_name(name: str) -> str:
    """Return the name of the stock model beside a name: `yolov8n-sgdm.yaml` gives `yolov8n.yaml`."""
    found = split_suffix(name)
    return str(found[0]) if found else name


def find_yaml(name: str | Path) -> Path | None:
    """Return the file that the name of a model or dataset YAML means, or None.

    In this order: the file itself; beside it, the file without the scale letter; for a bare name, the shipped file of
    that name, with or without the scale letter.
    """
    path = Path(name)
    folders = [path.parent]
    if path.parent == Path():
        folders += [CFG / "models", CFG / "datasets"]
    candidates = (folder / stem for folder in folders for stem in (path.name, without_scale(path.name)))
    return next((c for c in candidates if c.is_file()), None)


def find_our_yaml(name: str | Path) -> Path | None:
    """Return the file that a name means if it is of this package: shipped, or a model YAML that names our layers."""
    file = find_yaml(name)
    if file is None or file.is_relative_to(CFG):
        return file
    return file if _names_our_layers(file) else None


def _names_our_layers(file: Path) -> bool:
    words = set(re.findall(r"\w+", file.read_text(encoding="utf-8", errors="ignore")))
    return any(name in words for name, _ in registered_layers()) or not words.isdisjoint(MODULES.values())
