"""Shipped YAMLs: where they are, and which file a name means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .errors import did_you_mean as near_names
from .errors import one_line as reason

_PACKAGE = Path(__file__).resolve().parent
CFG = next(d for d in (_PACKAGE / "cfg", _PACKAGE.parent / "cfg") if d.is_dir())  # in a wheel, in a checkout
OPPONENTS = ("cbam", "ca", "condconv", "odconv", "rfaconv")  # what SGDM is compared with, see `evidence.opponents`
ABLATIONS = ("sgdm-static", "sgdm-no-spatial", "sgdm-no-channel", "sgdm-free", "sgdm-short")
OTHER_RATIOS = {f"sgdm-ratio{ratio}": ratio for ratio in (2, 3, 4, 8)}
FIRST_STAGES = {"sgdm-p3": 3, "sgdm-p2": 2}  # behind each block from there on; the former is the form of 0.1.0
EQUIPPED = (*OPPONENTS, *ABLATIONS, *FIRST_STAGES, *OTHER_RATIOS, "sgdm")  # names that equip a model when it is loaded
MODULES = (*EQUIPPED, "rdconv")


__all__ = ("ConfigError", "near_names", "reason")


class ConfigNotFoundError(ConfigError, FileNotFoundError):
    """A YAML that was named is nowhere to be found."""


class ConfigKeyError(ConfigError, KeyError):
    """A name in a YAML is unknown, or a key that it needs is missing."""


class ConfigTypeError(ConfigError, TypeError):
    """A value in a YAML is of another type than it must be."""


class ConfigIndexError(ConfigError, IndexError):
    """A row of a YAML has too few values, or refers to a layer that is not there."""


class ConfigAttributeError(ConfigError, AttributeError):
    """A name in a YAML is no member of the module that it stands behind."""


class ConfigArithmeticError(ConfigError, ArithmeticError):
    """A number in a YAML leads to an impossible sum."""


class ConfigRuntimeError(ConfigError, RuntimeError):
    """A value in a YAML is refused by PyTorch."""


class ConfigVersionError(ConfigError, RuntimeError):
    """The installed Ultralytics does not allow what was asked for."""


_KINDS = (
    ConfigNotFoundError,
    ConfigKeyError,
    ConfigTypeError,
    ConfigIndexError,
    ConfigAttributeError,
    ConfigArithmeticError,
    ConfigRuntimeError,
)


def config_error(message: str, cause: BaseException) -> ConfigError:
    """Return a ConfigError raised from `cause` that is of its kind too, so that who caught the one catches the other.

    Args:
        message: What is wrong, where, and what it should be.
        cause: Error that Python, PyTorch or Ultralytics raised.
    """
    kind = next((kind for kind in _KINDS if isinstance(cause, kind.__bases__[1])), ConfigError)
    error = kind(message)
    error.__cause__ = cause
    return error


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
    return re.sub(rf"-(?:{'|'.join(MODULES)})(?=[-.])", "", name, count=1)


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


def equipped_from(name: str | Path) -> tuple[Path, str] | None:
    """Return what `<model>-<module>.yaml` means: the YAML `<model>.yaml` and the name of what equips it.

    None if a file of the name exists, or it ends in none of `EQUIPPED`.
    """
    path = Path(name)
    match = re.fullmatch(rf"(.+?)-({'|'.join(EQUIPPED)})", path.stem)
    if not match or find_yaml(path):
        return None
    return path.with_name(match[1] + path.suffix), match[2]


def yaml_name(spec: Mapping[str, Any]) -> str:
    """Return what errors call the file of a model dictionary."""
    return str(spec.get("yaml_file") or "model YAML")


def layer_place(spec: Mapping[str, Any], i: int) -> str:
    """Return where layer `i` of a model dictionary stands: file, section and row."""
    section, row = ("backbone", i) if i < len(spec["backbone"]) else ("head", i - len(spec["backbone"]))
    return f"{yaml_name(spec)}, {section} row {row + 1} (layer {i}), {spec[section][row]}"
