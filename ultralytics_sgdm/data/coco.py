"""COCO's annotation files (`instances_SPLIT.json`), and all that are written like them.

The file is untrusted: nothing in it stops the conversion but a file that is not one of COCO's, and each image or object
that is left out has a line with the reason.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from ultralytics.utils import LOGGER

from ..errors import ConfigError, pluralize
from ..files import sha256
from .dataset import Object, Sample, Split, convert_boxes, map_threads, read_classes, shorten_text
from .folders import check_arguments
from .images import check_id, inspect_image
from .yolo import write_dataset

HAS_SIZE = {"0": False, "XYXY_ABS": False, "1": True, "XYWH_ABS": True}  # by `bbox_mode` of Detectron2
BAD = (ValueError, KeyError, TypeError, AttributeError, OverflowError)  # what a wrong value in the file can raise


class Source(NamedTuple):
    """Annotations of a split, and the folder of the images that they name."""

    annotations: Path
    images: Path


def convert_coco_json(
    src: str | Path,
    folder: str | Path,
    dest: str | Path,
    val: str = "",
    val_folder: str = "",
    test: str = "",
    test_folder: str = "",
    classes: str | Sequence[str] | None = None,
    images: str = "hardlink",
    strict: bool = False,
) -> Path:
    """Convert a COCO JSON and its images into a dataset that data= takes: `yolo sgdm coco SRC.json FOLDER DEST`.

    DEST appears when it is complete; nothing that exists is changed. Boxes are taken as they are, from the outline of
    an object that has none, or as the upright box around one that `attributes.rotation` turns.

    Args:
        src: Annotation file; only read.
        folder: Folder that the file names in it start from; only read.
        dest: New folder of the dataset: images, labels, lists, `data.yaml`, and `conversion.json` with all counts and
            what was left out.
        val: Annotation file of the validation split, or the share of the images of SRC that are held out, such as 0.1,
            the same ones in every run. Default: SRC becomes a validation split, for `yolo val`, and there is none to
            train on.
        val_folder: Folder of the images of val=; default: that of SRC.
        test: Annotation file of a test split; default: no test split.
        test_folder: Folder of the images of test=; default: that of SRC.
        classes: Class names in the order of their numbers, "a,b" or the path of a `.txt` with one a line; objects of
            other classes are left out. Default: all categories of SRC in the order of their ids.
        images: "hardlink", "copy" or "symlink" the images.
        strict: Refuse the whole dataset if anything would be left out.

    Returns:
        The YAML of the dataset, for `yolo train data=`.

    Raises:
        ConfigError: If an argument or a file cannot be used; the message names the fix.
    """
    share = _parse_share(str(val))
    val_file = "" if share else val
    for split, file, place in (("val", val_file, val_folder), ("test", test, test_folder)):
        if place and not file:
            raise ConfigError(f"{split}_folder={place}: there is no {split}=FILE.json whose images are there")
    given = {"train": (src, folder), "val": (val_file, val_folder or folder), "test": (test, test_folder or folder)}
    if not val:
        given["val"] = given.pop("train")
    sources = {split: Source(Path(f).resolve(), Path(place).resolve()) for split, (f, place) in given.items() if f}
    return convert_coco(sources, Path(dest).resolve(), images, strict, classes=read_classes(classes), share=share)


def _parse_share(val: str) -> float:
    """Return the share that val= holds out, or 0 if it is a file."""
    try:
        share = float(val)
    except ValueError:
        return 0
    if not 0 < share < 1:
        raise ConfigError(f"val={val}: a share that is held out lies between 0 and 1, such as 0.1")
    return share


def convert_coco(
    sources: Mapping[str, Source],
    dest: Path,
    images: str = "hardlink",
    strict: bool = False,
    expected: Mapping[str, Mapping[str, int]] | None = None,
    classes: Sequence[str] | None = None,
    share: float = 0,
    files: Mapping[str, Path] | None = None,
) -> Path:
    """Convert the annotations of each split; `share` is that of "train" that becomes "val"."""
    check_arguments(dest, [source.images for source in sources.values()], images=images, strict=strict)
    for split, source in sources.items():
        if not source.annotations.is_file():
            hint = "; val= is a JSON or a share of SRC such as 0.1" if split == "val" and len(sources) > 1 else ""
            raise ConfigError(f"{source.annotations}: no such file{hint}")
        if not source.images.is_dir():
            raise ConfigError(f"{source.images}: no such folder; FOLDER is where the file names in the JSON start")
    splits: dict[str, Split] = {}
    categories: dict[str, str] = {}
    for name, source in sources.items():
        entries, annotations, found = _read_json(source.annotations)
        if categories and found != categories:
            raise ConfigError(f"{source.annotations}: its categories are not those of the other splits")
        categories = found
        splits[name] = _read_split(name, source, entries, annotations, categories)
    if share:
        splits = _hold_out(splits.pop("train"), share) | splits
    boxes = convert_boxes(splits.values(), "auto", pixels="zero")
    places = {name: [str(place) for place in source] for name, source in sources.items()}
    options = {"source": places, "classes": classes, "share": share, "images": images, "strict": strict}
    return write_dataset(dest, splits, classes or [*categories.values()], boxes, options, (), expected, files)


def _hold_out(train: Split, share: float) -> dict[str, Split]:
    """Divide a split by the names of its images, so that the same ones are held out in every run."""
    samples = sorted(train.samples, key=lambda s: sha256(s.id))
    held = {s.id for s in samples[: round(len(samples) * share)]}
    rest = Split([s for s in train.samples if s.id not in held], train.skipped, train.notes)
    return {"train": rest, "val": Split([s for s in train.samples if s.id in held])}


def _read_json(file: Path) -> tuple[list[Any], list[Any], dict[str, str]]:
    """Return images and annotations of a file, as they are there, and its categories by id, in the order of the ids."""
    LOGGER.info(f"Reading {file}")
    try:
        with file.open(encoding="utf-8-sig") as f:
            data = json.load(f, object_hook=_drop_outline)
        pairs = sorted({(c["id"], " ".join((c["name"] or "").split())) for c in data["categories"]})
        categories = {_read_id(c): name for c, name in pairs}
        for what, values in (("id", [_read_id(c) for c, _ in pairs]), ("name", [name for _, name in pairs])):
            for value, number in Counter(values).items():
                if number > 1 or not value.encode():
                    raise ValueError(f"{number} categories of {what} {value!r}")
        return list(data["images"]), list(data["annotations"]), categories
    except OSError as e:
        raise ConfigError(f"{file}: {e.strerror}") from e
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{file}: not JSON in UTF-8 ({e}); fix it, or export it again") from e
    except (*BAD, RecursionError) as e:
        raise ConfigError(
            f"{file} is not a COCO instances file ({type(e).__name__}: {e}); it must be an object with "
            "lists of images, annotations, and categories of an id and a name each"
        ) from e


def _drop_outline(value: dict[str, Any]) -> dict[str, Any]:
    """Drop what most of the memory would go to (the file of 2017's training split has 448 MB), except a missing box."""
    outline = value.pop("segmentation", None)
    if isinstance(outline, list) and value.get("bbox") in (None, [], [0, 0, 0, 0]):
        with contextlib.suppress(*BAD):
            points = np.concatenate([np.asarray(polygon, float).reshape(-1, 2) for polygon in outline])
            box = [*points.min(0).tolist(), *np.ptp(points, axis=0).tolist()]
            value |= {"bbox": box, "bbox_mode": 1, "attributes": None}  # an outline is rotated already
    return value


def _read_id(value: Any) -> str:
    """Return an id as text: 7, 7.0 and "7" are one."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _read_split(
    split: str, source: Source, images: Sequence[Any], annotations: Sequence[Any], categories: Mapping[str, str]
) -> Split:
    """Return the samples of a split, their boxes as annotated."""
    result = Split()
    file = source.annotations.name
    objects: dict[str, list[Object]] = defaultdict(list)  # by the id of their image
    for number, a in enumerate(annotations):
        where = shorten_text(a.get("id", f"number {number}")) if isinstance(a, dict) else f"number {number}"
        try:
            objects[_read_id(a["image_id"])].append(_read_object(a, where, categories))
        except BAD as e:
            result.skipped.append(f"{file} annotation {where}: {_explain(e)}")
    names: dict[str, set[str]] = defaultdict(set)  # of the images of an id
    for image in images:
        with contextlib.suppress(*BAD):
            names[_read_id(image["id"])].add(str(PurePosixPath(image["file_name"])))
    entries: dict[str, tuple[Mapping[str, Any], list[Object]]] = {}  # image and its objects, by name without suffix
    for number, image in enumerate(images):
        what = f"number {number}"
        own: list[Object] = []
        try:
            key, file_name = _read_id(image["id"]), image["file_name"]
            what = shorten_text(file_name)
            own = objects.pop(key, [])
            name = check_id(file_name.rpartition(".")[0] or file_name)
            if len(names[key]) > 1:
                raise ValueError(f"another image has its id, {shorten_text(key)}, too; whose objects are they?")
            first, _ = entries.setdefault(name, (image, []))
            if PurePosixPath(first["file_name"]) != PurePosixPath(file_name):
                raise ValueError("there is another image of this name, and both would have one label")
            if first is not image:
                result.notes.append(f"{file} image {what}: again; its objects are added")
            entries[name][1].extend(own)
        except BAD as e:
            result.skipped.append(f"{file} image {what}: {_explain(e, own)}")
    for sample in map_threads(functools.partial(_inspect, source), entries.items(), f"Reading {split}"):
        (result.skipped if isinstance(sample, str) else result.samples).append(sample)
    for key, rest in objects.items():
        result.skipped += [f"{file} annotation {o.where}: no image {shorten_text(key)} for this {o.name}" for o in rest]
    return result


def _explain(e: Exception, objects: Sequence[Object] = ()) -> str:
    """Return why an image or an annotation is left out, and how many objects with it."""
    reason = str(e) if type(e) is ValueError else f"{type(e).__name__} {e}"
    return shorten_text(reason, 300) + (f"; with its {pluralize(len(objects), 'object')}" if objects else "")


def _read_object(a: Mapping[str, Any], where: str, categories: Mapping[str, str]) -> Object:
    """Return an annotation as an object, its box as annotated; raise one of `BAD` if it is not one."""
    category = _read_id(a["category_id"])
    if category not in categories:
        raise ValueError(f"no category {category}")
    box, attributes = a.get("bbox"), a.get("attributes")
    if not box or (not any(box) and any(a.get("keypoints") or ())):
        raise ValueError("neither bbox nor polygons to take one from")
    mode = str(a.get("bbox_mode", 1)).removeprefix("BoxMode.")
    if mode not in HAS_SIZE:
        raise ValueError(f"bbox_mode {mode} is not read, only XYXY_ABS and XYWH_ABS")
    left, top, right, bottom = map(float, box)
    if HAS_SIZE[mode]:
        right, bottom = left + right, top + bottom
    angle = float((isinstance(attributes, dict) and attributes.get("rotation")) or 0)  # of CVAT, in degrees
    if not all(map(math.isfinite, (left, top, right, bottom, angle))):
        raise ValueError(f"bbox {box}, rotation {angle:g}")
    is_crowd = str(a.get("iscrowd", 0)).lower() in {"1", "1.0", "true"}
    return Object(categories[category], left, top, right, bottom, is_crowd, where, angle % 360 or None)


def _inspect(source: Source, entry: tuple[str, tuple[Mapping[str, Any], list[Object]]]) -> Sample | str:
    """Return an image with its objects, or why it is left out."""
    name, (image, objects) = entry
    path = source.images / f"{name}{Path(image['file_name']).suffix}"
    size = (image.get("width", 0), image.get("height", 0))
    known = all(isinstance(side, (int, float)) and side > 0 for side in size)
    try:
        where = f"{source.annotations.name} annotation "
        return Sample(name, path, *inspect_image(path, size if known else None), where, objects)
    except ValueError as e:
        return f"{shorten_text(image['file_name'])}: {_explain(e, objects)}"
