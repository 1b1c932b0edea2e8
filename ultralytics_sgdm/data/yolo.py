"""The writer of datasets in the layout that Ultralytics trains on; every converter ends here.

DEST/images/SPLIT/ID.jpg   the source's image: a hard link, a copy or a symbolic link
DEST/labels/SPLIT/ID.txt   a row per object: class x y width height; centre and size relative to the image
DEST/SPLIT.txt             the images of the split
DEST/data.yaml             what `yolo train data=` takes
DEST/conversion.json       the options, the counts, and what was left out and why
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ultralytics.utils import LOGGER, TQDM

from ..errors import ConfigError, did_you_mean, pluralize
from .dataset import Object, Sample, Split, shorten
from .folders import create_folder, place_file
from .images import find_label

HEAD = "images / objects"


def write_dataset(
    dest: Path,
    splits: Mapping[str, Split],
    classes: Sequence[str] | None,
    boxes: str,
    options: Mapping[str, Any],
    keep_difficult: Sequence[str] = (),
    expected: Mapping[str, Mapping[str, int]] | None = None,
    files: Mapping[str, Path] | None = None,
) -> Path:
    """Write a new folder, or none at all, print the report, and return the data YAML.

    `boxes` is the convention that the boxes had, `expected` the published counts, `files` what else is placed there.
    """
    classes = classes or sorted({o.name for split in splits.values() for s in split.samples for o in s.objects})
    labels, counts = {}, {}
    for name, split in splits.items():
        labels[name], counts[name] = _label(split, classes, name in keep_difficult)
    if problem := _find_problem(splits, classes, counts, options["strict"], expected or {}):
        what, names = problem
        lines = [line for name in names for line in (*splits[name].skipped, *splits[name].notes)]
        raise ConfigError(f"{dest}: {what}" + "".join(f"\n  {line}" for line in shorten(lines)))
    record = {
        "options": options,
        "boxes": boxes,
        "splits": counts,
        "in_several_splits": _find_shared(splits),
        "notes": {name: split.notes for name, split in splits.items()},
        "skipped": {name: split.skipped for name, split in splits.items()},
    }
    with create_folder(dest) as part:
        for path, source in (files or {}).items():
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            place_file(source, part / path, options["images"])
        for name, split in splits.items():
            lines = []
            for sample, rows in TQDM(list(zip(split.samples, labels[name], strict=True)), desc=f"Writing {name}"):
                image = f"images/{name}/{sample.id}{sample.image.suffix}"
                label = find_label(part / image)
                for folder in ((part / image).parent, label.parent):
                    folder.mkdir(parents=True, exist_ok=True)
                place_file(sample.image, part / image, options["images"] if sample.intact else "copy")
                label.write_text(rows)
                lines.append(f"./{image}\n")
            (part / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
        described = {"train": None, **{_get_role(name): f"{name}.txt" for name in splits}}
        text = yaml.safe_dump(described | {"names": dict(enumerate(classes))}, sort_keys=False, allow_unicode=True)
        (part / "data.yaml").write_text(text, "utf-8")
        (part / "conversion.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")
    LOGGER.info("\n".join([*_format_report(classes, record), f"data={dest / 'data.yaml'}"]))
    return dest / "data.yaml"


def _get_role(split: str) -> str:
    """Return the key of a split in a data YAML: "val" for "val2017"."""
    return split.rstrip("0123456789")


def _label(split: Split, classes: Sequence[str], keep_difficult: bool) -> tuple[list[str], dict[str, Any]]:
    """Return the label of each sample and the counts of the split; `skipped` of it gets the boxes left out."""
    numbers = {name: i for i, name in enumerate(classes)}
    other: Counter[str] = Counter()
    annotated = difficult = clipped = 0
    labels: list[dict[str, str]] = []  # the class of each row
    for s in split.samples:
        rows: dict[str, str] = {}
        for o in s.objects:
            annotated += 1
            difficult += o.difficult
            if o.difficult and not keep_difficult:
                continue
            if o.name not in numbers:
                other[o.name] += 1
                continue
            row, problem = _format_label(numbers[o.name], o, s)
            if problem or row in rows:
                split.skipped.append(f"{s.where}{o.where}: {problem or 'the same object again'} {o}")
            else:
                clipped += min(o.left, o.top) < 0 or o.right > s.width or o.bottom > s.height
                rows[row] = o.name
        labels.append(rows)
    return ["".join(rows) for rows in labels], {
        **count_classes([[*rows.values()] for rows in labels], classes),
        "annotated": annotated,
        "not_difficult": annotated - difficult,
        "difficult": difficult,
        "difficult_policy": "keep" if keep_difficult else "drop",
        "clipped": clipped,
        "other_classes": dict(other),
    }


def _format_label(number: int, o: Object, s: Sample) -> tuple[str, str]:
    """Return the row of an object, or else why there is none."""
    left, top, right, bottom = max(o.left, 0), max(o.top, 0), min(o.right, s.width), min(o.bottom, s.height)
    x, y = (left + right) / 2 / s.width, (top + bottom) / 2 / s.height
    w, h = f"{(right - left) / s.width:.6f}", f"{(bottom - top) / s.height:.6f}"
    if o.left < o.right and o.top < o.bottom and (left >= right or top >= bottom):
        return "", "box outside the image"
    if o.left >= o.right or o.top >= o.bottom or "0.000000" in {w, h}:
        return "", "box without area"
    return f"{number} {x:.6f} {y:.6f} {w} {h}\n", ""


def _find_problem(
    splits: Mapping[str, Split],
    classes: Sequence[str],
    counts: Mapping[str, Any],
    strict: bool,
    expected: Mapping[str, Mapping[str, int]],
) -> tuple[str, list[str]] | None:
    """Return why a dataset must not be written, and the splits whose lines say more."""
    if strict and any(s.skipped for s in splits.values()):
        return "strict=True, and these would be left out:", [*splits]
    for name, split in splits.items():
        if not split.samples:
            return f"the split {name} would have no images", [name]
    train = [name for name in counts if _get_role(name) == "train"] or list(counts)
    if not any(counts[name]["objects"] for name in train):
        others = sorted({c for name in train for c in counts[name]["other_classes"]})
        why = f"; the names in the data are {', '.join(map(repr, shorten(others)))}" if others else ""
        why += "".join(did_you_mean(c, others) for c in classes)
        if difficult := sum(counts[name]["difficult"] for name in train):
            why += f"; difficult (COCO: crowd) are {difficult:,}"
        return f"{' and '.join(train)} would have no object at all{why}", train
    for name, wanted in expected.items():
        for what, number in wanted.items():
            if counts[name][what] != number:
                has = f"{counts[name][what]:,} {what.replace('_', ' ')}, {number:,} are published"
                return f"the split {name} has {has}; the source is incomplete or changed", [name]
    return None


def _find_shared(splits: Mapping[str, Split]) -> list[str]:
    """Return the images that are in more than one split: a model is validated on what it was trained on."""
    ids = {s.image: s.id for split in splits.values() for s in split.samples}
    counts = Counter(image for split in splits.values() for image in dict.fromkeys(s.image for s in split.samples))
    return [ids[image] for image, number in counts.items() if number > 1]


def _format_report(classes: Sequence[str], record: Mapping[str, Any]) -> list[str]:
    splits = record["splits"]
    lines = format_classes(classes, splits)
    lines.append(format_row("background", (f"{s['backgrounds']:,}" for s in splits.values()), classes))
    lines.append(f"boxes={record['boxes']}")
    for name, s in splits.items():
        if s["difficult"]:
            done = "kept" if s["difficult_policy"] == "keep" else "dropped"
            lines.append(f"{name}: {pluralize(s['difficult'], 'difficult (COCO: crowd) object')} {done}")
        if s["clipped"]:
            lines.append(f"{name}: {pluralize(s['clipped'], 'box')} clipped to the image")
        for c, number in s["other_classes"].items():
            near = "".join(did_you_mean(c, [k]) for k in classes if not s["objects_per_class"][k])
            lines.append(f"{name}: {pluralize(number, 'object')} of {c!r} left out, which is not in classes{near}")
        lines += [f"{name}: {note}" for note in shorten(record["notes"][name])]
    if shared := record["in_several_splits"]:
        lines.append(f"WARNING: in several splits: {pluralize(len(shared), 'image')}: {', '.join(shorten(shared))}")
    if not any(_get_role(name) == "train" for name in splits):
        lines.append("no training split: the dataset is for `yolo val`")
    skipped = [f"{name}: {line}" for name, them in record["skipped"].items() for line in them]
    return [*lines, f"left out: {len(skipped):,}", *(f"  {line}" for line in shorten(skipped))]


def count_classes(images: Sequence[Sequence[str]], names: Iterable[str]) -> dict[str, Any]:
    """Return the counts of a split, in all and by class, from the classes of the objects of each image."""
    objects = Counter(name for classes in images for name in classes)
    with_class = Counter(name for classes in images for name in {*classes})
    return {
        "images": len(images),
        "backgrounds": sum(not classes for classes in images),
        "objects": objects.total(),
        "images_per_class": {name: with_class[name] for name in names},
        "objects_per_class": {name: objects[name] for name in names},
    }


def format_classes(names: Sequence[str], splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table of counts, a row per class and a column per split."""
    lines = [format_row(HEAD, splits, names)]
    for c in names:
        cells = (f"{s['images_per_class'][c]:,} / {s['objects_per_class'][c]:,}" for s in splits.values())
        lines.append(format_row(c, cells, names))
    return [*lines, format_row("all", (f"{s['images']:,} / {s['objects']:,}" for s in splits.values()), names)]


def format_row(title: str, cells: Iterable[str], names: Sequence[str]) -> str:
    """Return one row for the table of these classes."""
    return f"{title:<{max(map(len, (*names, HEAD)))}}" + "".join(f"{cell:>18}" for cell in cells)
