"""What we say of an image is what Ultralytics' own check and reader say, whatever the versions installed."""

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_image
from ultralytics.utils.patches import imread

from ultralytics_sgdm.data.images import inspect_image

pytestmark = pytest.mark.slow

WRITERS = {
    **{"jpg": "JPEG", "jpeg": "JPEG", "mpo": "MPO", "png": "PNG", "bmp": "BMP", "tif": "TIFF", "tiff": "TIFF"},
    **{"dng": "TIFF", "webp": "WEBP", "jp2": "JPEG2000", "avif": "AVIF"},
}
PIXELS = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)


def encode(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def bad_images():
    """Return name and content of images that training does not take, or only after a repair."""
    jpeg, wrong = encode("JPEG"), {kind: encode(kind) for kind in ("GIF", "PPM", "WEBP", "PNG", "TIFF")}
    return {
        "good.jpg": jpeg,
        "padded.jpg": jpeg + bytes(7),
        "empty.jpg": b"",
        "narrow.png": cv2.imencode(".png", PIXELS[:, :9])[1].tobytes(),
        "text.jpg": b"<html>404 Not Found</html>",
        "without_pixels.jpg": jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xd9",
        "half.jpg": jpeg[: len(jpeg) // 2] + b"\xff\xd9",
        "no_avif.avif": (20).to_bytes(4, "big") + b"ftypavif" + bytes(100),
        "huge.bmp": encode("BMP").replace((40).to_bytes(4, "little"), (1 << 30).to_bytes(4, "little"), 1),
        **{f"cut_by_{n}.jpg": jpeg[:-n] for n in (1, 2, 10, 300)},
        **{f"cut.{suffix}": encode(kind)[:-50] for suffix, kind in WRITERS.items() if suffix != "avif"},
        **{f"in_truth_{kind.lower()}.jpg": content for kind, content in wrong.items()},
    }


def is_taken(path):
    try:
        check_image(str(path))
    except AssertionError:
        with pytest.raises(ValueError, match="Invalid image format"):
            inspect_image(path)
        return False
    return True


@pytest.mark.parametrize("suffix", WRITERS)
def test_the_size_is_the_one_that_ultralytics_reads(tmp_path, suffix):
    kind = WRITERS[suffix]
    if kind in ("AVIF", "WEBP") and not features.check(kind.lower()):
        pytest.skip(f"this Pillow writes no {kind}")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.{suffix}"
        path.write_bytes(encode(kind, **({} if kind in ("BMP", "JPEG2000") else {"exif": exif})))
        if kind == "JPEG2000" and not is_taken(path):
            pytest.skip("this Ultralytics leaves JPEG 2000 out of a training")
        height, width = imread(str(path)).shape[:2]
        assert inspect_image(path) == (width, height, True)
        assert inspect_image(path, (width, height))
        with pytest.raises(ValueError, match=f"{width}x{height} pixels, but its annotation says {height}x{width}"):
            inspect_image(path, (height, width))


def test_what_we_count_is_what_ultralytics_loads(tmp_path, monkeypatch):
    monkeypatch.setattr("ultralytics.utils.checks.AUTOINSTALL", False)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    taken = set()
    for name, content in bad_images().items():
        path = tmp_path / "images" / name
        path.write_bytes(content)
        (tmp_path / "labels" / f"{path.stem}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        with monkeypatch.context() as patch:  # nothing is installed for a broken file
            patch.setattr("ultralytics.utils.checks.check_requirements", lambda *a, **k: pytest.fail("would install"))
            try:
                inspect_image(path)
                taken.add(name)
            except ValueError as e:
                assert re.fullmatch(r"unreadable image \(.{9,330}\)", str(e))
        assert path.read_bytes() == content
    assert taken >= {"good.jpg", "padded.jpg", "in_truth_png.jpg"}
    assert not inspect_image(tmp_path / "images/padded.jpg")[2]
    dataset = YOLODataset(img_path=str(tmp_path / "images"), data={"names": {0: "x"}}, task="detect", augment=False)
    loadable = {Path(f).name for f in dataset.im_files if imread(f) is not None}
    assert taken == loadable
