"""The layout that Ultralytics trains on, in a folder that is either complete or visibly not.

DEST/images/SPLIT/ID.jpg   the source's image: a hard link, a copy or a symbolic link
DEST/labels/SPLIT/ID.txt   a row per object: class x y width height; centre and size relative to the image
DEST/SPLIT.txt             the images of the split; the validation split's list appears last of all files
DEST/data.yaml             what `yolo train data=` takes
DEST/conversion.json       the options, the counts, and what was skipped and why
DEST/written.sha256        checksum of each text that was written: how a file that the user changed is told from ours
DEST/.journal              of an unfinished set: what was read of the source already
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml
from ultralytics.data.utils import img2label_paths
from ultralytics.utils import LOGGER

from ..configs import ConfigError, near_names
from .files import PLACING, locked, made, naming_disk_errors, needs_placing, read_text, require_space
from .images import BadImageError
from .journal import Journal
from .update import DATASET_YAML, RECORD, WRITTEN, read_written, shorten, update_set

DIFFICULT = ("drop", "keep")
JOURNAL = ".journal"
LONGEST = 240  # bytes of a file's name; file systems take 255, and a suffix and `files.PART` are added


class Object(NamedTuple):
    """One annotated object; its box in pixels from the image's top left corner, as continuous coordinates."""

    name: str
    left: float
    top: float
    right: float
    bottom: float
    difficult: bool
    where: int | str


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
    """The samples of a split, a line for each image or box that is not among them, and what else is to be told."""

    samples: list[Sample] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class Expected(NamedTuple):
    """The published counts of a split: images, annotated objects, and those of them that are not difficult."""

    images: int
    objects: int | None = None
    not_difficult: int | None = None


class BadBoxError(ValueError):
    """A box cannot be used; the message says why."""


