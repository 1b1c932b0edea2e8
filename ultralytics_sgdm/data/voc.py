"""Pascal-VOC layout (`Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/*.txt`) to the layout of Ultralytics.

The XML is untrusted: it is read with defusedxml, which refuses entities, and no file name in it is followed out of the
data set's folder. Every complaint names the file and, where there is one, the line.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler

from defusedxml import DefusedXmlException, sax
from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import TQDM

from ..configs import ConfigError
from .layout import (
    DIFFICULT,
    BadImageError,
    Expected,
    Object,
    Sample,
    Split,
    check_choice,
    check_id,
    claimed,
    inspect_image,
    write_set,
)

BOXES = ("auto", "voc", "zero")
IMAGE_SETS = "ImageSets/Main"
DEEPEST = 4  # annotation/object/bndbox/xmin
SIDES = ("xmin", "ymin", "xmax", "ymax")
FRACTIONAL = 0.01  # of all boxes; VOC2012 has a few with fractions, tools that write fractions have them nearly always


class Box(NamedTuple):
    """One `<object>` as written."""

    name: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    difficult: bool
    line: int


@dataclass
class Annotation:
    """What the conversion needs of one XML file; `size` is None where the file has no usable one."""

    filename: str | None = None
    size: tuple[int, int] | None = None
    boxes: list[Box] = field(default_factory=list)


class BadXMLError(ValueError):
    """An XML file cannot be used; the message begins with the line."""


class _Handler(ContentHandler):
    """Collects the elements that matter by their whole path, so that others may nest elements of the same names."""

    def __init__(self):
        self.annotation = Annotation()
        self.path: list[str] = []
        self.text: list[str] = []
        self.values: dict[str, str] = {}
        self.line = 0

    def setDocumentLocator(self, locator) -> None:  # noqa: N802
        self.locator = locator

    def startElement(self, name, attrs) -> None:  # noqa: N802
        self.path.append(name)
        self.text = []
        if len(self.path) == 2 and name == "object":
            self.values, self.line = {}, self.locator.getLineNumber()

    def characters(self, content) -> None:
        self.text.append(content)

    def endElement(self, name) -> None:  # noqa: N802
        path = "/".join(self.path[1:]) if len(self.path) <= DEEPEST else ""
        text = "".join(self.text).strip()
        self.path.pop()
        self.text = []
        if path == "filename":
            self.annotation.filename = text
        elif path == "object":
            self.annotation.boxes.append(self._box())
        elif path == "size":
            self.annotation.size = self._size()
        elif path.startswith(("object/", "size/")):
            self.values[path] = text

    def _box(self) -> Box:
        name = self.values.get("object/name")
        if not name:
            raise BadXMLError(f"{self.line}: object without a name")
        sides = []
        for side in SIDES:
            text = self.values.get(f"object/bndbox/{side}")
            try:
                sides.append(float(text or ""))
            except ValueError:
                sides.append(math.nan)
            if not math.isfinite(sides[-1]):
                what = f"no number: {text!r}" if text else "missing"
                raise BadXMLError(f"{self.line}: object {name!r}, bndbox/{side} is {what}")
        difficult = self.values.get("object/difficult", "").lower() in {"1", "true", "yes"}
        return Box(name, *sides, difficult, self.line)

    def _size(self) -> tuple[int, int] | None:
        try:
            width, height = (int(float(self.values.pop(f"size/{side}", ""))) for side in ("width", "height"))
        except (ValueError, OverflowError):
            return None
        return (width, height) if width > 0 and height > 0 else None


def read_xml(content: bytes) -> Annotation:
    """Read one annotation file.

    Args:
        content: The file; its own XML declaration tells the encoding.

    Returns:
        The annotation, coordinates as written.

    Raises:
        BadXMLError: If it is not well-formed, declares entities, or has an object without name or box.
    """
    handler = _Handler()
    try:
        sax.parseString(content, handler)
    except SAXParseException as e:
        raise BadXMLError(f"{e.getLineNumber()}: {e.getMessage()}") from e
    except DefusedXmlException as e:
        raise BadXMLError(f"{handler.locator.getLineNumber()}: entities are refused ({type(e).__name__})") from e
    except (LookupError, UnicodeError) as e:
        raise BadXMLError(f"1: {e}") from e
    return handler.annotation


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
            `train` or else `trainval`.
        val: The same of the validation split; without it, `val` or else `test`.
        test: The same of the test split; without it, `test` unless that is the validation split already.
        classes: Class names in the order of their numbers, "a,b" or the path of a `.txt` with one a line; objects of
            other classes are left out. Without it, the names found in the data, in alphabetical order.
        boxes: "voc" for integers counted from 1 whose last pixel is inside the box, "zero" for coordinates counted from
            0, "auto" to tell by the data: "zero" if a box of the set begins at 0 or more than 1 % have fractions.
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
        image_sets: Files `FOLDER/ImageSets/Main/NAME.txt` of each split: "train", "val" and perhaps "test".
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
    names = _class_names(classes)
    options = {
        "source": {split: [str(file) for file in files] for split, files in image_sets.items()},
        "classes": names,
        "boxes": boxes,
        "difficult": difficult,
        "val_difficult": val_difficult,
        "images": images,
    }
    with claimed(dest, options):
        found = {split: _read_split(split, files) for split, files in image_sets.items()}
        everything = [b for split in found.values() for _, annotation in split.pairs for b in annotation.boxes]
        if boxes == "auto":
            boxes = _guess_boxes(everything)
        policies = {split: difficult if split == "train" else val_difficult for split in found}
        return write_set(
            dest,
            {name: split.convert(boxes) for name, split in found.items()},
            {split: split for split in found},
            names or sorted({b.name for b in everything}),
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
            inside = sorted(p.parent.name for p in src.glob("*/Annotations")) if src.is_dir() else []
            hint = f"; did you mean {' or '.join(str(src / name) for name in inside)}?" if inside else ""
            raise ConfigError(f"{src} is not in VOC layout: no folder {folder} in it{hint}")
    present = sorted(p.stem for p in (src / IMAGE_SETS).glob("*.txt"))
    chosen: dict[str, list[str]] = {}
    for split, usual in {"train": ("train", "trainval"), "val": ("val", "test"), "test": ("test",)}.items():
        if wanted[split] is not None:
            chosen[split] = _as_list(wanted[split])
        else:
            free = [name for name in usual if name in present and [name] not in chosen.values()]
            if free or split != "test":
                chosen[split] = free[:1]
    for split, lists in chosen.items():
        for name in lists:
            if name not in present:
                raise ConfigError(f"{split}={name}: {src / IMAGE_SETS} has no {name}.txt, only {', '.join(present)}")
        if not lists:
            raise ConfigError(
                f"{src / IMAGE_SETS} has no list of images for {split}; write {split}.txt, a name without suffix a "
                f"line, or choose with {split}= from: {', '.join(present) or 'none there'}"
            )
    return {split: [src / IMAGE_SETS / f"{name}.txt" for name in lists] for split, lists in chosen.items()}


def _as_list(value: str | Sequence[str]) -> list[str]:
    parts = str(value).split(",") if isinstance(value, (str, int, float)) else map(str, value)
    return [part.strip() for part in parts if part.strip()]


def _class_names(classes: str | Sequence[str] | None) -> list[str] | None:
    if classes is None:
        return None
    if isinstance(classes, str) and classes.endswith(".txt"):
        try:
            lines = Path(classes).read_text(encoding="utf-8-sig").splitlines()
        except OSError as e:
            raise ConfigError(f"classes={classes}: {e.strerror}") from e
        names = [line.strip() for line in lines if line.strip()]
    else:
        names = _as_list(classes)
    repeated = {name for name in names if names.count(name) > 1}
    if repeated or not names:
        raise ConfigError(f"classes={classes}: {f'{repeated.pop()!r} is there twice' if repeated else 'no name in it'}")
    return names


@dataclass
class _Found:
    """The usable images of a split with their annotations as written, and a line for each that is not."""

    pairs: list[tuple[Sample, Annotation]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def convert(self, boxes: str) -> Split:
        shift = 1 if boxes == "voc" else 0
        for sample, annotation in self.pairs:
            sample.objects = [_object(box, shift) for box in annotation.boxes]
        return Split([sample for sample, _ in self.pairs], self.skipped)


def _object(box: Box, shift: int) -> Object:
    """Return a box as continuous coordinates; one that ends where it begins stays so in either convention."""
    if box.xmax <= box.xmin or box.ymax <= box.ymin:
        shift = 0
    return Object(box.name, box.xmin - shift, box.ymin - shift, box.xmax, box.ymax, box.difficult, box.line)


def _guess_boxes(boxes: Sequence[Box]) -> str:
    fractional = sum(any(side % 1 for side in b[1:5]) for b in boxes)
    at_zero = any(b.xmin == 0 or b.ymin == 0 for b in boxes)
    return "zero" if at_zero or fractional > FRACTIONAL * len(boxes) else "voc"


def _read_split(split: str, files: Sequence[Path]) -> _Found:
    found = _Found()
    entries: dict[str, Path] = {}
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeError) as e:
            raise ConfigError(f"{file}: {e}") from e
        folder = file.parents[2]
        for number, line in enumerate(lines, 1):
            place = f"{file.relative_to(folder)}:{number}"
            if not line.strip():
                continue
            try:
                name = check_id(line.strip())
            except BadImageError as e:
                found.skipped.append(f"{place}: {line.strip()!r}: {e}")
                continue
            if entries.get(name, folder) != folder:
                raise ConfigError(f"{file}:{number}: {name} is in {entries[name]} as well, and both go to {split}")
            if name in entries:
                found.skipped.append(f"{place}: {name} is listed again")
            entries[name] = folder
    indexes = {folder: _image_index(folder / "JPEGImages") for folder in {*entries.values()}}
    for name, folder in TQDM(entries.items(), desc=f"Reading {split}"):
        xml = f"Annotations/{name}.xml"
        try:
            annotation = read_xml((folder / xml).read_bytes())
            image = _find_image(name, annotation.filename, indexes[folder])
            path = folder / "JPEGImages" / image
            width, height, intact = inspect_image(path, annotation.size)
        except BadXMLError as e:
            found.skipped.append(f"{xml}:{e}")
        except BadImageError as e:
            found.skipped.append(f"{xml}: {e}")
        except OSError as e:
            found.skipped.append(f"{xml}: {e.strerror}")
        else:
            found.pairs.append((Sample(name, path, width, height, intact, f"{xml}:"), annotation))
    return found


def _image_index(folder: Path) -> dict[str, list[str]]:
    """Return the images of a folder, relative to it, by their path without suffix."""
    index = defaultdict(list)
    for parent, _, files in os.walk(folder):
        above = os.path.relpath(parent, folder).replace(os.sep, "/") + "/" if parent != str(folder) else ""
        for file in files:
            stem, _, suffix = file.rpartition(".")
            if suffix.lower() in IMG_FORMATS:
                index[above + stem].append(above + file)
    return index


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
