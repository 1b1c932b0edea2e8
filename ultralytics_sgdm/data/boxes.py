"""Conventions of annotated boxes, chosen by the user or guessed from all boxes of a dataset, and rotated boxes."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .dataset import Object, Sample, Split, plural

BOXES = ("auto", "voc", "zero", "fraction")
FRACTIONAL = 0.01  # of all boxes; VOC2012 has a few with fractions, tools that write fractions have them nearly always
LARGEST_FRACTION = 1.01  # of the image; Ultralytics tolerates as much


def guess_boxes(splits: Iterable[Split]) -> str:
    """Return the convention of `BOXES` that the boxes of a dataset, as annotated, seem to follow."""
    boxes = [o for split in splits for sample in split.samples for o in sample.objects if o.angle is None]
    if any(map(_is_fraction, boxes)) and all(max(o.box) <= LARGEST_FRACTION for o in boxes):
        return "fraction"
    boxes = [o for o in boxes if not _is_fraction(o)]  # those of images that will be left out
    fractional = sum(any(side % 1 for side in o.box) for o in boxes)
    at_zero = any(o.left == 0 or o.top == 0 for o in boxes)
    return "zero" if at_zero or fractional > FRACTIONAL * len(boxes) else "voc"


def in_pixels(split: Split, boxes: str) -> Split:
    """Return a split with upright boxes in pixels counted from 0, where until now they are as annotated.

    Left out are images whose boxes are fractions of the image where pixels are expected, or the other way round.
    """
    samples = []
    for s in split.samples:
        is_fraction = boxes == "fraction"
        odd = [o for o in s.objects if (max(o.box) > LARGEST_FRACTION if is_fraction else _is_fraction(o))]
        if odd:
            seems = f"{'pixels' if is_fraction else 'fractions of the image'}, but boxes={boxes}: {odd[0]}"
            lost = f"left out is the image with its {plural(len(s.objects), 'object')}"
            split.skipped.append(f"{s.where}{odd[0].where}: {seems}; {lost}")
        else:
            s.objects = [_turn(_in_pixels(o, boxes, s)) for o in s.objects]
            samples.append(s)
    if rotated := sum(bool(o.angle) for s in samples for o in s.objects):
        split.notes.append(f"{plural(rotated, 'rotated box')}: the label is the upright box around it")
    split.samples = samples
    return split


def _is_fraction(o: Object) -> bool:
    """Return whether a box lies in the first pixel, as one in fractions of the image does."""
    return max(o.box) <= LARGEST_FRACTION and min(o.box) >= 0 and any(side % 1 for side in o.box)


def _in_pixels(o: Object, boxes: str, s: Sample) -> Object:
    if boxes == "fraction":
        w, h = s.width, s.height
        return o._replace(left=o.left * w, top=o.top * h, right=o.right * w, bottom=o.bottom * h)
    if boxes == "voc" and o.angle is None and o.right > o.left and o.bottom > o.top:  # else it stays without area
        return o._replace(left=o.left - 1, top=o.top - 1)
    return o


def _turn(o: Object) -> Object:
    w, h = (o.right - o.left) / 2, (o.bottom - o.top) / 2
    if not o.angle or w <= 0 or h <= 0:
        return o
    x, y, sin, cos = o.left + w, o.top + h, *(abs(f(math.radians(o.angle))) for f in (math.sin, math.cos))
    w, h = w * cos + h * sin, w * sin + h * cos
    return o._replace(left=x - w, top=y - h, right=x + w, bottom=y + h)
