"""The opponents of SGDM: the equations of their papers position by position, and the YAMLs that hold them."""

import copy
import importlib
import json
import pickle
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from helpers import close, randomize
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from ultralytics_sgdm import SGDM, RDConv, configs, equip, register_layer
from ultralytics_sgdm.data import make_shapes
from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.evidence import opponents
from ultralytics_sgdm.evidence.train import import_layers
from ultralytics_sgdm.nn import registry
from ultralytics_sgdm.nn.dynamic import razor_width

pytest.importorskip("timm")
from ultralytics_sgdm.evidence.opponents import table
from ultralytics_sgdm.evidence.opponents.condconv import RoutedConv2d
from ultralytics_sgdm.evidence.opponents.odconv import ODConv2d

pytestmark = pytest.mark.slow

ATTENTION = ("TimmCBAM", "CoordAttention")
CONVOLUTIONS = ("ResidualCondConv", "ResidualODConv", "ResidualRFAConv")
ABLATIONS = ("SGDMStatic", "SGDMNoSpatial", "SGDMNoChannel", "SGDMFree", "SGDMShort")
MODELS = ("yolov8n.yaml", "yolov5n.yaml")
C = 20  # channels of the layers alone: no multiple of a block


CLASSES = {path.rpartition(".")[2]: opponents.layer(name) for name, path in opponents.NAMES.items()}


@pytest.fixture(params=(*ATTENTION, *CONVOLUTIONS, *ABLATIONS))
def layer(request):
    return randomize(CLASSES[request.param](C, C)).eval()


@pytest.fixture(scope="module", params=MODELS)
def equipped(request):
    """Name of each opponent and ablation of a model, and the model equipped with it."""
    return {name: model for name, _, model in table.variants(request.param)}


def rows(spec):
    return [*spec["backbone"], *spec["head"]]


# Layers


def test_every_layer_is_tested_here():
    names = {name for name, e in registry.registered_layers() if e.cls.__module__.startswith(opponents.__name__)}
    assert names == {*ATTENTION, *CONVOLUTIONS, *ABLATIONS}


def test_shape_gradients_bf16_and_channels_last(layer):
    x = torch.randn(2, C, 9, 7)
    with torch.no_grad():
        expected = layer(x)
        assert expected.shape == x.shape
        twin = copy.deepcopy(layer).to(memory_format=torch.channels_last)
        assert close(twin(x.contiguous(memory_format=torch.channels_last)), expected, 1e-5)
        assert close(layer(x.transpose(2, 3).contiguous().transpose(2, 3)), expected, 1e-5)
    for dtype in (torch.float32, torch.bfloat16):
        twin.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            twin.train()(x.contiguous(memory_format=torch.channels_last)).float().square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in twin.parameters())


def test_a_sample_alone_is_the_sample_in_its_batch(layer):
    x = torch.randn(3, C, 6, 5)
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[1:2], layer(x[1:2]))


def test_pickle_finds_the_classes_in_the_module(layer):
    x, data = torch.randn(1, C, 5, 5), pickle.dumps(layer)
    assert b"opponents" in data
    assert torch.equal(pickle.loads(data)(x), layer(x))


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *ABLATIONS])
def test_starts_as_the_identity(name):
    x = torch.randn(2, C, 6, 6)
    assert torch.equal(CLASSES[name](C, C).eval()(x), x)


@pytest.mark.parametrize("name", [*ATTENTION, *CONVOLUTIONS, "SGDMFree"])
def test_refuses_to_change_channels(name):
    with pytest.raises(ValueError, match=f"c2 must be {C}, got 24"):
        CLASSES[name](C, 24)


# Slow references, one position and one sample at a time, in double precision


def each_position(x):
    return ((b, i, j) for b in range(len(x)) for i in range(x.shape[2]) for j in range(x.shape[3]))


def norm(bn, x):
    """BatchNorm in evaluation mode of (B, C, H, W), as its definition says."""
    shape = (1, -1, 1, 1)
    x = (x - bn.running_mean.reshape(shape)) / (bn.running_var.reshape(shape) + bn.eps).sqrt()
    return x * bn.weight.reshape(shape) + bn.bias.reshape(shape)


