"""The layout that Ultralytics trains on, in a folder that is either complete or visibly not.

DEST/images/SPLIT/ID.jpg   the source's image: a hard link, a copy or a symbolic link
DEST/labels/SPLIT/ID.txt   a row per object: class x y width height; centre and size relative to the image
DEST/SPLIT.txt             the images of the split; the validation split's list appears last of all files
DEST/data.yaml             what `yolo train data=` takes
DEST/conversion.json       the options, the counts, and what was skipped and why
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml
from filelock import FileLock
from PIL import Image
from ultralytics.utils import LOGGER, TQDM

from ..configs import ConfigError
from .files import PLACING, naming_disk_errors, place_file, require_space, write_file

RECORD = "conversion.json"
DATASET_YAML = "data.yaml"
DIFFICULT = ("drop", "keep")
SHOWN = 20  # lines of what was skipped that are printed
SMALLEST = 10  # pixels; Ultralytics refuses images with a shorter side


class Object(NamedTuple):
    """One annotated object; its box in pixels from the image's top left corner, as continuous coordinates."""

    name: str
    left: float
    top: float
    right: float
    bottom: float
    difficult: bool
    where: int


@dataclass
class Sample:
    """One image and its objects; `place` and an object's `where` together tell where the object is annotated."""

    id: str
    image: Path
    width: int
    height: int
    intact: bool
    place: str
    objects: list[Object] = field(default_factory=list)


@dataclass
class Split:
    """The samples of a split, and a line for each image or box that is not among them."""

    samples: list[Sample] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class Expected(NamedTuple):
    """The published counts of a split: images, annotated objects, and those of them that are not difficult."""

    images: int
    objects: int | None = None
    not_difficult: int | None = None


class BadImageError(ValueError):
    """An image cannot be used; the message says why."""


class BadBoxError(ValueError):
    """A box cannot be used; the message says why."""


def inspect_image(path: Path, annotated: tuple[int, int] | None = None) -> tuple[int, int, bool]:
    """Read what training will see of an image, from its header.

    Args:
        path: The image.
        annotated: Width and height that its annotation claims, if it does.

    Returns:
        Width and height in pixels, turned upright as Ultralytics does, and False for a JPEG without its end marker,
        a file that Ultralytics rewrites in place.

    Raises:
        BadImageError: If the image is unreadable, too small for Ultralytics, or not as large as annotated.
    """
    try:
        with path.open("rb") as file, Image.open(file) as image:
            width, height = image.size
            if image.getexif().get(0x0112) in {5, 6, 7, 8}:  # Orientation: lies on its side
                width, height = height, width
            intact = image.format != "JPEG" or (file.seek(-2, 2) and file.read() == b"\xff\xd9")
    except FileNotFoundError:
        raise BadImageError("no such image") from None
    except (OSError, SyntaxError, ValueError, ImportError, Image.DecompressionBombError) as e:
        # ImportError: Ultralytics makes Image.open ask for a HEIF reader when it does not know a file
        raise BadImageError(f"unreadable image ({e})") from e
    if min(width, height) < SMALLEST:
        raise BadImageError(f"{width}x{height} pixels, a side below the {SMALLEST} that Ultralytics takes")
    if annotated and annotated != (width, height):
        raise BadImageError(f"{width}x{height} pixels, but its annotation says {annotated[0]}x{annotated[1]}")
    return width, height, intact


def check_id(name: str) -> str:
    """Return the id of an image, a relative path without suffix, in normal form.

    Raises:
        BadImageError: If files of that name would not stand where Ultralytics looks, or outside the data set.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or {"..", "images"} & {*path.parts} or "\\" in name or ":" in name:
        raise BadImageError("this name leaves the data set's folder")
    return str(path)


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raise ConfigError unless the value of the option `name` is one of `allowed`."""
    if value not in allowed:
        raise ConfigError(f"{name}={value} must be one of {', '.join(map(str, allowed))}")


@contextlib.contextmanager
def claimed(dest: Path, options: Mapping[str, Any]) -> Iterator[None]:
    """Hold the folder `dest` for one conversion with these options.

    Raises:
        ConfigError: If the folder holds a data set that was not made by such a conversion; nothing is changed then.
    """
    check_choice("images", options["images"], PLACING)
    if dest.exists() and not dest.is_dir():
        raise ConfigError(f"{dest} is not a folder")
    with naming_disk_errors(dest):
        dest.mkdir(parents=True, exist_ok=True)
        with FileLock(dest / ".lock"):
            _check_record(dest, json.loads(json.dumps(options)))
            yield


def check_unclaimed(dest: Path) -> None:
    """Raise ConfigError if a folder holds a data set that no conversion wrote."""
    taken = [name for name in ("images", "labels", DATASET_YAML) if (dest / name).exists()]
    if taken and not (dest / RECORD).is_file():
        raise ConfigError(f"{dest} already holds {' and '.join(taken)} of something else; choose another folder")


