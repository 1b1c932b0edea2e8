"""Measure conversions of synthetic datasets up to COCO's size: seconds and peak memory.

    python scripts/benchmark_data.py FOLDER [--images 10000,30000,118287] [--out results/data-scale.json]

FOLDER is a new folder, best in memory (tmpfs): the images have a few bytes each, so that what is measured is not the
disk. They have as many objects each as those of COCO's training split (860,001 in 118,287 images). One in ten is
validated on. Memory is the peak of the whole process; `started` is what it holds once the package is imported.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import ultralytics

import ultralytics_sgdm
from ultralytics_sgdm.data import convert_coco_json, convert_voc

OBJECTS_PER_IMAGE = 860_001 / 118_287
CLASSES = [f"class {i}" for i in range(80)]
SIDE = 64  # pixels


def make_source(folder: Path, images: int) -> None:
    """Write the same dataset as a VOC folder and as a COCO JSON, which share their images."""
    rng = np.random.default_rng(0)
    names = [f"{i:012}" for i in range(images)]
    owners = np.sort(rng.integers(0, images, round(images * OBJECTS_PER_IMAGE)))
    corners = rng.integers(0, SIDE // 2, (len(owners), 2))
    sizes = rng.integers(2, SIDE // 2, (len(owners), 2))
    kinds = rng.integers(0, len(CLASSES), len(owners))
    for place in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / place).mkdir(parents=True)
    content = cv2.imencode(".png", np.zeros((SIDE, SIDE), np.uint8))[1].tobytes()
    head = f"<annotation><size><width>{SIDE}</width><height>{SIDE}</height><depth>1</depth></size>"
    starts = np.searchsorted(owners, np.arange(images + 1))
    annotations = []
    for i, name in enumerate(names):
        (folder / f"JPEGImages/{name}.png").write_bytes(content)
        objects = []
        for j in range(starts[i], starts[i + 1]):
            (x, y), (w, h) = corners[j].tolist(), sizes[j].tolist()
            sides = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
            objects.append(f"<object><name>{CLASSES[kinds[j]]}</name><bndbox>{sides}</bndbox></object>\n")
            box = {"id": j, "image_id": i, "category_id": int(kinds[j]), "bbox": [x, y, w, h], "iscrowd": 0}
            annotations.append(box | {"area": w * h, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]})
        (folder / f"Annotations/{name}.xml").write_text(f"{head}\n{''.join(objects)}</annotation>\n")
    for split, them in (("val", names[::10]), ("train", [n for i, n in enumerate(names) if i % 10])):
        (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in them))
    described = {
        "images": [{"id": i, "file_name": f"{n}.png", "width": SIDE, "height": SIDE} for i, n in enumerate(names)],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
    }
    (folder / "src.json").write_text(json.dumps(described))


def convert(kind: str, folder: Path, dest: Path) -> None:
    """Convert the source in one of its two formats."""
    if kind == "voc":
        convert_voc(folder, dest)
    elif kind == "coco":
        convert_coco_json(folder / "src.json", folder / "JPEGImages", dest, val="0.1")


def measure(arguments: tuple, queue: multiprocessing.Queue) -> None:
    """Run in a process of its own, and report seconds and the peak of memory."""
    started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    convert(*arguments)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queue.put({"seconds": round(seconds, 1), "started_mb": started // 1024, "peak_mb": peak // 1024})


def benchmark(folder: Path, images: int) -> Iterator[dict[str, Any]]:
    """Yield a row per format of the source."""
    context = multiprocessing.get_context("spawn")
    maker = context.Process(target=make_source, args=(folder / "src", images))
    maker.start()  # in a process of its own: a process starts with the peak of the one that started it
    maker.join()
    for kind in ("voc", "coco"):
        queue = context.Queue()
        process = context.Process(target=measure, args=((kind, folder / "src", folder / kind), queue))
        process.start()
        row = {"images": images, "objects": round(images * OBJECTS_PER_IMAGE), "format": kind}
        yield row | queue.get(timeout=3600)
        process.join()
        shutil.rmtree(folder / kind)
    shutil.rmtree(folder / "src")


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", default="10000,30000,118287")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.folder.exists():
        parser.error(f"{arguments.folder} exists; name a folder that is made for it and removed afterwards")
    arguments.folder.mkdir(parents=True)
    os.environ["YOLO_VERBOSE"] = "false"
    about = {
        "ultralytics_sgdm": ultralytics_sgdm.__version__,
        "ultralytics": ultralytics.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    rows = []
    for images in map(int, arguments.images.split(",")):
        for row in benchmark(arguments.folder, images):
            rows.append(row | {"load": round(os.getloadavg()[0], 1)})
            print(rows[-1], flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(about | {"runs": rows}, indent=1) + "\n")
    arguments.folder.rmdir()


if __name__ == "__main__":
    main()