def patch(x, b, i, j, k):
    """The (C, k, k) around a position, zero outside."""
    r = k // 2
    return F.pad(x, (r, r, r, r))[b, :, i : i + k, j : j + k]


def convolve(x, weights, k):
    """Convolve each sample with a kernel of its own, of shape (c2, c1, k, k)."""
    y = torch.zeros(len(x), weights[0].shape[0], *x.shape[2:], dtype=x.dtype)
    for b, i, j in each_position(x):
        y[b, :, i, j] = (weights[b] * patch(x, b, i, j, k)).sum((1, 2, 3))
    return y


def reference_cbam(layer, x):
    w0, w1 = layer.channel.fc1.weight[:, :, 0, 0], layer.channel.fc2.weight[:, :, 0, 0]
    y = torch.zeros_like(x)
    for b, sample in enumerate(x):
        average, most = sample.mean((1, 2)), sample.amax((1, 2))
        attention = (w1 @ (w0 @ average).relu() + w1 @ (w0 @ most).relu()).sigmoid()
        y[b] = sample * attention[:, None, None]
    maps = torch.stack([y.mean(1), y.amax(1)], 1)
    logits = convolve(maps, [layer.spatial.conv.conv.weight] * len(x), 7)
    return y * norm(layer.spatial.conv.bn, logits).sigmoid()


def reference_coordinate_attention(layer, x):
    y = torch.zeros_like(x)
    f1, fh, fw = (m.weight[:, :, 0, 0] for m in (layer.conv1, layer.conv_h, layer.conv_w))

    def squeezed(z):
        f = norm(layer.bn1, (f1 @ z)[None, :, None, None])[0, :, 0, 0]
        return f * (f + 3).clamp(0, 6) / 6

    for b, i, j in each_position(x):
        row, column = x[b, :, i].mean(1), x[b, :, :, j].mean(1)
        y[b, :, i, j] = x[b, :, i, j] * (fh @ squeezed(row)).sigmoid() * (fw @ squeezed(column)).sigmoid()
    return y


def reference_condconv(conv, x):
    experts = conv.weight.reshape(conv.num_experts, *conv.weight_shape)
    kernels = []
    for sample in x:
        routing = (conv.route.weight @ sample.mean((1, 2)) + conv.route.bias).sigmoid()
        kernels.append(sum(r * expert for r, expert in zip(routing, experts, strict=True)))
    return convolve(x, kernels, 3)


def reference_odconv(conv, x):
    n, (c2, c1, k, _) = conv.num_experts, conv.weight_shape
    bases, kernels = conv.weight.reshape(n, c2, c1, k, k), []
    for sample in x:
        z = (conv.squeeze.weight @ sample.mean((1, 2)) + conv.squeeze.bias).relu()
        heads = (conv.kernels, conv.filters, conv.inputs, conv.taps)
        a_w, a_f, a_c, a_s = (head.weight @ z + head.bias for head in heads)
        a_w = a_w.exp() / a_w.exp().sum()
        kernel = torch.zeros(c2, c1, k, k, dtype=x.dtype)
        for i in range(n):
            for f in range(c2):
                for c in range(c1):
                    kernel[f, c] += (
                        a_w[i] * a_f[f].sigmoid() * a_c[c].sigmoid() * a_s.reshape(k, k).sigmoid() * bases[i, f, c]
                    )
        kernels.append(kernel)
    return convolve(x, kernels, k)


