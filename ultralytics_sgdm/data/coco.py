"""COCO's annotation files (`instances_SPLIT.json`), and all that are written like them.

The file is untrusted: nothing in it stops the conversion but a file that is not one of COCO's, and each image or object
that is left out has a line with the reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from ultralytics.utils import LOGGER, NUM_THREADS, TQDM

from ..errors import ConfigError
from .boxes import guess_boxes, in_pixels
from .dataset import BadDataError, Dataset, Object, Sample, Split, check_options, class_names, plural
from .folders import PLACING, check_new
from .images import check_id, inspect_image
from .yolo import write_dataset

BOX_MODES = {0: "XYXY_ABS", 1: "XYWH_ABS", 2: "XYXY_REL", 3: "XYWH_REL", 4: "XYWHA_ABS"}  # of Detectron2
BAD = (ValueError, KeyError, TypeError, AttributeError, OverflowError)  # what a wrong value in the file can raise


class Source(NamedTuple):
    """The two halves of a split: annotations and the folder of the images that they name."""

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
    for split, file, place in (("val", "" if share else val, val_folder), ("test", test, test_folder)):
        if place and not file:
            raise ConfigError(f"{split}_folder={place}: there is no {split}=FILE.json whose images are there")
    given = {"train": (src, folder), "val": ("" if share else val, val_folder), "test": (test, test_folder)}
    if not val:
        given = {"val": (src, folder), "test": given["test"]}
    files = {split: (file, place or folder) for split, (file, place) in given.items() if str(file)}
    sources = {split: Source(Path(file).resolve(), Path(place).resolve()) for split, (file, place) in files.items()}
    return convert_coco(sources, Path(dest).resolve(), images, strict, classes=class_names(classes), share=share)


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
    """Convert the annotations of each split, its classes in the order of their ids and without crowds.

    `share` is that of the split "train" that becomes "val"; `expected` and `files` are those of `write_dataset`.
    """
    check_options(images=(images, PLACING), strict=(strict, (True, False)))
    for split, source in sources.items():
        if not source.annotations.is_file():
            hint = "; val= is a JSON or a share of SRC such as 0.1" if split == "val" and len(sources) > 1 else ""
            raise ConfigError(f"{source.annotations}: no such file{hint}")
        if not source.images.is_dir():
            raise ConfigError(f"{source.images}: no such folder; FOLDER is where the file names in the JSON start")
        if dest.is_relative_to(source.images):
            raise ConfigError(f"{dest} lies in the source {source.images}, which is only read; choose another folder")
    check_new(dest)
    found: dict[str, Split] = {}
    categories: dict[Any, str] = {}
    for split, source in sources.items():
        read, annotations, names = _read_json(source.annotations)
        if names != categories and categories:
            raise ConfigError(f"{source.annotations}: its categories are not those of the other splits")
        categories = names
        found[split] = _read_split(split, source, read, annotations, categories)
    if share:
        found = _hold_out(found, share)
    boxes = "fraction" if guess_boxes(found.values()) == "fraction" else "zero"
    found = {name: in_pixels(split, boxes) for name, split in found.items()}
    in_order = list(classes or [name for _, name in sorted(categories.items())])
    places = {split: [str(place) for place in source] for split, source in sources.items()}
    options = {"source": places, "classes": classes, "share": share, "images": images, "strict": strict}
    return write_dataset(dest, Dataset(found, in_order, boxes), options, (), expected, files)


def _hold_out(found: dict[str, Split], share: float) -> dict[str, Split]:
    """Move a share of the split "train" to a new split "val"; by the images' names, so that it is always the same."""
    train = found.pop("train")
    samples = sorted(train.samples, key=lambda s: hashlib.sha256(s.id.encode()).digest())
    held = {s.id for s in samples[: round(len(samples) * share)]}
    rest = Split([s for s in train.samples if s.id not in held], train.skipped, train.notes)
    return {"train": rest, "val": Split([s for s in train.samples if s.id in held])} | found