def check_id(name: str) -> str:
    """Return the id of an image, a relative path without suffix, in normal form.

    Raises:
        BadImageError: If files of that name would stand outside the data set, or cannot be written in a list.
    """
    path = PurePosixPath(name)
    if "\\" in name:
        raise BadImageError("a \\ in this name; folders are divided by /")
    if path.is_absolute() or not path.parts or ".." in path.parts or (os.name == "nt" and ":" in name):
        raise BadImageError("this name leaves the data set's folder")
    if "\0" in name or len(f"{name}.".splitlines()) > 1 or not _is_unicode(name):
        raise BadImageError("a line of a list cannot hold this name")
    if any(len(os.fsencode(part)) > LONGEST for part in path.parts):
        raise BadImageError(f"a name of more than {LONGEST} bytes")
    return str(path)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raise ConfigError unless the value of the option `name` is one of `allowed`."""
    if value not in allowed:
        raise ConfigError(f"{name}={value} must be one of {', '.join(map(str, allowed))}")


def as_list(value: str | Sequence[str]) -> list[str]:
    """Return the items of an option that is "a,b" or a sequence."""
    parts = str(value).split(",") if isinstance(value, (str, int, float)) else map(str, value)
    return [part.strip() for part in parts if part.strip()]


def class_names(classes: str | Sequence[str] | None) -> list[str] | None:
    """Return the class names that the option `classes` means, "a,b" or the path of a `.txt` with one a line.

    Raises:
        ConfigError: If a name is there twice, or none.
    """
    if classes is None:
        return None
    if isinstance(classes, str) and classes.endswith(".txt"):
        try:
            names = [line.strip() for line in read_text(Path(classes)).splitlines() if line.strip()]
        except ConfigError as e:
            raise ConfigError(f"classes={e}") from e
    else:
        names = as_list(classes)
    repeated = {name for name in names if names.count(name) > 1}
    if repeated or not names:
        raise ConfigError(f"classes={classes}: {f'{repeated.pop()!r} is there twice' if repeated else 'no name in it'}")
    return names


@contextlib.contextmanager
def claimed(dest: Path, options: Mapping[str, Any], splits: Iterable[str] = ()) -> Iterator[Journal]:
    """Hold the folder `dest` for one conversion with these options; yield the journal of what it reads.

    Args:
        dest: The folder; it is made if it is not there.
        options: All that the result depends on; a complete set is not converted again with others.
        splits: Names of the splits that will be written.

    Raises:
        ConfigError: If the folder holds a data set that was not made by such a conversion; nothing is changed then.
    """
    check_choice("images", options["images"], PLACING)
    if dest.exists() and not dest.is_dir():
        raise ConfigError(f"{dest} is not a folder")
    with naming_disk_errors(dest), made(dest), locked(dest / ".lock"):
        check_unclaimed(dest, splits)
        _check_record(dest, json.loads(json.dumps(options)))
        journal = Journal(dest / JOURNAL)
        finished = False
        try:
            yield journal
            finished = True
        except ConfigError:
            finished = True  # nothing to go on with
            raise
        finally:
            journal.close(finished)


def check_unclaimed(dest: Path, splits: Iterable[str] = ()) -> None:
    """Raise ConfigError if a folder holds a data set, or a file of a name that we write, that no conversion wrote."""
    names = ("images", "labels", DATASET_YAML, RECORD, WRITTEN, *(f"{split}.txt" for split in splits))
    taken = [name for name in names if os.path.lexists(dest / name)]
    if taken and not (dest / RECORD).is_file() and RECORD not in read_written(dest):
        raise ConfigError(f"{dest} already holds {' and '.join(taken)} of something else; choose another folder")


def _check_record(dest: Path, options: dict[str, Any]) -> None:
    record = dest / RECORD
    if not record.is_file():
        return
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        made_with = dict(content["options"])
    except (ValueError, KeyError, TypeError) as e:
        raise ConfigError(f"{record} is no record of a conversion; choose another folder") from e
    for key in options.keys() | made_with.keys():
        may_change = key == "images" and "splits" not in content  # no set yet, perhaps because links were impossible
        if options.get(key) != made_with.get(key) and not may_change:
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
    """Write a claimed folder, complete it, bring it up to date, or leave it as it is if nothing is missing.

    Args:
        dest: Folder that `claimed` holds.
        splits: The samples of each split.
        roles: Split of each of Ultralytics' roles: "val", perhaps "train" and "test".
        classes: Class names in the order of their numbers; objects of others are left out.
        options: What the folder was claimed with.
        notes: Further facts for the record.
        keep_difficult: Splits whose `difficult` objects stay objects.
        strict: Whether anything that is skipped is an error.
        expected: Published counts of splits.

    Returns:
        The data set's YAML.

    Raises:
        ConfigError: If a split is empty or not as large as expected, if there is no object at all, if the disk has no
            room, if a file of the set was changed by the user, or, when strict, if anything is skipped; nothing has
            been written then.
    """
    labels: dict[str, list[str]] = {}
    report: dict[str, dict[str, Any]] = {}
    for name, split in splits.items():
        labels[name], report[name] = _label(split, classes, name in keep_difficult)
    _check(dest, splits, classes, report, strict, expected or {})

    texts: dict[str, bytes] = {}  # in the order in which they are written
    images: list[tuple[Path, Path, str]] = []  # source, target, how it is placed
    for name, split in splits.items():
        for sample, rows in zip(split.samples, labels[name], strict=True):
            image = _image_path(name, sample)
            texts[_label_path(image)] = rows.encode()
            how = options["images"] if sample.intact else "copy"
            if _is_missing(sample, dest / image, how):
                images.append((sample.image, dest / image, how))
    if options["images"] == "copy":
        require_space(dest, sum(source.stat().st_size for source, target, _ in images if not target.exists()))
    record = {
        "options": options,
        **notes,
        "splits": report,
        "in_several_splits": _shared(splits),
        "remarks": {name: split.remarks for name, split in splits.items()},
        "skipped": {name: split.skipped for name, split in splits.items()},
    }
    data = {"train": None} | {role: f"{name}.txt" for role, name in roles.items()} | {"names": dict(enumerate(classes))}
    texts[RECORD] = _json(record)
    texts[DATASET_YAML] = yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode()
    for name in sorted(splits, key=lambda name: name == roles["val"]):
        lines = (f"./{_image_path(name, s)}\n" for s in splits[name].samples)
        texts[f"{name}.txt"] = "".join(lines).encode()
    update_set(dest, texts, images, _json({"options": options}))
    _print(dest, record, roles, classes, notes)
    return dest / DATASET_YAML


def _image_path(split: str, sample: Sample) -> str:
    return f"images/{split}/{sample.id}{sample.image.suffix}"


def _label_path(image: str) -> str:
    """Return where Ultralytics looks for the label of an image."""
    return Path(img2label_paths([str(Path(os.sep, image))])[0]).relative_to(os.sep).as_posix()


def _is_missing(sample: Sample, target: Path, how: str) -> bool:
    try:
        return needs_placing(sample.image, target, how)
    except ConfigError:
        if sample.intact:
            raise
        return False  # Ultralytics has repaired its copy


def _label(split: Split, classes: Sequence[str], keep_difficult: bool) -> tuple[list[str], dict[str, Any]]:
    """Return the label file of each sample and the split's entry in the record; tells the split what is skipped."""
    numbers = {name: i for i, name in enumerate(classes)}
    images: Counter[str] = Counter()
    objects: Counter[str] = Counter()
    other: Counter[str] = Counter()
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
    w, h = f"{(right - left) / s.width:.6f}", f"{(bottom - top) / s.height:.6f}"
    if "0.000000" in {w, h}:
        raise BadBoxError("box without area")
    return f"{number} {x:.6f} {y:.6f} {w} {h}\n"