def reference_rfaconv(conv, x):
    k = conv.pool.kernel_size
    b, c, h, w = x.shape
    data = torch.zeros(b, c, k * h, k * w, dtype=x.dtype)
    feature = conv.feature.conv.weight.reshape(c, k * k, k, k)
    weigh = conv.weigh.weight.reshape(c, k * k)
    raw = torch.zeros(b, c, k * k, h, w, dtype=x.dtype)
    for s, i, j in each_position(x):
        raw[s, :, :, i, j] = (feature * patch(x, s, i, j, k)[:, None]).sum((2, 3))
    field = norm(conv.feature.bn, raw.flatten(1, 2)).relu().reshape(raw.shape)
    for s, i, j in each_position(x):
        logits = weigh * patch(x, s, i, j, k).mean((1, 2))[:, None]
        attention = logits.exp() / logits.exp().sum(1, keepdim=True)
        tile = (attention * field[s, :, :, i, j]).reshape(c, k, k)
        data[s, :, k * i : k * i + k, k * j : k * j + k] = tile
    return F.conv2d(data, conv.conv.weight.reshape(c, c, k, k), stride=k)


@pytest.mark.parametrize("size", [(4, 5), (1, 3)])
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("TimmCBAM", reference_cbam),
        ("CoordAttention", reference_coordinate_attention),
        ("ResidualCondConv", reference_condconv),
        ("ResidualODConv", reference_odconv),
        ("ResidualRFAConv", reference_rfaconv),
    ],
)
def test_agrees_with_the_equations_of_the_paper(name, reference, size):
    layer = randomize(CLASSES[name](C, C)).eval().double()
    x = torch.randn(2, C, *size, dtype=torch.double)
    with torch.no_grad():
        if name in ATTENTION:
            expected = reference(layer, x)
        else:
            y = norm(layer.bn, reference(layer.conv, layer.razor(x)))
            expected = x + layer.expand(y * y.sigmoid())
        torch.testing.assert_close(layer(x), expected)
        assert not torch.allclose(expected, x, atol=0.01)


# Ablations: each is SGDM with one thing changed


@pytest.mark.parametrize(
    ("name", "off"),
    [("SGDMStatic", {"channel", "spatial"}), ("SGDMNoSpatial", {"spatial"}), ("SGDMNoChannel", {"channel"})],
)
def test_a_branch_switched_off_is_sgdm_whose_branch_gives_one(name, off):
    sgdm, x = randomize(SGDM(C, C)).eval(), torch.randn(2, C, 6, 7)
    ablation = CLASSES[name](C, C).eval()
    left = ablation.load_state_dict(sgdm.state_dict(), strict=False)
    assert left.missing_keys == []
    assert {key.split(".")[0] for key in left.unexpected_keys} == off
    with torch.no_grad():
        assert not torch.allclose(ablation(x), sgdm(x), atol=1e-3)
        for branch in off:
            nn.init.zeros_(getattr(sgdm, branch).generate.weight)
            nn.init.zeros_(getattr(sgdm, branch).generate.bias)
        torch.testing.assert_close(ablation(x), sgdm(x))


def test_without_the_guide_the_kernel_is_that_of_rdconv():
    layer, free, x = randomize(CLASSES["SGDMFree"](C, C)).eval(), RDConv(C, C, 3, 1, 3).eval(), torch.randn(2, C, 6, 7)
    free.expand = nn.Identity()
    free.load_state_dict({k: v for k, v in layer.state_dict().items() if not k.startswith("expand")})
    with torch.no_grad():
        torch.testing.assert_close(layer(x), x + layer.expand(free(x)))


def test_short_kernels_are_1x3_and_3x1():
    short, sgdm = CLASSES["SGDMShort"](C, C).eval(), randomize(SGDM(C, C, 3, [[1, 3], [3, 1]])).eval()
    short.load_state_dict(sgdm.state_dict())
    x = torch.randn(2, C, 6, 7)
    with torch.no_grad():
        assert torch.equal(short(x), sgdm(x))


def test_sgdm_in_a_row_of_its_own_is_that_of_the_composite_block(monkeypatch):
    """So ablations, which stand in rows of their own, differ from C2fSGDM in nothing else."""
    monkeypatch.setattr(registry, "_layers", dict(registry._layers))
    register_layer(type("OwnRow", (SGDM,), {"__module__": __name__}))
    composite, own = equip("yolov8n.yaml"), equip("yolov8n.yaml", 2.25, module="OwnRow")
    assert own.added == composite.added
    models = []
    for spec in (composite.spec, own.spec):
        torch.manual_seed(0)
        models.append(DetectionModel(copy.deepcopy(spec), verbose=False).eval())
    assert all(map(torch.equal, *(m.state_dict().values() for m in models)))
    for m in models:
        torch.manual_seed(0)
        randomize(m)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(*(m(x)[0] for m in models))


