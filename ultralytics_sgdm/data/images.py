"""Images as a training sees them: read with Ultralytics' own check and its own reader; their names and labels."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import Image, ImageOps
from ultralytics.data.utils import IMG_FORMATS, check_image, img2label_paths
from ultralytics.utils import patches

from ..errors import one_line

SMALLEST = 10  # pixels; Ultralytics refuses images with a shorter side
LONGEST = 240  # bytes of a file's name; file systems take 255, and a suffix is added

# For every file that Pillow does not know, Ultralytics' Image.open offers to install a reader of HEIF.
_open_image = getattr(patches, "_image_open", Image.open)


def check_id(name: str) -> str:
    """Return the id of an image, a relative path without suffix, in normal form; ValueError if files cannot."""
    path = PurePosixPath(name)
    if "\\" in name:
        raise ValueError("a \\ in this name; folders are divided by /")
    if path.is_absolute() or not path.parts or ".." in path.parts or (os.name == "nt" and ":" in name):
        raise ValueError("this name leaves the folder of the dataset")
    if "\0" in name or len(f"{name}.".splitlines()) > 1 or name.encode(errors="replace").decode() != name:
        raise ValueError("a line of a list cannot hold this name")
    if any(len(os.fsencode(part)) > LONGEST for part in path.parts):
        raise ValueError(f"a name of more than {LONGEST} bytes")
    return str(path)


def find_label(image: Path) -> Path:
    """Return where Ultralytics looks for the label of an image."""
    return Path(img2label_paths([str(image)])[0])


def inspect_image(path: Path, annotated: tuple[int, int] | None = None) -> tuple[int, int, bool]:
    """Return width and height as training reads an image, and whether Ultralytics would leave the file as it is.

    ValueError is raised if training would leave the image out or stop at it, or if it is not as large as annotated.
    """
    if path.suffix[1:].lower() not in IMG_FORMATS:
        raise ValueError(f"Ultralytics takes no file of this name, only {', '.join(sorted(IMG_FORMATS))}")
    if not path.is_file():
        raise ValueError("not a file" if os.path.lexists(path) else "no such image")
    try:
        width, height, intact = _read(path)
    except Exception as e:  # whatever it is, Ultralytics leaves the image out
        hint = "; a HEIF image needs: pip install pi-heif" if isinstance(e, ImportError) else ""
        reason = one_line(e).partition(". Supported formats")[0] or type(e).__name__
        raise ValueError(f"unreadable image ({reason}{hint})") from e
    if annotated not in {None, (width, height)}:
        raise ValueError(f"{width}x{height} pixels, but its annotation says {annotated[0]}x{annotated[1]}")
    return width, height, intact


def _read(path: Path) -> tuple[int, int, bool]:
    content = path.read_bytes()
    if not content:
        raise ValueError("empty file")
    # Pillow itself reads AVIF, or nobody does
    is_heif = content[4:8] == b"ftyp" and content[8:12] not in {b"avif", b"avis"}
    with (Image.open if is_heif else _open_image)(path) as image:
        if min(image.size) < SMALLEST:
            raise ValueError(f"{image.width}x{image.height} pixels, Ultralytics takes {SMALLEST} and more")
        intact = image.format != "JPEG" or content.endswith(b"\xff\xd9")
        size, upright = image.size, image.format == "JPEG" and image.getexif().get(0x0112, 1) == 1
        if not intact:
            ImageOps.exif_transpose(image).close()  # fails where the file is cut, as Ultralytics' repair does
    if intact:
        check_image(str(path))  # which repairs the others in place
    if upright and intact:  # an eighth of the size takes half the time, and fails where all of it would
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
    else:
        pixels = patches.imread(str(path))
    if pixels is None:
        raise ValueError("OpenCV does not decode it")  # where a training would stop
    return (*size, intact) if upright and intact else (pixels.shape[1], pixels.shape[0], intact)
