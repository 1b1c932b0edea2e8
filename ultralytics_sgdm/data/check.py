"""A report on any dataset in YOLO layout before a long training: what is left out, and what the rest looks like.

Ultralytics itself lists the images and reads the labels, so that both mean here what they mean in a training.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from ultralytics.data.base import BaseDataset
from ultralytics.data.utils import check_det_dataset, verify_image_label
from ultralytics.utils import ASSETS, LOGGER, NUM_THREADS, TQDM
from ultralytics.utils.files import increment_path
from ultralytics.utils.patches import imread

from ..errors import ConfigError, one_line
from ..files import sha256
from .dataset import BadDataError, plural, shorten
from .folders import naming_disk_errors
from .images import inspect_image, label_path
from .yolo import class_table, count_classes, table_row

SPLITS = ("train", "val", "test")
FINDINGS = ("left out", "label missing", "label empty", "doubtful boxes", "label without image")
TOLERANCE = 0.01  # of the image, by which Ultralytics lets a box stick out
SMALL, LARGE = 32**2, 96**2  # pixels; COCO's bounds of small, medium and large objects
STRIDE = 8  # pixels; the finest grid of a detector with P3
BITS = 64  # of a perceptual hash
SAMPLES, TILE, MARGIN = 8, 96, 0.25  # per class on the contact sheet; pixels; context around a box, of its longer side
MOST_CLASSES, MOST_PAIRS = 100, 1000  # on the contact sheet; in the list of near duplicates
CHUNK = 1 << 20  # pairs of hashes that are compared at once
BLANK = str(ASSETS / "zidane.jpg")  # an image without fault


@dataclass
class _File:
    """One image with its label, and what there is to report of it."""

    image: Path
    name: str  # below the folder that holds all images of its split
    problem: str = ""  # why training leaves it out
    warnings: list[str] = field(default_factory=list)
    background: str = ""  # "missing" or "empty" label
    size: tuple[int, int] = (0, 0)
    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 5)))  # class, centre and size relative to the image
    outlines: int = 0  # how many of the rows are boxes around outlines
    digest: str = ""
    hash: int | None = None


def check_set(data: str, imgsz: int = 640, near: int = 4, sheet: str = "", strict: bool = False) -> dict[str, Any]:
    """Check a dataset in YOLO layout before a training: `yolo sgdm check DATA.yaml`; nothing of it is changed.

    Reported are images and labels that training leaves out, labels that are missing or empty, boxes that stick out or
    have no area, labels without image or for several, images that are in two splits or twice in one, near duplicates
    between splits, the balance of the classes, the sizes of the boxes at `imgsz`. A contact sheet shows samples of each
    class. With `kpt_shape` in the YAML, labels are read as a training of task pose reads them.

    Args:
        data: The YAML that `yolo train data=` takes.
        imgsz: Image size of the training that is planned, pixels, by which the sizes of boxes are judged.
        near: Bits of 64 in which the perceptual hashes of near duplicates differ at most; 0 looks for none.
        sheet: New PNG or JPEG file of the contact sheet; default: the next free NAME-check.png in the working
            directory, NAME being that of the YAML.
        strict: End with an error if training would leave out an image, or if splits share one.

    Returns:
        The counts, and a line for each finding, by split and kind; None for what was not looked for.

    Raises:
        ConfigError: If an argument or the YAML cannot be used, or, when strict, because of what was found.
    """
    for name, value, least, most in (("imgsz", imgsz, 1, 1 << 16), ("near", near, 0, BITS)):
        if type(value) is not int or not least <= value <= most:
            raise ConfigError(f"{name}={value} must be a whole number from {least} to {most}")
    target = Path(sheet) if sheet else increment_path(Path(f"{Path(data).stem}-check.png"))
    if target.suffix.lower() not in {".png", ".jpg", ".jpeg"} or target.exists():
        raise ConfigError(f"sheet={sheet} must be the name of a new file that ends with .png or .jpg")
    if not os.access(target.parent, os.W_OK):
        raise ConfigError(f"sheet={sheet}: {target.parent.resolve()} is not a folder that you may write to")
    described = _describe(data)
    names = described["names"]
    hasher = _import_hasher() if near else None
    found = {}
    for split in SPLITS:
        if images := _list_images(described.get(split), split):
            top = os.path.commonpath([image.parent for image in images])
            look = functools.partial(_inspect, top=top, described=described, hasher=hasher)
            with ThreadPool(NUM_THREADS) as pool:
                found[split] = list(TQDM(pool.imap(look, images), desc=f"Checking {split}", total=len(images)))
    if not found:
        raise ConfigError(f"data={data}: no images, neither train: nor val: nor test: names a folder")
    owners = defaultdict(list)
    for f in itertools.chain(*found.values()):
        owners[label_path(f.image)].append(f)
    for label, them in owners.items():
        images = sorted({f.image for f in them})
        if len(images) > 1:
            them[0].warnings.append(f"{label.name}: the label of {' and '.join(i.name for i in images)}; rename one")
    report = {split: _collect(files, set(owners), names, imgsz) for split, files in found.items()}
    shared = _find_duplicates(found)
    pairs, alike = _find_near_duplicates(found, near) if hasher and len(found) > 1 else (None, None)
    with naming_disk_errors(target):
        _draw_sheet(found, names).save(target)
    lines = _report(report, list(names.values()), imgsz)
    lines += [f"the same image: {len(shared):,}", *(f"  {line}" for line in shorten(list(shared)))]
    if alike is None:
        missing = "near=0" if not near else "only one split" if hasher else "pip install 'ultralytics-sgdm[check]'"
        lines.append(f"near duplicates: not looked for ({missing})")
    else:
        lines += [f"near duplicates: {pairs:,}", *(f"  {line}" for line in shorten(alike))]
    LOGGER.info("\n".join([*lines, f"samples of each class: {target}"]))
    left_out, between = sum(len(r["left out"]) for r in report.values()), sum(n > 1 for n in shared.values())
    if strict and (left_out or between):
        raise ConfigError(f"data={data}: images left out: {left_out:,}; images in several splits: {between:,}")
    return {"splits": report, "duplicates": list(shared), "near duplicates": alike, "near duplicate pairs": pairs}


def _describe(data: str) -> dict[str, Any]:
    """Return what Ultralytics reads of a data YAML, its class names made unique."""
    try:
        try:
            described: dict[str, Any] = check_det_dataset(data, autodownload=False)
        except FileNotFoundError:  # of val:
            described = check_det_dataset(data, autodownload=False, split="train")
        count, numbers = described.get("kpt_shape") or (0, 0)
        described["names"] = {i: described["names"][i] for i in range(len(described["names"]))}
    except Exception as e:  # whatever it is, a training would stop at it
        raise ConfigError(f"data={data}: {one_line(e).removeprefix(f'data={data}: ')}") from e
    described["keypoints"] = (bool(count), count, numbers)
    names = described["names"]
    for name, number in Counter(names.values()).items():
        if number > 1:
            them = [i for i in names if names[i] == name]
            LOGGER.warning(f"names: classes {' and '.join(map(str, them))} are all called {name!r}")
            described["names"] = names = names | {i: f"{name} ({i})" for i in them}
    return described


def _list_images(places: str | Sequence[str] | None, split: str) -> list[Path]:
    """Return the images of a split, by Ultralytics' own listing; a val: or test: that is not there is a warning."""
    images = []
    for place in [places] if isinstance(places, str) else places or []:
        try:
            listed = BaseDataset.get_img_files(SimpleNamespace(prefix="", fraction=1.0), place)
            images += [Path(image).absolute() for image in listed]
        except Exception as e:  # whatever it is, a training would stop at it
            reason = one_line(e.__cause__ or e).partition(". Supported formats")[0]
            if split == "train":
                raise ConfigError(f"{split}: {reason}") from e
            LOGGER.warning(f"{split}: not checked: {reason}")
    return images


