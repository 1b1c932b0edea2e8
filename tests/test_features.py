"""What Ultralytics can do besides: a short run of each with SGDM, for what it does with any model."""

import csv
import math

import pytest
import torch
from helpers import save_detector, save_shapes
from ultralytics import YOLO
from ultralytics.utils import DEFAULT_CFG_DICT, plotting, torch_utils

from ultralytics_sgdm.placing.weights import stock_parameters

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


def added(model):
    """Return the tensors of the added modules by name."""
    stock = {name for name, _ in stock_parameters(model)}
    return {name: p.detach().float() for name, p in model.named_parameters() if name not in stock}


def train(folder, run, **options):
    """Train from the checkpoint; return the model as it was saved, after checks that hold for every training."""
    options = {**TINY, "data": str(folder / "small.yaml"), "project": str(run), "name": "run", **options}
    YOLO(folder / "model.pt").train(**options)
    with (run / "run/results.csv").open() as f:
        (row,) = csv.DictReader(f)
    assert all(math.isfinite(float(value)) for name, value in row.items() if name.startswith("train/"))
    model = YOLO(run / "run/weights/last.pt")
    before = added(YOLO(folder / "model.pt").model)
    after = added(model.model)
    assert after.keys() == before.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    return model


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "MuSGD"},
        {"channels_last": True},
        {"multi_scale": 0.5},
        {"rect": True},
        {"cutmix": 1.0},
        {"cos_lr": True, "mixup": 1.0, "mosaic": 1.0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_training_with(folder, tmp_path, options):
    if missing := options.keys() - DEFAULT_CFG_DICT.keys():
        pytest.skip(f"this Ultralytics has no {missing.pop()}")
    train(folder, tmp_path, **options)


@pytest.mark.long
@pytest.mark.slow
def test_training_compiled(folder, tmp_path, monkeypatch):
    """Traced forward and backward as compile=True does; what generates code would need a compiler and minutes."""
    compiled, stock = [], torch.compile

    def trace(model, **options):
        compiled.append(type(model).__name__)
        return stock(model, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", trace)
    train(folder, tmp_path, compile=True, val=False)
    assert "DetectionModel" in compiled


@pytest.mark.long
@needs_qat
def test_training_for_int8_and_its_export(folder, tmp_path):
    pytest.importorskip("modelopt.torch.quantization", reason="needs nvidia-modelopt", exc_type=ImportError)
    onnx = pytest.importorskip("onnx")
    model = train(folder, tmp_path, quantize=8)
    inside = [n for n, m in model.model.named_modules() if ".sgdm." in n and type(m).__name__ == "TensorQuantizer"]
    assert inside
    graph = onnx.load(model.export(format="onnx", imgsz=64, simplify=False)).graph
    constant = {t.name for t in graph.initializer} | {n.output[0] for n in graph.node if n.op_type == "Constant"}
    made = {n.output[0]: n for n in graph.node}
    quantized = 0
    for node in (n for n in graph.node if n.op_type == "Conv" and "sgdm" in n.name):
        weight = made.get(node.input[1])
        assert weight is not None and weight.op_type == "DequantizeLinear", node.name
        quantized += 1
        while weight is not None and weight.input[0] not in constant:
            weight = made.get(weight.input[0])
        assert weight is not None, f"{node.name} has a weight that is computed"
    assert quantized >= 8 * 2


def test_prediction_shows_what_it_looks_at(folder, tmp_path):
    if not hasattr(plotting, "class_activation_map"):
        pytest.skip("this Ultralytics draws feature maps in place of activation maps")
    source = next((folder / "shapes/images/val").glob("*.jpg"))
    options = {"imgsz": 64, "project": str(tmp_path), "conf": 0.01, "save": True}
    YOLO(folder / "model.pt").predict(source, name="plain", **options)
    YOLO(folder / "model.pt").predict(source, name="shown", visualize=True, **options)
    plain, shown = ({f.name for f in (tmp_path / name).rglob("*.*")} for name in ("plain", "shown"))
    assert shown - plain
