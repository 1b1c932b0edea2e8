"""A detection dataset that the package draws itself: rotated shapes of several sizes, apart, on noisy textures.

Small enough that a first run anywhere finds nearly all of them, hard enough that a detector has to learn: colour tells
nothing about the class.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..errors import ConfigError
from .yolo import create_folder

CLASSES = ("disc", "ring", "square", "triangle", "star", "arrow")  # Ultralytics counts them with an s: "2 arrows"
OBJECTS = 3, 7  # in an image, fewest and most
RADII = 0.07, 0.2  # of the circle around a shape, relative to the image
TRIES = 200  # to place the objects of an image
GAP = 0.02  # between the boxes of two objects, relative to the image
VISIBLE = 60  # levels between a shape and what is behind it, in the channel where they differ most


def make_shapes(root: str | Path, train: int = 128, val: int = 32, size: int = 320, seed: int = 0) -> Path:
    """Draw the dataset in YOLO layout (`images/SPLIT/*.jpg`, `labels/SPLIT/*.txt`) unless it is there already.

    Each image depends only on its split, its number, `size` and `seed`. The folder appears when all is in it.

    Args:
        root: Folder of the dataset; nothing is written elsewhere.
        train: Number of training images.
        val: Number of validation images.
        size: Side of the square images, pixels.
        seed: Seed of the whole dataset.

    Returns:
        `root`.

    Raises:
        ConfigError: If something else is there.
    """
    root = Path(root).resolve()
    counts = {"train": train, "val": val}
    there = {split: sum(1 for _ in root.glob(f"images/{split}/*.jpg")) for split in counts}
    if (root / "images").is_dir():
        if there != counts:
            raise ConfigError(f"{root} has {there} images, not {counts}; name another folder")
        return root
    with create_folder(root) as part:
        for number, (split, count) in enumerate(counts.items()):
            for kind in ("images", "labels"):
                (part / kind / split).mkdir(parents=True)
            for i in range(count):
                pixels, boxes = draw(np.random.default_rng([seed, number, i]), size)
                rows = (f"{c} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for c, x, y, w, h in boxes)
                (part / f"labels/{split}/{i:04}.txt").write_text("".join(rows))
                cv2.imencode(".jpg", pixels)[1].tofile(part / f"images/{split}/{i:04}.jpg")
    return root


def draw(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[tuple[int, float, float, float, float]]]:
    """Return a BGR image of shape (size, size, 3), uint8, and (class, x, y, width, height) per object."""
    image = _draw_texture(rng, size, contrast=60)
    count = rng.integers(OBJECTS[0], OBJECTS[1] + 1)
    boxes: list[np.ndarray] = []
    objects: list[tuple[int, float, float, float, float]] = []
    for _ in range(TRIES):
        kind = int(rng.integers(len(CLASSES)))
        contours = _draw_contours(CLASSES[kind], rng, size)
        box = np.array([contours[0].min(0), contours[0].max(0)])
        if any((np.maximum(box[0], b[0]) - np.minimum(box[1], b[1])).max() < GAP * size for b in boxes):
            continue  # nearer than that, both across and down
        mask: np.ndarray = np.zeros((size, size), np.uint8)
        cv2.fillPoly(mask, [np.round(c * 16).astype(np.int32) for c in contours], 255, cv2.LINE_AA, shift=4)
        paint = _draw_texture(rng, size, contrast=25)
        if np.percentile(np.abs(paint - image)[mask > 0].max(1), 10) < VISIBLE:
            continue
        opacity = mask[..., None] / 255
        image = image * (1 - opacity) + paint * opacity
        boxes.append(box)
        objects.append((kind, *(box.mean(0) / size), *((box[1] - box[0]) / size)))
        if len(objects) == count:
            break
    image += rng.normal(0, rng.uniform(3, 10), image.shape)
    return image.clip(0, 255).astype(np.uint8), objects


def _draw_texture(rng: np.random.Generator, size: int, contrast: float) -> np.ndarray:
    """Return smooth noise of several octaves around a random colour, (size, size, 3), in 0 to 255."""
    image = np.full((size, size, 3), rng.uniform(40, 215, 3))
    for cells in (3, 8, 24):
        noise = rng.normal(0, contrast * 3 / (cells + 3), (cells, cells, 3))
        image += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    return image.clip(0, 255)


def _draw_contours(kind: str, rng: np.random.Generator, size: int) -> list[np.ndarray]:
    """Return the outline of a randomly placed shape (and of its hole), points (x, y) in pixels inside the image."""
    turn = rng.uniform(0, 2 * np.pi)
    if kind == "arrow":
        arrow = np.array([[1, 0], [0.15, 0.85], [0.15, 0.35], [-1, 0.35], [-1, -0.35], [0.15, -0.35], [0.15, -0.85]])
        outline = arrow @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    else:
        corners = {"disc": 64, "ring": 64, "square": 4, "triangle": 3, "star": 10}[kind]
        radii = np.tile([1, 0.45], 5) if kind == "star" else np.ones(corners)
        angles = turn + np.arange(corners) * 2 * np.pi / corners
        outline = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    outline *= size * np.exp(rng.uniform(*np.log(RADII)))
    centre = rng.uniform(-outline.min(0), size - outline.max(0))
    return [outline + centre] + [outline * 0.55 + centre] * (kind == "ring")
