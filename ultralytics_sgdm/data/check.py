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
import textwrap
from collections import defaultdict
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

from ..errors import ConfigError, how_to_install, one_line, wrap_errors
from ..files import sha256
from .dataset import map_threads, shorten
from .images import find_label, inspect_image
from .yolo import count_classes, format_counts

SPLITS = ("train", "val", "test")
FINDINGS = ("left out", "label missing", "label empty", "doubtful boxes", "label without image")
TOLERANCE = 0.01  # of the image, by which Ultralytics lets a box stick out
SIZES, AREAS = ("small", "medium", "large"), (32**2, 96**2)  # of objects, and COCO's bounds between them, pixels
STRIDE, BELOW = 8, "below the stride"  # pixels; the finest grid of a detector with P3
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
    size: tuple[float, float] = (0, 0)
    rows: np.ndarray | None = None  # class, centre and size relative to the image; None if training leaves it out
    digest: str = ""
    hash: int | None = None


def check_set(data: str, imgsz: int = 640, near: int = 4, sheet: str = "", strict: bool = False) -> dict[str, Any]:
    """Check a dataset in YOLO layout before a training: `yolo sgdm check DATA.yaml`; nothing of it is changed.

    Reported are images that training leaves out, odd labels, duplicates, near duplicates between splits, and the
    numbers of objects by class and by size. A contact sheet shows samples of each class. With `kpt_shape` in the YAML,
    labels are read as a training of task pose reads them.

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
    if imgsz < 1 or not 0 <= near <= BITS:
        raise ConfigError(f"imgsz={imgsz} must be at least 1, and near={near} from 0 to {BITS}")
    target = Path(sheet) if sheet else increment_path(Path(f"{Path(data).stem}-check.png"))
    is_image = target.suffix.lower() in {".png", ".jpg", ".jpeg"}
    if not is_image or target.exists() or not os.access(target.parent, os.W_OK):
        raise ConfigError(f"sheet={sheet} must be a new .png or .jpg in a folder that you may write to")
    described = _describe(data)
    names, hasher = described["names"], None
    with contextlib.suppress(ImportError):
        hasher = importlib.import_module("imagehash").phash if near else None
    found = {}
    val, test = (sorted([v] if isinstance(v := described.get(s), str) else v or []) for s in ("val", "test"))
    repeats = test == val
    for split in SPLITS[: 2 if repeats else 3]:
        if images := _list_images(described.get(split), split):
            top = os.path.commonpath([image.parent for image in images])
            inspect = functools.partial(_inspect, top=top, described=described, hasher=hasher)
            found[split] = map_threads(inspect, images, f"Checking {split}")
    if not found:
        raise ConfigError(f"data={data}: no images, neither train: nor val: nor test: names a folder")
    labels = _find_labels(found)
    report = {split: _collect(files, labels, names, imgsz) for split, files in found.items()}
    shared = _find_duplicates(found)
    pairs, alike = _find_near_duplicates(found, near) if hasher and len(found) > 1 else (None, None)
    _draw_sheet(found, names).save(target)
    counts = {split: r | r["sizes"] for split, r in report.items()}
    lines = format_counts([*names.values()], counts, ("backgrounds", *SIZES, BELOW))
    lines.append(f"small, medium and large as in COCO, at imgsz={imgsz}; {BELOW}: a side of less than {STRIDE} pixels")
    for split, r in report.items():
        for kind in filter(r.get, FINDINGS):
            lines += [f"{split}: {kind}: {len(r[kind]):,}", *shorten(r[kind])]
    lines += ["test: not checked, it names the images of val:"] * bool(repeats and val)
    lines += [f"the same image: {len(shared):,}", *shorten([*shared])]
    missing = "near=0" if not near else "only one split" if hasher else how_to_install("check")
    number = f"not looked for ({missing})" if pairs is None else f"{pairs:,}"
    lines += [f"near duplicates: {number}", *shorten(alike or [])]
    LOGGER.info("\n".join([*lines, f"samples of each class: {target}"]))
    left_out, between = sum(len(r["left out"]) for r in report.values()), sum(n > 1 for n in shared.values())
    if strict and (left_out or between):
        raise ConfigError(f"data={data}: images left out: {left_out:,}; images in several splits: {between:,}")
    return {"splits": report, "duplicates": [*shared], "near duplicates": alike, "near duplicate pairs": pairs}


def _describe(data: str) -> dict[str, Any]:
    """Return what Ultralytics reads of a data YAML, and the arguments of `verify_image_label` that come from it."""
    with wrap_errors(f"data={data}"):  # whatever it is, a training would stop at it
        try:
            described: dict[str, Any] = check_det_dataset(data, autodownload=False)
        except FileNotFoundError:  # of val:
            described = check_det_dataset(data, autodownload=False, split="train")
        count, numbers = described.get("kpt_shape") or (0, 0)
    return described | {"verify": (bool(count), len(described["names"]), count, numbers)}


def _list_images(places: str | Sequence[str] | None, split: str) -> list[Path]:
    """Return the images of a split, by Ultralytics' own listing; a val: or test: that is not there is a warning."""
    if not places:
        return []
    try:
        listed = BaseDataset.get_img_files(SimpleNamespace(prefix="", fraction=1.0), places)
    except Exception as e:  # whatever it is, a training would stop at it
        reason = f"{split}: not checked: {one_line(e.__cause__ or e)}"
        if split == "train":
            raise ConfigError(reason) from e
        LOGGER.warning(reason)
        return []
    return [Path(image).absolute() for image in listed]