def _check(
    dest: Path,
    splits: Mapping[str, Split],
    classes: Sequence[str],
    report: Mapping[str, dict[str, Any]],
    strict: bool,
    expected: Mapping[str, Expected],
) -> None:
    def reasons(*names: str) -> str:
        lines = [line for name in names for line in splits[name].skipped]
        return "".join(f"\n  {line}" for line in shorten(lines))

    if strict and any(s.skipped for s in splits.values()):
        raise ConfigError(f"strict=True, and these would be skipped:{reasons(*splits)}")
    for name, split in splits.items():
        if not split.samples:
            raise ConfigError(f"{dest}: the split {name} would have no images{reasons(name)}")
    if not any(r["objects"] for r in report.values()):
        raise ConfigError(
            f"{dest}: the set would have no object at all{_why_no_object(classes, report)}{reasons(*splits)}"
        )
    for name, wanted in expected.items():
        annotated, difficult = report[name]["annotated"], report[name]["difficult"]
        found = Expected(report[name]["images"], annotated, annotated - difficult)
        for what, number in wanted._asdict().items():
            if number not in {None, getattr(found, what)}:
                raise ConfigError(
                    f"{dest}: the split {name} has {getattr(found, what):,} {what.replace('_', ' ')}, {number:,} are "
                    f"published; the source is incomplete or changed{reasons(name)}"
                )


def _why_no_object(classes: Sequence[str], report: Mapping[str, dict[str, Any]]) -> str:
    others = sorted({name for r in report.values() for name in r["other_classes"]})
    difficult = sum(r["difficult"] for r in report.values() if r["difficult_policy"] == "drop")
    if others:
        near = "".join(near_class(name, others) for name in classes)
        return f"; the names in the data are {', '.join(map(repr, shorten(others)))}{near}"
    return f"; {difficult} are difficult (COCO: crowd) and dropped" if difficult else ""


def near_class(name: str, known: Sequence[str]) -> str:
    """Return a hint at the names of `known` nearest to a class name, whatever their capitals, or an empty string."""
    folded = {k.casefold(): k for k in known}
    exact = folded.get(name.casefold())
    return f"; did you mean {exact!r}?" if exact else near_names(name, list(known))


def _shared(splits: Mapping[str, Split]) -> list[str]:
    """Return the images that are in more than one split: a model is validated on what it was trained on."""
    counts = Counter(image for split in splits.values() for image in dict.fromkeys(s.image for s in split.samples))
    ids = {s.image: s.id for split in splits.values() for s in split.samples}
    return [ids[image] for image, number in counts.items() if number > 1]


def _print(
    dest: Path,
    record: Mapping[str, Any],
    roles: Mapping[str, str],
    classes: Sequence[str],
    notes: Mapping[str, Any],
) -> None:
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
        lines += [f"{name}: {remark}" for remark in shorten(record["remarks"][name])]
    found = {c for s in splits.values() for c in s["other_classes"]}
    for c in classes:
        near = near_class(c, sorted(found))
        if near and not any(s["objects_per_class"][c] for s in splits.values()):
            lines.append(f"WARNING: no object of {c!r}{near}")
    if shared := record["in_several_splits"]:
        lines.append(f"WARNING: {len(shared):,} images are in several splits: {', '.join(shorten(shared))}")
    if "train" not in roles:
        lines.append("no training split: the set is for `yolo val`")
    skipped = [f"{name}: {line}" for name, them in record["skipped"].items() for line in them]
    lines += [f"skipped: {len(skipped)}", *(f"  {line}" for line in shorten(skipped))]
    LOGGER.info("\n".join([*lines, f"data={dest / DATASET_YAML}"]))


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
