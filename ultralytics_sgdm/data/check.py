"""A report on any dataset in YOLO layout before a long training: what is left out, and what the rest looks like.

Ultralytics itself lists the images and reads the labels, so that both mean here what they mean in a training.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import os
import random
import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from ultralytics.data.base import BaseDataset
from ultralytics.data.utils import check_det_dataset, verify_image_label
from ultralytics.utils import ASSETS, LOGGER
from ultralytics.utils.files import increment_path
from ultralytics.utils.patches import imread

from ..errors import ConfigError, how_to_install, one_line, pluralize
from ..files import sha256
from .dataset import map_threads, shorten
from .folders import name_disk_errors
from .images import find_label, inspect_image
from .yolo import count_classes, format_classes, format_row

SPLITS = ("train", "val", "test")
FINDINGS = ("left out", "label missing", "label empty", "doubtful boxes", "label without image")
TOLERANCE = 0.01  # of the image, by which Ultralytics lets a box stick out
SMALL, LARGE = 32**2, 96**2  # pixels; COCO's bounds of small, medium and large objects
STRIDE = 8  # pixels; the finest grid of a detector with P3
BITS = 64  # of a perceptual hash
SAMPLES, TILE, MARGIN = 8, 96, 0.25  # per class on the contact sheet; pixels; context around a box, of its longer side
MOST_CLASSES, MOST_PAIRS = 100, 1000  # on the contact sheet; in the list of near duplicates
BLANK = str(ASSETS / "zidane.jpg")  # an image without fault


@dataclass
class _File:
    """One image with its label, and what there is to report of it."""

    image: Path
    name: str  # below the folder that holds all images of its split
    findings: list[tuple[str, str]] = field(default_factory=list)  # kind and line
    size: tuple[int, int] = (0, 0)
    rows: np.ndarray | None = None  # class, centre and size relative to the image; None if training leaves it out
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
    names, hasher = described["names"], None
    with contextlib.suppress(ImportError):
        hasher = importlib.import_module("imagehash").phash if near else None
    found = {}
    for split in SPLITS:
        if images := _list_images(described.get(split), split):
            top = os.path.commonpath([image.parent for image in images])
            inspect = functools.partial(_inspect, top=top, described=described, hasher=hasher)
            found[split] = map_threads(inspect, images, f"Checking {split}")
    if not found:
        raise ConfigError(f"data={data}: no images, neither train: nor val: nor test: names a folder")
    labels = _find_shared_labels(found)
    report = {split: _collect(files, labels, names, imgsz) for split, files in found.items()}
    shared = _find_duplicates(found)
    pairs, alike = _find_near_duplicates(found, near) if hasher and len(found) > 1 else (None, None)
    with name_disk_errors(target):
        _draw_sheet(found, names).save(target)
    lines = _format_report(report, list(names.values()), imgsz)
    lines += [f"the same image: {len(shared):,}", *(f"  {line}" for line in shorten(list(shared)))]
    if alike is None:
        missing = "near=0" if not near else "only one split" if hasher else how_to_install("check")
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
        names = {i: described["names"][i] for i in range(len(described["names"]))}
    except Exception as e:  # whatever it is, a training would stop at it
        raise ConfigError(f"data={data}: {one_line(e).removeprefix(f'data={data}: ')}") from e
    if repeated := sorted(name for name, number in Counter(names.values()).items() if number > 1):
        LOGGER.warning(f"names: several classes are called {', '.join(map(repr, repeated))}")
    unique = {i: f"{name} ({i})" if name in repeated else name for i, name in names.items()}
    return described | {"names": unique, "keypoints": (bool(count), count, numbers)}


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


def _inspect(image: Path, top: str, described: Mapping[str, Any], hasher: Callable | None) -> _File:
    file = _File(image, image.relative_to(top).as_posix())
    try:
        file.size = inspect_image(image)[:2]
        file.digest = sha256(image)
    except (ValueError, OSError) as e:
        file.findings.append(("left out", f"{file.name}: {e}"))
        return file
    if hasher:
        with contextlib.suppress(Exception), Image.open(image) as pixels:  # Pillow does not decode all that OpenCV does
            pixels.draft("L", (128, 128))  # a JPEG is decoded to no more than needed
            file.hash = int(str(hasher(pixels)), 16)
    label = find_label(image)
    pose, count, numbers = described["keypoints"]
    # Ultralytics would repair the image itself, so that it gets another one
    arguments = (BLANK, str(label), "", pose, len(described["names"]), count, numbers, False)
    _, rows, _, segments, _, missing, _, empty, _, message = verify_image_label(arguments)
    if rows is None:
        reason = " ".join(message.partition("image/label: ")[2].split())[:300]
        file.findings.append(("left out", f"{file.name}: {label.name}: {reason}"))
        return file
    file.rows, file.outlines = rows.astype(float), len(segments)
    if missing or empty:
        file.findings.append(("label missing" if missing else "label empty", file.name))
    doubts = [f"the same row again: {again[1]}" for again in [re.search(r"(\d+) duplicate", message)] if again]
    for row in rows.astype(float):
        low, high = row[1:3] - row[3:] / 2, row[1:3] + row[3:] / 2
        text = " ".join(f"{value:g}" for value in row)
        if row[3:].min() <= 0:
            doubts.append(f"box without area: {text}")
        elif low.min() < -TOLERANCE or high.max() > 1 + TOLERANCE:
            doubts.append(f"box sticks out of the image: {text}")
    name = Path(file.name).with_suffix(".txt").as_posix()
    file.findings += [("doubtful boxes", f"{name}: {doubt}") for doubt in doubts]
    return file


def _find_shared_labels(found: Mapping[str, Sequence[_File]]) -> set[Path]:
    """Return the labels of all images, which may share a folder; one of several images is a finding."""
    owners = defaultdict(list)
    for f in itertools.chain(*found.values()):
        owners[find_label(f.image)].append(f)
    for label, files in owners.items():
        images = sorted({f.image for f in files})
        if len(images) > 1:
            line = f"{label.name}: the label of {' and '.join(i.name for i in images)}; rename one"
            files[0].findings.append(("doubtful boxes", line))
    return {*owners}


def _collect(files: Sequence[_File], labels: set[Path], names: Mapping[int, str], imgsz: int) -> dict[str, Any]:
    """Return the counts and findings of a split; `labels` are those of all splits."""
    good = [(f, f.rows) for f in files if f.rows is not None]
    sizes = Counter(dict.fromkeys(("small", "medium", "large", "below the stride"), 0))
    for f, rows in good:
        for w, h in (rows[:, 3:] * f.size * (imgsz / max(f.size))).tolist():
            sizes["small" if w * h < SMALL else "medium" if w * h < LARGE else "large"] += 1
            sizes["below the stride"] += min(w, h) < STRIDE
    lines: dict[str, list[str]] = {kind: [] for kind in FINDINGS}
    for kind, line in itertools.chain(*(f.findings for f in files)):
        lines[kind].append(line)
    folders = {find_label(f.image).parent for f in files}
    lines["label without image"] = sorted(p.name for d in folders for p in d.glob("*.txt") if p not in labels)
    return {
        **count_classes([[names[int(c)] for c in rows[:, 0]] for _, rows in good], names.values()),
        "outlines": sum(f.outlines for f in files),
        "sizes": dict(sizes),
        **lines,
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
        first, second = ([f for f in found[split] if f.hash is not None] for split in (a, b))
        hashes = np.array([f.hash for f in second], np.uint64)
        for f in first:
            bits = _count_bits(np.uint64(f.hash) ^ hashes)
            alike = [i for i in np.flatnonzero(bits <= near) if second[i].digest != f.digest]
            number += len(alike)
            for i in alike[: MOST_PAIRS - len(lines)]:
                lines.append(f"{a} {f.name} and {b} {second[i].name} differ in {bits[i]} of {BITS} bits")
    return number, lines


def _count_bits(numbers: np.ndarray) -> np.ndarray:
    """Return how many bits are set in each number of 64 bits."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.bitwise_count(numbers)
    return np.unpackbits(numbers.view(np.uint8)).reshape(-1, BITS).sum(1)


