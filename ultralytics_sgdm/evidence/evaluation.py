"""Detections of a checkpoint on each image of a dataset, and AP of any weighting of the images.

Ultralytics' validator matches them with the boxes of their image, once. What is left for each resample of the images
are weighted sums in the order of confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ultralytics import YOLO

RECALLS = np.linspace(0, 1, 101)
CHUNK = 32  # resamples at a time: their sums over all detections take the memory


class Detections(NamedTuple):
    """N detections in P images, and the T boxes that are there; the names are those in the file of a run."""

    pictures: np.ndarray  # names of the images (P,)
    picture: np.ndarray  # image of each detection (N,)
    conf: np.ndarray  # (N,)
    cls: np.ndarray  # (N,)
    tp: np.ndarray  # whether a detection matches a box at IoU 0.5, 0.55, ... 0.95 (N, 10)
    target_picture: np.ndarray  # image of each box (T,)
    target_cls: np.ndarray  # (T,)


def evaluate(weights: Path, settings: Mapping[str, Any], folder: Path) -> tuple[Any, Detections]:
    """Return Ultralytics' metrics of a checkpoint's boxes, and its detections; the validator may write to `folder`."""
    yolo = YOLO(weights)
    names: list[str] = []
    stats: dict[str, list[np.ndarray]] = {}

    def keep(validator: Any) -> None:
        """Keep what was matched in each image so far; the validator drops it at its end."""
        names[:] = [Path(file).name for file in validator.dataloader.dataset.im_files]
        stats.update({key: list(values) for key, values in validator.metrics.stats.items()})

    yolo.add_callback("on_val_batch_end", keep)
    own = {"plots": False, "project": str(folder), "name": "val", "exist_ok": True}
    metrics = yolo.val(**{"verbose": False, **settings}, **own)
    order = np.argsort(names, kind="stable")
    tp, conf, cls, targets = ([stats[key][i] for i in order] for key in ("tp", "conf", "pred_cls", "target_cls"))
    images = np.arange(len(order))
    return metrics, Detections(
        pictures=np.array(names)[order],
        picture=np.repeat(images, list(map(len, conf))),
        conf=np.concatenate(conf).astype(np.float32),
        cls=np.concatenate(cls).astype(np.int16),
        tp=np.concatenate([matches.reshape(-1, 10) for matches in tp]).astype(bool),
        target_picture=np.repeat(images, list(map(len, targets))),
        target_cls=np.concatenate(targets).astype(np.int16),
    )


def pool(parts: Sequence[Detections]) -> Detections:
    """Return the detections on several datasets, such as those of all folds, as of one."""
    before = np.cumsum([0, *(len(d.pictures) for d in parts[:-1])])
    pairs = zip(parts, before, strict=True)
    moved = [d._replace(picture=d.picture + n, target_picture=d.target_picture + n) for d, n in pairs]
    return Detections(*map(np.concatenate, zip(*moved, strict=True)))


def average_precision(d: Detections, counts: np.ndarray) -> np.ndarray:
    """Return AP as Ultralytics computes it, (B, classes with boxes, 10), NaN where a resample has no box of the class.

    `counts` says how often each image counts, in each of B resamples (B, P).
    """
    classes = np.unique(d.target_cls)
    result = np.full((len(counts), len(classes), d.tp.shape[1]), np.nan)
    for c, cls in enumerate(classes):
        of = np.flatnonzero(d.cls == cls)
        of = of[np.argsort(-d.conf[of], kind="stable")]
        image, tp = d.picture[of], d.tp[of]
        targets = np.bincount(d.target_picture[d.target_cls == cls], minlength=len(d.pictures))
        for start in range(0, len(counts), CHUNK):
            weights: np.ndarray = counts[start : start + CHUNK].astype(np.float32)
            there = weights @ targets.astype(np.float32)
            each = weights[:, image]
            seen = each.cumsum(1, dtype=np.float64)
            for k in range(tp.shape[1]):
                at = np.flatnonzero(tp[:, k])
                result[start : start + CHUNK, c, k] = _areas(each[:, at], seen[:, at], there)
    return result


def _areas(hits: np.ndarray, seen: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the areas (B,) under precision over recall, of weights of true positives, detections so far, all boxes."""
    areas, found = np.full(len(hits), np.nan), hits.cumsum(1, dtype=np.float64)
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    best = np.pad(np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1], ((0, 0), (0, 1)))
    for b in np.flatnonzero(there > 0):
        curve = best[b, np.searchsorted(found[b] / (there[b] + 1e-16), RECALLS, "right")]
        areas[b] = (curve[1:] + curve[:-1]).sum() / 2 / (len(RECALLS) - 1)  # by trapezoids
    return areas
