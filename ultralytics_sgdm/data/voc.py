"""Folders in Pascal-VOC layout: `Annotations/*.xml`, `JPEGImages/` and the lists in `ImageSets/Main/*.txt`.

Annotations are untrusted: defusedxml reads them, which refuses entities. What is called like an object and is not one
of VOC's is an error: only an annotation that has no object is a background.
"""

from __future__ import annotations

import codecs
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from defusedxml import DefusedXmlException, ElementTree
from ultralytics.data.utils import IMG_FORMATS

from ..errors import ConfigError
from .dataset import Object, Sample, Split, inspect_images, read_classes, read_lines, shorten_text, split_items
from .yolo import check_arguments, write_dataset

IMAGE_SETS = "ImageSets/Main"
USUAL_LISTS = {"train": ("train", "trainval"), "val": ("val", "test"), "test": ("test",)}
CLASS_LIST = re.compile(r"(.+?)\s+([+-]?[01])")  # NAME 1, NAME -1 (not in the class), NAME 0 (difficult)
OBJECT_LIKE = re.compile(  # what other tools call an object, a box or an outline
    r".*(box|obj|poly|instance|segmentation).*|annotations|item|shape|region|target|label|mask|rect(angle)?|points?",
    re.IGNORECASE,
)
TRUE = {"1", "1.0", "true", "yes", "y"}
DECLARED = re.compile(rb"""<\?xml\s[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
SUPERSETS = {
    "gb2312": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}  # as written
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


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
        dest: New folder of the dataset; its `conversion.json` has all counts and what was left out.
        train: Lists of `ImageSets/Main` that make the training split, such as "train,val"; of lists of a class, the
            images marked 1 or 0. Default: `train` or else `trainval`, or no training split without both.
        val: The same of the validation split; default: `val` or else `test`.
        test: The same of the test split; default: `test` unless that is the validation split already.
        classes: Class names in the order of their numbers, "a,b" or the path of a `.txt` with one a line; objects of
            other classes are left out. Default: the names found in the data, in alphabetical order.
        boxes: "voc" for integers from 1, the last pixel inside the box; "zero" for coordinates from 0; "fraction" of
            the image; "auto": "fraction" if none is above 1, "zero" if one is 0 or more than 1 % have fractions.
        difficult: "drop" or "keep" the objects marked difficult in the training split.
        val_difficult: "drop" or "keep" the objects marked difficult in the validation and test splits.
        images: "hardlink", "copy" or "symlink" the images.
        strict: Refuse the whole dataset if an image or a box would be left out as faulty.

    Returns:
        The YAML of the dataset, for `yolo train data=`.

    Raises:
        ConfigError: If an argument or the folder cannot be used; the message names the fix.
    """
    src, dest = Path(src).resolve(), Path(dest).resolve()
    if not (src / IMAGE_SETS).is_dir():
        raise ConfigError(f"{src} is not a folder in VOC layout, such as VOCdevkit/VOC2007: no {IMAGE_SETS} in it")
    lists = _choose_lists(src / IMAGE_SETS, {"train": train, "val": val, "test": test})
    options = {"classes": classes, "boxes": boxes, "difficult": difficult, "val_difficult": val_difficult}
    return convert_lists(lists, dest, {**options, "images": images, "strict": strict})


def convert_lists(lists: Mapping[str, Sequence[Path]], dest: Path, options: dict[str, Any]) -> Path:
    """Convert the lists of each split, of one or several folders.

    `options` are the last six of `convert_voc`; for more see `write_dataset`.
    """
    check_arguments(dest, options)
    source = {split: [str(file) for file in files] for split, files in lists.items()}
    options = {"source": source, **options, "classes": read_classes(options["classes"])}
    folders = {folder: _Folder(folder) for folder in {file.parents[2] for files in lists.values() for file in files}}
    splits = {split: _read_split(split, files, folders) for split, files in lists.items()}
    return write_dataset(dest, splits, options)


def _choose_lists(folder: Path, wanted: Mapping[str, str | Sequence[str] | None]) -> dict[str, list[Path]]:
    """Return the files of each split; `wanted` names them or leaves the choice to the folder."""
    present = sorted(p.stem for p in folder.glob("*.txt"))
    chosen: dict[str, list[str]] = {}
    for split, usual in USUAL_LISTS.items():
        default = [name for name in usual if name in present and [name] not in chosen.values()][:1]
        given = default if wanted[split] is None else split_items(wanted[split] or "")
        chosen[split] = [Path(item).name.removesuffix(".txt") for item in given]
    optional = ("train", "test") if chosen["val"] else ("test",)  # without train: a dataset to validate on
    chosen = {split: names for split, names in chosen.items() if names or split not in optional}
    for split, names in chosen.items():
        if not names or not {*names} <= {*present}:
            lacking, there = ", ".join(names or USUAL_LISTS[split]), ", ".join(present) or "none there"
            raise ConfigError(f"{folder} has no list {lacking} for {split}; choose with {split}= from: {there}")
    return {split: [folder / f"{name}.txt" for name in names] for split, names in chosen.items()}


def _read_split(split: str, files: Sequence[Path], folders: Mapping[Path, _Folder]) -> Split:
    """Return the samples of a split, their boxes as annotated."""
    found = Split()
    entries = {name: folders[file.parents[2]] for file in files for name in _read_list(file, folders[file.parents[2]])}
    for name, folder in entries.items():
        try:
            found.samples.append(folder.read(name))
        except (ValueError, OSError) as e:
            found.skipped.append(f"Annotations/{shorten_text(name)}.xml: {e}")
    inspect_images(found, split)
    return found


def _read_list(file: Path, folder: _Folder) -> list[str]:
    """Return the names of the images that a list means."""
    lines = split_items(read_lines(file))
    if all(CLASS_LIST.fullmatch(line) for line in lines) and not all(line in folder.xmls for line in lines):
        lines = [line.rsplit(maxsplit=1)[0] for line in lines if not line.endswith("-1")]
    return [folder.parse_name(line) for line in lines]


class _Folder:
    """A folder in VOC layout: its annotations and images by their relative path without suffix.

    Only what is found in the folder is read, whatever a list or an annotation names.
    """

    def __init__(self, path: Path) -> None:
        self.xmls = _index(path / "Annotations", {"xml"})
        self.images = _index(path / "JPEGImages", IMG_FORMATS)

    def parse_name(self, line: str) -> str:
        """Return the name that a line means: itself, or what is left of a path of an image, an annotation or both."""
        parts = {_drop_suffix(part) for part in line.split()}
        candidates = (line, _drop_suffix(line), *(parts if len(parts) == 1 else ()))
        return next((name for name in candidates if name in self.xmls), line)

    def read(self, name: str) -> Sample:
        """Return an image with its objects; ValueError or OSError says why it is left out."""
        images = self.images.get(name, [])
        if name not in self.xmls:
            raise ValueError("no such file")
        width, height, objects = read_xml(self.xmls[name][0].read_bytes())
        if len(images) != 1:
            raise ValueError(f"{len(images) or 'no'} images JPEGImages/{name}.*")
        return Sample(name, images[0], width, height, f"Annotations/{name}.xml", objects)


def _index(folder: Path, suffixes: Collection[str]) -> Mapping[str, list[Path]]:
    """Return the files below a folder that have one of these suffixes by their relative path without it."""
    index = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix[1:].lower() in suffixes:
            index[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    return index


def _drop_suffix(text: str) -> str:
    """Return a path below JPEGImages or Annotations, or a name, without its suffix."""
    below = re.split(r"(?:^|/)(?:JPEGImages|Annotations)/", text)[-1]
    stem, dot, suffix = below.rpartition(".")
    return stem if dot and suffix.lower() in {*IMG_FORMATS, "xml"} else below


def read_xml(content: bytes) -> tuple[int, int, list[Object]]:
    """Return width and height, 0 without a usable one, and the objects as annotated of one file.

    Its byte-order mark tells the encoding, or else its XML declaration. ValueError says why it cannot be used.
    """
    declared = DECLARED.match(content)
    marked = next((e for mark, e in MARKS.items() if content.startswith(mark)), "")
    try:
        encoding = codecs.lookup(marked or (declared[1].decode() if declared else "utf-8")).name
        root = ElementTree.fromstring(content.decode(SUPERSETS.get(encoding, encoding)))
    except (ElementTree.ParseError, DefusedXmlException, LookupError, UnicodeError) as e:
        raise ValueError(f"not XML, with entities, or in another encoding than it declares ({shorten_text(e)})") from e
    if root.tag != "annotation":
        raise ValueError(f"not a VOC annotation, its root is <{shorten_text(root.tag)}> and not <annotation>")
    others = (e.tag for child in root if child.tag != "object" for e in child.iter())
    if like := next(filter(OBJECT_LIKE.fullmatch, others), ""):
        raise ValueError(f"<{shorten_text(like)}> looks like an object and is not read; VOC has <object><bndbox>")
    try:
        width, height = (int(float(_get_text(root, f"size/{side}"))) for side in ("width", "height"))
    except (ValueError, OverflowError):
        width = height = 0
    return width, height, [o for n, e in enumerate(root.findall("object"), 1) for o in _read_objects(e, f"object {n}")]


def _get_text(element: Any, path: str) -> str:
    return " ".join(element.findtext(path, "").split())


def _read_objects(element: Any, where: str) -> Iterator[Object]:
    """Yield the objects of an `<object>`, one per box."""
    name = _get_text(element, "name")
    what = f"{where}, {shorten_text(name)!r}"
    boxes, rotated = element.findall("bndbox"), element.findall("robndbox")
    if not name or not (boxes or rotated) or element.find(".//object") is not None:
        raise ValueError(f"{what}: VOC has a <name> and a <bndbox> in each <object>, and no <object> in it")
    difficult = _get_text(element, "difficult").lower() in TRUE
    turns = [a for a in element.iterfind("attributes/attribute") if _get_text(a, "name") == "rotation"]
    if boxes and not turns and _get_text(element, "rotated").lower() in TRUE:
        raise ValueError(f"{what} is marked as rotated, without an angle that is read")
    angle = _read_number(turns[0], "value", what) % 360 if turns else 0  # of CVAT, in degrees
    for box in boxes:
        left, top, right, bottom = (_read_number(box, side, what) for side in ("xmin", "ymin", "xmax", "ymax"))
        yield Object(name, (left, top, right, bottom), difficult, where, angle or None)
    for box in () if boxes else rotated:  # of roLabelImg, in radians
        x, y, w, h, radians = (_read_number(box, side, what) for side in ("cx", "cy", "w", "h", "angle"))
        sides = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        yield Object(name, sides, difficult, where, math.degrees(radians))


def _read_number(element: Any, side: str, what: str) -> float:
    text = _get_text(element, side)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{what}, {element.tag}/{side} is not a number: {shorten_text(text)!r}")
    return value