def _draw_sheet(found: Mapping[str, Sequence[_File]], names: Mapping[int, str]) -> Image.Image:
    """Return an image with a row per class: its name, and some of its objects with what is around them."""
    objects = defaultdict(list)
    for f in itertools.chain(*found.values()):
        for number, *box in () if f.rows is None else f.rows.tolist():
            objects[int(number)].append((f, box))
    shown = list(names.items())[:MOST_CLASSES]
    sheet = Image.new("RGB", ((1 + SAMPLES) * TILE, TILE * len(shown)), "white")
    for y, (number, name) in enumerate(shown):
        text = name.encode("ascii", "backslashreplace").decode()  # every version of Pillow's default font has ASCII
        ImageDraw.Draw(sheet).text((6, y * TILE + 6), "\n".join(textwrap.wrap(text, 14)), "black")
        some = random.Random(number).sample(objects[number], min(SAMPLES, len(objects[number])))
        for x, (f, box) in enumerate(some, 1):
            sheet.paste(_crop(f, box), (x * TILE, y * TILE))
    return sheet


def _crop(f: _File, box: Sequence[float]) -> Image.Image:
    """Return a square of side TILE around an object, its box drawn."""
    x, y, w, h = np.multiply(box, [*f.size, *f.size])
    image = Image.fromarray(np.ascontiguousarray(imread(str(f.image))[..., ::-1]))
    ImageDraw.Draw(image).rectangle([x - w / 2, y - h / 2, x + w / 2, y + h / 2], outline="red")
    half = max(w, h, 2) * (0.5 + MARGIN)
    return image.crop((int(x - half), int(y - half), int(x + half) + 1, int(y + half) + 1)).resize((TILE, TILE))


def _format_report(report: Mapping[str, dict[str, Any]], names: Sequence[str], imgsz: int) -> list[str]:
    lines = format_classes(names, report)
    lines.append(f"objects by size when the longer side of an image is {imgsz} pixels (COCO: 32 and 96 squared):")
    for kind in ("small", "medium", "large", "below the stride"):
        cells = (f"{r['sizes'][kind]:,} ({r['sizes'][kind] / max(1, r['objects']):.0%})" for r in report.values())
        lines.append(format_row(kind, cells, names))
    lines.append(f"below the stride: a side of less than {STRIDE} pixels, the finest grid of a detector with P3")
    for split, r in report.items():
        if r["outlines"]:
            lines.append(f"{split}: {pluralize(r['outlines'], 'outline')}; a detector trains on the boxes around them")
        for kind in filter(r.get, FINDINGS):
            lines += [f"{split}: {kind}: {len(r[kind]):,}", *(f"  {line}" for line in shorten(r[kind]))]
        absent = [repr(name) for name, number in r["objects_per_class"].items() if not number]
        if absent and split == "train":
            lines.append(f"train: no object of {', '.join(shorten(absent))}")
    return lines
