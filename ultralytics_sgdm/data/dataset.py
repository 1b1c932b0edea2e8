"""Datasets in memory, as readers return them and the writer takes them, and the conventions of their boxes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

from ultralytics.utils import NUM_THREADS, TQDM

from ..errors import ConfigError, pluralize
from .folders import read_text

SHOWN = 20  # lines of a kind that are printed
FRACTIONAL = 0.01  # of all boxes; VOC2012 has a few with fractions, tools that write fractions have them nearly always
LARGEST_FRACTION = 1.01  # of the image; Ultralytics tolerates as much


class Object(NamedTuple):
    """One annotated object, its box as annotated or, after `convert_boxes`, in pixels from the upper left corner.

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

    @property
    def is_fraction(self) -> bool:
        """Whether the box lies in the first pixel, as one in fractions of the image does."""
        return max(self.box) <= LARGEST_FRACTION and min(self.box) >= 0 and any(side % 1 for side in self.box)

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


def convert_boxes(splits: Collection[Split], boxes: str, pixels: str = "") -> str:
    """Turn boxes as annotated into upright ones in pixels counted from 0, and return the convention that they had.

    Left out are images whose boxes are fractions of the image where pixels are expected, or the other way round.
    `pixels` is the convention of boxes that are not fractions, if "auto" need not tell it.
    """
    if boxes == "auto":
        objects = [o for split in splits for s in split.samples for o in s.objects if o.angle is None]
        boxes = _guess_boxes(objects, pixels)
    is_fraction = boxes == "fraction"
    for split in splits:
        samples, split.samples = split.samples, []
        for s in samples:
            odd = [o for o in s.objects if (max(o.box) > LARGEST_FRACTION if is_fraction else o.is_fraction)]
            if odd:
                seems = f"{'pixels' if is_fraction else 'fractions of the image'}, but boxes={boxes}: {odd[0]}"
                lost = f"left out is the image with its {pluralize(len(s.objects), 'object')}"
                split.skipped.append(f"{s.where}{odd[0].where}: {seems}; {lost}")
            else:
                s.objects = [_convert_box(o, boxes, s) for o in s.objects]
                split.samples.append(s)
        if rotated := sum(bool(o.angle) for s in split.samples for o in s.objects):
            split.notes.append(f"{pluralize(rotated, 'rotated box')}: the label is the upright box around it")
    return boxes


def _guess_boxes(objects: Sequence[Object], pixels: str) -> str:
    others = [o for o in objects if not o.is_fraction]
    if len(others) < len(objects) and all(max(o.box) <= LARGEST_FRACTION for o in others):
        return "fraction"
    fractional = sum(any(side % 1 for side in o.box) for o in others)
    at_zero = any(o.left == 0 or o.top == 0 for o in others)
    return pixels or ("zero" if at_zero or fractional > FRACTIONAL * len(others) else "voc")


def _convert_box(o: Object, boxes: str, s: Sample) -> Object:
    left, top, right, bottom = o.box
    if left >= right or top >= bottom:
        return o  # left out later, for its box has no area
    if boxes == "fraction":
        left, top, right, bottom = left * s.width, top * s.height, right * s.width, bottom * s.height
    elif boxes == "voc" and o.angle is None:
        left, top = left - 1, top - 1
    if o.angle:
        x, y, w, h = (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2
        sin, cos = abs(math.sin(math.radians(o.angle))), abs(math.cos(math.radians(o.angle)))
        w, h = w * cos + h * sin, w * sin + h * cos
        left, top, right, bottom = x - w, y - h, x + w, y + h
    return o._replace(left=left, top=top, right=right, bottom=bottom)


def map_threads(function: Callable[[Any], Any], items: Collection[Any], what: str) -> list[Any]:
    """Return what a function returns for each item, with a bar of the progress."""
    with ThreadPool(NUM_THREADS) as pool:
        return list(TQDM(pool.imap(function, items), desc=what, total=len(items)))


def split_items(value: str | Sequence[str]) -> list[str]:
    """Return the items of an option that is "a,b" or a sequence."""
    parts = str(value).split(",") if isinstance(value, (str, int, float)) else map(str, value)
    return [part.strip() for part in parts if part.strip()]


def read_classes(classes: str | Sequence[str] | None) -> list[str] | None:
    """Return the names that the option `classes` means, "a,b" or the path of a `.txt` with one a line."""
    if classes is None:
        return None
    is_file = isinstance(classes, str) and classes.endswith(".txt")
    names = split_items(read_text(Path(str(classes))).splitlines() if is_file else classes)
    if not names:
        raise ConfigError(f"classes={classes}: no name in it")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"classes={classes}: {repeated[0]!r} is there twice")
    return names


def shorten(lines: Sequence[str]) -> list[str]:
    """Return as many lines as are printed, and how many more there are."""
    rest = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"and {rest:,} more"] if rest > 0 else [])]


def shorten_text(value: Any, most: int = 100) -> str:
    """Return what a file holds as text that fits into a line."""
    text = str(value)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= most else f"{text[:most]}..."
