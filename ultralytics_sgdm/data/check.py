"""A look through any set in YOLO layout before a long training: what is left out, and what the rest looks like."""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from ultralytics.data.base import BaseDataset
from ultralytics.data.utils import IMG_FORMATS, check_det_dataset, img2label_paths
from ultralytics.utils import LOGGER, NUM_THREADS, TQDM
from ultralytics.utils.files import increment_path
from ultralytics.utils.patches import imread

from ..configs import ConfigError
from .files import naming_disk_errors, read_text
from .images import BadImageError, inspect_image
from .update import shorten

SPLITS = ("train", "val", "test")
BOM = "\ufeff"
TOLERANCE = 0.01  # of the picture, by which Ultralytics lets a box stick out
SMALL, LARGE = 32**2, 96**2  # pixels; COCO's bounds of small, medium and large objects
STRIDE = 8  # pixels; the finest grid of a detector with P3
SAMPLES, TILE, MARGIN = 8, 96, 0.25  # per class on the contact sheet; pixels; context around a box, of its longer side
MOST_CLASSES = 100  # on the contact sheet
CHUNK = 1 << 22  # pairs of hashes that are compared at once


@dataclass
class _File:
    """What there is to say of one image and its label."""

    image: Path
    name: str  # of the image below the folder that holds all of its split
    problem: str = ""  # why training leaves it out
    warnings: list[str] = field(default_factory=list)
    background: str = ""  # "missing" or "empty" label
    size: tuple[int, int] = (0, 0)
    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 5)))  # class, centre and size relative to the image
    outlines: int = 0  # how many of the rows are boxes around outlines
    digest: bytes = b""
    hash: int | None = None


