"""What holds for every layer, and the slow reference, which builds K[b,c,:,:,h,w] and applies it by position."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from helpers import close, randomize
from torch import nn
from ultralytics.nn.modules import C3, C2f, Conv

from ultralytics_sgdm import C3SGDM, SGDM, C2fSGDM, RDConv
from ultralytics_sgdm.nn.registry import registered_layers
from ultralytics_sgdm.nn.timm_names import ATTENTION

BUILD = {
    "SGDM": lambda: SGDM(32, 32, 2),
    "SGDM c1 != c2": lambda: SGDM(32, 48, 2, ((3, 5), (1, 1))),
    "RDConv": lambda: RDConv(32, 48),
    "RDConv k5 s2": lambda: RDConv(32, 48, 5, 2, 2),
    "RDConv k7 s3": lambda: RDConv(32, 16, 7, 3, 1),
    "C2fSGDM": lambda: C2fSGDM(32, 48, 1, True, {"ratio": 2, "kernels": [[1, 5], [5, 1]]}),
    "C3SGDM": lambda: C3SGDM(32, 48, 2, {"ratio": 2}),
}


@pytest.fixture(params=BUILD)
def layer(request):
    return randomize(BUILD[request.param]()).eval()


def apply_kernel(kernel, u, stride):
    """Apply K, (B, C, rows, columns, H', W'), to u, (B, C, H, W), one position at a time."""
    b, c, rows, columns, h, w = kernel.shape
    padded = F.pad(u, (columns // 2, columns // 2, rows // 2, rows // 2))
    y = torch.zeros(b, c, h, w, dtype=u.dtype)
    for i in range(h):
        for j in range(w):
            patch = padded[:, :, i * stride : i * stride + rows, j * stride : j * stride + columns]
            y[:, :, i, j] = (kernel[..., i, j] * patch).sum((2, 3))
    return y


def reference_rdconv(layer, x):
    u, k = layer.razor(x), layer.base.kernel_size[0]
    static = layer.base(u)
    (b, c), (h, w) = u.shape[:2], static.shape[2:]
    alpha, gamma = layer.channel(static).reshape(b, k * k, c), layer.spatial(static)
    kernel = torch.zeros(b, c, k, k, h, w, dtype=x.dtype)
    for m in range(k * k):
        one_hot = torch.zeros(k, k, dtype=x.dtype)
        one_hot[m // k, m % k] = 1
        basis = layer.base.weight[:, 0] * one_hot
        kernel += torch.einsum("bc,bhw,ckl->bcklhw", alpha[:, m], gamma[:, m], basis)
    return layer.expand(layer.act(apply_kernel(kernel, u, layer.base.stride[0])))


def reference_sgdm(layer, x):
    u, m = layer.razor(x), len(layer.static)
    b, c = u.shape[:2]
    k = max(max(conv.kernel_size) for conv in layer.static)
    bases = []
    for conv in layer.static:
        rows, columns = ((k - size) // 2 for size in conv.kernel_size)
        bases.append(F.pad(conv.weight[:, 0], (columns, columns, rows, rows)))
    alpha, gamma = layer.channel(u).reshape(b, m, c), layer.spatial(u)
    kernel = torch.einsum("bmc,bmhw,mckl->bcklhw", alpha, gamma, torch.stack(bases))
    return layer.shortcut(x) + layer.expand(layer.act(apply_kernel(kernel, u, 1)))


def reference(layer, x):
    if isinstance(layer, RDConv):
        return reference_rdconv(layer, x)
    if isinstance(layer, SGDM):
        return reference_sgdm(layer, x)
    stock = super(type(layer), layer).forward
    return reference_sgdm(layer.sgdm, stock(x))


def test_every_registered_layer_is_built_here_or_a_block_of_the_factory():
    built = {name.split()[0] for name in BUILD}
    ours = {name for name, entry in registered_layers() if entry.cls.__module__.startswith("ultralytics_sgdm.nn")}
    assert {name for name in ours - built - set(ATTENTION) if not name.endswith("SGDM")} == set()


@pytest.mark.parametrize("size", [(7, 9), (1, 1), (1, 6), (8, 8)])
def test_agrees_with_the_kernel_built_and_applied_position_by_position(layer, size):
    layer, x = layer.double(), torch.randn(2, 32, *size, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), reference(layer, x))


def test_gradients_are_those_of_finite_differences(layer):
    layer, x = layer.double(), torch.randn(2, 32, 4, 3, dtype=torch.double, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(call, (x, *values), fast_mode=True)


def test_gradients_of_each_sample_at_once_are_those_of_one_after_the_other(layer):
    parameters = dict(layer.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, x.unsqueeze(0)).square().sum()

    x = torch.randn(3, 32, 5, 4)
    together = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for i in range(3):
        alone = torch.func.grad(loss)(parameters, x[i])
        assert all(close(together[k][i], alone[k], 1e-4) for k in alone)


def test_bf16_autocast_and_channels_last(layer):
    x = torch.randn(2, 32, 9, 8)
    with torch.no_grad():
        expected = layer(x)
        assert close(layer(x.contiguous(memory_format=torch.channels_last)), expected, 1e-5)
        assert close(copy.deepcopy(layer).to(memory_format=torch.channels_last)(x), expected, 1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert close(y.float(), expected, 0.06)


def test_bf16_autocast_trains(layer):
    x = torch.randn(2, 32, 9, 8).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        loss = layer.train()(x).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_a_sample_alone_is_the_sample_in_its_batch(layer):
    x = torch.randn(4, 32, 7, 6)
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[2:3], layer(x[2:3]))


def test_deepcopy_and_pickle(layer):
    x = torch.randn(1, 32, 5, 5)
    with torch.no_grad():
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert type(twin) is type(layer)
            assert torch.equal(twin(x), layer(x))


def test_rdconv_starts_as_a_depthwise_separable_convolution():
    layer, x = RDConv(32, 48, 5, 2).eval(), torch.randn(2, 32, 9, 9)
    with torch.no_grad():
        expected = layer.expand(layer.act(layer.base(layer.razor(x))))
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("size", [(9, 9), (8, 7), (1, 1)])
@pytest.mark.parametrize("s", [1, 2, 3])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_rdconv_has_the_output_size_of_a_conv(k, s, size):
    x = torch.randn(1, 32, *size)
    assert RDConv(32, 16, k, s).eval()(x).shape == nn.Conv2d(32, 16, k, s, k // 2)(x).shape


@pytest.mark.parametrize("c2", [32, 48])
def test_sgdm_starts_as_its_shortcut(c2):
    layer, x = SGDM(32, c2).eval(), torch.randn(2, 32, 6, 6)
    with torch.no_grad():
        assert torch.equal(layer(x), layer.shortcut(x))
    assert isinstance(layer.shortcut, nn.Identity) == (c2 == 32)


@pytest.mark.parametrize(("equipped", "stock"), [(C2fSGDM, C2f), (C3SGDM, C3)])
def test_blocks_start_as_the_stock_block_and_hold_its_tensors(equipped, stock):
    ours, theirs = equipped(32, 48, 2, True, {"ratio": 2}).eval(), randomize(stock(32, 48, 2, True)).eval()
    missing = ours.load_state_dict(theirs.state_dict(), strict=False)
    x = torch.randn(2, 32, 8, 8)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
    assert missing.unexpected_keys == []
    assert all(key.startswith("sgdm.") for key in missing.missing_keys)


def test_forward_split_runs_the_sgdm_too():
    layer, x = randomize(C2fSGDM(32, 48, 1, True)).eval(), torch.randn(1, 32, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(layer.forward_split(x), layer(x))


def test_the_default_activation_of_a_yaml_reaches_the_layers(monkeypatch):
    monkeypatch.setattr(Conv, "default_act", nn.ReLU())
    kinds = {type(m) for layer in (SGDM(32, 32), RDConv(32, 32)) for m in layer.modules()}
    assert nn.ReLU in kinds
    assert nn.SiLU not in kinds


def test_rdconv_has_an_eighth_of_the_parameters_of_a_conv_or_fewer():
    ours, conv = RDConv(256, 256), nn.Conv2d(256, 256, 3, bias=False)
    assert 8 * sum(p.numel() for p in ours.parameters()) <= conv.weight.numel()
