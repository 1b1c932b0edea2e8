"""Exported models and images for the tests of deploy/predict_onnx.py."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import save_detector
from ultralytics import YOLO
from ultralytics.data.augment import LetterBox

from ultralytics_sgdm.data import make_shapes

SIZES = ((480, 640), (640, 480), (97, 301), (64, 64), (65, 63), (50, 21))
SIZES += ((1080, 1920), (300, 2), (128, 192), (1, 1))
THIN = (4000, 10)  # the short side is less than half a pixel at 96: older versions of Ultralytics stop there
EXPORTS = {
    "fixed": {},
    "fixed batch": {"batch": 4},
    "dynamic": {"dynamic": True},
    "nms": {"nms": True},
    "nms dynamic": {"nms": True, "dynamic": True, "batch": 4},
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("predict")


def letterboxed(size):
    try:
        return LetterBox((96, 96))(image=np.zeros((*size, 3), np.uint8)).any()
    except cv2.error:
        return False


@pytest.fixture(scope="session")
def images(folder):
    """Images of many aspect ratios, in memory."""
    sizes = [*SIZES, THIN] if letterboxed(THIN) else SIZES
    make_shapes(folder / "shapes", train=0, val=len(sizes), size=160)
    files = sorted((folder / "shapes/images/val").glob("*.jpg"))
    return [cv2.resize(cv2.imread(str(f)), (w, h)) for f, (h, w) in zip(files, sizes, strict=True)]


@pytest.fixture(scope="session")
def models(folder):
    """An exported model of each kind."""
    detector = save_detector("yolov8n-sgdm.yaml", folder)
    files = {}
    for name, options in EXPORTS.items():
        file = YOLO(detector).export(format="onnx", imgsz=96, simplify=False, verbose=False, **options)
        files[name] = Path(file).rename(folder / f"{name}.onnx")
    return files


@pytest.fixture(scope="session")
def end2end(folder):
    """YOLO26, whose export without NMS gives the boxes of its head that needs none."""
    detector = save_detector("yolo26n.yaml", folder)
    options = {"imgsz": 96, "simplify": False, "verbose": False, "nms": False}
    return Path(YOLO(detector).export(format="onnx", **options)).rename(folder / "end2end.onnx")