def _inspect(image: Path, top: str, described: Mapping[str, Any], hasher: Callable | None) -> _File:
    file = _File(image, image.relative_to(top).as_posix())
    label = find_label(image)
    try:
        file.size, file.digest = inspect_image(image)[:2], sha256(image)
        # Ultralytics would repair the image itself, so that it gets another one
        verified = verify_image_label((BLANK, str(label), "", *described["verify"], False))
        _, rows, _, _, _, missing, _, empty, _, message = verified
        if rows is None:
            raise ValueError(f"{label.name}: {' '.join(message.partition('image/label: ')[2].split())[:300]}")
    except (ValueError, OSError) as e:
        file.findings.append(("left out", f"{file.name}: {e}"))
        return file
    if hasher:
        with contextlib.suppress(Exception), Image.open(image) as pixels:  # Pillow does not decode all that OpenCV does
            pixels.draft("L", (128, 128))  # a JPEG is decoded to no more than needed
            file.hash = int(str(hasher(pixels)), 16)
    file.rows = rows.astype(float)
    if missing or empty:
        file.findings.append(("label missing" if missing else "label empty", file.name))
    doubts = [message.rpartition(": ")[2]] if message else []  # rows that are there twice
    for row in file.rows:
        reach = np.abs(row[1:3] - 0.5) + row[3:] / 2  # from the centre of the image
        if row[3:].min() <= 0 or reach.max() > 0.5 + TOLERANCE:
            doubt = "box without area" if row[3:].min() <= 0 else "box sticks out of the image"
            doubts.append(f"{doubt}: {' '.join(f'{value:g}' for value in row)}")
    file.findings += [("doubtful boxes", f"{Path(file.name).with_suffix('.txt').as_posix()}: {d}") for d in doubts]
    return file


def _find_labels(found: Mapping[str, Sequence[_File]]) -> set[Path]:
    """Return the labels of all splits, which may share a folder; the label of several images is a finding."""
    owners: dict[Path, dict[Path, _File]] = defaultdict(dict)
    for f in itertools.chain(*found.values()):
        owners[find_label(f.image)].setdefault(f.image, f)
    for label, files in owners.items():
        if len(files) > 1:
            line = f"{label.name}: the label of {' and '.join(sorted(image.name for image in files))}; rename one"
            next(iter(files.values())).findings.append(("doubtful boxes", line))
    return {*owners}


def _collect(files: Sequence[_File], labels: set[Path], names: Mapping[int, str], imgsz: int) -> dict[str, Any]:
    """Return the counts and findings of a split; `labels` are those of all splits."""
    good = [(f, f.rows) for f in files if f.rows is not None]
    sides = np.concatenate([np.empty((0, 2)), *(rows[:, 3:] * f.size * (imgsz / max(f.size)) for f, rows in good)])
    sizes = dict(zip(SIZES, np.bincount(np.digitize(sides.prod(1), AREAS), minlength=3).tolist(), strict=True))
    folders = {find_label(f.image).parent for f in files}
    lonely = sorted(p.name for folder in folders for p in folder.glob("*.txt") if p not in labels)
    findings = [*itertools.chain(*(f.findings for f in files)), *(("label without image", name) for name in lonely)]
    return {
        **count_classes([[names[int(c)] for c in rows[:, 0]] for _, rows in good], names.values()),
        "sizes": sizes | {BELOW: int((sides.min(1) < STRIDE).sum())},
        **{kind: [line for k, line in findings if k == kind] for kind in FINDINGS},
    }


def _find_duplicates(found: Mapping[str, Sequence[_File]]) -> dict[str, int]:
    """Return a line for each image, by its bytes, that is there more than once, with the number of its splits."""
    places = defaultdict(list)
    for split, files in found.items():
        for f in files:
            places[f.digest].append((split, f.name))
    lines = {}
    for digest, them in places.items():
        splits = dict.fromkeys(split for split, _ in them)
        if digest and len(them) > 1:
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
