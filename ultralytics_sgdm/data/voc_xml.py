"""One annotation file of Pascal VOC, as other tools write it too.

It is untrusted: it is read with defusedxml, which refuses entities. Every complaint begins with the line. What looks
like an object and is none of VOC's is a complaint too: only an annotation that has no object is a background.
"""

from __future__ import annotations

import codecs
import math
import re
from typing import Any, NamedTuple
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler

from defusedxml import DefusedXmlException, sax

from .layout import Object

DEEPEST = 4  # annotation/object/bndbox/xmin
SIDES = ("xmin", "ymin", "xmax", "ymax")

# What an annotation of VOC2007, or an object of it, has at most once; `path` is labelImg's.
ONCE = {
    *("folder", "filename", "path", "segmented", "owner"),
    *("source", "source/database", "source/annotation", "source/image"),
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
BYTE_ORDER_MARKS = {
    **{codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be"},
    **{codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"},  # UTF-32's begins with one of them
}
DECLARED = re.compile(
    rb"""<\?xml\s+version\s*=\s*["'][\d.]+["']\s+encoding\s*=\s*["']([\w.:-]+)["'](\s+standalone\s*=\s*["']\w+["'])?\s*\?>"""
)


class Annotation(NamedTuple):
    """What the conversion needs of one XML file; `size` is None where the file has no usable one."""

    filename: str | None
    size: tuple[int, int] | None
    objects: list[Object]


class BadXMLError(ValueError):
    """An XML file cannot be used; the message begins with the line."""


class _Handler(ContentHandler):
    """Collects the elements that matter by their whole path, so that others may nest elements of the same names."""

    def __init__(self) -> None:
        self.filename: str | None = None
        self.size: tuple[int, int] | None = None
        self.objects: list[Object] = []
        self.path: list[str] = []
        self.text: list[str] = []
        self.values: dict[str, str] = {}  # of the size, or of the present object except its boxes
        self.sides: list[dict[str, str]] = []  # of each box of the present object
        self.seen: set[str] = set()  # of the elements that VOC has once
        self.line = 0
        self.numbers = 0  # in the present element of the annotation that is none of VOC's

    def setDocumentLocator(self, locator: Any) -> None:  # noqa: N802
        self.locator = locator

    def startElement(self, name: str, attrs: Any) -> None:  # noqa: N802
        self.path.append(name)
        self.text = []
        depth, line = len(self.path), self.locator.getLineNumber()
        if depth == 1:
            if name != "annotation":
                raise BadXMLError(f"{line}: no VOC annotation, its root is <{short(name)}> and not <annotation>")
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
            self.numbers += sum(map(_count_numbers, attrs.values()))
            self._check_other(name, line)

    def characters(self, content: str) -> None:
        self.text.append(content)

    def endElement(self, name: str) -> None:  # noqa: N802
        depth = len(self.path)
        path = "/".join(self.path[1:]) if depth <= DEEPEST else ""
        text = "".join(self.text).strip()
        if depth > 1 and path not in ONCE and self.path[1] != "object":
            self.numbers += _count_numbers(text)
            self._check_other(self.path[1], self.locator.getLineNumber())
        self.path.pop()
        self.text = []
        if path == "filename":
            self.filename = text
        elif path == "object":
            self.objects += self._objects()
        elif path == "size":
            self.size = self._size()
        elif path.startswith("object/bndbox/"):
            self.sides[-1][name] = text
        elif path.startswith(("object/", "size/")):
            self.values[path] = text

    def _check_other(self, name: str, line: int) -> None:
        """Refuse an element outside of VOC's that is called like an object or holds as many numbers as a box."""
        if re.sub("[_-]", "", name).casefold() in OBJECT_LIKE or self.numbers >= BOX_NUMBERS:
            raise BadXMLError(
                f"{line}: <{short(name)}> looks like an object and is not read; VOC has <annotation><object><bndbox>"
            )

    def _objects(self) -> list[Object]:
        name = " ".join(self.values.get("object/name", "").split())  # a line break would be another class
        if not name:
            raise BadXMLError(f"{self.line}: object without a name")
        difficult = self.values.get("object/difficult", "").lower() in {"1", "1.0", "true", "yes", "y"}
        objects = []
        for texts in self.sides or [{}]:
            sides = []
            for side in SIDES:
                text = texts.get(side, "")
                sides.append(float(text) if _is_number(text) else math.nan)
                if not math.isfinite(sides[-1]):
                    what = f"no number: {text!r}" if text else "missing"
                    raise BadXMLError(f"{self.line}: object {name!r}, bndbox/{side} is {what}")
            left, top, right, bottom = sides
            objects.append(Object(name, left, top, right, bottom, difficult, self.line))
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
    return "_" not in text  # which Python allows


def _count_numbers(text: str) -> int:
    """Return how many numbers a text holds, whatever brackets, names and units are around them."""
    return sum(map(_is_number, re.split(r"""[\s,;:=()\[\]{}"']+|px""", text)))


def short(name: str) -> str:
    """Return the beginning of a name that may be of any length."""
    return name if len(name) <= 40 else f"{name[:40]}..."


def read_xml(content: bytes) -> Annotation:
    """Read one annotation file.

    Args:
        content: The file; its byte-order mark tells the encoding, or else its XML declaration, any that expat or
            `MULTIBYTE` knows.

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
        reason = f"no XML ({e.getMessage()}); mend it, or export it again" if content.strip() else "an empty file"
        raise BadXMLError(f"{e.getLineNumber()}: {reason}") from e
    except DefusedXmlException as e:
        raise BadXMLError(f"{handler.locator.getLineNumber()}: entities are refused ({type(e).__name__})") from e
    except BadXMLError:
        raise
    except (LookupError, ValueError) as e:  # ValueError: an encoding of several bytes that expat does not read
        raise BadXMLError(f"1: {e}; save it as UTF-8") from e
    return Annotation(handler.filename, handler.size, handler.objects)


def _in_utf8(content: bytes) -> bytes:
    """Return an XML file in UTF-8 if it is in an encoding that expat does not find; lines stay where they are."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            try:
                content = content[len(mark) :].decode(encoding).encode()
            except UnicodeDecodeError as e:
                raise ValueError(f"not in {encoding[:6].upper()}, which its byte-order mark says") from e
            declared = DECLARED.match(content)
            return b"<?xml version='1.0'?>" + content[declared.end() :] if declared else content
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
