"""COCO's annotation files (`instances_SPLIT.json`), and all that are written like them, to the layout of Ultralytics.

Ultralytics' own `convert_coco` starts a new folder each time, appends to labels, and neither checks images nor counts.
The file is untrusted: nothing in it stops the conversion but a file that is none of COCO's, and each image or object
that is not used is told with the reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from ultralytics.utils import LOGGER, NUM_THREADS, TQDM

from ..configs import ConfigError
from .boxes import guess_boxes, in_pixels
from .images import BadImageError, inspect_image
from .journal import Journal
from .layout import Expected, Object, Sample, Split, check_choice, check_id, claimed, class_names, write_set
from .update import shorten

LARGEST_MASK = 1 << 28  # pixels of an uncompressed mask


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
    """Convert a COCO JSON and its folder of images into a set that data= takes: `yolo sgdm coco SRC.json FOLDER DEST`.

    An interrupted conversion is completed, a complete one is left as it is. Boxes are taken as they are, or from the
    outline of an object that has none.

    Args:
        src: Annotation file; only read.
        folder: Folder that the file names in it start from; only read.
        dest: Folder of the new set, see `layout`.
        val: Annotation file of the validation split, or the share of the images of SRC that are held out, such as 0.1,
            the same ones in every run. Without it, SRC becomes a validation split, for `yolo val`, and there is none to
            train on.
        val_folder: Folder of the images of val=; without it, that of SRC.
        test: Annotation file of a test split.
        test_folder: Folder of the images of test=; without it, that of SRC.
        classes: Class names in the order of their numbers, "a,b" or the path of a `.txt` with one a line; objects of
            other classes are left out. Without it, all categories of SRC in the order of their ids.
        images: "hardlink", "copy" or "symlink" the images.
        strict: Refuse the whole set if anything would be skipped.

    Returns:
        The data set's YAML, for `yolo train data=`.

    Raises:
        ConfigError: If an argument or a file is not usable; the message names the fix.
    """
    check_choice("strict", strict, (True, False))
    dest, share = Path(dest).resolve(), _share(str(val))
    for split, file, place in (("val", val, val_folder), ("test", test, test_folder)):
        if place and (not file or (split == "val" and share)):
            where = (
                f"{split}={file} holds out images of SRC" if file else f"there is no {split}= whose images are there"
            )
            raise ConfigError(f"{split}_folder={place}: {where}; give {split}=FILE.json, or leave {split}_folder= out")
    given = {"train": (src, folder), "val": (val, val_folder or folder), "test": (test, test_folder or folder)}
    if share or not val:
        del given["val"]
    if not val:
        given = {"val": given.pop("train"), **given}
    sources = {
        split: Source(Path(file).resolve(), Path(place).resolve())
        for split, (file, place) in given.items()
        if str(file)
    }
    for source in sources.values():
        if not source.images.is_dir():
            raise ConfigError(f"{source.images}: no such folder; FOLDER is where the file names in the JSON start")
        if dest.is_relative_to(source.images):
            raise ConfigError(f"{dest} lies in the source {source.images}, which is only read; choose another folder")
    splits: tuple[str, ...] = ("train", "val", "test")
    roles = {split: split for split in splits if split in sources or (split == "val" and share)}
    return convert_coco(sources, dest, roles, images, strict, classes=class_names(classes), share=share)


def _share(val: str) -> float:
    """Return the share that val= holds out, or 0 if it is none."""
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
    roles: Mapping[str, str],
    images: str = "hardlink",
    strict: bool = False,
    expected: Mapping[str, Expected] | None = None,
    classes: Sequence[str] | None = None,
    share: float = 0,
) -> Path:
    """Convert COCO annotations, complete an interrupted conversion, or leave a complete one as it is.

    Classes are numbered in the order of COCO's category ids, as Ultralytics does (80 of the numbers 1 to 90). Objects
    marked `iscrowd` are left out, as Ultralytics does and as COCO's evaluation ignores them; the record counts them as
    difficult.

    Args:
        sources: Where each split comes from; only read.
        dest: Folder of the new set, see `layout`.
        roles: Split of each of Ultralytics' roles, see `layout.write_set`.
        images: "hardlink", "copy" or "symlink" the images.
        strict: Refuse the whole set if anything would be skipped.
        expected: Published counts, see `layout.write_set`.
        classes: Class names in the order of their numbers; without it, all categories.
        share: Share of the split "train" that becomes the split "val".

    Returns:
        The data set's YAML.

    Raises:
        ConfigError: If a file is no COCO annotation, or as `layout.write_set`.
    """
    places = {split: [str(s) for s in source] for split, source in sources.items()}
    options: dict[str, Any] = {"source": places, "images": images}
    options |= {k: v for k, v in {"classes": classes, "val": share}.items() if v}
    with claimed(dest, options, roles.values()) as journal:
        found: dict[str, Split] = {}
        categories: dict[int, str] = {}
        for split, source in sources.items():
            found[split], names = _read_split(split, source, journal)
            if names != categories and categories:
                raise ConfigError(f"{source.annotations}: its categories are not those of the other splits")
            categories = names
        if share:
            found = _hold_out(found, share)
        boxes = guess_boxes(found.values())
        boxes = boxes if boxes == "fraction" else "zero"
        found = {split: in_pixels(found[split], boxes) for split in found}
        notes = {"boxes": boxes} if boxes == "fraction" else {}
        in_order = classes or [name for _, name in sorted(categories.items())]
        return write_set(dest, found, roles, in_order, options, notes, (), strict, expected)


def _hold_out(found: dict[str, Split], share: float) -> dict[str, Split]:
    """Move a share of the split "train" to a new split "val"; by the images' names, so that it is always the same."""
    train = found["train"]
    samples = sorted(train.samples, key=lambda s: hashlib.sha256(s.id.encode()).digest())
    held = {s.id for s in samples[: round(len(samples) * share)]}
    rest = Split([s for s in train.samples if s.id not in held], train.skipped, train.remarks)
    return found | {"train": rest, "val": Split([s for s in train.samples if s.id in held])}