def _check_record(dest: Path, options: dict[str, Any]) -> None:
    record = dest / RECORD
    check_unclaimed(dest)
    if not record.is_file():
        return
    try:
        made_with = json.loads(record.read_text(encoding="utf-8"))["options"]
    except (ValueError, KeyError, TypeError) as e:
        raise ConfigError(f"{record} is no record of a conversion; choose another folder") from e
    for key in options.keys() | made_with.keys():
        if options.get(key) != made_with.get(key):
            raise ConfigError(
                f"{dest} was made with {key}={made_with.get(key)}, not {key}={options.get(key)}; "
                "choose another folder, or delete this one"
            )


def write_set(
    dest: Path,
    splits: Mapping[str, Split],
    roles: Mapping[str, str],
    classes: Sequence[str],
    options: Mapping[str, Any],
    notes: Mapping[str, Any],
    keep_difficult: Sequence[str] = (),
    strict: bool = False,
    expected: Mapping[str, Expected] | None = None,
) -> Path:
    """Write a claimed folder, complete it, or leave it as it is if nothing is missing.

    Args:
        dest: Folder that `claimed` holds.
        splits: The samples of each split.
        roles: Split of each of Ultralytics' roles: "train", "val", perhaps "test".
        classes: Class names in the order of their numbers; objects of others are left out.
        options: What the folder was claimed with.
        notes: Further facts for the record.
        keep_difficult: Splits whose `difficult` objects stay objects.
        strict: Whether anything that is skipped is an error.
        expected: Published counts of splits.

    Returns:
        The data set's YAML.

    Raises:
        ConfigError: If a split is empty or not as large as expected, if the disk has no room, or, when strict, if
            anything is skipped; nothing has been written then.
    """
    labels: dict[str, list[str]] = {}
    report: dict[str, dict[str, Any]] = {}
    for name, split in splits.items():
        labels[name], report[name] = _label(split, classes, name in keep_difficult)
    _check(dest, splits, report, strict, expected or {})
    if options["images"] == "copy":
        _require_space_for_copies(dest, splits)
    if not (dest / RECORD).is_file():
        write_file(dest / RECORD, _json({"options": options}))

    for name, split in splits.items():
        for folder in {(dest / kind / name / s.id).parent for s in split.samples for kind in ("images", "labels")}:
            folder.mkdir(parents=True, exist_ok=True)
        for sample, rows in TQDM(
            zip(split.samples, labels[name], strict=True), desc=f"Writing {name}", total=len(split.samples)
        ):
            write_file(dest / "labels" / name / f"{sample.id}.txt", rows.encode())
            image = dest / "images" / name / f"{sample.id}{sample.image.suffix}"
            place_file(sample.image, image, options["images"] if sample.intact else "copy")
    data = {role: f"{name}.txt" for role, name in roles.items()} | {"names": dict(enumerate(classes))}
    write_file(dest / DATASET_YAML, yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode())
    record = {
        "options": options,
        **notes,
        "splits": report,
        "in_several_splits": _count_shared(splits),
        "skipped": {name: split.skipped for name, split in splits.items()},
    }
    write_file(dest / RECORD, _json(record))
    for name in sorted(splits, key=lambda name: name == roles["val"]):
        lines = (f"./images/{name}/{s.id}{s.image.suffix}\n" for s in splits[name].samples)
        write_file(dest / f"{name}.txt", "".join(lines).encode())
    _print(dest, record, classes, notes)
    return dest / DATASET_YAML


def _label(split: Split, classes: Sequence[str], keep_difficult: bool) -> tuple[list[str], dict[str, Any]]:
    """Return the label file of each sample and the split's entry in the record; tells the split what is skipped."""
    numbers = {name: i for i, name in enumerate(classes)}
    images, objects, other = Counter(), Counter(), Counter()
    difficult = clipped = backgrounds = 0
    files = []
    for s in split.samples:
        rows: dict[str, str] = {}  # the class of each row
        for o in s.objects:
            difficult += o.difficult
            if o.difficult and not keep_difficult:
                continue
            if o.name not in numbers:
                other[o.name] += 1
                continue
            try:
                box = _clip(o, s)
                row = _row(numbers[o.name], box, s)
                if row in rows:
                    raise BadBoxError("the same object again")
            except BadBoxError as e:
                written = f"({o.left:g}, {o.top:g})-({o.right:g}, {o.bottom:g}) of {o.name}"
                split.skipped.append(f"{s.place}{o.where}: {e} {written}")
            else:
                clipped += box != o[1:5]
                rows[row] = o.name
        files.append("".join(rows))
        backgrounds += not rows
        objects.update(rows.values())
        images.update(set(rows.values()))
    return files, {
        "images": len(split.samples),
        "backgrounds": backgrounds,
        "objects": objects.total(),
        "annotated": sum(len(s.objects) for s in split.samples),
        "difficult": difficult,
        "difficult_policy": "keep" if keep_difficult else "drop",
        "clipped": clipped,
        "other_classes": dict(other),
        "images_per_class": {c: images[c] for c in classes},
        "objects_per_class": {c: objects[c] for c in classes},
    }


