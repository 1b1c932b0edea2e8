"""What the four numbers of an annotated box mean: told by the user, or guessed from all boxes of a set."""

from __future__ import annotations

from collections.abc import Iterable

from .layout import Object, Sample, Split

BOXES = ("auto", "voc", "zero", "fraction")
FRACTIONAL = 0.01  # of all boxes; VOC2012 has a few with fractions, tools that write fractions have them nearly always
LARGEST_FRACTION = 1.01  # of the picture; Ultralytics tolerates as much


def guess_boxes(splits: Iterable[Split]) -> str:
    """Return the convention of `BOXES` that the boxes of a set, as written, seem to follow."""
    boxes = [o for split in splits for sample in split.samples for o in sample.objects]
    if any(map(_is_fraction, boxes)) and all(max(o[1:5]) <= LARGEST_FRACTION for o in boxes):
        return "fraction"
    boxes = [o for o in boxes if not _is_fraction(o)]  # those of images that will be skipped
    fractional = sum(any(side % 1 for side in o[1:5]) for o in boxes)
    at_zero = any(o.left == 0 or o.top == 0 for o in boxes)
    return "zero" if at_zero or fractional > FRACTIONAL * len(boxes) else "voc"


def in_pixels(split: Split, boxes: str) -> Split:
    """Return a split with its boxes, until now as written, in pixels counted from 0.

    Args:
        split: Its `skipped` gets a line for each image that is left out because its boxes are fractions of the picture
            where pixels are expected, or the other way round.
        boxes: One of `BOXES` other than "auto".
    """
    samples = []
    for sample in split.samples:
        odd = next((o for o in sample.objects if _is_odd(o, boxes)), None)
        if odd:
            seems = "pixels" if boxes == "fraction" else "fractions of the picture"
            box = f"({odd.left:g}, {odd.top:g})-({odd.right:g}, {odd.bottom:g}) of {odd.name}"
            split.skipped.append(
                f"{sample.place}{odd.where}: {seems}, but boxes={boxes}: {box}; left out is the image with its "
                f"{len(sample.objects)} objects"
            )
        else:
            sample.objects = [_in_pixels(o, boxes, sample) for o in sample.objects]
            samples.append(sample)
    split.samples = samples
    return split


def _is_fraction(o: Object) -> bool:
    """Whether a box lies in the first pixel, as one in fractions of the picture does."""
    sides = o[1:5]
    return max(sides) <= LARGEST_FRACTION and min(sides) >= 0 and any(side % 1 for side in sides)


def _is_odd(o: Object, boxes: str) -> bool:
    return max(o[1:5]) > LARGEST_FRACTION if boxes == "fraction" else _is_fraction(o)


def _in_pixels(o: Object, boxes: str, sample: Sample) -> Object:
    """Return a box as continuous coordinates; one that ends where it begins stays so in any convention."""
    if boxes == "fraction":
        w, h = sample.width, sample.height
        return o._replace(left=o.left * w, top=o.top * h, right=o.right * w, bottom=o.bottom * h)
    if boxes == "voc" and o.right > o.left and o.bottom > o.top:
        return o._replace(left=o.left - 1, top=o.top - 1)
    return o
