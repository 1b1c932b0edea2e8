"""One annotation file of Pascal VOC, as other tools write it too.

It is untrusted: defusedxml reads it, which refuses entities. What looks like an object and is not one of VOC's is an
error: only an annotation that has no object is a background.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator
from typing import Any

from defusedxml import DefusedXmlException, ElementTree

from .dataset import Object, shorten_text

LARGEST = 1 << 24  # bytes of a file; those of VOC have thousands
HEADER = {"folder", "filename", "path", "segmented", "owner", "source", "size"}  # `path` is labelImg's
# What other tools call an object, a box, or a side of it, and numbers that may be sides.
OBJECT_LIKE = re.compile(
    r".*(box|obj|poly|instance|segmentation).*|annotations|item|shape|region|target|label|mask|rect(angle)?|(key)?points?"
    r"|ellipse|cuboid|[xy]_?(min|max|[12]|[tb][lr])|c[xy]|left|top",
    re.IGNORECASE,
)
NUMBER = re.compile(r"(?<![\w.-])[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?(?=px|[^\w.-]|$)", re.IGNORECASE)
BOX_NUMBERS = 4  # in an element of another name that make it look like an object
DECLARED = re.compile(rb"""<\?xml\s[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# What documents that declare an encoding are really in (WHATWG Encoding Standard, 4.2).
SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949"}


def read_xml(content: bytes) -> tuple[str, tuple[int, int] | None, list[Object]]:
    """Return the file name, the size if there is a usable one, and the objects as annotated of one file.

    Its byte-order mark tells the encoding, or else its XML declaration. ValueError says why it cannot be used.
    """
    if len(content) > LARGEST:
        raise ValueError(f"more than the {LARGEST:,} bytes of the largest annotation that is read")
    try:
        return _read_annotation(ElementTree.fromstring(_decode(content)))
    except ElementTree.ParseError as e:
        raise ValueError(f"line {e.position[0]}: not XML ({e}); fix it, or export it again") from e
    except DefusedXmlException as e:
        raise ValueError(f"entities are refused ({type(e).__name__})") from e
    except (LookupError, UnicodeError) as e:
        raise ValueError(f"not in the encoding that it declares ({e}); save it as UTF-8") from e


def _decode(content: bytes) -> str:
    declared = DECLARED.match(content)
    encoding = next((e for mark, e in MARKS.items() if content.startswith(mark)), "")
    name = codecs.lookup(encoding or (declared[1].decode() if declared else "utf-8")).name
    return content.decode(SUPERSETS.get(name, name))


def _read_annotation(root: Any) -> tuple[str, tuple[int, int] | None, list[Object]]:
    if root.tag != "annotation":
        raise ValueError(f"not a VOC annotation, its root is <{shorten_text(root.tag)}> and not <annotation>")
    for child in root:
        if child.tag != "object":
            _check_header(child)
    elements = enumerate(root.findall("object"), 1)
    objects = [o for number, element in elements for o in _read_objects(element, str(number))]
    size = [_read_text(root, f"size/{side}") for side in ("width", "height")]
    try:
        width, height = (int(float(side)) for side in size)
    except (ValueError, OverflowError):
        width = height = 0
    return _read_text(root, "filename"), (width, height) if min(width, height) > 0 else None, objects


def _read_text(element: Any, path: str) -> str:
    """Return the text of a child in one line, or "" without one; a child that is there twice is an error."""
    found = element.findall(path)
    if len(found) > 1:
        raise ValueError(f"<{path}> again, VOC has one in <{element.tag}>")
    return " ".join((found[0].text or "").split()) if found else ""


def _check_header(element: Any) -> None:
    """Refuse an element beside the objects if it holds one's name, or as many numbers as a box."""
    texts = [text for e in element.iter() for text in (*e.attrib.values(), e.text or "", e.tail or "")]
    numbers = 0 if element.tag in HEADER else sum(len(NUMBER.findall(text)) for text in texts)
    like = next((e.tag for e in element.iter() if OBJECT_LIKE.fullmatch(e.tag)), element.tag)
    if like != element.tag or OBJECT_LIKE.fullmatch(like) or numbers >= BOX_NUMBERS:
        raise ValueError(f"<{shorten_text(like)}> looks like an object and is not read; VOC has <object><bndbox>")


def _read_objects(element: Any, number: str) -> Iterator[Object]:
    """Yield the objects of an `<object>`, one per box."""
    name = _read_text(element, "name")
    what = f"object {number}, {shorten_text(name)!r}"
    if len([*element.iter("object")]) > 1:
        raise ValueError(f"{what}: <object> in an <object>; VOC has them one after the other")
    if not name:
        raise ValueError(f"object {number} without a name")
    difficult = _is_true(_read_text(element, "difficult"))
    turns = [a for a in element.iterfind("attributes/attribute") if _read_text(a, "name") == "rotation"]
    angle = _read_number(turns[0], "value", what) % 360 if turns else 0  # of CVAT, in degrees
    boxes, rotated = element.findall("bndbox"), element.findall("robndbox")
    if not boxes and not rotated:
        raise ValueError(f"{what}, bndbox is missing")
    if boxes and not turns and _is_true(_read_text(element, "rotated")):
        raise ValueError(f"{what} is marked as rotated, without an angle that is read")
    for box in boxes:
        left, top, right, bottom = (_read_number(box, side, what) for side in ("xmin", "ymin", "xmax", "ymax"))
        yield Object(name, left, top, right, bottom, difficult, number, angle or None)
    for box in () if boxes else rotated:  # of roLabelImg, in radians
        x, y, w, h, radians = (_read_number(box, side, what) for side in ("cx", "cy", "w", "h", "angle"))
        sides = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        yield Object(name, *sides, difficult, number, math.degrees(radians))


def _read_number(element: Any, side: str, what: str) -> float:
    text = _read_text(element, side)
    try:
        value = math.nan if "_" in text else float(text)  # which Python allows
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        problem = f"not a number: {shorten_text(text)!r}" if text else "missing"
        raise ValueError(f"{what}, {element.tag}/{side} is {problem}")
    return value


def _is_true(text: str) -> bool:
    return text.lower() in {"1", "1.0", "true", "yes", "y"}
