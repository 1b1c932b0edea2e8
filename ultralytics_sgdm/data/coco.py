"""COCO's annotation files (`instances_SPLIT.json`), and all that are written like them.

The file is untrusted: nothing in it stops the conversion but a file that is not one of COCO's, and each image or object
that is left out has a line with the reason.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import ConfigError, one_line, pluralize, wrap_errors
from ..files import sha256
from .dataset import Object, Sample, Split, guess_boxes, inspect_images, read_classes, shorten_text
from .yolo import check_arguments, write_dataset

HAS_SIZE = {"0": False, "XYXY_ABS": False, "1": True, "XYWH_ABS": True}  # by `bbox_mode` of Detectron2
BAD = (ValueError, KeyError, TypeError, AttributeError, OverflowError)  # what a wrong value in the file can raise


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

    DEST appears when it is complete; nothing that exists is changed.

    Args:
        src: Annotation file; only read.
        folder: Folder that the file names in it start from; only read.
        dest: New folder of the dataset; its `conversion.json` has all counts and what was left out.
        val: Annotation file of the validation split, or the share of the images of SRC that are held out, such as 0.1,
            the same ones in every run. Default: SRC becomes the validation split, and there is none to train on.
        val_folder: Folder of the images of val=; default: that of SRC.
        test: Annotation file of a test split; default: no test split.
        test_folder: Folder of the images of test=; default: that of SRC.
        classes: Class names in the order of their numbers, "a,b" or the path of a `.txt` with one a line; objects of
            other classes are left out. Default: all categories of SRC in the order of their ids.
        images: "hardlink", "copy" or "symlink" the images.
        strict: Refuse the whole dataset if an image or a box would be left out as faulty.

    Returns:
        The YAML of the dataset, for `yolo train data=`.

    Raises:
        ConfigError: If an argument or a file cannot be used; the message names the fix.
    """
    try:
        share = float(str(val) or 0)
    except ValueError:
        share = 0  # a file
    if not 0 <= share < 1:
        raise ConfigError(f"val={val}: a share that is held out lies between 0 and 1, such as 0.1")
    for split, file, place in (("val", "" if share else val, val_folder), ("test", test, test_folder)):
        if place and not file:
            raise ConfigError(f"{split}_folder={place}: there is no {split}=FILE.json whose images are there")
    sources = {"train" if val else "val": (src, folder)}
    if val and not share:
        sources["val"] = (val, val_folder or folder)
    if test:
        sources["test"] = (test, test_folder or folder)
    options = {"classes": classes, "share": share, "images": images, "strict": strict}
    return convert_coco(sources, Path(dest).resolve(), options)


def convert_coco(sources: Mapping[str, tuple[str | Path, str | Path]], dest: Path, options: dict[str, Any]) -> Path:
    """Convert annotation file and image folder of each split; `options` are the last of `convert_coco_json`.

    `share` among them is that of "train" which becomes "val"; for more options see `write_dataset`.
    """
    check_arguments(dest, options)
    places = {split: (Path(file).resolve(), Path(folder).resolve()) for split, (file, folder) in sources.items()}
    for split, (file, folder) in places.items():
        if not file.is_file() or not folder.is_dir():
            raise ConfigError(f"{split}: {file} must be a JSON, and {folder} the folder where its file names start")
    classes = read_classes(options["classes"])
    found = {split: _read_split(split, *pair) for split, pair in places.items()}
    (_, categories), *others = found.values()
    unknown = sorted({name for _, other in others for name in other.values()} - {*categories.values()})
    if unknown and not classes:
        file, lacking = next(iter(places.values()))[0], ", ".join(unknown)
        raise ConfigError(f"{file} lacks categories of another split ({lacking}); name those that count with classes=")
    splits = {split: read for split, (read, _) in found.items()}
    if options["share"]:
        splits = _hold_out(splits.pop("train"), options["share"]) | splits
    source = {split: [str(place) for place in pair] for split, pair in places.items()}
    boxes = "fraction" if guess_boxes(splits.values()) == "fraction" else "zero"
    options = {"source": source, **options, "boxes": boxes, "classes": classes or [*categories.values()]}
    return write_dataset(dest, splits, options)


