"""What Ultralytics can do besides: a short run of each with SGDM, for what it does with any model."""

import csv
import math

import pytest
from helpers import changed, computed_weights, save_detector, save_shapes
from ultralytics import YOLO
from ultralytics.utils import DEFAULT_CFG_DICT, torch_utils

pytestmark = pytest.mark.slow

TINY = {"epochs": 1, "imgsz": 64, "batch": 4, "workers": 0, "device": "cpu", "plots": False, "optimizer": "AdamW"}
TINY |= {"nbs": 4, "warmup_epochs": 0}  # so that a step is taken
needs_qat = pytest.mark.skipif(
    not hasattr(torch_utils, "prepare_qat"), reason="this Ultralytics has no training for int8"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    save_shapes(folder, classes=3)
    save_detector("yolov8n-sgdm.yaml", folder)
    return folder


def train(folder, run, **options):
    """Train from the checkpoint; return the model as it was saved, after checks that hold for every training."""
    options = {**TINY, "data": str(folder / "small.yaml"), "project": str(run), "name": "run", **options}
    YOLO(folder / "model.pt").train(**options)
    with (run / "run/results.csv").open() as f:
        (row,) = csv.DictReader(f)
    assert all(math.isfinite(float(value)) for name, value in row.items() if name.startswith("train/"))
    assert min(changed(folder / "model.pt", run / "run/weights/last.pt")) > 0
    return YOLO(run / "run/weights/last.pt")


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "MuSGD"},
        {"channels_last": True},
        {"multi_scale": 0.5, "rect": True},
        {"cos_lr": True, "mixup": 1.0, "mosaic": 1.0, "cutmix": 1.0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_training_with(folder, tmp_path, options):
    if missing := options.keys() - DEFAULT_CFG_DICT.keys():
        pytest.skip(f"this Ultralytics has no {missing.pop()}")
    train(folder, tmp_path, **options)


@pytest.mark.long
@needs_qat
def test_training_for_int8_and_its_export(folder, tmp_path):
    pytest.importorskip("modelopt.torch.quantization", reason="needs nvidia-modelopt", exc_type=ImportError)
    onnx = pytest.importorskip("onnx")
    model = train(folder, tmp_path, quantize=8)
    inside = [n for n, m in model.model.named_modules() if ".sgdm." in n and type(m).__name__ == "TensorQuantizer"]
    assert inside
    graph = onnx.load(model.export(format="onnx", imgsz=64, simplify=False)).graph
    quantized = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    ours = [n for n in graph.node if n.op_type == "Conv" and "sgdm" in n.name]
    assert len(ours) >= 8 * 2 and all(n.input[1] in quantized for n in ours)
    assert not {*computed_weights(graph)} & {n.name for n in ours}
