"""Folders in Pascal-VOC layout: `Annotations/*.xml`, `JPEGImages/` and the lists in `ImageSets/Main/*.txt`.

Annotations are untrusted (see `voc_xml`): no file name in them is followed out of the folder. A line about what is left
out names the file and the line or the object.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ultralytics.data.utils import IMG_FORMATS

from ..errors import ConfigError, pluralize
from .dataset import Sample, Split, convert_boxes, map_threads, read_classes, shorten_text, split_items
from .folders import CHOICES, check_arguments, read_text
from .images import check_id, inspect_image
from .voc_xml import LARGEST, read_xml
from .yolo import write_dataset

IMAGE_SETS = "ImageSets/Main"
ListImages = Callable[[Path], Mapping[str, list[Path]]]
CLASS_LIST = re.compile(r"(.+?)\s+([+-]?[01])")  # NAME 1, NAME -1 (not in the class), NAME 0 (difficult)


def convert_voc(
    src: str | Path,
    dest: str | Path,
    train: str | Sequence[str] | None = None,
    val: str | Sequence[str] | None = None,
    test: str | Sequence[str] | None = None,
    classes: str | Sequence[str] | None = None,
    boxes: str = "auto",
    difficult: str = "drop",
    val_difficult: str = "drop",
    images: str = "hardlink",
    strict: bool = False,
) -> Path:
    """Convert a folder in Pascal-VOC layout into a dataset that data= takes: `yolo sgdm voc SRC DEST`.

    DEST appears when it is complete; nothing that exists is changed.

    Args:
        src: Folder with `Annotations`, `JPEGImages` and `ImageSets/Main`; only read.
        dest: New folder of the dataset: images, labels, lists, `data.yaml`, and `conversion.json` with all counts and
            what was left out.
        train: Lists of `ImageSets/Main` that make the training split, such as "trainval" or "train,val"; default:
            `train` or else `trainval`, or no training split if the folder has only lists of a validation or test split.
            Lists of a class (`NAME 1`) give the images that are marked 1 or 0.
        val: The same of the validation split; default: `val` or else `test`.
        test: The same of the test split; default: `test` unless that is the validation split already.
        classes: Class names in the order of their numbers, "a,b" or the path of a `.txt` with one a line; objects of
            other classes are left out. Default: the names found in the data, in alphabetical order.
        boxes: "voc" for integers counted from 1 whose last pixel is inside the box, "zero" for coordinates counted from
            0, "fraction" for fractions of the image, "auto" to tell by the data: "fraction" if no coordinate of the
            dataset is above 1, "zero" if a box begins at 0 or more than 1 % have fractions.
        difficult: "drop" or "keep" the objects marked difficult in the training split.
        val_difficult: "drop" or "keep" the objects marked difficult in the other splits.
        images: "hardlink", "copy" or "symlink" the images.
        strict: Refuse the whole dataset if anything would be left out.

    Returns:
        The YAML of the dataset, for `yolo train data=`.

    Raises:
        ConfigError: If an argument or the folder cannot be used; the message names the fix.
    """
    src, dest = Path(src).resolve(), Path(dest).resolve()
    if not src.is_dir():
        raise ConfigError(f"{src} is not a folder; SRC is a folder in VOC layout")
    lists = _choose_lists(src, {"train": train, "val": val, "test": test})
    options = {"classes": classes, "boxes": boxes, "difficult": difficult, "val_difficult": val_difficult}
    return convert_lists(lists, dest, {**options, "images": images, "strict": strict})


def convert_lists(
    lists: Mapping[str, Sequence[Path]],
    dest: Path,
    options: dict[str, Any],
    expected: Mapping[str, Mapping[str, int]] | None = None,
) -> Path:
    """Convert the lists of each split, of one or several folders; `options` are the last six of `convert_voc`."""
    sources = {file.parents[2] for files in lists.values() for file in files}
    check_arguments(dest, sources, **{name: options[name] for name in CHOICES})
    names = read_classes(options["classes"])
    splits = {split: _read_split(split, files) for split, files in lists.items()}
    boxes = convert_boxes(splits.values(), options["boxes"])
    keep = [s for s in splits if options["difficult" if s == "train" else "val_difficult"] == "keep"]
    source = {split: [str(file) for file in files] for split, files in lists.items()}
    options = {"source": source, **options, "classes": names}
    return write_dataset(dest, splits, names, boxes, options, keep, expected)


def _choose_lists(src: Path, wanted: Mapping[str, str | Sequence[str] | None]) -> dict[str, list[Path]]:
    """Return the files of each split; `wanted` names them or leaves the choice to the folder."""
    for folder in ("Annotations", "JPEGImages", IMAGE_SETS):
        if not (src / folder).is_dir():
            inside = sorted(str(p.parent) for p in src.glob("*/Annotations"))
            hint = f"; did you mean {' or '.join(inside)}?" if inside else ""
            raise ConfigError(f"{src} is not in VOC layout: no folder {folder} in it{hint}")
    present = sorted(p.stem for p in (src / IMAGE_SETS).glob("*.txt"))
    chosen: dict[str, list[str]] = {}
    for split, usual in {"train": ("train", "trainval"), "val": ("val", "test"), "test": ("test",)}.items():
        given = wanted[split]
        if given is not None:
            chosen[split] = [Path(item).name.removesuffix(".txt") for item in split_items(given)]
        else:
            chosen[split] = [name for name in usual if name in present and [name] not in chosen.values()][:1]
    trains = [name for name in present if name not in {"val", "test"} and not name.endswith(("_val", "_test"))]
    if not chosen["train"] and chosen["val"] and (wanted["val"] is not None or not trains):
        del chosen["train"]  # a dataset to validate on
    if not chosen["test"]:
        del chosen["test"]
    for split, names in chosen.items():
        if not names or not {*names} <= {*present}:
            asked = f"called {', '.join(names)}" if names else "of images"
            raise ConfigError(
                f"{src / IMAGE_SETS} has no list {asked} for {split}; write {split}.txt, a name "
                f"without suffix a line, or choose with {split}= from: {', '.join(present) or 'none there'} (several "
                "with commas; lists of a class, NAME 1 a line, too)"
            )
    return {split: [src / IMAGE_SETS / f"{name}.txt" for name in names] for split, names in chosen.items()}


def _read_split(split: str, files: Sequence[Path]) -> Split:
    """Return the samples of a split, their boxes as annotated."""
    found = Split()
    entries: dict[str, Path] = {}
    for file in files:
        folder = file.parents[2]
        for where, name in _read_list(file, found):
            if entries.get(name, folder) != folder:
                raise ConfigError(f"{folder / where}: {name} is in {entries[name]} as well, and both go to {split}")
            if name in entries:
                found.skipped.append(f"{where}: {name} is listed again")
            entries[name] = folder
    list_images = functools.cache(_list_images)
    owners = defaultdict(list)
    read = functools.partial(_read_sample, list_images=list_images)
    for result in map_threads(read, entries.items(), f"Reading {split}"):
        if isinstance(result, str):
            found.skipped.append(result)
        else:
            owners[result.image].append(result)
    for image, samples in owners.items():
        if len(samples) == 1:
            found.samples += samples
        else:
            them = " and ".join(f"Annotations/{s.id}.xml" for s in samples)
            found.skipped.append(f"{them}: {image.name} is the image of all; make them one")
    return found


def _read_list(file: Path, found: Split) -> Iterator[tuple[str, str]]:
    """Yield the line and the name of each image that a list names; `found` gets a line for what it names otherwise."""
    folder = file.parents[2]
    lines = [(number, line.strip()) for number, line in enumerate(read_text(file).splitlines(), 1) if line.strip()]
    is_class_list = all(CLASS_LIST.fullmatch(line) for _, line in lines)
    is_class_list = is_class_list and not all(_has_xml(folder, line) for _, line in lines)
    absent = 0
    for number, line in lines:
        where = f"{file.relative_to(folder)}:{number}"
        if is_class_list:
            line, flag = line.rsplit(maxsplit=1)
            if flag == "-1":
                absent += 1
                continue
        try:
            yield where, check_id(_parse_name(folder, line))
        except ValueError as e:
            found.skipped.append(f"{where}: {shorten_text(line)!r}: {e}")
    if absent:
        marked = pluralize(absent, "image")
        found.notes.append(f"{file.relative_to(folder)}: {marked} marked -1, not in the class, left out")


def _parse_name(folder: Path, line: str) -> str:
    """Return the name that a line means: itself, or what is left of a path of an image, an annotation or both."""
    parts = {_drop_suffix(part) for part in line.split()}
    candidates = (line, _drop_suffix(line), *(parts if len(parts) == 1 else ()))
    return next((name for name in candidates if _has_xml(folder, name)), line)


def _drop_suffix(text: str) -> str:
    """Return a path below JPEGImages or Annotations, or a name, without its suffix."""
    below = re.split(r"(?:^|/)(?:JPEGImages|Annotations)/", text)[-1]
    stem, dot, suffix = below.rpartition(".")
    return stem if dot and suffix.lower() in {*IMG_FORMATS, "xml"} else below


def _has_xml(folder: Path, name: str) -> bool:
    try:
        return (folder / "Annotations" / f"{check_id(name)}.xml").is_file()
    except (ValueError, OSError):
        return False


def _read_sample(entry: tuple[str, Path], list_images: ListImages) -> Sample | str:
    """Return an image with its objects, or the reason why it is left out."""
    name, folder = entry
    xml = f"Annotations/{name}.xml"
    try:
        with (folder / xml).open("rb") as file:
            filename, size, objects = read_xml(file.read(LARGEST + 1))
        path = _find_image(folder, name, filename, list_images)
        return Sample(name, path, *inspect_image(path, size), f"{xml}: object ", objects)
    except ValueError as e:
        return f"{xml}: {e}"
    except OSError as e:
        return f"{xml}: {e.strerror}"


def _list_images(folder: Path) -> Mapping[str, list[Path]]:
    """Return the images of a folder by their name without suffix."""
    index = defaultdict(list)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix[1:].lower() in IMG_FORMATS:
            index[path.stem].append(path)
    return dict(index)


def _find_image(folder: Path, name: str, filename: str, list_images: ListImages) -> Path:
    """Return the image of an annotation: the one of its name, or else the one that it names."""
    place = folder / "JPEGImages" / name
    images = list_images(place.parent).get(place.name, [])
    for image in images:
        if len(images) == 1 or image.name == Path(filename).name:
            return image
    if images:
        raise ValueError(f"several images of that name: {', '.join(image.name for image in images)}")
    with contextlib.suppress(ValueError):  # a name that leaves the folder is as one of no image
        named = folder / "JPEGImages" / check_id(filename)
        if named in list_images(named.parent).get(named.stem, []):
            if not _has_xml(folder, owner := filename.rpartition(".")[0]):
                return named
            filename = f"{filename}, of which {owner}.xml is the annotation,"
    raise ValueError(f"no image JPEGImages/{name}.*" + (f", and {filename} is not its image" if filename else ""))
