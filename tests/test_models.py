"""Every shipped YAML at every scale."""

import pytest
import torch
from ultralytics import YOLO

from ultralytics_sgdm.configs import find_yaml, list_shipped, stock_name, with_scale, without_scale

pytestmark = pytest.mark.slow

NAMES = [with_scale(file.name, scale) for file in list_shipped("models") for scale in "nsmlx"]


@pytest.mark.parametrize("name", NAMES)
def test_builds_and_runs_forward_and_backward(name):
    model = YOLO(name).model.train()
    outputs = model(torch.rand(2, 3, 64, 64))
    loss = sum(v.float().square().mean() for v in outputs.values() if isinstance(v, torch.Tensor))
    loss.backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


@pytest.mark.parametrize(
    ("scaled", "unscaled"),
    [
        ("yolov8n-sgdm.yaml", "yolov8-sgdm.yaml"),
        ("yolo11x-seg-sgdm.yaml", "yolo11-seg-sgdm.yaml"),
        ("my-yolov5s.yaml", "my-yolov5.yaml"),
        ("yolov8-sgdm.yaml", "yolov8-sgdm.yaml"),
        ("run7m.yaml", "run7m.yaml"),
    ],
)
def test_names_with_and_without_scale(scaled, unscaled):
    assert without_scale(scaled) == unscaled
    if scaled != unscaled:
        scale = next(a for a, b in zip(scaled, unscaled, strict=False) if a != b)
        assert with_scale(unscaled, scale) == scaled


def test_the_stock_counterpart():
    assert stock_name("yolov8n-sgdm.yaml") == "yolov8n.yaml"
    assert stock_name("yolov5s-rdconv.yaml") == "yolov5s.yaml"


def test_a_name_with_a_folder_means_that_folder(tmp_path):
    assert find_yaml(tmp_path / "yolov8n-sgdm.yaml") is None
    assert find_yaml("yolov8n-sgdm.yaml").name == "yolov8-sgdm.yaml"
