"""The writer of datasets in the layout that Ultralytics trains on (see docs/data.md); every converter ends here.

A folder is written under a name of its own beside its destination (`.NAME.part-XXXXXXXX`) and renamed when it is
complete. A killed process leaves at most such a folder, which no later run reads or needs.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ultralytics.utils import LOGGER, TQDM

from ..errors import ConfigError, did_you_mean, pluralize
from .dataset import Sample, Split, convert_boxes, shorten
from .images import find_label

CHOICES = {
    "boxes": ("auto", "voc", "zero", "fraction"),
    "difficult": ("drop", "keep"),
    "val_difficult": ("drop", "keep"),
    "images": ("hardlink", "copy", "symlink"),
    "strict": (True, False),
}


def check_arguments(dest: Path, options: Mapping[str, Any]) -> None:
    """Raise ConfigError unless a folder can be made at `dest` and each option has a value that it may have."""
    for name in options.keys() & CHOICES.keys():
        if options[name] not in CHOICES[name]:
            raise ConfigError(f"{name}={options[name]} must be one of {', '.join(map(str, CHOICES[name]))}")
    if os.path.lexists(dest):
        raise ConfigError(f"{dest} exists and is left as it is; name a new folder")
    above = next(folder for folder in dest.parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ConfigError(f"{dest} cannot be made: {above} is not a folder that you may write to")


@contextlib.contextmanager
def create_folder(dest: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `dest` that becomes `dest` if the block ends without an error."""
    check_arguments(dest, {})
    part = dest.with_name(f".{dest.name}.part-{secrets.token_hex(4)}")
    part.mkdir(parents=True)
    try:
        yield part
        part.rename(dest)  # fails if something is there by now
    finally:
        shutil.rmtree(part, ignore_errors=True)


def place_file(source: Path, target: Path, how: str) -> None:
    """Make the new file `target` a hard link to `source`, a copy of it or a symbolic link, as `images=` says."""
    try:
        if how == "hardlink":
            os.link(os.path.realpath(source), target)  # link(2) would link to a symbolic link itself
        elif how == "symlink":
            target.symlink_to(source.absolute())
        else:
            shutil.copy2(source, target)
    except OSError as e:
        others = " or ".join(f"images={choice}" for choice in CHOICES["images"] if choice != how)
        raise ConfigError(f"cannot {how} {source} ({e.strerror}); use {others}") from e


def write_dataset(dest: Path, splits: Mapping[str, Split], options: Mapping[str, Any]) -> Path:
    """Write a new folder, or none at all, print the report, and return the data YAML.

    `options` are those of the converter, and where they apply `published`, counts that the splits must have, and
    `files`, what else is placed in the folder, by its path there.
    """
    boxes = convert_boxes(splits.values(), options["boxes"])
    names = {o.name for split in splits.values() for s in split.samples for o in s.objects}
    classes = options["classes"] or sorted(names)
    counts = {}
    for name, split in splits.items():
        policy = options.get("difficult" if _get_role(name) == "train" else "val_difficult", "drop")
        counts[name] = _label(split, classes, policy)
    if problem := _find_problem(splits, counts, options):
        lines = [line for split in splits.values() for line in split.skipped]
        raise ConfigError("\n".join([f"{dest}: {problem}", *shorten(lines)]))
    owners = Counter((s.image, s.id) for split in splits.values() for s in split.samples)
    record = {
        "options": options,
        "boxes": boxes,
        "splits": counts,
        "in_several_splits": [name for (_, name), number in owners.items() if number > 1],
        "skipped": {name: split.skipped for name, split in splits.items()},
    }
    with create_folder(dest) as part:
        for path, source in options.get("files", {}).items():
            (part / path).parent.mkdir(exist_ok=True)
            place_file(Path(source), part / path, options["images"])
        for name, split in splits.items():
            lines = []
            for sample in TQDM(split.samples, desc=f"Writing {name}"):
                image = f"images/{name}/{sample.id}{sample.image.suffix}"
                label = find_label(part / image)
                for folder in ((part / image).parent, label.parent):
                    folder.mkdir(parents=True, exist_ok=True)
                place_file(sample.image, part / image, options["images"] if sample.is_intact else "copy")
                label.write_text("".join(sample.rows))
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