def _read_json(file: Path) -> tuple[list[Any], list[Any], dict[Any, str]]:
    """Return images and annotations of a file, as they are there, and its categories by id."""
    LOGGER.info(f"Reading {file}")
    try:
        with file.open(encoding="utf-8-sig") as f:
            data = json.load(f, object_hook=_drop_outline)
        pairs = sorted({(c["id"], " ".join((c["name"] or "").split())) for c in data["categories"]})
        for place, what in enumerate(("id", "name")):
            for value, number in Counter(pair[place] for pair in pairs).items():
                if number > 1 or not str(value).encode():
                    raise ValueError(f"{number} categories of {what} {value!r}")
        return list(data["images"]), list(data["annotations"]), dict(pairs)
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
            (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
            box = [left, top, right - left, bottom - top]
            value |= {"bbox": box, "bbox_mode": 1, "attributes": None}  # an outline is rotated already
    return value


class _Ids:
    """The ids of a list, also found as a text where the id is a number, or the other way round, if only one fits."""

    def __init__(self, ids: Iterable[Any]) -> None:
        self.known = set(ids)
        self.by_text = defaultdict(list)
        for key in self.known:
            self.by_text[str(key)].append(key)
        self.matched = 0

    def find(self, key: Any) -> Any:
        """Return the id that is meant, or `key` itself if none is."""
        near = [] if key in self.known else self.by_text[str(key).strip()]
        self.matched += len(near) == 1
        return near[0] if len(near) == 1 else key


def _read_split(
    split: str, source: Source, images: Sequence[Any], annotations: Sequence[Any], categories: Mapping[Any, str]
) -> Split:
    """Return the samples of a split, their boxes as annotated."""
    result = Split()
    file = source.annotations.name
    names: dict[Any, set[str]] = defaultdict(set)  # of the images of an id
    for image in images:
        with contextlib.suppress(KeyError, TypeError):
            names[image["id"]].add(str(PurePosixPath(str(image["file_name"]))))
    objects = _collect_objects(file, annotations, categories, _Ids(names), result)
    entries: dict[str, tuple[Any, list[Object]]] = {}  # image and its objects, by name without suffix
    for number, image in enumerate(images):
        own: list[Object] = []
        try:
            file_name = str(image["file_name"])
            own = objects.pop(image["id"], [])
            name = check_id(file_name.rpartition(".")[0] if "." in file_name else file_name)
            if len(names[image["id"]]) > 1:
                raise BadDataError(f"another image has its id, {_short(image['id'])}, too; whose objects are they?")
            if name in entries:
                if PurePosixPath(str(entries[name][0]["file_name"])) != PurePosixPath(file_name):
                    raise BadDataError("there is another image of this name, and both would have one label")
                result.notes.append(f"{file} image {_short(file_name)}: again; its objects are added")
            entries.setdefault(name, (image, []))[1].extend(own)
        except (BadDataError, KeyError, TypeError) as e:
            what = _short(image.get("file_name", "")) if isinstance(image, dict) else ""
            reason = str(e) if isinstance(e, BadDataError) else "no file_name or id"
            result.skipped.append(f"{file} image {what or f'number {number}'}: {reason}{_lost(own)}")
    with ThreadPool(NUM_THREADS) as pool:
        samples = pool.imap(lambda entry: _inspect(source, entry[0], *entry[1]), entries.items())
        for sample in TQDM(samples, desc=f"Reading {split}", total=len(entries)):
            if isinstance(sample, str):
                result.skipped.append(sample)
            else:
                result.samples.append(sample)
    for key, rest in objects.items():
        result.skipped += [f"{file} annotation {o.where}: no image {_short(repr(key))} for this {o.name}" for o in rest]
    return result


def _lost(objects: Sequence[Object]) -> str:
    return f"; with its {plural(len(objects), 'object')}" if objects else ""


def _collect_objects(
    file: str, annotations: Sequence[Any], categories: Mapping[Any, str], images: _Ids, result: Split
) -> dict[Any, list[Object]]:
    """Return the objects by the id of their image; `result` gets a line for each annotation that is not one."""
    objects: dict[Any, list[Object]] = defaultdict(list)
    kinds = _Ids(categories)
    for number, a in enumerate(annotations):
        where = _short(a.get("id", f"number {number}")) if isinstance(a, dict) else f"number {number}"
        try:
            objects[images.find(a["image_id"])].append(_read_object(a, where, categories, kinds))
        except BAD as e:
            result.skipped.append(f"{file} annotation {where}: {_short(f'no {e}' if isinstance(e, KeyError) else e)}")
    for name, matched in (("image_id", images.matched), ("category_id", kinds.matched)):
        if matched:
            result.notes.append(f"{file}: {name} is text where id is a number, or a number where id is text; matched")
    return objects


def _read_object(a: Mapping[str, Any], where: str, categories: Mapping[Any, str], kinds: _Ids) -> Object:
    """Return an annotation as an object, its box as annotated; raise one of `BAD` if it is not one."""
    category = kinds.find(a["category_id"])
    if category not in categories:
        raise ValueError(f"no category {category}")
    box, mode, attributes = a.get("bbox"), a.get("bbox_mode", 1), a.get("attributes")
    if any(a.get("keypoints") or ()) and not any(box or ()):
        raise ValueError("keypoints without bbox")
    if not box:
        raise ValueError("neither bbox nor polygons to take one from")
    mode = BOX_MODES.get(mode, mode) if isinstance(mode, int) else str(mode).rpartition(".")[2]
    if mode not in {"XYXY_ABS", "XYWH_ABS"}:
        raise ValueError(f"bbox_mode {mode} is not read, only XYXY_ABS and XYWH_ABS")
    if len(box) != 4:
        raise ValueError(f"a bbox of {plural(len(box), 'value')}, not 4")
    left, top, right, bottom = map(float, box)
    if mode == "XYWH_ABS":
        right, bottom = left + right, top + bottom
    angle = float((isinstance(attributes, dict) and attributes.get("rotation")) or 0)  # of CVAT, in degrees
    if not all(map(math.isfinite, (left, top, right, bottom, angle))):
        raise ValueError(f"bbox {box}, rotation {angle:g}")
    is_crowd = str(a.get("iscrowd", 0)).lower() in {"1", "1.0", "true"}
    return Object(categories[category], left, top, right, bottom, is_crowd, where, angle % 360 or None)


def _inspect(source: Source, name: str, image: Mapping[str, Any], objects: list[Object]) -> Sample | str:
    """Return an image with its objects, or why it is left out."""
    file_name = str(image["file_name"])
    path = source.images / f"{name}{Path(file_name).suffix}"
    size = (image.get("width", 0), image.get("height", 0))
    known = all(isinstance(side, (int, float)) and side > 0 for side in size)
    try:
        where = f"{source.annotations.name} annotation "
        return Sample(name, path, *inspect_image(path, size if known else None), where, objects)
    except BadDataError as e:
        return f"{_short(file_name)}: {e}{_lost(objects)}"


def _short(value: Any) -> str:
    """Return a value of the file as text that fits into a line."""
    text = str(value)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 100 else f"{text[:100]}..."