def _import_hasher() -> Callable[[Image.Image], Any] | None:
    """Return the perceptual hash of imagehash, which is an extra, if it is installed."""
    try:
        import imagehash
    except ImportError:
        return None
    return imagehash.phash


def _inspect(image: Path, top: str, described: Mapping[str, Any], hasher: Callable | None) -> _File:
    file = _File(image, image.relative_to(top).as_posix())
    try:
        file.size = inspect_image(image)[:2]
        file.digest = sha256(image)
        if hasher:
            file.hash = _hash(image, hasher)
    except (BadDataError, OSError) as e:
        file.problem = str(e)
        return file
    label = label_path(image)
    pose, count, numbers = described["keypoints"]
    # Ultralytics would repair the image itself, so that it gets another one
    arguments = (BLANK, str(label), "", pose, len(described["names"]), count, numbers, False)
    _, rows, _, segments, _, missing, _, empty, _, message = verify_image_label(arguments)
    if rows is None:
        file.problem = f"{label.name}: {one_line(ValueError(message.partition('image/label: ')[2]))}"
        return file
    file.rows, file.outlines = rows.astype(float), len(segments)
    file.background = "missing" if missing else "empty" if empty else ""
    text = Path(file.name).with_suffix(".txt").as_posix()
    for row in file.rows:
        low, high = row[1:3] - row[3:] / 2, row[1:3] + row[3:] / 2
        if row[3:].min() <= 0:
            file.warnings.append(f"{text}: box without area: {' '.join(f'{v:g}' for v in row)}")
        elif low.min() < -TOLERANCE or high.max() > 1 + TOLERANCE:
            file.warnings.append(f"{text}: box sticks out of the image: {' '.join(f'{v:g}' for v in row)}")
    if twice := re.search(r"(\d+) duplicate", message):
        file.warnings.append(f"{text}: the same row again: {twice[1]}")
    return file


