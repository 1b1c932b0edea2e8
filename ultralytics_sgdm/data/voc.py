"""Pascal-VOC layout (`Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/*.txt`) to the layout of Ultralytics.

The XML is untrusted: it is read with defusedxml, which refuses entities, and no file name in it is followed out of the
data set's folder. Every complaint names the file and, where there is one, the line. What looks like an object and is
none of VOC's is a complaint too: only an annotation that has no object is a background.
"""

from __future__ import annotations

import codecs
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler

from defusedxml import DefusedXmlException, sax
from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import NUM_THREADS, TQDM

from ..configs import ConfigError
from .boxes import BOXES, guess_boxes, in_pixels
from .files import read_text
from .images import BadImageError, inspect_image
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

IMAGE_SETS = "ImageSets/Main"
DEEPEST = 4  # annotation/object/bndbox/xmin
SIDES = ("xmin", "ymin", "xmax", "ymax")

# The VOC2007 development kit, section 4.1 (annotation files): what an annotation, or an object of it, has once.
ONCE = {
    *("folder", "filename", "segmented", "source", "source/database", "source/annotation", "source/image", "owner"),
    *("size", "size/width", "size/height", "size/depth"),
    *(f"object/{name}" for name in ("name", "pose", "truncated", "difficult", "occluded")),
    *(f"object/bndbox/{side}" for side in SIDES),
}
# What other tools call an object, a box, or a side of it; compared without capitals, "_" and "-".
OBJECT_LIKE = {
    *("annotations", "object", "objects", "obj", "item", "instance", "instances", "shape", "region", "target", "label"),
    *("box", "boxes", "bndbox", "bbox", "boundingbox", "rect", "rectangle", "robndbox", "rotatedbbox", "ellipse"),
    *("polygon", "polyline", "points", "point", "mask", "cuboid", "keypoints", "segmentation"),
    *("xmin", "ymin", "xmax", "ymax", "x1", "y1", "x2", "y2", "xtl", "ytl", "xbr", "ybr", "left", "top", "cx", "cy"),
}
BOX_NUMBERS = 4  # numbers in an element of another name that make it look like an object
# Encodings that expat does not read, and what documents that declare them are in (WHATWG Encoding Standard, 4.2).
MULTIBYTE = {
    **dict.fromkeys(("gb2312", "gbk", "gb18030"), "gb18030"),
    **dict.fromkeys(("big5", "big5hkscs"), "big5hkscs"),
    **dict.fromkeys(("shift_jis", "cp932"), "cp932"),
    **dict.fromkeys(("euc_kr", "cp949"), "cp949"),
    "euc_jp": "euc_jp",
    "iso2022_jp": "iso2022_jp",
}
DECLARED = re.compile(
    rb"""<\?xml\s+version\s*=\s*["'][\d.]+["']\s+encoding\s*=\s*["']([\w.:-]+)["'](\s+standalone\s*=\s*["']\w+["'])?\s*\?>"""
)
CLASS_LIST = re.compile(r"(.+?)\s+([+-]?[01])")  # NAME 1, NAME -1 (not in the class), NAME 0 (difficult)
A_LINE = "a line is the name of an image without suffix; in the list of a class NAME 1, NAME 0 or NAME -1"


@dataclass
class Annotation:
    """What the conversion needs of one XML file; `size` is None where the file has no usable one."""

    filename: str | None = None
    size: tuple[int, int] | None = None
    objects: list[Object] = field(default_factory=list)


class BadXMLError(ValueError):
    """An XML file cannot be used; the message begins with the line."""