def _label(split: Split, classes: Sequence[str], policy: str) -> dict[str, Any]:
    """Write the rows of each sample and return the counts of the split; its `skipped` gets the boxes left out."""
    numbers = {name: i for i, name in enumerate(classes)}
    counts = Counter(dict.fromkeys(("annotated", "not_difficult", "difficult", "clipped", "rotated"), 0))
    other: Counter[str] = Counter()
    for s in split.samples:
        for o in s.objects:
            counts["annotated"] += 1
            counts["difficult" if o.difficult else "not_difficult"] += 1
            if o.difficult and policy == "drop":
                continue
            if o.name not in numbers:
                other[o.name] += 1
                continue
            row, problem = _format_label(numbers[o.name], o.box, s)
            if problem or row in s.rows:
                split.skipped.append(f"{s.where}: {o.where}: {problem or 'the same object again'} {o}")
            else:
                s.rows[row] = o.name
                counts["clipped"] += min(o.box) < 0 or o.box[2] > s.width or o.box[3] > s.height
                counts["rotated"] += bool(o.angle)
    by_class = count_classes([[*s.rows.values()] for s in split.samples], classes)
    return {**by_class, **counts, "difficult_policy": policy, "other_classes": dict(other)}


def _format_label(number: int, box: Sequence[float], s: Sample) -> tuple[str, str]:
    """Return the row of an object, or else why there is none."""
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], s.width), min(box[3], s.height)
    x, y = (left + right) / 2 / s.width, (top + bottom) / 2 / s.height
    w, h = f"{(right - left) / s.width:.6f}", f"{(bottom - top) / s.height:.6f}"
    has_area = box[0] < box[2] and box[1] < box[3]
    if has_area and (left >= right or top >= bottom):
        return "", "box outside the image"
    if not has_area or "0.000000" in {w, h}:
        return "", "box without area"
    return f"{number} {x:.6f} {y:.6f} {w} {h}\n", ""


def _find_problem(splits: Mapping[str, Split], counts: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Return why a dataset must not be written, or ""."""
    if options["strict"] and any(s.skipped for s in splits.values()):
        return "strict=True, and these would be left out:"
    for name, split in splits.items():
        if not split.samples:
            return f"the split {name} would have no images"
    train = [counts[name] for name in counts if _get_role(name) == "train"] or [*counts.values()]
    if not any(c["objects"] for c in train):
        others = ", ".join(sorted({name for c in train for name in c["other_classes"]}))
        difficult = sum(c["difficult"] for c in train)
        left = f"{difficult:,} difficult (COCO: crowd), and those of other classes ({others or 'none'})"
        return f"no object at all to train on; left out are {left}"
    for name, published in options.get("published", {}).items():
        found = {what: counts[name][what] for what in published}
        if found != published:
            return f"the split {name} has {found}, published are {published}; the source is incomplete or changed"
    return ""


def _format_report(classes: Sequence[str], record: Mapping[str, Any]) -> list[str]:
    splits = record["splits"]
    lines = format_counts(classes, splits, ("backgrounds", "difficult", "clipped", "rotated"))
    lines.append(f"boxes={record['boxes']}; crowds count as difficult; a rotated box becomes the upright box around it")
    for name, s in splits.items():
        if s["other_classes"]:
            lines.append(f"{name}: left out, for their class is not in classes: {s['other_classes']}")
    others = {name for s in splits.values() for name in s["other_classes"]}
    for name in classes:
        if not any(s["objects_per_class"][name] for s in splits.values()):
            lines.append(f"WARNING: no object of {name!r}{did_you_mean(name, others)}")
    if shared := record["in_several_splits"]:
        lines += [f"WARNING: in several splits: {pluralize(len(shared), 'image')}", *shorten(shared)]
    if not any(_get_role(name) == "train" for name in splits):
        lines.append("no training split: the dataset is for `yolo val`")
    skipped = [f"{name}: {line}" for name, them in record["skipped"].items() for line in them]
    return [*lines, f"left out as faulty: {len(skipped):,}", *shorten(skipped)]


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


def format_counts(names: Sequence[str], splits: Mapping[str, Mapping[str, Any]], kinds: Sequence[str]) -> list[str]:
    """Return the lines of a table with a column per split: a row per class, and one per kind of other counts."""
    rows = [("images / objects", [*splits])]
    for c in names:
        rows.append((c, [f"{s['images_per_class'][c]:,} / {s['objects_per_class'][c]:,}" for s in splits.values()]))
    rows.append(("all", [f"{s['images']:,} / {s['objects']:,}" for s in splits.values()]))
    rows += [(kind, [f"{s[kind]:,}" for s in splits.values()]) for kind in kinds]
    width = max(len(title) for title, _ in rows)
    return [f"{title:<{width}}" + "".join(f"{cell:>18}" for cell in cells) for title, cells in rows]
