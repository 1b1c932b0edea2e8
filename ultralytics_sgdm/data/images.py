"""What training will see of an image: read with Ultralytics' own check and its own reader."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps
from ultralytics.data.utils import IMG_FORMATS, check_image
from ultralytics.utils import patches

SMALLEST = 10  # pixels; Ultralytics refuses images with a shorter side

# For every file that Pillow does not know, Ultralytics' Image.open offers to install a reader of HEIF.
_open_image = getattr(patches, "_image_open", Image.open)


class BadImageError(ValueError):
    """An image cannot be used; the message says why."""


class Picture(NamedTuple):
    """Width and height in pixels as Ultralytics reads the image; `intact` unless Ultralytics would rewrite the file."""

    width: int
    height: int
    intact: bool


def inspect_image(path: Path, annotated: tuple[int, int] | None = None) -> Picture:
    """Read an image as training does: by its content, turned upright where Ultralytics turns it.

    Args:
        path: The image; only read.
        annotated: Width and height that its annotation claims, if it does.

    Returns:
        What training will see of it.

    Raises:
        BadImageError: If training would leave the image out or stop at it, or if it is not as large as annotated.
    """
    if path.suffix[1:].lower() not in IMG_FORMATS:
        raise BadImageError(f"Ultralytics takes no file of this name, only {', '.join(sorted(IMG_FORMATS))}")
    if not path.is_file():
        raise BadImageError("not a file" if os.path.lexists(path) else "no such image")
    try:
        picture = _read(path)
    except ImportError as e:  # of pi_heif, which Ultralytics asks for where Pillow does not know a file
        raise BadImageError("unreadable image (broken, or HEIF, which needs: pip install pi-heif)") from e
    except Exception as e:  # whatever it is, Ultralytics leaves the image out
        reason = str(e).partition(". Supported formats")[0].partition("\n")[0]
        raise BadImageError(f"unreadable image ({reason or type(e).__name__})") from e
    size = picture[:2]
    if min(size) < SMALLEST:
        raise BadImageError(f"{size[0]}x{size[1]} pixels, a side below the {SMALLEST} that Ultralytics takes")
    if annotated not in {None, size}:
        raise BadImageError(f"{size[0]}x{size[1]} pixels, but its annotation says {annotated[0]}x{annotated[1]}")
    return picture


def _read(path: Path) -> Picture:
    """Read an image; what Pillow takes, OpenCV may not decode, and a training would stop there."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            raise ValueError("empty file")
        file.seek(0)
        head = file.read(12)
        is_heif = head[4:8] == b"ftyp" and head[8:] not in {b"avif", b"avis"}  # which Pillow itself reads, or nobody
        file.seek(-2, os.SEEK_END)
        ends = file.read() == b"\xff\xd9"
    with (Image.open if is_heif else _open_image)(path) as image:
        width, height = image.size
        intact = image.format != "JPEG" or ends
        plain = image.format == "JPEG" and intact and image.getexif().get(0x0112, 1) == 1  # both agree on the size
        if not intact:
            ImageOps.exif_transpose(image).close()  # fails where the file is cut, as Ultralytics' repair does
    if intact and min(width, height) >= SMALLEST:
        check_image(str(path))
    if plain:  # read at an eighth of its size, which takes half the time and fails where all of it would
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
    else:
        pixels = patches.imread(str(path))
    if pixels is None:
        raise ValueError("OpenCV does not decode it")
    if not plain:
        height, width = pixels.shape[:2]
    return Picture(width, height, intact)
