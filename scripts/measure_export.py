"""Export a trained detector to each format; measure error, boxes, size, latency against PyTorch, mAP of ONNX and int8.

    taskset -c 0 python scripts/measure_export.py best.pt data.yaml --imgsz 192 --output results/export-formats.csv

Outputs are compared on random and validation images at five sizes and batches of 1, 2 and 7. A fixed export is made for
each size, and takes a batch picture by picture. Latency is of one picture, in turn with PyTorch, as a ratio.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.data.loaders import LoadImagesAndVideos
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils.nms import non_max_suppression

COLUMNS = (
    "format,options,versions,worked,images,max_relative_error,images_with_same_boxes,"
    "megabytes,latency_ratio,mAP50,mAP50-95,note"
)
BATCHES = (1, 2, 7)


class Format(NamedTuple):
    """A format of `yolo export`, its options, and the packages whose versions matter."""

    name: str
    options: dict[str, object]
    packages: tuple[str, ...] = ()
    note: str = ""


FORMATS = (
    Format("torchscript", {}, ("torch",)),
    Format("torchscript", {"dynamic": True}, ("torch",)),
    Format("onnx", {}, ("onnxruntime",)),
    Format("onnx", {"dynamic": True}, ("onnxruntime",)),
    Format("onnx", {"dynamic": True, "half": True}, ("onnxruntime",)),
    Format("onnx", {"dynamic": True, "int8": True}, ("onnxruntime",)),
    Format("openvino", {"dynamic": True}, ("openvino",), "as yolo predict runs it: bf16 where the CPU has it"),
    Format("openvino", {"dynamic": True, "f32": True}, ("openvino",), "INFERENCE_PRECISION_HINT=f32"),
    Format("openvino", {"int8": True}, ("openvino", "nncf")),
    Format("ncnn", {}, ("ncnn", "pnnx")),
    Format("mnn", {"dynamic": True}, ("MNN",)),
    Format("litert", {}, ("litert-torch", "ai-edge-litert")),
)


def sizes(imgsz: int) -> list[tuple[int, int]]:
    """Return five heights and widths around `imgsz`, multiples of 32."""
    half, more = max(32, imgsz // 64 * 32), imgsz + 64
    return [(imgsz, imgsz), (half, half), (half, imgsz), (more, imgsz), (more, more)]


def batches_of(size: tuple[int, int], batch: int, count: int, files: list[Path]) -> list[torch.Tensor]:
    """Return `count` images of a size in batches (B, 3, H, W), every other one random, the others of `files`."""
    rng = np.random.default_rng(0)
    images = []
    for i in range(count):
        if i % 2:
            image = rng.random((3, *size), np.float32)
        else:
            image = cv2.resize(cv2.imread(str(files[i // 2 % len(files)])), size[::-1])[..., ::-1]
            image = image.transpose(2, 0, 1).astype(np.float32) / 255
        images.append(torch.from_numpy(np.ascontiguousarray(image)))
    return list(torch.stack(images).split(batch))


def load(file: str, f32: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from images (B, 3, H, W) to raw outputs (B, 4 + classes, anchors)."""
    if f32:
        import openvino

        xml = next(Path(file).glob("*.xml"))
        compiled = openvino.Core().compile_model(xml, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda x: torch.from_numpy(compiled(x.numpy())[0])
    backend = AutoBackend(file, device=torch.device("cpu"), verbose=False)

    def run(x: torch.Tensor) -> torch.Tensor:
        y = backend(x)
        return y[0] if isinstance(y, (list, tuple)) else y

    return run


def relative_error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the largest error of boxes or of scores, each relative to the largest value of its kind."""
    parts = slice(4), slice(4, None)
    return max(float((got[:, p] - wanted[:, p]).abs().max() / wanted[:, p].abs().max()) for p in parts)


def same_boxes(got: torch.Tensor, wanted: torch.Tensor) -> int:
    """Return the number of images whose boxes after NMS agree: as many, of the same classes, within a pixel."""
    pairs = zip(*(non_max_suppression(y.clone(), 0.25, 0.7) for y in (got, wanted)), strict=True)
    return sum(
        a.shape == b.shape and bool((a[:, 5] == b[:, 5]).all() and ((a - b)[:, :4].abs() < 1).all()) for a, b in pairs
    )


def latency_ratio(a: Callable, b: Callable, x: torch.Tensor, rounds: int = 40) -> float:
    """Return the median time of `a` over that of `b`, taken in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + 5):
        for f, of in zip((a, b), times, strict=True):
            start = time.perf_counter()
            f(x)
            if i >= 5:
                of.append(time.perf_counter() - start)
    return statistics.median(times[0]) / statistics.median(times[1])


