"""Datasets in memory, as readers return them and the writer takes them, and the conventions of their boxes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

from ultralytics.utils import NUM_THREADS, TQDM

from ..errors import ConfigError, pluralize
from .images import inspect_image

SHOWN = 20  # lines of a kind that are printed
FRACTIONAL = 0.01  # of all boxes; VOC2012 has a few with fractions, tools that write fractions have them nearly always
LARGEST_FRACTION = 1.01  # of the image; Ultralytics tolerates as much


class Object(NamedTuple):
    """One annotated object, its box as annotated or, after `convert_boxes`, in pixels from the upper left corner.

    `box` is left, top, right and bottom. `angle` is by how many degrees the annotation turns it about its centre, None
    for upright boxes.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    where: str
    angle: float | None = None

    def __str__(self) -> str:
        left, top, right, bottom = self.box
        return f"({left:g}, {top:g})-({right:g}, {bottom:g}) of {self.name}"


@dataclass
class Sample:
    """One image and its objects; `where` names its annotation, and an object's own `where` the object in it.

    Width and height are the annotated ones, 0 where there are none, and after `inspect_images` those of the file.
    """

    id: str
    image: Path
    width: float
    height: float
    where: str
    objects: list[Object] = field(default_factory=list)
    is_intact: bool = True  # Ultralytics would not rewrite the file
    rows: dict[str, str] = field(default_factory=dict)  # of the label, each with its class


@dataclass
class Split:
    """The samples of a split, and a line for each image or object that is left out."""

    samples: list[Sample] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def leave_out(self, problems: Iterable[str]) -> None:
        """Leave out the samples that have a problem; there is one for each sample, "" for none."""
        samples, self.samples = self.samples, []
        for s, problem in zip(samples, problems, strict=True):
            if problem:
                self.skipped.append(f"{s.where}: {problem}; with its {pluralize(len(s.objects), 'object')}")
            else:
                self.samples.append(s)


def inspect_images(split: Split, what: str) -> None:
    """Take the size of each sample from its image, and leave out those that training would, or of another size."""

    def inspect(s: Sample) -> str:
        try:
            s.width, s.height, s.is_intact = inspect_image(s.image, (s.width, s.height))
            return ""
        except (ValueError, OSError) as e:
            return str(e)

    split.leave_out(map_threads(inspect, split.samples, f"Reading {what}"))


def convert_boxes(splits: Collection[Split], boxes: str) -> str:
    """Turn boxes as annotated into upright ones in pixels counted from 0, and return the convention that they had.

    Left out are images whose boxes are fractions of the image where pixels are expected, or the other way round.
    """
    boxes = guess_boxes(splits) if boxes == "auto" else boxes

    def convert(s: Sample) -> str:
        for o in s.objects:
            if max(o.box) > LARGEST_FRACTION if boxes == "fraction" else _is_fraction(o.box):
                units = "pixels", "fractions of the image"
                found, others = units if boxes == "fraction" else units[::-1]
                return f"{o.where}: in {found}, but the dataset is in {others} (boxes={boxes}): {o}"
        s.objects = [_convert_box(o, boxes, s) for o in s.objects]
        return ""

    for split in splits:
        split.leave_out([convert(s) for s in split.samples])
    return boxes


def _is_fraction(box: Sequence[float]) -> bool:
    """Return whether a box lies in the first pixel, as one in fractions of the image does."""
    return max(box) <= LARGEST_FRACTION and min(box) >= 0 and any(side % 1 for side in box)


def guess_boxes(splits: Collection[Split]) -> str:
    """Return the convention of the boxes as annotated: "fraction", "zero" or "voc" (see `convert_voc`)."""
    boxes = [o.box for split in splits for s in split.samples for o in s.objects if o.angle is None]
    others = [box for box in boxes if not _is_fraction(box)]
    if len(others) < len(boxes) and all(max(box) <= LARGEST_FRACTION for box in others):
        return "fraction"
    fractional = sum(any(side % 1 for side in box) for box in others)
    at_zero = any(0 in box[:2] for box in others)
    return "zero" if at_zero or fractional > FRACTIONAL * len(others) else "voc"


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
    return o._replace(box=(left, top, right, bottom))


def map_threads(function: Callable[[Any], Any], items: Collection[Any], what: str) -> list[Any]:
    """Return what a function returns for each item, with a bar of the progress."""
    with ThreadPool(NUM_THREADS) as pool:
        return list(TQDM(pool.imap(function, items), desc=what, total=len(items)))


def split_items(value: str | Sequence[str]) -> list[str]:
    """Return the items of an option that is "a,b" or a sequence."""
    items = value.split(",") if isinstance(value, str) else value
    return [item.strip() for item in items if item.strip()]


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text in UTF-8; raise ConfigError if it is in another encoding."""
    try:
        return file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as e:
        raise ConfigError(f"{file} is not in UTF-8; save it as UTF-8") from e


def read_classes(classes: str | Sequence[str] | None) -> list[str] | None:
    """Return the names that the option `classes` means, "a,b" or the path of a `.txt` with one a line."""
    if isinstance(classes, str) and classes.endswith(".txt"):
        classes = read_lines(Path(classes))
    names = split_items(classes or ())
    if len({*names}) < len(names):
        raise ConfigError(f"classes={classes}: a name is there twice")
    return names or None


def shorten(lines: Sequence[str]) -> list[str]:
    """Return as many lines as are printed, indented, and how many more there are."""
    more = [f"and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    return [f"  {line}" for line in [*lines[:SHOWN], *more]]


def shorten_text(value: Any, most: int = 100) -> str:
    """Return what a file holds as text that fits into a line."""
    text = str(value)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= most else f"{text[:most]}..."
