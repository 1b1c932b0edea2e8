"""The main job on data that the package makes itself: train, validate, predict, export, and the same boxes from ONNX.

Run it with `make demo`, or `python scripts/demo.py [FOLDER]`; everything it writes goes into that folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

PREDICT = "imgsz=160 agnostic_nms=True save_txt=True save_conf=True"  # shapes are apart: one box for each
TRAIN = "imgsz=160 epochs=30 batch=8 nbs=8 optimizer=AdamW lr0=0.002 warmup_epochs=1 mosaic=0 scale=0.2 flipud=0.5"


def yolo(folder: Path, line: str) -> None:
    """Print and run one `yolo` command in `folder`; stop the demo if it fails."""
    print(f"\n$ yolo {line}", flush=True)
    command = [sys.executable, "-m", "ultralytics_sgdm", *line.split()]
    if subprocess.run(command, cwd=folder).returncode:
        sys.exit(f"error: this command failed: yolo {line}")


def read_boxes(labels: Path) -> dict[str, np.ndarray]:
    """Return class, x, y, w, h and confidence of each box that `save_txt save_conf` wrote, sorted, by image."""
    return {f.stem: np.array(sorted(np.loadtxt(f, ndmin=2).tolist())) for f in labels.glob("*.txt")}


def count_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], tolerance: float = 2e-3) -> int:
    """Return the number of boxes if both hold the same, relative to the image, within `tolerance`; else stop."""
    same = ours.keys() == theirs.keys() and all(
        ours[k].shape == theirs[k].shape and np.allclose(ours[k], theirs[k], atol=tolerance) for k in ours
    )
    if not same:
        sys.exit("error: PyTorch and ONNX Runtime do not give the same boxes")
    return sum(map(len, ours.values()))


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("demo"), help="where to write (default: demo)")
    folder = parser.parse_args().folder.resolve()
    (folder / "settings").mkdir(parents=True, exist_ok=True)
    os.environ["YOLO_CONFIG_DIR"] = str(folder / "settings")  # read on import: the user's own stay as they are
    from ultralytics_sgdm.data import make_shapes

    results, data = folder / "results", folder / "sgdm-shapes"
    where = f"project={results} exist_ok=True"
    best = results / "train/weights/best.pt"

    yolo(folder, f"settings datasets_dir={folder} runs_dir={results}")
    print(f"\nDrawing {make_shapes(data)}", flush=True)  # else training does, and Ultralytics warns that it is missing
    yolo(folder, f"train model=yolov8n-sgdm.yaml data=shapes.yaml {TRAIN} workers=0 {where} name=train")
    yolo(folder, f"val model={best} data=shapes.yaml imgsz=160 workers=0 {where} name=val")
    yolo(folder, f"export model={best} format=onnx imgsz=160")
    for name, model in (("pytorch", best), ("onnx", best.with_suffix(".onnx"))):
        yolo(folder, f"predict model={model} source={data}/images/val {PREDICT} {where} name={name}")

    boxes = count_same(*(read_boxes(results / name / "labels") for name in ("pytorch", "onnx")))
    print(f"""
What was made, all of it in {folder}:
  data         {data.name}: 128 training and 32 validation images with labels
  training     results/train: results.csv and results.png, weights/best.pt
  validation   results/val: curves and confusion matrix
  ONNX         results/train/weights/best.onnx
  predictions  results/pytorch and results/onnx: the validation images with boxes drawn
PyTorch and ONNX Runtime found the same {boxes} boxes.
Next: activate the environment and go on with "Install" in the README:
  source {Path(sys.prefix)}/bin/activate""")


if __name__ == "__main__":
    main()