class _Handler(ContentHandler):
    """Collects the elements that matter by their whole path, so that others may nest elements of the same names."""

    def __init__(self):
        self.annotation = Annotation()
        self.path: list[str] = []
        self.text: list[str] = []
        self.values: dict[str, str] = {}  # of the size, or of the present object except its boxes
        self.sides: list[dict[str, str]] = []  # of each box of the present object
        self.seen: set[str] = set()  # of the elements that VOC has once
        self.line = 0
        self.numbers = 0  # in the present element of the annotation that is none of VOC's

    def setDocumentLocator(self, locator) -> None:  # noqa: N802
        self.locator = locator

    def startElement(self, name, attrs) -> None:  # noqa: N802
        self.path.append(name)
        self.text = []
        depth, line = len(self.path), self.locator.getLineNumber()
        if depth == 1:
            if name != "annotation":
                raise BadXMLError(f"{line}: no VOC annotation, its root is <{_short(name)}> and not <annotation>")
            return
        path = "/".join(self.path[1:]) if depth <= DEEPEST else ""
        if path == "object":
            self.values, self.sides, self.line = {}, [], line
            self.seen = {p for p in self.seen if not p.startswith("object/")}
        elif path == "object/bndbox":
            self.sides.append({})
            self.seen = {p for p in self.seen if not p.startswith("object/bndbox/")}
        elif path in ONCE:
            if path in self.seen:
                raise BadXMLError(f"{line}: <{name}> again, VOC has one in <{self.path[-2]}>")
            self.seen.add(path)
        elif self.path[1] == "object":
            if name == "object":
                raise BadXMLError(f"{line}: <object> in an <object>; VOC has them one after the other")
        else:
            self.numbers = 0 if depth == 2 else self.numbers
            self.numbers += sum(_is_number(value) for value in attrs.values())
            self._check_other(name, line)

    def characters(self, content) -> None:
        self.text.append(content)

    def endElement(self, name) -> None:  # noqa: N802
        depth = len(self.path)
        path = "/".join(self.path[1:]) if depth <= DEEPEST else ""
        text = "".join(self.text).strip()
        if depth > 1 and path not in ONCE and self.path[1] != "object":
            self.numbers += sum(map(_is_number, re.split(r"[\s,;]+", text)))
            self._check_other(self.path[1], self.locator.getLineNumber())
        self.path.pop()
        self.text = []
        if path == "filename":
            self.annotation.filename = text
        elif path == "object":
            self.annotation.objects += self._objects()
        elif path == "size":
            self.annotation.size = self._size()
        elif path.startswith("object/bndbox/"):
            self.sides[-1][name] = text
        elif path.startswith(("object/", "size/")):
            self.values[path] = text

    def _check_other(self, name: str, line: int) -> None:
        """Refuse an element outside of VOC's that is called like an object or holds as many numbers as a box."""
        if re.sub("[_-]", "", name).casefold() in OBJECT_LIKE or self.numbers >= BOX_NUMBERS:
            raise BadXMLError(
                f"{line}: <{_short(name)}> looks like an object and is not read; VOC has <annotation><object><bndbox>"
            )

    def _objects(self) -> list[Object]:
        name = self.values.get("object/name")
        if not name:
            raise BadXMLError(f"{self.line}: object without a name")
        difficult = self.values.get("object/difficult", "").lower() in {"1", "true", "yes"}
        objects = []
        for texts in self.sides or [{}]:
            sides = []
            for side in SIDES:
                text = texts.get(side, "")
                sides.append(float(text) if _is_number(text) else math.nan)
                if not math.isfinite(sides[-1]):
                    what = f"no number: {text!r}" if text else "missing"
                    raise BadXMLError(f"{self.line}: object {name!r}, bndbox/{side} is {what}")
            objects.append(Object(name, *sides, difficult, self.line))
        return objects

    def _size(self) -> tuple[int, int] | None:
        try:
            width, height = (int(float(self.values.pop(f"size/{side}", ""))) for side in ("width", "height"))
        except (ValueError, OverflowError):
            return None
        return (width, height) if width > 0 and height > 0 else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:40]}..."


def read_xml(content: bytes) -> Annotation:
    """Read one annotation file.

    Args:
        content: The file; its own XML declaration tells the encoding, any that expat or `MULTIBYTE` knows.

    Returns:
        The annotation, coordinates as written.

    Raises:
        BadXMLError: If it is not well-formed or no VOC annotation, declares entities, has an object without name or
            box, has an element twice that VOC has once, or has what looks like an object in another place.
    """
    handler = _Handler()
    try:
        sax.parseString(_in_utf8(content), handler)
    except SAXParseException as e:
        raise BadXMLError(f"{e.getLineNumber()}: {e.getMessage()}") from e
    except DefusedXmlException as e:
        raise BadXMLError(f"{handler.locator.getLineNumber()}: entities are refused ({type(e).__name__})") from e
    except BadXMLError:
        raise
    except (LookupError, ValueError) as e:  # ValueError: an encoding of several bytes that expat does not read
        raise BadXMLError(f"1: {e}; save it as UTF-8") from e
    return handler.annotation


def _in_utf8(content: bytes) -> bytes:
    """Return an XML file in UTF-8 if it declares an encoding of `MULTIBYTE`; lines stay where they are."""
    declared = DECLARED.match(content)
    if not declared:
        return content
    try:
        name = codecs.lookup(declared[1].decode()).name
    except LookupError:
        return content  # expat says so, with the line
    if name not in MULTIBYTE:
        return content
    return (b"<?xml version='1.0'?>" + content[declared.end() :]).decode(MULTIBYTE[name]).encode()


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
    with claimed(dest, options, image_sets):
        found = {split: _read_split(split, files) for split, files in image_sets.items()}
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
        if wanted[split] is not None:
            chosen[split] = as_list(wanted[split])
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


def _read_split(split: str, files: Sequence[Path]) -> Split:
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
        results = pool.imap(lambda entry: _read_sample(*entry, indexes[entry[1]]), entries.items())
        for result in TQDM(results, desc=f"Reading {split}", total=len(entries)):
            (found.skipped if isinstance(result, str) else found.samples).append(result)
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
            line, flag = CLASS_LIST.fullmatch(line).groups()
            if flag == "-1":
                absent += 1
                continue
        try:
            yield place, check_id(_named(folder, line))
        except BadImageError as e:
            found.skipped.append(f"{place}: {_short(line)!r}: {e}")
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


def _read_sample(name: str, folder: Path, index: Mapping[str, Sequence[str]]) -> Sample | str:
    """Return an image with its objects, or the reason why it is not used."""
    xml = f"Annotations/{name}.xml"
    try:
        annotation = read_xml((folder / xml).read_bytes())
        path = folder / "JPEGImages" / _find_image(name, annotation.filename, index)
        width, height, intact = inspect_image(path, annotation.size)
    except BadXMLError as e:
        return f"{xml}:{e}"
    except BadImageError as e:
        return f"{xml}: {e}"
    except OSError as e:
        return f"{xml}: {e.strerror}"
    return Sample(name, path, width, height, intact, f"{xml}:", annotation.objects)


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
        for parent, folders, files in os.walk(top):
            seen.add(os.path.realpath(parent))
            queue += [Path(parent, name) for name in sorted(folders) if Path(parent, name).is_symlink()]
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
