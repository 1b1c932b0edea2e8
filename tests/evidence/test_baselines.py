"""The baselines of SGDM: the equations of their papers, and the models that hold them."""

import copy
import importlib
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import close, randomize
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics import YOLO
from ultralytics.utils.torch_utils import get_num_params as count_parameters

from ultralytics_sgdm import SGDM, configs, equip
from ultralytics_sgdm.nn.registry import find_layer
from ultralytics_sgdm.placing.equip import equip_by_name

pytest.importorskip("timm")
from ultralytics_sgdm.evidence import baselines

pytestmark = pytest.mark.slow

CLASSES = {name: find_layer(layer).cls for name, layer in configs.BASELINES.items()}
ATTENTION = ("cbam", "ca")
C = 20  # channels of the layers alone: not a multiple of a block


def rows(spec):
    return [row[2] for row in (*spec["backbone"], *spec["head"])]


@pytest.mark.parametrize("name", CLASSES)
def test_shape_gradients_formats_and_batches(name):
    layer, x = randomize(CLASSES[name](C, C)).eval(), torch.randn(3, C, 9, 7)
    with torch.no_grad():
        expected = layer(x)
        assert expected.shape == x.shape
        twin = copy.deepcopy(layer).to(memory_format=torch.channels_last)
        assert close(twin(x.contiguous(memory_format=torch.channels_last)), expected, 1e-5)
        assert close(layer(x.transpose(2, 3).contiguous().transpose(2, 3)), expected, 1e-5)
        torch.testing.assert_close(layer(x[1:2]), expected[1:2])
        assert torch.equal(pickle.loads(pickle.dumps(layer))(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        twin.train()(x).float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in twin.parameters())
    assert name in ATTENTION or torch.equal(CLASSES[name](C, C).eval()(x), x)  # starts as the identity
    with pytest.raises(ValueError, match=f"c2 must be {C}, got 24"):
        CLASSES[name](C, 24)


@pytest.mark.parametrize("module", ["", ".cbam", ".coord_attention", ".condconv", ".odconv", ".rfaconv", ".form"])
def test_pickles_of_0_2_0_find_their_modules(module):
    old, x = f"ultralytics_sgdm.evidence.opponents{module}", torch.randn(1, C, 5, 5)
    for cls in CLASSES.values():
        layer = randomize(cls(C, C)).eval()
        data = pickle.dumps(layer, 0).replace(baselines.__name__.encode(), old.encode())
        assert old.encode() in data
        assert torch.equal(pickle.loads(data)(x), layer(x))
    assert importlib.import_module(old).RoutedConv2d is baselines.RoutedConv2d


# References in double precision, as the papers write them
def norm(bn, x):
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)


def convolve(x, weights):
    """Convolve each sample with a kernel of its own, of shape (c2, c1, k, k)."""
    pairs = zip(x.split(1), weights, strict=True)
    return torch.cat([F.conv2d(sample, kernel, padding="same") for sample, kernel in pairs])


def reference_cbam(layer, x):
    w0, w1 = layer.channel.fc1.weight[:, :, 0, 0], layer.channel.fc2.weight[:, :, 0, 0]
    logits = [w1 @ (w0 @ pooled.T).relu() for pooled in (x.mean((2, 3)), x.amax((2, 3)))]
    y = x * sum(logits).sigmoid().T[:, :, None, None]
    maps = torch.stack([y.mean(1), y.amax(1)], 1)
    return y * norm(layer.spatial.conv.bn, convolve(maps, [layer.spatial.conv.conv.weight] * len(x))).sigmoid()


def reference_coordinate_attention(layer, x):
    f1, fh, fw = (m.weight[:, :, 0, 0] for m in (layer.conv1, layer.conv_h, layer.conv_w))
    f = norm(layer.bn1, (f1 @ torch.cat([x.mean(3), x.mean(2)], 2))[..., None])
    f = (f * (f + 3).clamp(0, 6) / 6)[..., 0]
    rows, columns = f.split(x.shape[2:], 2)
    return x * (fh @ rows).sigmoid()[..., None] * (fw @ columns).sigmoid()[:, :, None]


def reference_condconv(conv, x):
    experts = conv.weight.reshape(conv.num_experts, *conv.weight_shape)
    routing = (x.mean((2, 3)) @ conv.route.weight.T + conv.route.bias).sigmoid()
    return convolve(x, torch.einsum("bn,nfcij->bfcij", routing, experts))


def reference_odconv(conv, x):
    n, (c2, c1, k, _) = conv.num_experts, conv.weight_shape
    bases, kernels = conv.weight.reshape(n, c2, c1, k, k), []
    for sample in x:
        z = (conv.squeeze.weight @ sample.mean((1, 2)) + conv.squeeze.bias).relu()
        a_w, a_f, a_c, a_s = (m.weight @ z + m.bias for m in (conv.kernels, conv.filters, conv.inputs, conv.taps))
        a_f, a_c, a_s = (a.sigmoid() for a in (a_f[:, None, None, None], a_c[:, None, None], a_s.reshape(k, k)))
        kernels.append(sum(a * a_f * a_c * a_s * basis for a, basis in zip(a_w.softmax(0), bases, strict=True)))
    return convolve(x, kernels)


