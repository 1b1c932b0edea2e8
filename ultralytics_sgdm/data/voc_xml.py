"""One annotation file of Pascal VOC, as other tools write it too.

It is untrusted: defusedxml reads it, which refuses entities. What looks like an object and is not one of VOC's is an
error: only an annotation that has no object is a background.
"""

from __future__ import annotations

import codecs
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from defusedxml import DefusedXmlException, ElementTree

from .dataset import BadDataError, Object

LARGEST = 1 << 24  # bytes of a file; those of VOC have thousands
SIDES = ("xmin", "ymin", "xmax", "ymax")
ROTATED_SIDES = ("cx", "cy", "w", "h", "angle")  # of roLabelImg; the angle is in radians
# What an element of VOC2007 has at most once; `path` is labelImg's.
ONCE = {
    "annotation": ("folder", "filename", "path", "segmented", "owner", "source", "size"),
    "source": ("database", "annotation", "image"),
    "size": ("width", "height", "depth"),
    "object": ("name", "pose", "truncated", "difficult", "occluded"),
    "bndbox": SIDES,
    "robndbox": ROTATED_SIDES,
}
# What other tools call an object, a box, or a side of it; compared without capitals, "_" and "-".
OBJECT_LIKE = {
    *("annotations", "object", "objects", "obj", "item", "instance", "instances", "shape", "region", "target", "label"),
    *("box", "boxes", "bndbox", "bbox", "boundingbox", "rect", "rectangle", "robndbox", "rotatedbbox", "ellipse"),
    *("polygon", "polyline", "points", "point", "mask", "cuboid", "keypoints", "segmentation"),
    *("xmin", "ymin", "xmax", "ymax", "x1", "y1", "x2", "y2", "xtl", "ytl", "xbr", "ybr", "left", "top", "cx", "cy"),
}
BOX_NUMBERS = 4  # numbers in an element of another name that make it look like an object
DECLARED = re.compile(rb"""<\?xml\s[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
MARKS = {  # UTF-32's first, which begins with one of UTF-16
    **{codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16"},
    **{codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"},
}
# What documents that declare an encoding are really in (WHATWG Encoding Standard, 4.2).
SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949"}


def read_xml(content: bytes) -> tuple[str, tuple[int, int] | None, list[Object]]:
    """Return the file name, the size if there is a usable one, and the objects as annotated of one file.

    Its byte-order mark tells the encoding, or else its XML declaration.

    Raises:
        BadDataError: If it is not well-formed or not a VOC annotation, declares entities, has an object without name or
            box, has an element twice that VOC has once, or has what looks like an object in another place.
    """
    if len(content) > LARGEST:
        raise BadDataError(f"more than the {LARGEST:,} bytes of the largest annotation that is read")
    if not content.strip():
        raise BadDataError("an empty file")
    try:
        return _read_annotation(ElementTree.fromstring(_decode(content)))
    except ElementTree.ParseError as e:
        raise BadDataError(f"line {e.position[0]}: not XML ({e}); fix it, or export it again") from e
    except DefusedXmlException as e:
        raise BadDataError(f"entities are refused ({type(e).__name__})") from e
    except (LookupError, UnicodeError) as e:
        raise BadDataError(f"not in the encoding that it declares ({e}); save it as UTF-8") from e


def _decode(content: bytes) -> str:
    declared = DECLARED.match(content)
    encoding = next((e for mark, e in MARKS.items() if content.startswith(mark)), "")
    name = codecs.lookup(encoding or (declared[1].decode() if declared else "utf-8")).name
    return content.decode(SUPERSETS.get(name, name))


def _read_annotation(root: Any) -> tuple[str, tuple[int, int] | None, list[Object]]:
    if root.tag != "annotation":
        raise BadDataError(f"not a VOC annotation, its root is <{short(root.tag)}> and not <annotation>")
    _check_once(root)
    elements = [child for child in root if child.tag == "object"]
    for child in root:
        if child.tag != "object":
            _check_other(child)
    objects = [o for number, element in enumerate(elements, 1) for o in _read_objects(element, str(number))]
    try:
        width, height = (int(float(root.findtext(f"size/{side}", ""))) for side in ("width", "height"))
    except (ValueError, OverflowError):
        width = height = 0
    return root.findtext("filename", "").strip(), (width, height) if min(width, height) > 0 else None, objects


def _check_once(element: Any) -> None:
    """Refuse an element that has a child twice which VOC has once."""
    for name, number in Counter(child.tag for child in element).items():
        if number > 1 and name in ONCE.get(element.tag, ()):
            raise BadDataError(f"<{name}> again, VOC has one in <{element.tag}>")


def _check_other(element: Any) -> None:
    """Refuse an element beside the objects if it holds one's name, or as many numbers as a box."""
    _check_once(element)
    numbers = 0
    for e in element.iter():
        if re.sub("[_-]", "", e.tag).casefold() in OBJECT_LIKE:
            raise BadDataError(f"<{short(e.tag)}> looks like an object and is not read; VOC has <object><bndbox>")
        texts = (*e.attrib.values(), e.text or "", "" if e is element else e.tail or "")
        numbers += sum(_is_number(word) for text in texts for word in re.split(r"""[\s,;:=()\[\]{}"']+|px""", text))
    if numbers >= BOX_NUMBERS and element.tag not in ONCE["annotation"]:
        raise BadDataError(f"<{short(element.tag)}> looks like an object and is not read; VOC has <object><bndbox>")


def _read_objects(element: Any, number: str) -> Iterator[Object]:
    """Yield the objects of an `<object>`, one per box."""
    _check_once(element)
    name = " ".join(element.findtext("name", "").split())  # a line break would be another class
    what = f"object {number}, {short(name)!r}"
    if len([*element.iter("object")]) > 1:
        raise BadDataError(f"{what}: <object> in an <object>; VOC has them one after the other")
    if not name:
        raise BadDataError(f"object {number} without a name")
    rest = _is_true(element.findtext("difficult", "")), number
    boxes, rotated = element.findall("bndbox"), element.findall("robndbox")
    turns = [a for a in element.iterfind("attributes/attribute") if a.findtext("name", "").strip() == "rotation"]
    angle = _read_number(turns[0], "value", what) % 360 if turns else 0  # of CVAT, in degrees
    if not boxes and not rotated:
        raise BadDataError(f"{what}, bndbox is missing")
    if boxes and not turns and _is_true(element.findtext("rotated", "")):
        raise BadDataError(f"{what} is marked as rotated, without an angle that is read")
    for box in boxes or rotated:
        _check_once(box)
        if boxes:
            sides = [_read_number(box, side, what) for side in SIDES]
        else:
            x, y, w, h, radians = (_read_number(box, side, what) for side in ROTATED_SIDES)
            sides, angle = [x - w / 2, y - h / 2, x + w / 2, y + h / 2], math.degrees(radians)
        yield Object(name, sides[0], sides[1], sides[2], sides[3], *rest, angle if angle or rotated else None)


def _read_number(element: Any, side: str, what: str) -> float:
    text = element.findtext(side, "").strip()
    value = float(text) if _is_number(text) else math.nan
    if not math.isfinite(value):
        problem = f"not a number: {short(text)!r}" if text else "missing"
        raise BadDataError(f"{what}, {element.tag}/{side} is {problem}")
    return value


def _is_true(text: str) -> bool:
    return text.strip().lower() in {"1", "1.0", "true", "yes", "y"}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # which Python allows


def short(name: str) -> str:
    """Return the beginning of a name that may be of any length, in one line."""
    name = " ".join(name.split())
    return name if len(name) <= 40 else f"{name[:40]}..."
