"""Datasets in memory, as readers return them and the writer takes them, and what all modules say and ask alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError
from .folders import read_text

SHOWN = 20  # lines of a kind that are printed


class BadDataError(ValueError):
    """An image, an annotation or a box cannot be used; the message says why."""


class Object(NamedTuple):
    """One annotated object, its box as annotated or, after `boxes.in_pixels`, in pixels from the upper left corner.

    `angle` is by how many degrees the annotation turns the box about its centre, None for upright boxes.
    """

    name: str
    left: float
    top: float
    right: float
    bottom: float
    difficult: bool
    where: str
    angle: float | None = None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        return self[1:5]

    def __str__(self) -> str:
        return f"({self.left:g}, {self.top:g})-({self.right:g}, {self.bottom:g}) of {self.name}"


@dataclass
class Sample:
    """One image and its objects; `where` and an object's own `where` together name its annotation."""

    id: str
    image: Path
    width: int
    height: int
    intact: bool  # Ultralytics would not rewrite the file
    where: str
    objects: list[Object] = field(default_factory=list)


@dataclass
class Split:
    """The samples of a split, a line for each image or object that is left out, and what else to report."""

    samples: list[Sample] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Dataset:
    """Splits by name, class names in the order of their numbers, and the convention that the boxes had."""

    splits: dict[str, Split]
    classes: list[str]
    boxes: str


def check_options(**options: tuple[Any, Sequence[Any]]) -> None:
    """Raise ConfigError unless the value of each option is one of those that may be."""
    for name, (value, allowed) in options.items():
        if value not in allowed:
            raise ConfigError(f"{name}={value} must be one of {', '.join(map(str, allowed))}")


def as_list(value: str | Sequence[str]) -> list[str]:
    """Return the items of an option that is "a,b" or a sequence."""
    parts = str(value).split(",") if isinstance(value, (str, int, float)) else map(str, value)
    return [part.strip() for part in parts if part.strip()]


def class_names(classes: str | Sequence[str] | None) -> list[str] | None:
    """Return the names that the option `classes` means, "a,b" or the path of a `.txt` with one a line."""
    if classes is None:
        return None
    is_file = isinstance(classes, str) and classes.endswith(".txt")
    names = as_list(read_text(Path(str(classes))).splitlines() if is_file else classes)
    if not names or len({*names}) < len(names):
        wrong = next((f"{name!r} is there twice" for name in names if names.count(name) > 1), "no name in it")
        raise ConfigError(f"classes={classes}: {wrong}")
    return names


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: "1 box", "2 boxes"."""
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('x') else 's'}"


def shorten(lines: Sequence[str]) -> list[str]:
    """Return as many lines as are printed, and how many more there are."""
    rest = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"and {rest:,} more"] if rest > 0 else [])]
