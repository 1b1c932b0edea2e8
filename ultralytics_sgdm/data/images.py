"""What training will see of an image: read with Ultralytics' own check and its own reader."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

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
        if not path.stat().st_size:
            raise BadImageError("unreadable image (empty file)")
        intact = _check(path)
        pixels = patches.imread(str(path))
    except BadImageError:
        raise
    except Exception as e:  # whatever it is, Ultralytics leaves the image out
        reason = str(e).partition(". Supported formats")[0].partition("\n")[0]
        raise BadImageError(f"unreadable image ({reason or type(e).__name__})") from e
    if pixels is None:
        raise BadImageError("unreadable image (OpenCV does not decode it)")
    height, width = pixels.shape[:2]
    if min(width, height) < SMALLEST:
        raise BadImageError(f"{width}x{height} pixels, a side below the {SMALLEST} that Ultralytics takes")
    if annotated and annotated != (width, height):
        raise BadImageError(f"{width}x{height} pixels, but its annotation says {annotated[0]}x{annotated[1]}")
    return Picture(width, height, intact)


def _check(path: Path) -> bool:
    """Raise what Ultralytics' check raises; return False for a JPEG that the check would rewrite in place."""
    with path.open("rb") as file:
        is_heif = file.read(8)[4:] == b"ftyp"
        file.seek(-min(2, path.stat().st_size), 2)
        ends = file.read() == b"\xff\xd9"
    with (Image.open if is_heif else _open_image)(path) as image:
        if image.format == "JPEG" and not ends:
            if min(image.size) >= SMALLEST:
                ImageOps.exif_transpose(image).close()  # fails where the file is cut, as Ultralytics' repair would
            return False
        is_small = min(image.size) < SMALLEST
    if not is_small:
        check_image(str(path))
    return True