def reference_rfaconv(conv, x):
    k, (b, c, h, w) = conv.pool.kernel_size, x.shape
    patches = F.unfold(x, k, padding=k // 2).reshape(b, c, k * k, h, w)
    field = torch.einsum("cnm,bcmhw->bcnhw", conv.feature.conv.weight.reshape(c, k * k, k * k), patches)
    field = norm(conv.feature.bn, field.flatten(1, 2)).relu().reshape(patches.shape)
    exp = (conv.weigh.weight.reshape(1, c, k * k, 1, 1) * patches.mean(2, keepdim=True)).exp()
    tiles = (exp / exp.sum(2, keepdim=True) * field).reshape(b, c, k, k, h, w).permute(0, 1, 4, 2, 5, 3)
    return F.conv2d(tiles.reshape(b, c, k * h, k * w), conv.conv.weight.reshape(c, c, k, k), stride=k)


REFERENCES = (reference_cbam, reference_coordinate_attention, reference_condconv, reference_odconv, reference_rfaconv)


@pytest.mark.parametrize("size", [(4, 5), (1, 3)])
@pytest.mark.parametrize(("name", "reference"), zip(CLASSES, REFERENCES, strict=True))
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


@pytest.mark.parametrize(
    "off", [{"channel"}, {"spatial"}, {"channel", "spatial"}], ids=["channel", "spatial", "static"]
)
def test_an_ablation_is_sgdm_whose_branch_gives_one(off):
    ablation, x = SGDM(C, C, **dict.fromkeys(off, False)).eval(), torch.randn(2, C, 6, 7)
    sgdm = randomize(SGDM(C, C)).eval()
    left = ablation.load_state_dict(sgdm.state_dict(), strict=False)
    assert left.missing_keys == [] and {key.split(".")[0] for key in left.unexpected_keys} == off
    with torch.no_grad():
        assert not torch.allclose(ablation(x), sgdm(x), atol=1e-3)
        for branch in off:
            nn.init.zeros_(getattr(sgdm, branch).generate.weight)
            nn.init.zeros_(getattr(sgdm, branch).generate.bias)
        torch.testing.assert_close(ablation(x), sgdm(x))


@pytest.mark.parametrize("model", ["yolov8n", "yolov5n"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_baseline_has_the_places_and_parameters_of_sgdm(model, name):
    layer, sgdm, stock = configs.BASELINES[name], equip(f"{model}.yaml"), YOLO(f"{model}.yaml").model
    found = rows((other := equip_by_name(Path(f"{model}.yaml"), layer)).spec)
    assert [row for row in found if row != layer] == rows(stock.yaml)
    behind = [i - 1 - n for n, i in enumerate(i for i, row in enumerate(found) if row == layer)]
    assert behind == [i for i, row in enumerate(rows(sgdm.spec)) if row.endswith("SGDM")]
    assert name in ATTENTION or sgdm.added <= other.added <= 1.05 * sgdm.added
    assert count_parameters(YOLO(f"{model}-{name}.yaml").model) == count_parameters(stock) + other.added


@pytest.mark.parametrize("name", CLASSES)
def test_a_yaml_name_builds_trains_one_step_fuses_and_comes_back_from_a_checkpoint(name, tmp_path):
    yolo, x = YOLO(f"yolov8n-{name}.yaml"), torch.rand(2, 3, 64, 64)
    own = [p for m in yolo.model.modules() if isinstance(m, CLASSES[name]) for p in m.parameters()]
    for _ in range(2):  # gradients add up: what a ReLU switches off with some weights, it seldom does with others
        randomize(yolo.model.model[:-1])
        sum(y.square().mean() for y in yolo.model.train()(x)["feats"]).backward()
    assert all(p.grad.isfinite().all() for p in own) and sum(bool(p.grad.any()) for p in own) > 0.9 * len(own)
    yolo.model.zero_grad(set_to_none=True)
    yolo.save(tmp_path / "model.pt")
    again = YOLO(tmp_path / "model.pt").model.float().eval()
    assert sum(isinstance(m, CLASSES[name]) for m in again.modules()) == 2
    with torch.no_grad():
        expected = again(x)[0]
        assert close(again.fuse(verbose=False)(x)[0], expected, 1e-3)


@pytest.mark.parametrize("cls", [baselines.RoutedConv2d, baselines.ODConv2d])
def test_ultralytics_counts_convolutions_with_computed_weights(cls):
    conv, x = cls(C), torch.randn(1, C, 8, 8)
    with FlopCounterMode(display=False) as counter:
        conv(x)
    assert 2 * importlib.import_module("thop").profile(conv, inputs=[x], verbose=False)[0] == counter.get_total_flops()


def test_the_command_writes_what_it_prints_and_overwrites_nothing(command, mistake, tmp_path):
    status, printed, error = command("sgdm", "baselines", "yolov8n.yaml", f"out={tmp_path}")
    assert status == 0, error
    lines = printed.splitlines()[-7:]
    assert [line.split()[0] for line in lines] == ["stock", "sgdm", *CLASSES]
    for name, line in zip(CLASSES, lines[2:], strict=True):
        model = YOLO(tmp_path / f"yolov8n-{name}.yaml").model
        assert f"{count_parameters(model):,} {count_parameters(model) - 3_157_200:+,}" in " ".join(line.split())
        assert rows(YOLO(f"yolov8n-{name}.yaml").model.yaml) == rows(model.yaml)  # the name needs no file
    text = (tmp_path / "yolov8n-condconv.yaml").read_text()
    assert text.startswith("# yolov8n.yaml: ResidualCondConv behind C2f in layers 9, 23, ratio ")
    assert "exist and are left as they are" in mistake("baselines", "yolov8n.yaml", f"out={tmp_path}")