# Models


def test_opponents_stand_where_sgdm_does(equipped):
    equipped = dict(equipped)
    sgdm = equipped.pop("sgdm")
    stock = [name.removesuffix("SGDM") for _, _, name, _ in rows(sgdm.spec)]
    for name, other in equipped.items():
        added = set(other.blocks) if other.inserted else set()
        assert [row[2].removesuffix("SGDM") for i, row in enumerate(rows(other.spec)) if i not in added] == stock
        places = [i - 1 - n for n, i in enumerate(sorted(added))] or list(other.blocks)
        first = {"sgdm-p2": 2, "sgdm-p3": 3}.get(name, 5)
        assert set(places) >= set(sgdm.blocks) and len(places) == {2: 8, 3: 7, 5: 2}[first]
        assert {other.outline[i].stage for i in other.blocks} == set(range(first, 6))


def test_parameters_are_those_of_sgdm_or_just_above(equipped):
    sgdm = equipped["sgdm"].added
    for name in ("condconv", "odconv", "rfaconv"):
        assert sgdm <= equipped[name].added <= 1.05 * sgdm
    static = equipped["sgdm-static"]  # in steps of 16 channels: one step narrower it has fewer than SGDM
    channels = {static.outline[i].channels for i in static.blocks}.pop()
    narrower = channels / (razor_width(channels, static.ratio) - 16)
    assert equip(f"{Path(static.source).stem}.yaml", narrower, module=static.module).added < sgdm <= static.added
    for name in table.AT_THE_RATIO:
        assert equipped[name].ratio == equipped["sgdm"].ratio
    assert {m.ratio for name, m in equipped.items() if "ratio" in name} == {2, 3, 4, 8} - {equipped["sgdm"].ratio}


def test_every_model_trains_fuses_and_comes_back_from_a_checkpoint(equipped, tmp_path):
    x, stock = torch.rand(2, 3, 64, 64), equipped["sgdm"].parameters
    for name, other in equipped.items():
        yolo = YOLO("yolov8n.yaml")
        model = yolo.model = DetectionModel(copy.deepcopy(other.spec), nc=80, verbose=False)
        assert count(model) == stock + other.added, name
        own = [p for i in other.blocks for p in model.model[i].parameters()]
        for _ in range(2):  # gradients add up: what a ReLU switches off with some weights, it seldom does with others
            randomize(model.model[:-1])
            loss = sum(y.square().mean() for y in model.train()(x)["feats"])
            loss.backward()
        assert loss.isfinite() and all(p.grad.isfinite().all() for p in own), name
        assert sum(bool(p.grad.any()) for p in own) > 0.9 * len(own), name
        model.zero_grad(set_to_none=True)
        yolo.save(tmp_path / "model.pt")
        again = YOLO(tmp_path / "model.pt").model.float().eval()
        assert [type(m) for m in again.model] == [type(m) for m in model.model]
        with torch.no_grad():
            expected = again(x)[0]
            assert close(again.fuse(verbose=False)(x)[0], expected, 1e-3), name


def test_ultralytics_counts_convolutions_with_computed_weights():
    thop = importlib.import_module("thop")
    for conv in (RoutedConv2d(C), ODConv2d(C)):
        x = torch.randn(1, C, 8, 8)
        with FlopCounterMode(display=False) as counter:
            conv(x)
        assert 2 * thop.profile(conv, inputs=[x], verbose=False)[0] == counter.get_total_flops()


# The command, and comparisons with layers of one's own


@pytest.fixture(scope="module")
def written(yolo, tmp_path_factory):
    """What `yolo sgdm opponents yolov8n.yaml` printed, and the folder that it wrote."""
    out = tmp_path_factory.mktemp("written") / "opponents"
    return yolo("sgdm", "opponents", "yolov8n.yaml", f"out={out}"), out