def _hash(image: Path, hasher: Callable[[Image.Image], Any]) -> int | None:
    """Return the perceptual hash of an image, or None where Pillow does not decode what OpenCV does."""
    try:
        with Image.open(image) as pixels:
            pixels.draft("L", (128, 128))  # a JPEG is decoded to no more than needed
            return int(str(hasher(pixels)), 16)
    except Exception:
        return None


def _collect(files: Sequence[_File], labels: set[Path], names: Mapping[int, str], imgsz: int) -> dict[str, Any]:
    """Return the counts and findings of a split; `labels` are those of all splits, which may share a folder."""
    good = [f for f in files if not f.problem]
    folders = {label_path(f.image).parent for f in files}
    sizes = Counter(dict.fromkeys(("small", "medium", "large", "below the stride"), 0))
    for f in good:
        for w, h in (f.rows[:, 3:] * f.size * (imgsz / max(f.size))).tolist():
            sizes["small" if w * h < SMALL else "medium" if w * h < LARGE else "large"] += 1
            sizes["below the stride"] += min(w, h) < STRIDE
    return {
        **count_classes([[names[int(c)] for c in f.rows[:, 0]] for f in good], names.values()),
        "outlines": sum(f.outlines for f in good),
        "sizes": dict(sizes),
        "left out": [f"{f.name}: {f.problem}" for f in files if f.problem],
        "label missing": [f.name for f in good if f.background == "missing"],
        "label empty": [f.name for f in good if f.background == "empty"],
        "doubtful boxes": [line for f in good for line in f.warnings],
        "label without image": sorted(p.name for d in folders for p in d.glob("*.txt") if p not in labels),
    }


def _find_duplicates(found: Mapping[str, Sequence[_File]]) -> dict[str, int]:
    """Return a line for each image, by its bytes, that is there more than once, with the number of its splits."""
    places = defaultdict(list)
    for split, files in found.items():
        for f in files:
            places[f.digest].append((split, f.name))
    places.pop("", None)
    lines = {}
    for them in places.values():
        splits = dict.fromkeys(split for split, _ in them)
        if len(them) > 1:
            lines[f"{' and '.join(splits)}: {', '.join(name for _, name in them)}"] = len(splits)
    return lines