def check_set(data: str, imgsz: int = 640, near: int = 4, sheet: str = "", strict: bool = False) -> dict[str, Any]:
    """Look through a set in YOLO layout before a training: `yolo sgdm check DATA.yaml`; nothing of the set is changed.

    Told are images and labels that training leaves out, labels that are missing or empty, boxes that stick out or have
    no area, labels without image or for several, images that are in two splits or twice in one, near duplicates between
    splits, the balance of the classes, the sizes of the boxes at `imgsz`. A contact sheet shows samples of each class.
    With `kpt_shape` in the YAML, labels are read as a training of task pose reads them.

    Args:
        data: The YAML that `yolo train data=` takes.
        imgsz: Image size of the training that is planned, pixels, by which the sizes of boxes are judged.
        near: Bits of 64 in which the perceptual hashes of near duplicates differ at most; 0 looks for none.
        sheet: PNG file of the contact sheet, which must not exist; without it, the next free NAME-check.png in the
            working directory, NAME being that of the YAML.
        strict: End with an error if training would leave out an image, or if splits share one.

    Returns:
        The counts, and a line for each finding, by split and kind.

    Raises:
        ConfigError: If the YAML is not usable, the sheet cannot be written, or, when strict, because of what was found.
    """
    for name, value, least in (("imgsz", imgsz, 1), ("near", near, 0)):
        if type(value) is not int or value < least:
            raise ConfigError(f"{name}={value} must be a whole number of at least {least}")
    target = Path(sheet) if sheet else increment_path(Path(f"{Path(data).stem}-check.png"))
    if target.exists():
        raise ConfigError(f"sheet={sheet}: there is such a file; choose another name")
    if not target.parent.is_dir():
        raise ConfigError(f"sheet={sheet}: no folder {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise ConfigError(f"sheet={sheet}: cannot write to {target.parent.resolve()}; choose another place with sheet=")
    kind = _image_kind(target)
    described = _describe(data)
    names = described["names"]
    keypoints = tuple(described.get("kpt_shape") or ())
    hasher = _hasher() if near else None
    found = {}
    for split in SPLITS:
        if described.get(split):
            images = _images_of(described[split], split)
            top = os.path.commonpath([image.parent.absolute() for image in images])
            entries = [(image, Path(os.path.relpath(image.absolute(), top)).as_posix()) for image in images]
            with ThreadPool(NUM_THREADS) as pool:
                results = pool.imap(lambda entry: _look_at(*entry, len(names), keypoints, hasher), entries)
                found[split] = list(TQDM(results, desc=f"Checking {split}", total=len(images)))
    if not found:
        raise ConfigError(f"data={data}: no images, neither train: nor val: nor test: names a place")
    _tell_shared_labels(found)
    labels = {label_of(f.image) for files in found.values() for f in files}
    report = {split: _findings(files, labels, names, imgsz) for split, files in found.items()}
    shared = _duplicates(found)
    alike = _near_duplicates(found, near) if hasher else []
    if near and not hasher:
        LOGGER.warning("near duplicates are not looked for: pip install 'ultralytics-sgdm[check]'")
    with naming_disk_errors(target):
        pixels = _draw_sheet(found, names)
        with target.open("xb") as file:
            pixels.save(file, kind)
    lines = [line for line, _ in shared]
    _print(report, lines, alike, names, imgsz)
    LOGGER.info(f"samples of each class: {target}")
    left_out = sum(len(r["left out"]) for r in report.values())
    between = sum(splits > 1 for _, splits in shared)
    if strict and (left_out or between):
        raise ConfigError(f"data={data}: {left_out} images are left out, {between} are in several splits")
    return {"splits": report, "duplicates": lines, "near duplicates": alike}


def _image_kind(file: Path) -> str:
    """Return the format that Pillow writes to a file of this name.

    Raises:
        ConfigError: If there is none.
    """
    try:
        kind = Image.registered_extensions()[file.suffix.lower()]
        Image.new("RGB", (1, 1)).save(io.BytesIO(), kind)
    except (KeyError, OSError, ValueError) as e:
        raise ConfigError(f"sheet={file}: no picture is written under this name; let it end with .png") from e
    return kind


def _describe(data: str) -> dict[str, Any]:
    """Return what Ultralytics reads of a data YAML, its class names told apart.

    Raises:
        ConfigError: If a training would stop at it.
    """
    if data.endswith((".yaml", ".yml")) and Path(data).is_file():
        try:
            read_text(Path(data))
        except ConfigError as e:
            LOGGER.warning(f"{e}; Ultralytics drops the letters that it cannot read")
    try:
        described: dict[str, Any] = check_det_dataset(data, autodownload=False)
        shape = described.get("kpt_shape")
        if shape and not (len(shape) == 2 and type(shape[0]) is int and shape[0] > 0 and shape[1] in {2, 3}):
            raise ValueError(f"kpt_shape: {shape} must be [number of keypoints, 2 or 3]")
    except Exception as e:  # whatever it is, a training would stop at it
        words = " ".join(str(e).split()).removeprefix(f"data={data}: ")
        if isinstance(e, KeyError):  # of the numbers of the classes
            words = f"names: {e.args[0] if isinstance(e.args[0], str) else f'no class {e.args[0]}'}"
        elif "invalid literal for int()" in words:
            words += "; names: is a list, or has a number before each name"
        raise ConfigError(f"data={data}: {words}") from e
    names = described["names"]
    if sorted(names) != list(range(len(names))):
        raise ConfigError(f"data={data}: names: the numbers must be 0 to {len(names) - 1}, not {sorted(names)}")
    for name, number in Counter(names.values()).items():
        if number > 1:
            them = [i for i in names if names[i] == name]
            LOGGER.warning(
                f"names: classes {' and '.join(map(str, them))} are all called {name!r}; one number is enough"
            )
            described["names"] = names = names | {i: f"{name} ({i})" for i in them}
    return described


def _images_of(places: str | Sequence[str], split: str) -> list[Path]:
    """Return the images of a split, by Ultralytics' own listing."""
    for place in map(Path, [places] if isinstance(places, str) else places):
        if place.suffix[1:].lower() in IMG_FORMATS and place.is_file():
            raise ConfigError(
                f"{split}: {place} is an image; name its folder, or a .txt with the path of an image a line"
            )
        if place.is_file():
            read_text(place)  # says what is wrong with its encoding
    try:
        listed = BaseDataset.get_img_files(SimpleNamespace(prefix="", fraction=1.0), places)
    except FileNotFoundError as e:
        reason = str(e.__cause__ or e).partition(". Supported formats")[0]
        raise ConfigError(f"{split}: {' '.join(reason.split())}") from e
    return [Path(file) for file in listed]


def label_of(image: Path) -> Path:
    """Return where Ultralytics looks for the label of an image."""
    return Path(img2label_paths([str(image)])[0])


def _hasher() -> Callable[[Image.Image], Any] | None:
    """Return the perceptual hash of imagehash, which is an extra, if it is installed."""
    try:
        import imagehash
    except ImportError:
        return None
    return imagehash.phash


def _look_at(
    image: Path, name: str, classes: int, keypoints: tuple[int, ...], hasher: Callable[[Image.Image], Any] | None
) -> _File:
    file = _File(image, name)
    try:
        file.size = inspect_image(image)[:2]
        file.digest = hashlib.sha256(image.read_bytes()).digest()
        if hasher:
            file.hash = _hash(image, hasher)
        _read_label(file, label_of(image), classes, keypoints)
    except BadImageError as e:
        file.problem = str(e)
    except OSError as e:
        file.problem = f"cannot be read ({e.strerror}: {e.filename})"
    except ValueError as e:
        file.problem = f"{label_of(image).name}{e}"
    return file


def _hash(image: Path, hasher: Callable[[Image.Image], Any]) -> int | None:
    """Return the perceptual hash of an image, or None where Pillow does not decode what OpenCV does."""
    try:
        with Image.open(image) as pixels:
            pixels.draft("L", (128, 128))  # a JPEG is decoded to no more than needed
            return int(str(hasher(pixels)), 16)
    except Exception:
        return None


def _read_label(file: _File, label: Path, classes: int, keypoints: tuple[int, ...]) -> None:
    """Read the rows of a label; outlines become their boxes.

    Args:
        file: Gets the rows.
        label: The label.
        classes: Number of classes.
        keypoints: `kpt_shape` of a set for the task pose: how many, and numbers of each.

    Raises:
        ValueError: If training leaves the image out because of its label; the message begins with the line.
    """
    name = Path(file.name).with_suffix(".txt").as_posix()
    if not label.is_file():
        file.background = "missing"
        return
    try:
        text = label.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(": not UTF-8") from None
    if text.startswith(BOM):
        file.warnings.append(f"{name}: a byte-order mark; older versions of Ultralytics leave the image out")
    lines = [(n, x.split()) for n, x in enumerate(text.removeprefix(BOM).splitlines(), 1) if x.strip()]
    if not lines:
        file.background = "empty"
        return
    widths = {len(columns): n for n, columns in reversed(lines)}  # the first line of each
    is_segment = max(widths) > 6 and not keypoints
    if is_segment:
        if 5 in widths:
            other = next(n for n, columns in lines if len(columns) != 5)
            raise ValueError(f": a box in line {widths[5]} and an outline in line {other}; a label has one kind of row")
    else:
        row, wanted = "class x y width height", 5
        if keypoints:
            row, wanted = f"{row} and {' x '.join(map(str, keypoints))} numbers of keypoints", 5 + math.prod(keypoints)
        if odd := sorted(n for width, n in widths.items() if width != wanted):
            columns = next(columns for n, columns in lines if n == odd[0])
            what = " (a detection with its confidence?)" if len(columns) == 6 and not keypoints else ""
            raise ValueError(f":{odd[0]}: {len(columns)} columns{what}; a row is {row}, {wanted} columns")
    rows: dict[tuple[float, ...], list[float]] = {}
    for n, columns in lines:
        try:
            values = np.array(columns, float)
        except ValueError:
            raise ValueError(f":{n}: no numbers: {' '.join(columns)[:60]}") from None
        points = judged = values[1:]
        if is_segment:
            if len(points) % 2 or not len(points):
                raise ValueError(
                    f":{n}: {len(columns)} columns; an outline is class x1 y1 x2 y2 ..., and keypoints need kpt_shape "
                    "in the data YAML"
                )
            corners = points.reshape(-1, 2)
            low, high = corners.min(0), corners.max(0)
            points = judged = np.concatenate([(low + high) / 2, high - low])
        elif keypoints:
            points, judged = values[1:5], values[5:].reshape(keypoints)[:, :2]
        smallest = judged.min() if is_segment else values[1:].min()
        if not np.isfinite(values).all() or judged.max() > 1 + TOLERANCE or smallest < -TOLERANCE:
            raise ValueError(f":{n}: coordinates outside 0 to 1: {' '.join(columns)[:60]}")
        if points[2:].min() < 0:
            raise ValueError(f":{n}: a negative size: {' '.join(columns)[:60]}")
        if values[0] % 1 or not 0 <= values[0] < classes:
            raise ValueError(f":{n}: class {columns[0]}, the set has 0 to {classes - 1}")
        sides = np.concatenate([points[:2] - points[2:] / 2, points[:2] + points[2:] / 2])
        if points[2:].min() == 0:
            file.warnings.append(f"{name}:{n}: box without area")
        elif sides.min() < -TOLERANCE or sides.max() > 1 + TOLERANCE:
            file.warnings.append(f"{name}:{n}: box sticks out of the image")
        rows[tuple(values.astype(np.float32))] = [values[0], *points]
    if len(rows) < len(lines):
        file.warnings.append(f"{name}: {len(lines) - len(rows)} rows are there twice")
    file.rows = np.array(list(rows.values()))
    file.outlines = len(rows) * is_segment


def _tell_shared_labels(found: Mapping[str, Sequence[_File]]) -> None:
    """Tell images that Ultralytics gives one label, because their paths differ in the suffix only."""
    images: dict[Path, dict[Path, _File]] = defaultdict(dict)
    for f in itertools.chain.from_iterable(found.values()):
        images[label_of(f.image)][f.image] = f
    for label, them in images.items():
        if len(them) > 1:
            next(iter(them.values())).warnings.append(
                f"{label.name}: the label of {' and '.join(image.name for image in them)}; rename one of them"
            )


def _findings(files: Sequence[_File], labels: Collection[Path], names: Mapping[int, str], imgsz: int) -> dict[str, Any]:
    """Return the counts and findings of a split; `labels` are those of all splits, which may share a folder."""
    good = [f for f in files if not f.problem]
    folders = {label_of(f.image).parent for f in files}
    loose = sorted(p for folder in folders for p in folder.glob("*.txt") if p not in labels)
    objects: Counter[int] = Counter()
    images: Counter[int] = Counter()
    sizes = Counter(dict.fromkeys(("small", "medium", "large", "below the stride"), 0))
    for f in good:
        numbers = f.rows[:, 0].astype(int).tolist()
        objects.update(numbers)
        images.update(set(numbers))
        for w, h in (f.rows[:, 3:] * f.size * (imgsz / max(f.size))).tolist():
            sizes["small" if w * h < SMALL else "medium" if w * h < LARGE else "large"] += 1
            sizes["below the stride"] += min(w, h) < STRIDE
    return {
        "images": len(good),
        "objects": objects.total(),
        "outlines": sum(f.outlines for f in good),
        "images per class": {name: images[i] for i, name in names.items()},
        "objects per class": {name: objects[i] for i, name in names.items()},
        "sizes": dict(sizes),
        "left out": [f"{f.name}: {f.problem}" for f in files if f.problem],
        "label missing": [f.name for f in good if f.background == "missing"],
        "label empty": [f.name for f in good if f.background == "empty"],
        "doubtful boxes": [line for f in good for line in f.warnings],
        "label without image": [p.name for p in loose],
    }


def _duplicates(found: Mapping[str, Sequence[_File]]) -> list[tuple[str, int]]:
    """Return a line for each image, by its bytes, that is there more than once, and in how many splits it is."""
    places = defaultdict(list)
    for split, files in found.items():
        for f in files:
            if f.digest:
                places[f.digest].append((split, f.name))
    lines = []
    for them in places.values():
        if len(them) > 1:
            splits = dict.fromkeys(split for split, _ in them)
            names = Counter(name for _, name in them)
            listed = (f"{name} ({number} times)" if number > len(splits) else name for name, number in names.items())
            lines.append((f"{' and '.join(splits)}: {', '.join(listed)}", len(splits)))
    return lines


def _near_duplicates(found: Mapping[str, Sequence[_File]], near: int) -> list[str]:
    """Return a line for each pair of images of two splits whose hashes are alike while their bytes are not."""
    lines = []
    for a, b in itertools.combinations(found, 2):
        files = [[f for f in found[split] if f.hash is not None] for split in (a, b)]
        first, second = (np.array([f.hash for f in them], np.uint64) for them in files)
        step = max(1, CHUNK // max(1, len(second)))
        for start in range(0, len(first), step):
            different = first[start : start + step, None] ^ second[None]
            bits = np.unpackbits(different.view(np.uint8).reshape(*different.shape, 8), axis=2).sum(2, dtype=np.uint8)
            for i, j in np.argwhere(bits <= near):
                one, other = files[0][start + i], files[1][j]
                if one.digest != other.digest:
                    lines.append(f"{a} {one.name} and {b} {other.name} differ in {bits[i, j]} of 64 bits")
    return lines


def _draw_sheet(found: Mapping[str, Sequence[_File]], names: Mapping[int, str]) -> Image.Image:
    """Return a picture with a row per class: its name, and some of its objects with what is around them."""
    choices: dict[int, list[tuple[_File, np.ndarray]]] = defaultdict(list)
    for f in itertools.chain.from_iterable(found.values()):
        for row in f.rows:
            choices[int(row[0])].append((f, row))
    names = dict(itertools.islice(names.items(), MOST_CLASSES))
    font = ImageFont.load_default()
    left = 12 + max(int(font.getlength(name)) for name in map(_drawable, names.values()))
    sheet = Image.new("RGB", (left + SAMPLES * TILE, TILE * len(names)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (number, name) in enumerate(names.items()):
        draw.text((6, place * TILE + TILE // 2), _drawable(name), "black", font)
        them = choices[number]
        for column, (f, row) in enumerate(random.Random(number).sample(them, min(SAMPLES, len(them)))):
            sheet.paste(_crop(f, row), (left + column * TILE, place * TILE))
    return sheet


def _drawable(name: str) -> str:
    """Return a name in what every version of Pillow's default font has."""
    return str(name).encode("ascii", "backslashreplace").decode()


def _crop(f: _File, row: np.ndarray) -> Image.Image:
    """Return a square of side TILE around an object, its box drawn."""
    read = imread(str(f.image))
    if read is None:  # gone since it was looked at
        return Image.new("RGB", (TILE, TILE))
    image = Image.fromarray(np.ascontiguousarray(read[..., ::-1]))
    x, y, w, h = row[1:] * [*f.size, *f.size]
    half = max(w, h, 2) * (0.5 + MARGIN)
    image = image.crop((round(x - half), round(y - half), round(x + half) + 1, round(y + half) + 1)).resize(
        (TILE, TILE)
    )
    scale = TILE / (2 * half + 1)
    box = [TILE / 2 - w / 2 * scale, TILE / 2 - h / 2 * scale, TILE / 2 + w / 2 * scale, TILE / 2 + h / 2 * scale]
    ImageDraw.Draw(image).rectangle(box, outline="red")
    return image


def _print(
    report: Mapping[str, dict[str, Any]],
    shared: Sequence[str],
    alike: Sequence[str],
    names: Mapping[int, str],
    imgsz: int,
) -> None:
    head = "images / objects"
    width = max(map(len, (*names.values(), head, "below the stride")))
    lines = [f"{head:<{width}}" + "".join(f"{split:>18}" for split in report)]

    def add(title: str, cells: Iterable[str]) -> None:
        lines.append(f"{title:<{width}}" + "".join(f"{cell:>18}" for cell in cells))

    for name in names.values():
        cells = [(r["images per class"][name], r["objects per class"][name]) for r in report.values()]
        add(name, (f"{i:,} / {o:,}" for i, o in cells))
    add("all", (f"{r['images']:,} / {r['objects']:,}" for r in report.values()))
    lines.append(
        f"objects by size when the longer side of an image is {imgsz} pixels (COCO's bounds, 32 and 96 squared):"
    )
    for kind in ("small", "medium", "large", "below the stride"):
        add(kind, (f"{r['sizes'][kind]:,} ({r['sizes'][kind] / max(1, r['objects']):.0%})" for r in report.values()))
    lines.append(f"below the stride: a side of less than {STRIDE} pixels, the finest grid of a detector with P3")
    for split, r in report.items():
        if r["outlines"]:
            lines.append(f"{split}: {r['outlines']:,} rows are outlines; a detector trains on the boxes around them")
        for kind in ("left out", "label missing", "label empty", "doubtful boxes", "label without image"):
            if r[kind]:
                lines += [f"{split}: {kind}: {len(r[kind]):,}", *(f"  {line}" for line in shorten(r[kind]))]
        if split == "train":
            absent = [name for name, number in r["objects per class"].items() if not number]
            lines += [f"train: no object of {', '.join(map(repr, shorten(absent)))}"] * bool(absent)
    for title, them in (("the same image", shared), ("near duplicates", alike)):
        lines += [f"{title}: {len(them):,}", *(f"  {line}" for line in shorten(them))]
    LOGGER.info("\n".join(lines))