def megabytes(file: Path) -> float:
    """Return the size of a file or of the files in a folder."""
    return sum(f.stat().st_size for f in ([file] if file.is_file() else file.rglob("*")) if f.is_file()) / 2**20


def measure(form: Format, source: Path, arguments: argparse.Namespace, files: list[Path]) -> dict[str, object]:
    """Export to one format and return its row of the table.

    Raises:
        Exception: Whatever the exporter or the runtime raises; that it does is a result.
    """
    model = YOLO(source).model.float().eval().fuse()

    @torch.inference_mode()
    def reference(x: torch.Tensor) -> torch.Tensor:
        return model(x)[0]

    options = {k: v for k, v in form.options.items() if k != "f32"}
    if "int8" in options:
        options |= {"data": str(arguments.data), "split": "train"}
    dynamic = bool(options.get("dynamic"))
    images, errors, same = 0, [], 0
    row: dict[str, object] = {}
    for size in sizes(arguments.imgsz):
        if not row or not dynamic:
            file = YOLO(source).export(format=form.name, imgsz=size, verbose=False, **options)
            run = load(file, "f32" in form.options)
        if not row:
            x = batches_of(size, 1, 1, files)[0]
            row = {"latency_ratio": round(latency_ratio(run, reference, x), 2)}
            row["megabytes"] = round(megabytes(Path(file)), 1)
            if form.name == "onnx" or "int8" in options:
                where = {"project": str(source.parent), "plots": False}
                box = YOLO(file, task="detect").val(data=arguments.data, imgsz=size[0], batch=1, **where).box
                row |= {"mAP50": round(box.map50, 4), "mAP50-95": round(box.map, 4)}
        for batch in BATCHES:
            for x in batches_of(size, batch, arguments.images, files):
                wanted = reference(x)
                got = run(x) if dynamic else torch.cat([run(one) for one in x.split(1)])
                errors.append(relative_error(got, wanted))
                same += same_boxes(got, wanted)
                images += len(x)
    return row | {"max_relative_error": f"{max(errors):.1e}", "images": images, "images_with_same_boxes": same}


def main() -> None:
    """Write the table, a row for each format that --formats asks for; rows of other formats in the file stay."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="trained checkpoint")
    parser.add_argument("data", type=Path, help="its dataset's YAML")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--images", type=int, default=100, help="images for each size and batch")
    parser.add_argument("--formats", default=",".join(dict.fromkeys(f.name for f in FORMATS)))
    parser.add_argument("--output", type=Path, default=Path("results/export-formats.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    files = [Path(f) for f in LoadImagesAndVideos(check_det_dataset(arguments.data)["val"]).files]
    machine = f"{len(os.sched_getaffinity(0))} core of a {platform.machine()} CPU, torch {torch.__version__}"
    rows = list(csv.DictReader(arguments.output.open())) if arguments.output.exists() else []
    for form in FORMATS:
        if form.name not in arguments.formats.split(","):
            continue
        label = " ".join(f"{k}={v}" for k, v in form.options.items())
        row: dict[str, object] = {
            "format": form.name,
            "options": label,
            "note": "; ".join(filter(None, (form.note, machine))),
        }
        with tempfile.TemporaryDirectory() as folder:
            source = Path(shutil.copy(arguments.model, folder))
            try:
                row["versions"] = " ".join(f"{p} {version(p)}" for p in form.packages)
                row |= measure(form, source, arguments, files) | {"worked": True}
            except Exception as e:
                row |= {"worked": False, "note": f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"}
        rows = [r for r in rows if (r["format"], r["options"]) != (form.name, label)] + [row]
        print(row, flush=True)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        with arguments.output.open("w", newline="") as out:
            writer = csv.DictWriter(out, COLUMNS.split(","))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
