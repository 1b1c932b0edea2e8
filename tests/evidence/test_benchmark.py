import json
import sys
from functools import partial

import pytest
import torch

from ultralytics_sgdm.evidence import benchmark

pytestmark = pytest.mark.slow

YOLO_SGDM = (sys.executable, "-m", "ultralytics_sgdm", "sgdm")


def test_benchmark_compares_with_the_first_model(shell, tmp_path):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "results/b.json"
    command = (*YOLO_SGDM, "benchmark", "yolov8n.yaml", "yolov8n-sgdm.yaml", f"out={out}")
    printed = shell(
        *command, "imgsz=128", "rounds=1", "batch=1", "compile=True", cwd=tmp_path, TORCHDYNAMO_DISABLE="1"
    )  # compiling takes minutes
    result = json.loads(out.read_text())
    stock, ours = result["rows"]
    assert ours["parameters"] - stock["parameters"] == 186_552
    for kind in ("pytorch", "torch_compile", "onnxruntime", "training_step", "training_memory"):
        assert stock[kind]["ratio"] == 1
        assert ours[kind]["ratio"] > 0
    assert {p.name for p in tmp_path.iterdir()} == {"results"}
    assert "yolov8n-sgdm.yaml: 3,343,752 parameters" in printed
    assert "exists; choose another file" in shell(*command, cwd=tmp_path, status=2)


def test_benchmark_compiles_a_model_into_one_graph(monkeypatch):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        program = benchmark.fuse("yolov8n-sgdm.yaml", x, compiled=True)
        for _ in range(2):
            program(x)
    assert len(graphs) == 1


def test_a_layer_of_a_file_is_known(yolo, tmp_path):
    (tmp_path / "timed_layer.py").write_text(
        "from torch import nn\nfrom ultralytics_sgdm import register_layer\n"
        "class Timed(nn.Identity):\n    def __init__(self, c1, c2): super().__init__()\nregister_layer(Timed)\n"
    )
    (tmp_path / "m.yaml").write_text(
        "nc: 1\nbackbone: [[-1, 1, Conv, [16, 3, 2]], [-1, 1, Timed, [16]]]\nhead: [[[1], 1, Detect, [nc]]]"
    )
    arguments = ("m.yaml", "layers=timed_layer.py", "imgsz=64", "rounds=1")
    assert "m.yaml" in yolo("sgdm", "benchmark", *arguments, cwd=tmp_path)  # in a process of its own, as it stays known


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("yolov8n.yaml", "imgsz=96"), "imgsz=96 must be a multiple of 64: a training step takes half"),
        (("yolov8n-p6.yaml", "imgsz=64"), "imgsz=64 must be a multiple of 128"),
        (("yolov8n.yaml", "imgsz=small"), "imgsz=small must be a whole number"),
        (("yolov8n.yaml", "device=cuda:7"), "device=cuda:7 is not available"),
        (("yolov8n.yaml", "device=meta"), "device=meta is not available"),
        (("yolov8n-sdgm.yaml",), "'yolov8n-sdgm.yaml' does not exist; did you mean 'yolov8n-sgdm.yaml'"),
        (("rounds=1",), "name the models"),
        (("nosuch.pt",), "nosuch.pt is not a detector"),
        (("yolov8n.yaml", "layers=nosuch.py"), "nosuch.py is not a Python file (.py), or does not exist"),
        ((__file__,), "is not a detector: a model YAML or a checkpoint (.pt)"),
        (("yolov8n.yaml", "yolov8n-seg.yaml"), "yolov8n-seg.yaml is not a detector"),
        (("yolov8n.yaml", "out=/proc/nowhere/b.json"), "out=/proc/nowhere cannot be written"),
    ],
)
def test_mistakes_are_said_before_anything_is_timed(mistake, arguments, message):
    assert message in mistake("benchmark", *arguments)


def test_an_onnx_file_of_the_user_stays(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolov8n.onnx").write_text("mine")
    (tmp_path / "temporary").mkdir()
    benchmark.export_onnx("yolov8n.yaml", 64, tmp_path / "temporary")
    assert (tmp_path / "yolov8n.onnx").read_text() == "mine"