def _clip(o: Object, s: Sample) -> tuple[float, float, float, float]:
    if o.left >= o.right or o.top >= o.bottom:
        raise BadBoxError("box without area")
    left, top, right, bottom = max(o.left, 0), max(o.top, 0), min(o.right, s.width), min(o.bottom, s.height)
    if left >= right or top >= bottom:
        raise BadBoxError("box outside the image")
    return left, top, right, bottom


def _row(number: int, box: tuple[float, float, float, float], s: Sample) -> str:
    left, top, right, bottom = box
    x, y = (left + right) / 2 / s.width, (top + bottom) / 2 / s.height
    w, h = (right - left) / s.width, (bottom - top) / s.height
    return f"{number} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n"


def _check(
    dest: Path,
    splits: Mapping[str, Split],
    report: Mapping[str, dict[str, Any]],
    strict: bool,
    expected: Mapping[str, Expected],
) -> None:
    def reasons(*names: str) -> str:
        lines = [line for name in names for line in splits[name].skipped]
        return "".join(f"\n  {line}" for line in _shorten(lines))

    if strict and any(s.skipped for s in splits.values()):
        raise ConfigError(f"strict=True, and these would be skipped:{reasons(*splits)}")
    for name, split in splits.items():
        if not split.samples:
            raise ConfigError(f"{dest}: the split {name} would have no images{reasons(name)}")
    for name, wanted in expected.items():
        annotated, difficult = report[name]["annotated"], report[name]["difficult"]
        found = Expected(report[name]["images"], annotated, annotated - difficult)
        for what, number in wanted._asdict().items():
            if number not in {None, getattr(found, what)}:
                raise ConfigError(
                    f"{dest}: the split {name} has {getattr(found, what):,} {what.replace('_', ' ')}, {number:,} are "
                    f"published; the source is incomplete or changed{reasons(name)}"
                )


def _count_shared(splits: Mapping[str, Split]) -> int:
    """Return how many images are in more than one split: a model is validated on what it was trained on."""
    counts = Counter(s.image for split in splits.values() for s in split.samples)
    return sum(number > 1 for number in counts.values())


def _shorten(lines: Sequence[str]) -> list[str]:
    rest = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"and {rest} more"] if rest > 0 else [])]


def _require_space_for_copies(dest: Path, splits: Mapping[str, Split]) -> None:
    needed = 0
    for name, split in splits.items():
        for s in split.samples:
            if not (dest / "images" / name / f"{s.id}{s.image.suffix}").exists():
                needed += s.image.stat().st_size
    require_space(dest, needed)


def _print(dest: Path, record: Mapping[str, Any], classes: Sequence[str], notes: Mapping[str, Any]) -> None:
    head, splits = "images / objects", record["splits"]
    width = max(map(len, (*classes, head)))
    lines = [f"{head:<{width}}" + "".join(f"{name:>18}" for name in splits)]
    for c in classes:
        cells = (f"{s['images_per_class'][c]:,} / {s['objects_per_class'][c]:,}" for s in splits.values())
        lines.append(f"{c:<{width}}" + "".join(f"{cell:>18}" for cell in cells))
    totals = (f"{s['images']:,} / {s['objects']:,}" for s in splits.values())
    lines.append(f"{'all':<{width}}" + "".join(f"{cell:>18}" for cell in totals))
    lines.append(f"{'background':<{width}}" + "".join(f"{s['backgrounds']:>18,}" for s in splits.values()))
    lines += [f"{key}={value}" for key, value in notes.items()]
    for name, s in splits.items():
        if s["difficult"]:
            done = "kept" if s["difficult_policy"] == "keep" else "dropped"
            lines.append(f"{name}: {s['difficult']:,} difficult (COCO: crowd) objects {done}")
        if s["clipped"]:
            lines.append(f"{name}: {s['clipped']:,} boxes clipped to their image")
        for c, number in s["other_classes"].items():
            lines.append(f"{name}: {number:,} objects of {c!r} left out, which is not in classes")
    if record["in_several_splits"]:
        lines.append(f"WARNING: {record['in_several_splits']:,} images are in several splits")
    skipped = [f"{name}: {line}" for name, them in record["skipped"].items() for line in them]
    lines += [f"skipped: {len(skipped)}", *(f"  {line}" for line in _shorten(skipped))]
    LOGGER.info("\n".join([*lines, f"data={dest / DATASET_YAML}"]))


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