def test_the_command_writes_what_it_prints(written):
    printed, out = written
    lines = [line.split() for line in printed.splitlines()[-18:]]
    assert [line[0] for line in lines[:3]] == ["stock", "sgdm", "cbam"]
    files = sorted(out.iterdir())
    assert [f.name for f in files] == sorted(f"yolov8n-{line[0]}.yaml" for line in lines[2:])
    assert {line[0] for line in lines[1:]} == {*configs.EQUIPPED}
    for line in lines[2:]:
        model = YOLO(out / f"yolov8n-{line[0]}.yaml").model
        assert f"{count(model):,} {count(model) - 3_157_200:+,}" in " ".join(line)
        by_name = YOLO(f"yolov8n-{line[0]}.yaml").model  # needs no file
        assert rows(by_name.yaml) == rows(model.yaml)
    text = (out / "yolov8n-condconv.yaml").read_text()
    assert re.search(r"^# CondConv, .*\n(#.*\n)+\nnc: 80", text)
    assert "yolo sgdm equip" not in text
    assert sum(row[2] == "ResidualCondConv" for row in rows(yaml.safe_load(text))) == 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("yolov8n.yaml", "yolov8n-ca.yaml exist and are left as they are; choose another out="),
        ("yolov8m-slim.yaml", "'yolov8m-slim.yaml' does not exist"),
    ],
)
def test_the_command_overwrites_nothing_and_names_a_mistake(mistake, model, message, tmp_path):
    (tmp_path / "yolov8n-ca.yaml").write_text("mine")
    assert message in mistake("opponents", model, f"out={tmp_path}")
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("yolov8n-ca.yaml", "mine")]


LAYER = """
from torch import nn
from ultralytics_sgdm import register_layer

@register_layer
class Mine(nn.Conv2d):
    def __init__(self, c1, c2, ratio):
        super().__init__(c1, c2, 1)
"""


def test_compare_trains_models_with_layers_of_a_file(yolo, written, tmp_path):
    pytest.importorskip("scipy")
    make_shapes(tmp_path / "shapes", train=4, val=2, size=64)
    spec = {"path": str(tmp_path / "shapes"), "train": "images/train", "val": "images/val", "names": list("abcdef")}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(spec))
    (tmp_path / "own").mkdir()
    (tmp_path / "own/my_layers.py").write_text(LAYER)
    condconv = written[1] / "yolov8n-condconv.yaml"
    (tmp_path / "mine-yolov8n.yaml").write_text(condconv.read_text().replace("ResidualCondConv", "Mine"))
    recipe = ("data=data.yaml", "epochs=1", "imgsz=64", "workers=0", "device=cpu", "seeds=0", "out=results")
    command = ("sgdm", "compare", condconv, "mine-yolov8n.yaml", *recipe, "layers=own/my_layers.py", "jobs=2")
    printed = yolo(*command, cwd=tmp_path)
    assert "yolov8n-condconv-0: done" in printed and "mine-yolov8n-0: done" in printed
    result = json.loads((tmp_path / "results/yolov8n-condconv-0.json").read_text())
    assert result["parameters"] == count(YOLO(condconv).model)
    (tmp_path / "results/mine-yolov8n-0.json").unlink()  # another process loads its checkpoints again
    assert "mine-yolov8n-0: done" in yolo(*command, cwd=tmp_path)


def test_a_file_of_layers_is_what_python_finds_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "json.py").touch()
    with pytest.raises(ConfigError, match=r"json.py: Python finds another module named json; rename the file"):
        import_layers([str(tmp_path / "json.py")])


@pytest.mark.parametrize("name", configs.OPPONENTS)
def test_a_name_equips_at_load(name):
    model = YOLO(f"yolo11n-{name}.yaml").model
    assert model.yaml["yaml_file"] == f"yolo11n-{name}.yaml"
    cls = CLASSES[opponents.NAMES[name].rpartition(".")[2]]
    assert sum(isinstance(m, cls) for m in model.modules()) == len(table.equipped("yolo11n.yaml", name).blocks) == 3