def _find_near_duplicates(found: Mapping[str, Sequence[_File]], near: int) -> tuple[int, list[str]]:
    """Return the number of pairs of two splits whose hashes are alike while their bytes are not, and lines of some."""
    number = 0
    lines: list[str] = []
    for a, b in itertools.combinations(found, 2):
        files = [[f for f in found[split] if f.hash is not None] for split in (a, b)]
        first, second = (np.array([f.hash for f in them], np.uint64) for them in files)
        digests, others = (np.array([f.digest for f in them], "S64") for them in files)
        step = max(1, CHUNK // max(1, len(second)))
        for start in range(0, len(first), step):
            bits = _count_bits(first[start : start + step, None] ^ second)
            rows, columns = np.nonzero(bits <= near)
            differ = digests[start + rows] != others[columns]
            number += int(differ.sum())
            for i, j in zip(rows[differ][:MOST_PAIRS], columns[differ], strict=False):
                if len(lines) < MOST_PAIRS:
                    pair = f"{a} {files[0][start + i].name} and {b} {files[1][j].name}"
                    lines.append(f"{pair} differ in {bits[i, j]} of {BITS} bits")
    return number, lines


def _count_bits(values: np.ndarray) -> np.ndarray:
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.bitwise_count(values)
    return np.unpackbits(values.view(np.uint8).reshape(*values.shape, 8), axis=2).sum(2, dtype=np.uint8)


def _draw_sheet(found: Mapping[str, Sequence[_File]], names: Mapping[int, str]) -> Image.Image:
    """Return an image with a row per class: its name, and some of its objects with what is around them."""
    choices = defaultdict(list)
    for f in itertools.chain(*found.values()):
        for row in f.rows:
            choices[int(row[0])].append((f, row))
    shown = dict(itertools.islice(names.items(), MOST_CLASSES))
    # every version of Pillow's default font has ASCII
    texts = [str(name).encode("ascii", "backslashreplace").decode() for name in shown.values()]
    font = ImageFont.load_default()
    left = 12 + max(int(font.getlength(text)) for text in texts)
    sheet = Image.new("RGB", (left + SAMPLES * TILE, TILE * len(shown)), "white")
    for place, (number, text) in enumerate(zip(shown, texts, strict=True)):
        ImageDraw.Draw(sheet).text((6, place * TILE + TILE // 2), text, "black", font)
        them = random.Random(number).sample(choices[number], min(SAMPLES, len(choices[number])))
        for column, (f, row) in enumerate(them):
            sheet.paste(_crop(f, row), (left + column * TILE, place * TILE))
    return sheet


def _crop(f: _File, row: np.ndarray) -> Image.Image:
    """Return a square of side TILE around an object, its box drawn."""
    read = imread(str(f.image))
    if read is None:  # gone since it was looked at
        return Image.new("RGB", (TILE, TILE))
    x, y, w, h = row[1:] * [*f.size, *f.size]
    half = max(w, h, 2) * (0.5 + MARGIN)
    corners = (round(x - half), round(y - half), round(x + half) + 1, round(y + half) + 1)
    tile = Image.fromarray(np.ascontiguousarray(read[..., ::-1])).crop(corners).resize((TILE, TILE))
    w, h = w * TILE / (4 * half + 2), h * TILE / (4 * half + 2)
    ImageDraw.Draw(tile).rectangle([TILE / 2 - w, TILE / 2 - h, TILE / 2 + w, TILE / 2 + h], outline="red")
    return tile


def _report(report: Mapping[str, dict[str, Any]], names: Sequence[str], imgsz: int) -> list[str]:
    lines = class_table(names, report)
    lines.append(f"objects by size when the longer side of an image is {imgsz} pixels (COCO: 32 and 96 squared):")
    for kind in ("small", "medium", "large", "below the stride"):
        cells = (f"{r['sizes'][kind]:,} ({r['sizes'][kind] / max(1, r['objects']):.0%})" for r in report.values())
        lines.append(table_row(kind, cells, names))
    lines.append(f"below the stride: a side of less than {STRIDE} pixels, the finest grid of a detector with P3")
    for split, r in report.items():
        if r["outlines"]:
            lines.append(f"{split}: {plural(r['outlines'], 'outline')}; a detector trains on the boxes around them")
        for kind in filter(r.get, FINDINGS):
            lines += [f"{split}: {kind}: {len(r[kind]):,}", *(f"  {line}" for line in shorten(r[kind]))]
        absent = [repr(name) for name, number in r["objects_per_class"].items() if not number]
        if absent and split == "train":
            lines.append(f"train: no object of {', '.join(shorten(absent))}")
    return lines
