"""Images as a training sees them: read with Ultralytics' own check and its own reader; their labels."""

from __future__ import annotations

from pathlib import Path

import cv2
from PIL import Image, ImageOps
from ultralytics.data.utils import IMG_FORMATS, check_image, img2label_paths
from ultralytics.utils import patches

from ..errors import one_line

SMALLEST = 10  # pixels; Ultralytics refuses images with a shorter side
ORIENTATION = 0x0112  # in EXIF; 1 is upright

# For every file that Pillow does not know, Ultralytics' Image.open offers to install a reader of HEIF.
_open_image = getattr(patches, "_image_open", Image.open)


def find_label(image: Path) -> Path:
    """Return where Ultralytics looks for the label of an image."""
    return Path(img2label_paths([str(image)])[0])


def inspect_image(path: Path, annotated: tuple[float, float] = (0, 0)) -> tuple[int, int, bool]:
    """Return width and height as training reads an image, and whether Ultralytics would leave the file as it is.

    ValueError is raised if training would leave the image out or stop at it, or if it is not as large as annotated (0:
    unknown).
    """
    if path.suffix[1:].lower() not in IMG_FORMATS:
        raise ValueError(f"Ultralytics takes no file of this name, only {', '.join(sorted(IMG_FORMATS))}")
    if not path.is_file():
        raise ValueError("no such image")
    try:
        width, height, is_intact = _read(path)
    except Exception as e:  # whatever it is, Ultralytics leaves the image out
        raise ValueError(f"unreadable image ({type(e).__name__}: {one_line(e)})") from e
    if min(annotated) > 0 and annotated != (width, height):
        raise ValueError(f"{width}x{height} pixels, but its annotation says {annotated[0]}x{annotated[1]}")
    return width, height, is_intact


def _read(path: Path) -> tuple[int, int, bool]:
    content = path.read_bytes()
    # Pillow itself reads AVIF, or nobody does
    is_heif = content[4:8] == b"ftyp" and content[8:12] not in {b"avif", b"avis"}
    with (Image.open if is_heif else _open_image)(path) as image:
        size, is_jpeg = image.size, image.format == "JPEG"
        if min(size) < SMALLEST:
            raise ValueError(f"{size[0]}x{size[1]} pixels, Ultralytics takes {SMALLEST} and more")
        is_upright = is_jpeg and image.getexif().get(ORIENTATION, 1) == 1
        is_intact = not is_jpeg or content.endswith(b"\xff\xd9")
        if not is_intact:
            ImageOps.exif_transpose(image).close()  # fails where the file is cut, as Ultralytics' repair does
    if is_intact:
        check_image(str(path))  # which repairs the others in place
    # An eighth of the size is faster to decode, and fails where all of it would
    pixels = patches.imread(str(path), cv2.IMREAD_REDUCED_GRAYSCALE_8 if is_upright else cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError("OpenCV does not decode it")  # where a training would stop
    width, height = size if is_upright else pixels.shape[1::-1]
    return width, height, is_intact
