import json

import pytest

pytestmark = pytest.mark.slow


def test_benchmark_compares_with_the_first_model_and_leaves_the_users_files(yolo, tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "yolov8n.onnx").write_text("mine")
    out = tmp_path / "results/b.json"
    command = ("sgdm", "benchmark", "yolov8n.yaml", "yolov8n-sgdm.yaml", f"out={out}")
    printed = yolo(*command, "imgsz=128", "rounds=1", "batch=1", cwd=tmp_path)
    stock, ours = json.loads(out.read_text())["rows"]
    assert ours["parameters"] - stock["parameters"] == 186_552
    for kind in ("pytorch", "onnxruntime", "training_step", "training_memory"):
        assert stock[kind]["ratio"] == 1 and ours[kind]["ratio"] > 0
    assert "yolov8n-sgdm.yaml: 3,343,752 parameters" in printed
    assert {p.name for p in tmp_path.iterdir()} == {"results", "yolov8n.onnx"}
    assert (tmp_path / "yolov8n.onnx").read_text() == "mine"
    assert "exists; choose another file" in yolo(*command, cwd=tmp_path, status=2)


@pytest.mark.long
def test_a_layer_of_a_file_is_known(yolo, tmp_path, own_layers):
    backbone = "[[-1, 1, Conv, [16, 3, 2]], [-1, 1, Mine, [16]]]"
    (tmp_path / "m.yaml").write_text(f"nc: 1\nbackbone: {backbone}\nhead: [[[1], 1, Detect, [nc]]]")
    arguments = ("m.yaml", f"layers={own_layers}", "imgsz=64", "rounds=1")
    assert "m.yaml" in yolo("sgdm", "benchmark", *arguments, cwd=tmp_path)  # in a process of its own, as it stays known


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("yolov8n.yaml", "imgsz=96"), "imgsz=96 must be a multiple of 64: a training step takes half"),
        (("yolov8n.yaml", "device=cuda:7"), "device=cuda:7 is not available"),
        (("rounds=1",), "name the models"),
        (("nosuch.pt",), "nosuch.pt cannot be loaded: "),
        (("yolov8n.yaml", "layers=nosuch.py"), "nosuch.py is not a Python file that can be imported"),
        ((__file__,), "is not a model YAML or a checkpoint (.pt) of the task detect"),
        (("yolov8n-seg.yaml",), "yolov8n-seg.yaml is not a model YAML or a checkpoint (.pt) of the task detect"),
        (("yolov8n.yaml", "out=/proc/nowhere/b.json"), "out=/proc/nowhere cannot be written"),
    ],
)
def test_mistakes_are_said_before_anything_is_timed(mistake, arguments, message):
    assert message in mistake("benchmark", *arguments)