def _read_split(split: str, source: Source, journal: Journal) -> tuple[Split, dict[int, str]]:
    """Return the samples of a split, their boxes as written, and its categories by id."""
    LOGGER.info(f"Reading {source.annotations}")
    try:
        with source.annotations.open(encoding="utf-8-sig") as f:
            data = json.load(f, object_pairs_hook=_without_outline)
        pairs = list(dict.fromkeys((c["id"], " ".join(str(c["name"]).split())) for c in data["categories"]))
        if nameless := [c["id"] for c in data["categories"] if c["name"] is None or not str(c["name"]).strip()]:
            raise ValueError(f"category {nameless[0]} has no name")
        sorted(pairs), "".join(name for _, name in pairs).encode()
        images, annotations = list(data["images"]), list(data["annotations"])
    except OSError as e:
        raise ConfigError(f"{source.annotations}: {e.strerror}") from e
    except json.JSONDecodeError as e:
        where = f"{source.annotations}:{e.lineno}"
        raise ConfigError(f"{where}: no JSON from column {e.colno} on ({e.msg}); mend it, or export it again") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{source.annotations}: not UTF-8 ({e}); save it as UTF-8") from e
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise ConfigError(
            f"{source.annotations} is no COCO instances file ({type(e).__name__}: {e}); it must be an object with "
            "lists of images, annotations, and categories of an id and a name each"
        ) from e
    del data
    for what, place, fix in (("id", 0, "give them two ids"), ("name", 1, "give them one id")):
        repeated = [value for value, number in Counter(pair[place] for pair in pairs).items() if number > 1]
        if repeated:
            them = " and ".join(f"{name!r} (id {key})" for key, name in pairs if repeated[0] in {key, name})
            raise ConfigError(f"{source.annotations}: categories of one {what}: {them}; {fix}")
    categories = dict(pairs)
    return _with_images(split, source, images, annotations, categories, journal), categories


