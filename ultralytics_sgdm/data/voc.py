"""Pascal-VOC layout (`Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/*.txt`) to the layout of Ultralytics.

Annotations are untrusted (see `voc_xml`): no file name in them is followed out of the folder of the set. A complaint
names the file and, where there is one, the line.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import NUM_THREADS, TQDM

from ..configs import ConfigError
from .boxes import BOXES, guess_boxes, in_pixels
from .files import read_text
from .images import BadImageError, inspect_image
from .journal import Journal
from .layout import (
    DIFFICULT,
    Expected,
    Object,
    Sample,
    Split,
    as_list,
    check_choice,
    check_id,
    claimed,
    class_names,
    write_set,
)
from .voc_xml import Annotation, BadXMLError, read_xml, short

IMAGE_SETS = "ImageSets/Main"
CLASS_LIST = re.compile(r"(.+?)\s+([+-]?[01])")  # NAME 1, NAME -1 (not in the class), NAME 0 (difficult)
A_LINE = "a line is the name of an image without suffix; in the list of a class NAME 1, NAME 0 or NAME -1"


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
    """Convert a folder in Pascal-VOC layout into a set that data= takes: `yolo sgdm voc SRC DEST`.

    An interrupted conversion is completed, a complete one is left as it is.

    Args:
        src: Folder with `Annotations`, `JPEGImages` and `ImageSets/Main`; only read.
        dest: Folder of the new set, see `layout`.
        train: Lists of `ImageSets/Main` that make the training split, such as "trainval" or "train,val"; without it,
            `train` or else `trainval`, or no training split if the folder has only lists of a validation or test set.
            Lists of a class (`NAME 1`) give the images that are marked 1 or 0.
        val: The same of the validation split; without it, `val` or else `test`.
        test: The same of the test split; without it, `test` unless that is the validation split already.
        classes: Class names in the order of their numbers, "a,b" or the path of a `.txt` with one a line; objects of
            other classes are left out. Without it, the names found in the data, in alphabetical order.
        boxes: "voc" for integers counted from 1 whose last pixel is inside the box, "zero" for coordinates counted from
            0, "fraction" for fractions of the picture, "auto" to tell by the data: "fraction" if no coordinate of the
            set is above 1, "zero" if a box begins at 0 or more than 1 % have fractions.
        difficult: "drop" or "keep" the objects marked difficult in the training split.
        val_difficult: The same for the other splits.
        images: "hardlink", "copy" or "symlink" the images.
        strict: Refuse the whole set if anything would be skipped.

    Returns:
        The data set's YAML, for `yolo train data=`.

    Raises:
        ConfigError: If an argument or the folder is not usable; the message names the fix.
    """
    src, dest = Path(src).resolve(), Path(dest).resolve()
    if not src.is_dir():
        raise ConfigError(
            f"{src}: {'not a folder' if src.exists() else 'no such folder'}; SRC is a folder in VOC layout"
        )
    splits = _choose_lists(src, {"train": train, "val": val, "test": test})
    if dest.is_relative_to(src):
        raise ConfigError(f"{dest} lies in the source {src}, which is only read; choose another folder")
    return convert_image_sets(splits, dest, classes, boxes, difficult, val_difficult, images, strict)


def convert_image_sets(
    image_sets: Mapping[str, Sequence[Path]],
    dest: Path,
    classes: str | Sequence[str] | None = None,
    boxes: str = "auto",
    difficult: str = "drop",
    val_difficult: str = "drop",
    images: str = "hardlink",
    strict: bool = False,
    expected: Mapping[str, Expected] | None = None,
) -> Path:
    """Convert image sets of one or several folders in VOC layout into one data set.

    Args:
        image_sets: Files `FOLDER/ImageSets/Main/NAME.txt` of each split: "val", perhaps "train" and "test".
        dest: As for `convert_voc`, like the arguments after it.
        classes: See `convert_voc`.
        boxes: See `convert_voc`.
        difficult: See `convert_voc`.
        val_difficult: See `convert_voc`.
        images: See `convert_voc`.
        strict: See `convert_voc`.
        expected: Published counts of splits, see `layout.write_set`.

    Returns:
        The data set's YAML.

    Raises:
        ConfigError: As `convert_voc`, and if the counts are not as expected.
    """
    check_choice("boxes", boxes, BOXES)
    check_choice("difficult", difficult, DIFFICULT)
    check_choice("val_difficult", val_difficult, DIFFICULT)
    check_choice("strict", strict, (True, False))
    names = class_names(classes)
    options = {
        "source": {split: [str(file) for file in files] for split, files in image_sets.items()},
        "classes": names,
        "boxes": boxes,
        "difficult": difficult,
        "val_difficult": val_difficult,
        "images": images,
    }
    with claimed(dest, options, image_sets) as journal:
        found = {split: _read_split(split, files, journal) for split, files in image_sets.items()}
        found_names = {o.name for split in found.values() for sample in split.samples for o in sample.objects}
        if boxes == "auto":
            boxes = guess_boxes(found.values())
        policies = {split: difficult if split == "train" else val_difficult for split in found}
        return write_set(
            dest,
            {name: in_pixels(split, boxes) for name, split in found.items()},
            {split: split for split in found},
            names or sorted(found_names),
            options,
            {"boxes": boxes},
            [split for split, policy in policies.items() if policy == "keep"],
            strict,
            expected,
        )


def _choose_lists(src: Path, wanted: Mapping[str, str | Sequence[str] | None]) -> dict[str, list[Path]]:
    """Return the files of each split; `wanted` names them or leaves the choice to the folder."""
    for folder in ("Annotations", "JPEGImages", IMAGE_SETS):
        if not (src / folder).is_dir():
            inside = sorted(p.parent.name for p in src.glob("*/Annotations"))
            hint = f"; did you mean {' or '.join(str(src / name) for name in inside)}?" if inside else ""
            raise ConfigError(f"{src} is not in VOC layout: no folder {folder} in it{hint}")
    present = sorted(p.stem for p in (src / IMAGE_SETS).glob("*.txt"))
    chosen: dict[str, list[str]] = {}
    for split, usual in {"train": ("train", "trainval"), "val": ("val", "test"), "test": ("test",)}.items():
        given = wanted[split]
        if given is not None:
            chosen[split] = [_list_name(src, item) for item in as_list(given)]
        else:
            free = [name for name in usual if name in present and [name] not in chosen.values()]
            if free or split != "test":
                chosen[split] = free[:1]
    others = [name for name in present if name not in {"val", "test"} and not name.endswith(("_val", "_test"))]
    if not chosen["train"] and chosen["val"] and (wanted["val"] is not None or not others):
        del chosen["train"]  # a set to validate on
    for split, lists in chosen.items():
        for name in lists:
            if name not in present:
                raise ConfigError(f"{split}={name}: {src / IMAGE_SETS} has no {name}.txt, only {', '.join(present)}")
        if not lists:
            raise ConfigError(
                f"{src / IMAGE_SETS} has no list of images for {split}; write {split}.txt, a name without suffix a "
                f"line, or choose with {split}= from: {', '.join(present) or 'none there'} (several with commas; lists "
                "of a class, NAME 1 a line, too)"
            )
    return {split: [src / IMAGE_SETS / f"{name}.txt" for name in lists] for split, lists in chosen.items()}


def _list_name(src: Path, given: str) -> str:
    """Return the name of a list that is given by its name, its file, or the path of its file."""
    if Path(given).suffix != ".txt":
        return given
    path = Path(given)
    folder = src / IMAGE_SETS
    if path.parent != Path() and path.resolve().parent != folder.resolve():
        raise ConfigError(f"{given} is not in {folder}; put it there and give its name, {path.stem}")
    return path.stem


def _read_split(split: str, files: Sequence[Path], journal: Journal) -> Split:
    """Return the samples of a split, their boxes as written."""
    found = Split()
    entries: dict[str, Path] = {}
    for file in files:
        folder = file.parents[2]
        for place, name in _read_list(file, found):
            if entries.get(name, folder) != folder:
                raise ConfigError(f"{folder / place}: {name} is in {entries[name]} as well, and both go to {split}")
            if name in entries:
                found.skipped.append(f"{place}: {name} is listed again")
            entries[name] = folder
    indexes = {folder: _image_index(folder / "JPEGImages", found.remarks) for folder in {*entries.values()}}
    with ThreadPool(NUM_THREADS) as pool:
        results = pool.imap(lambda entry: _read_sample(*entry, indexes[entry[1]], journal), entries.items())
        for result in TQDM(results, desc=f"Reading {split}", total=len(entries)):
            (found.skipped if isinstance(result, str) else found.samples).append(result)
    places = defaultdict(list)
    for sample in found.samples:
        places[sample.image].append(sample.place)
    for sample in found.samples:
        others = [place.rstrip(":") for place in places[sample.image] if place != sample.place]
        if others:
            found.skipped.append(
                f"{sample.place} its image {sample.image.name} is that of {', '.join(others)} too; make them one"
            )
    found.samples = [sample for sample in found.samples if len(places[sample.image]) == 1]
    return found


def _read_list(file: Path, found: Split) -> Iterator[tuple[str, str]]:
    """Yield the place and the name of each image that a list names; what it names otherwise is told to `found`."""
    folder = file.parents[2]
    lines = [(number, line.strip()) for number, line in enumerate(read_text(file).splitlines(), 1) if line.strip()]
    is_class_list = bool(lines) and all(CLASS_LIST.fullmatch(line) for _, line in lines)
    is_class_list = is_class_list and not all(_has_xml(folder, line) for _, line in lines)
    absent = 0
    for number, line in lines:
        place = f"{file.relative_to(folder)}:{number}"
        if is_class_list:
            line, flag = line.rsplit(maxsplit=1)
            if flag == "-1":
                absent += 1
                continue
        try:
            yield place, check_id(_named(folder, line))
        except BadImageError as e:
            found.skipped.append(f"{place}: {short(line)!r}: {e}")
    if absent:
        found.remarks.append(f"{file.relative_to(folder)}: {absent:,} images marked -1, not in the class, left out")


def _named(folder: Path, line: str) -> str:
    """Return the name that a line means: itself, or what is left of a path of an image, an annotation or both."""
    if _has_xml(folder, line):
        return line
    names = {_without_suffix(part) for part in line.split()}
    if len(names) == 1 and _has_xml(folder, *names):
        return names.pop()
    name = _without_suffix(line)
    if name != line and _has_xml(folder, name):
        return name
    if len(names) > 1:
        raise BadImageError(f"no Annotations/*.xml of this name; {A_LINE}")
    return line


def _without_suffix(text: str) -> str:
    """Return a path below JPEGImages or Annotations, or a name, without its suffix."""
    below = re.split(r"(?:^|/)(?:JPEGImages|Annotations)/", text)[-1]
    stem, dot, suffix = below.rpartition(".")
    return stem if dot and suffix.lower() in {*IMG_FORMATS, "xml"} else below


def _has_xml(folder: Path, name: str) -> bool:
    try:
        return (folder / "Annotations" / f"{check_id(name)}.xml").is_file()
    except (BadImageError, OSError):
        return False


def _read_sample(name: str, folder: Path, index: Mapping[str, Sequence[str]], journal: Journal) -> Sample | str:
    """Return an image with its objects, or the reason why it is not used."""
    xml = f"Annotations/{name}.xml"
    try:
        filename, size, objects = journal(_read_annotation, folder / xml)
        image = _find_image(name, filename, index)
        owner = image.rpartition(".")[0]
        if owner != name and _has_xml(folder, owner):
            raise BadImageError(f"no image JPEGImages/{name}.*, and {image}, which it names, is that of {owner}.xml")
        path = folder / "JPEGImages" / image
        width, height, intact = journal(inspect_image, path, size and tuple(size))
    except BadXMLError as e:
        return f"{xml}:{e}"
    except BadImageError as e:
        return f"{xml}: {e}"
    except OSError as e:
        return f"{xml}: {e.strerror}"
    return Sample(name, path, width, height, intact, f"{xml}:", [Object(*o) for o in objects])


def _read_annotation(file: Path) -> Annotation:
    return read_xml(file.read_bytes())


def _image_index(folder: Path, remarks: list[str]) -> dict[str, list[str]]:
    """Return the images of a folder, relative to it, by their path without suffix; links to folders are followed once.

    Args:
        folder: The folder.
        remarks: Gets a line for each link that is not followed, because its folder was looked through already.
    """
    index = defaultdict(list)
    seen: set[str] = set()
    queue = [folder]
    while queue:
        top = queue.pop(0)
        if os.path.realpath(top) in seen:
            remarks.append(f"{top.relative_to(folder.parent)} leads to a folder that is read already; not followed")
            continue
        for parent, folders, files in os.walk(top, onerror=_refuse):
            seen.add(os.path.realpath(parent))
            queue += [Path(parent, name) for name in sorted(folders) if Path(parent, name).is_symlink()]
            above = os.path.relpath(parent, folder).replace(os.sep, "/") + "/" if parent != str(folder) else ""
            for file in files:
                stem, _, suffix = file.rpartition(".")
                if suffix.lower() in IMG_FORMATS:
                    index[above + stem].append(above + file)
    return index


def _refuse(error: OSError) -> None:
    raise error  # os.walk leaves out a folder that cannot be read, without a word


def _find_image(name: str, filename: str | None, index: Mapping[str, Sequence[str]]) -> str:
    """Return the image of an annotation: the one of its name, or else the one that it names in the same folder."""
    images = index.get(name, ())
    if len(images) == 1:
        return images[0]
    named = filename or ""
    if named in (images or index.get(named.rpartition(".")[0], ())):
        return named
    if images:
        raise BadImageError(f"several images of that name: {', '.join(sorted(images))}")
    raise BadImageError(f"no image JPEGImages/{name}.*" + (f" and none named {named!r} there" if named else ""))
