"""Exported graphs: plain operators with constant weights, the outputs of PyTorch at any batch and size."""

import runpy
from pathlib import Path

import pytest
import torch
from helpers import close, computed_weights, randomize, save_detector, save_shapes
from torch import nn
from torch.export import Dim
from torch.torch_version import TorchVersion
from ultralytics import YOLO
from ultralytics.utils.nms import non_max_suppression

from ultralytics_sgdm import SGDM, RDConv
from ultralytics_sgdm.configs import list_shipped, with_scale

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

NAMES = [with_scale(file.name, "n") for file in list_shipped("models")]
COUNT = runpy.run_path(str(Path(__file__).parents[1] / "scripts/count_nodes.py"))
newer_torch = pytest.mark.skipif(TorchVersion(torch.__version__) < "2.14", reason="seen to fail in torch 2.4")
SHAPES = ((1, 3, 64, 64), (2, 3, 64, 96), (7, 3, 96, 64))


@pytest.fixture(scope="module", params=NAMES)
def any_detector(request, tmp_path_factory):
    return save_detector(request.param, tmp_path_factory.mktemp("any"))


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return save_detector("yolov8n-sgdm.yaml", tmp_path_factory.mktemp("sgdm"))


def export(detector, **options):
    """Export as `yolo export format=onnx imgsz=64` does; return the file and its checked graph."""
    file = YOLO(detector).export(format="onnx", imgsz=64, verbose=False, **options)
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert [o.domain for o in model.opset_import if o.domain] == []
    return file, model.graph


def run(file, x):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


def expected(detector, x):
    with torch.no_grad():
        return YOLO(detector).model.eval()(x)[0]


def same(got, wanted, tolerance=1e-4):
    """Whether boxes and scores of raw outputs (B, 4 + classes, anchors) agree, each relative to the largest."""
    parts = slice(4), slice(4, None)
    return got.shape == wanted.shape and all(close(got[:, p], wanted[:, p], tolerance) for p in parts)


def test_fixed_onnx_of_every_shipped_detector(any_detector):
    file, graph = export(any_detector, simplify=False)
    assert computed_weights(graph) == []
    x = torch.rand(SHAPES[0])
    assert same(run(file, x), expected(any_detector, x))


@pytest.mark.long
def test_dynamic_onnx_of_every_shipped_detector(any_detector):
    file, graph = export(any_detector, dynamic=True)
    assert computed_weights(graph) == []
    for shape in SHAPES:
        x = torch.rand(shape)
        assert same(run(file, x), expected(any_detector, x))
    scopes = [n for n, m in YOLO(any_detector).model.named_modules() if isinstance(m, (SGDM, RDConv))]
    assert scopes
    for scope in scopes:
        nodes = COUNT["inside"](graph.node, scope)
        assert 0 < len(nodes) <= (34 if "sgdm" in scope else 57)
        assert not {node.op_type for node in nodes} & set(COUNT["SHAPE_ARITHMETIC"])


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"opset": 9, "simplify": False}, 1e-4),
        *(({"opset": n, "dynamic": True, "simplify": False}, 1e-4) for n in (11, 20)),
        ({"half": True, "dynamic": True, "simplify": False}, 2e-2),
        ({"half": True, "dynamic": True, "simplify": True}, 2e-2),
    ],
    ids=str,
)
def test_opsets_and_half(detector, options, tolerance):
    file, graph = export(detector, **options)
    half = onnx.TensorProto.FLOAT16 in {t.data_type for t in graph.initializer}
    assert half if "half" in options else computed_weights(graph) == []
    x = torch.rand(SHAPES[-1] if "dynamic" in options else SHAPES[0])
    assert same(run(file, x), expected(detector, x), tolerance)


def test_int8_quantizes_every_convolution(detector, tmp_path):
    data = save_shapes(tmp_path, train=0, val=4, classes=3)  # as many as the detector knows
    file, graph = export(detector, int8=True, simplify=False, data=str(data), dynamic=True)
    assert computed_weights(graph) == []
    weights = {t.name: t.data_type for t in graph.initializer}
    quantized = {
        n.output[0]
        for n in graph.node
        if n.op_type == "DequantizeLinear" and weights.get(n.input[0]) == onnx.TensorProto.INT8
    }
    convolutions = [n for n in graph.node if n.op_type == "Conv"]
    assert len(convolutions) >= sum(isinstance(m, nn.Conv2d) for m in YOLO(detector).model.modules()) > 70
    assert [n.name for n in convolutions if n.input[1] not in quantized] == []
    x = torch.rand(SHAPES[-1])
    assert run(file, x).shape == expected(detector, x).shape


@pytest.mark.parametrize("options", [{}, {"dynamic": True, "batch": 2}])
def test_nms_inside_the_graph_gives_the_boxes_of_nms_outside(detector, options):
    file, graph = export(detector, nms=True, conf=0.25, simplify=False, **options)
    assert "NonMaxSuppression" in {n.op_type for n in graph.node}
    for shape in SHAPES[: 2 if options else 1]:
        x = torch.rand(shape)
        wanted = non_max_suppression(expected(detector, x), 0.25, 0.7)
        assert sum(map(len, wanted)) >= shape[0]
        for rows, boxes in zip(run(file, x), wanted, strict=True):
            torch.testing.assert_close(rows[rows[:, 4] > 0], boxes, atol=1e-3, rtol=1e-4)


def test_torchscript(detector):
    traced = torch.jit.load(YOLO(detector).export(format="torchscript", imgsz=64, dynamic=True, verbose=False))
    for shape in SHAPES:
        x = torch.rand(shape)
        assert same(traced(x), expected(detector, x), 1e-5)


@newer_torch
def test_a_detector_in_torch_compile_without_graph_break_and_in_torch_export(detector):
    torch._dynamo.reset()
    model = YOLO(detector).model.eval()
    x = torch.rand(SHAPES[1])
    with torch.no_grad():
        model(x)  # the stock Detect head compiles only for a size whose anchors it holds already
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        for graph in (compiled, torch.export.export(model, (x,), strict=False).module()):
            assert same(graph(x)[0], expected(detector, x), 1e-5)


@pytest.fixture(params=[SGDM(32, 32), RDConv(32, 32), RDConv(32, 32, 3, 2)], ids=["SGDM", "RDConv", "RDConv s2"])
def layer(request):
    return randomize(request.param).eval()


@newer_torch
def test_torch_export_and_trace_of_a_layer_keep_batch_and_size_free(layer):
    x, other = torch.rand(2, 32, 15, 24), torch.rand(7, 32, 24, 17)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: Dim("b"), 2: Dim("h", min=4), 3: Dim("w", min=4)},))
    traced = torch.jit.trace(layer, x)
    with torch.no_grad():
        for graph in (program.module(), traced):
            assert close(graph(other), layer(other), 1e-5)


def test_traces_hold_only_operators_that_converters_know(layer):
    nodes = list(torch.jit.trace(layer, torch.rand(1, 32, 8, 8)).inlined_graph.nodes())
    kinds = {node.kind() for node in nodes if node.kind().startswith("aten::")}
    known = "_convolution adaptive_avg_pool2d add add_ batch_norm mul pad sigmoid silu silu_ slice split"
    known += " flatten reshape transpose"  # of constant weights
    assert kinds <= {f"aten::{name}" for name in known.split()}
    steps = [list(node.inputs())[4].toIValue() for node in nodes if node.kind() == "aten::slice"]
    assert set(steps) <= {1}  # ncnn's Crop takes no other, and pnnx leaves it out without an error