def _without_outline(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Drop what most of the memory would go to (the file of 2017's training split has 448 MB), except a missing box.

    Raises:
        ValueError: If a key is there twice.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{_short(key)!r} is there twice in one object")
    outline = value.pop("segmentation", None)
    if outline and not value.get("bbox"):
        value["bbox"] = _box_around(outline)
    return value


def _box_around(outline: Any) -> list[float] | None:
    """Return the box of polygons or of a mask as uncompressed runs, or None."""
    try:
        if isinstance(outline, dict):
            height, width = map(int, outline["size"])
            runs = np.asarray(outline["counts"], np.int64)
            if not 0 < height * width <= LARGEST_MASK or runs.sum() != height * width or runs.min() < 0:
                return None
            mask: np.ndarray = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height)
            xs, ys = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            return [int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)]
        points = np.concatenate([np.asarray(polygon, float).reshape(-1, 2) for polygon in outline])
        (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
        return [left, top, right - left, bottom - top]
    except (ValueError, KeyError, TypeError, IndexError, OverflowError):
        return None


def _with_images(
    split: str,
    source: Source,
    images: Sequence[Any],
    annotations: Sequence[Any],
    categories: Mapping[Any, str],
    journal: Journal,
) -> Split:
    result = Split()
    place = f"{source.annotations.name} annotation "
    objects: dict[Any, list[Object]] = defaultdict(list)
    if again := _repeated_ids(annotations):
        them = ", ".join(map(_short, shorten(again)))
        result.remarks.append(f"{source.annotations.name}: ids of several annotations, each of which is taken: {them}")
    for number, a in enumerate(annotations):
        try:
            objects[a["image_id"]].append(_object(a, number, categories))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as e:
            where = a.get("id", f"number {number}") if isinstance(a, dict) else f"number {number}"
            result.skipped.append(f"{place}{_short(where)}: {_short(f'no {e}' if isinstance(e, KeyError) else e)}")
    files: dict[Any, set[str]] = defaultdict(set)  # by id
    for image in images:
        with contextlib.suppress(KeyError, TypeError):
            files[image["id"]].add(str(PurePosixPath(str(image["file_name"]))))
    entries: dict[str, tuple[Any, list[Any]]] = {}  # image and its ids, by name without suffix
    for number, image in enumerate(images):
        key = None
        try:
            file_name, key = str(image["file_name"]), image["id"]
            name = check_id(file_name.rpartition(".")[0] if "." in file_name else file_name)
            if len(files[key]) > 1:
                raise BadImageError(f"its id, {_short(key)}, is another image's too; nobody knows whose an object is")
            first, keys = entries.setdefault(name, (image, []))
            if PurePosixPath(str(first["file_name"])) != PurePosixPath(file_name):
                raise BadImageError("there is another image of this name, and both would have one label")
            if keys:
                result.remarks.append(
                    f"{source.annotations.name} image {_short(file_name)}: again; its objects are added"
                )
            keys.append(key)
        except (BadImageError, KeyError, TypeError) as e:
            what = _short(image.get("file_name", "")) if isinstance(image, dict) else ""
            reason = str(e) if isinstance(e, BadImageError) else "no file_name or id"
            with contextlib.suppress(TypeError):
                lost = len(objects.pop(key, []))
                reason += f"; with its {lost} objects" if lost else ""
            result.skipped.append(f"{source.annotations.name} image {what or f'number {number}'}: {reason}")
    with ThreadPool(NUM_THREADS) as pool:
        pictures = pool.imap(
            lambda entry: _inspect(source.images, *entry, journal), ((n, i) for n, (i, _) in entries.items())
        )
        for (name, (_, keys)), picture in TQDM(
            zip(entries.items(), pictures, strict=True), desc=f"Reading {split}", total=len(entries)
        ):
            its = [o for key in keys for o in objects.pop(key, [])]
            if isinstance(picture, str):
                result.skipped.append(picture + (f"; with its {len(its)} objects" if its else ""))
            else:
                image, width, height, intact = picture
                result.samples.append(Sample(name, image, width, height, intact, place, its))
    for key, rest in objects.items():
        result.skipped += [f"{place}{o.where}: no image {_short(repr(key))} for this {o.name}" for o in rest]
    return result


def _repeated_ids(annotations: Sequence[Any]) -> list[str]:
    ids = Counter(str(a["id"]) for a in annotations if isinstance(a, dict) and a.get("id") is not None)
    return [key for key, number in ids.items() if number > 1]


def _inspect(folder: Path, name: str, image: Mapping[str, Any], journal: Journal) -> tuple[Path, int, int, bool] | str:
    """Return what a sample needs to know of its image, or why it is not used."""
    file_name = str(image["file_name"])
    path = folder / f"{name}{Path(file_name).suffix}"
    try:
        return path, *journal(inspect_image, path, _size(image))
    except BadImageError as e:
        return f"{_short(file_name)}: {e}"


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width", 0), image.get("height", 0)
    return (width, height) if all(isinstance(side, (int, float)) and side > 0 for side in (width, height)) else None


def _object(a: Mapping[str, Any], number: int, categories: Mapping[Any, str]) -> Object:
    """Return an annotation as an object, its box as written.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError: If it is none.
    """
    if a["category_id"] not in categories:
        raise ValueError(f"no category {a['category_id']}")
    if not a.get("bbox"):
        raise ValueError("neither bbox nor an outline to take one from (compressed masks are not read)")
    left, top, width, height = map(float, a["bbox"])
    if not all(map(math.isfinite, (left, top, width, height))):
        raise ValueError(f"bbox {a['bbox']}")
    is_crowd = str(a.get("iscrowd", 0)).lower() in {"1", "1.0", "true"}
    where = _short(a.get("id", f"number {number}"))
    return Object(categories[a["category_id"]], left, top, left + width, top + height, is_crowd, where)


def _short(value: Any) -> str:
    """Return a value of the file as text that fits into a line."""
    text = str(value)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 100 else f"{text[:100]}..."