def _hold_out(train: Split, share: float) -> dict[str, Split]:
    """Divide a split by the names of its images, so that the same ones are held out in every run."""
    ids = sorted((s.id for s in train.samples), key=sha256)
    held = {*ids[: round(len(ids) * share)]}
    rest = Split([s for s in train.samples if s.id not in held], train.skipped)
    return {"train": rest, "val": Split([s for s in train.samples if s.id in held])}


def _read_json(file: Path) -> tuple[list[Any], list[Any], dict[str, str]]:
    """Return images and annotations of a file, as they are there, and its categories by id, in the order of the ids."""
    with wrap_errors(f"{file} cannot be read as a COCO instances file"):
        with file.open(encoding="utf-8-sig") as f:
            data = json.load(f, object_hook=_drop_outline)
        pairs = sorted({(c["id"], " ".join((c["name"] or "").split())) for c in data["categories"]}, key=_get_order)
        categories = {_read_id(c): name for c, name in pairs}
        if not len(pairs) == len(categories) == len({*categories.values()}) or not all(categories.values()):
            raise ValueError(f"each category needs an id and a name of its own, not {shorten_text(pairs)}")
        return list(data["images"]), list(data["annotations"]), categories


def _get_order(category: tuple[Any, str]) -> tuple[int, str]:
    """Return what sorts categories by their id, numbers as text too."""
    text = _read_id(category[0])
    return len(text), text


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


def _read_split(split: str, source: Path, folder: Path) -> tuple[Split, dict[str, str]]:
    """Return the samples of a split, their boxes as annotated, and the names of the categories."""
    result, file = Split(), source.name
    images, annotations, categories = _read_json(source)
    objects: dict[str, list[Object]] = defaultdict(list)  # by the id of their image
    for number, a in enumerate(annotations):
        where = f"annotation number {number}"
        try:
            where = f"annotation {shorten_text(a['id'])}" if "id" in a else where
            objects[_read_id(a["image_id"])].append(_read_object(a, where, categories))
        except BAD as e:
            result.skipped.append(f"{file} {where}: {_explain(e)}")
    names: dict[str, set[str]] = defaultdict(set)  # of the images of an id
    for image in images:
        with contextlib.suppress(*BAD):
            names[_read_id(image["id"])].add(str(PurePosixPath(image["file_name"])))
    samples: dict[str, Sample] = {}  # by name without suffix
    for number, image in enumerate(images):
        where = f"{file} image number {number}"
        own: list[Object] = []
        try:
            key = _read_id(image["id"])
            where = f"{file} image {shorten_text(image['file_name'])}"
            own = objects.pop(key, [])
            path = PurePosixPath(image["file_name"])
            if not (folder / path).is_relative_to(folder) or ".." in path.parts or "\\" in image["file_name"]:
                raise ValueError("this name leaves the folder of images, or its folders are not divided by /")
            if len(names[key]) > 1:
                raise ValueError(f"another image has its id, {shorten_text(key)}, too; whose objects are they?")
            sides = (image.get(side) for side in ("width", "height"))
            width, height = (side if isinstance(side, (int, float)) else 0 for side in sides)
            name = str(path.with_suffix(""))
            sample = samples.setdefault(name, Sample(name, folder / path, width, height, where))
            if sample.image != folder / path:
                raise ValueError("there is another image of this name, and both would have one label")
            sample.objects.extend(own)  # an image that is listed twice has the objects of both
        except BAD as e:
            result.skipped.append(f"{where}: {_explain(e)}; with its {pluralize(len(own), 'object')}")
    result.samples = [*samples.values()]
    inspect_images(result, split)
    for key, rest in objects.items():
        result.skipped += [f"{file} {o.where}: no image {shorten_text(key)} for this {o.name}" for o in rest]
    return result, categories


def _explain(e: Exception) -> str:
    what = "of a wrong type: " if isinstance(e, (TypeError, AttributeError)) else ""
    return shorten_text(what + one_line(e), 300)


def _read_object(a: Mapping[str, Any], where: str, categories: Mapping[str, str]) -> Object:
    """Return an annotation as an object, its box as annotated; raise one of `BAD` if it is not one."""
    category = _read_id(a["category_id"])
    if category not in categories:
        raise ValueError(f"no category {category}")
    box, attributes = a.get("bbox"), a.get("attributes")
    if not box:
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
    return Object(categories[category], (left, top, right, bottom), is_crowd, where, angle % 360 or None)
