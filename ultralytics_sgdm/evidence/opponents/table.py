"""The opponents and the ablations of SGDM, as layers, and model YAMLs with each at the same places.

    python scripts/opponents.py yolov8n.yaml --out opponents      # opponents/yolov8n-cbam.yaml, ...
    python scripts/compare.py yolov8n.yaml yolov8n-sgdm.yaml opponents/*.yaml --layers scripts/opponents.py ...

Attention (CBAM, CoordAttention) multiplies what the block gives, as in its paper, and costs what it costs there.

Dynamic convolutions (CondConv, ODConv, RFAConv) stand in the form of SGDM: a razor, the convolution in place of the
mixture, BatchNorm, activation, and an expand that starts at zero, added to the input. So what differs is the
convolution, not the residual path around it or where training starts. It is the dense 3x3 one that its paper
replaces, with the paper's own settings, and the razor is as narrow as it can be without fewer parameters than SGDM:
with SGDM's razor a dense convolution would have several times the parameters, and as a depthwise one it would not be
the convolution that its paper measured. Their razor is not rounded to blocks of 16, which would leave steps of half
the parameters; so compare their accuracy, and their times with that in mind.

Ablations are SGDM itself, at its ratio, with one thing changed; without both branches the razor is widened until
the parameters are those of SGDM or more. They stand in rows of their own behind the block, which is the same
computation with the same parameters as `C2fSGDM` in one row.

GFLOPs are at 640 pixels, as Ultralytics counts them. It takes what is computed on pooled maps (CBAM, CoordAttention,
the channel branch of SGDM) to grow with the image, which on YOLOv8n is up to 0.04 too much.

Checkpoints find these classes as `opponents.<name>`: to load one elsewhere, put this folder on PYTHONPATH.
Needs the extra `compare`: pip install -e ".[compare]"
"""

from __future__ import annotations

import argparse
import bisect
import math
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from thop.profile import register_hooks
from timm.layers import CondConv2d
from timm.layers.cbam import CbamModule
from timm.layers.coord_attn import CoordAttn
from torch import Tensor, nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv

from ultralytics_sgdm import SGDM, RDConv, equip, register_layer
from ultralytics_sgdm.configs import ConfigError
from ultralytics_sgdm.equipment import Equipped
from ultralytics_sgdm.nn.dynamic import zero_init
from ultralytics_sgdm.skeleton import count, gflops, skeleton

FIRST_STAGE = 2


def kept(c1: int, c2: int) -> int:
    """Return the channels of a layer that stands behind a block.

    Raises:
        ValueError: If the layer is to change them.
    """
    if c1 != c2:
        raise ValueError(f"this layer stands behind a block and keeps its channels, so c2 must be {c1}, got {c2}")
    return c1


@register_layer(like=Conv)
class TimmCBAM(CbamModule):
    """CBAM, attention by channel, then by position.

    Woo et al., arXiv 1807.06521, by timm: unlike Ultralytics' own `CBAM` it has the paper's maximum pooling and its
    MLP with reduction 16.
    """

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__(kept(c1, c2))


@register_layer(like=Conv)
class CoordAttention(CoordAttn):
    """CoordAttention, attention by row and by column.

    Hou et al., arXiv 2103.02907, by timm, with the paper's reduction 32 and the authors' least width 8.
    """

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__(kept(c1, c2), rd_channels=max(8, c1 // 32))


class Residual(nn.Module):
    """The form of SGDM around another convolution, a class built with its channels; exactly the identity at the start.

    Args:
        c1: Input channels.
        c2: Output channels, as many.
        ratio: The razor keeps `c1 / ratio` features, rounded.

    Raises:
        ValueError: If c1 != c2.
    """

    convolution: type[nn.Module]

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__()
        c = round(kept(c1, c2) / ratio)
        self.razor = Conv(c1, c, 1)
        self.conv = self.convolution(c)
        self.bn = nn.BatchNorm2d(c)
        self.act = Conv.default_act
        self.expand = zero_init(nn.Conv2d(c, c2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to the same shape."""
        return x + self.expand(self.act(self.bn(self.conv(self.razor(x)))))


class RoutedConv2d(CondConv2d):
    """CondConv, Yang et al., arXiv 1904.04971, by timm, with the paper's routing: sigmoid(mean over (H, W), linear).

    Args:
        c: Channels.
        k: Kernel size, odd.
        n: Experts.
    """

    def __init__(self, c: int, k: int = 3, n: int = 4) -> None:
        super().__init__(c, c, k, num_experts=n)
        self.route = nn.Linear(c, n)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c, H, W) to the same shape."""
        return super().forward(x, self.route(x.mean((2, 3))).sigmoid())


class ODConv2d(CondConv2d):
    """Omni-dimensional dynamic convolution: n kernels, weighed in all four dimensions by what the sample holds.

        y = (sum_i a_w[i] * a_f * a_c * a_s * W[i]) (*) x

    Li et al., ICLR 2022, arXiv 2209.07947: a_w by softmax over the kernels, a_f (per filter), a_c (per input channel)
    and a_s (per tap) by sigmoid, from one squeezed vector with reduction 16 (width 16 at least, as the authors have
    it). The temperature of the softmax is 1 throughout: annealing it needs the trainer.

    Args:
        c: Channels.
        k: Kernel size, odd.
        n: Kernels.
    """

    def __init__(self, c: int, k: int = 3, n: int = 4) -> None:
        super().__init__(c, c, k, num_experts=n)
        hidden = max(16, c // 16)
        self.squeeze = nn.Linear(c, hidden)
        self.kernels, self.filters = nn.Linear(hidden, n), nn.Linear(hidden, c)
        self.inputs, self.taps = nn.Linear(hidden, c), nn.Linear(hidden, k * k)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c, H, W) to the same shape."""
        b, c, h, w = x.shape
        z = self.squeeze(x.mean((2, 3))).relu()
        weight = (self.kernels(z).softmax(1) @ self.weight).reshape(b, c, c, -1)
        weight = weight * self.filters(z).sigmoid()[:, :, None, None] * self.inputs(z).sigmoid()[:, None, :, None]
        weight = weight * self.taps(z).sigmoid()[:, None, None, :]
        weight = weight.reshape(b * c, c, *self.kernel_size)
        return F.conv2d(x.reshape(1, b * c, h, w), weight, padding=self.padding, groups=b).reshape(b, c, h, w)


class RFAConv2d(nn.Module):
    """Receptive-field attention convolution: every position has k * k own features, and own weights for them.

        F = relu(norm(group k x k (x))),  A = softmax over the k * k of (group 1 x 1 (average k x k (x)))
        y = k x k convolution with stride k of A * F, laid out as (k H, k W)

    Zhang et al., arXiv 2304.03198. The last line is the same as a 1x1 convolution of the k * k * c features of each
    position, which is how it is computed here.

    Args:
        c: Channels.
        k: Kernel size, odd.
    """

    def __init__(self, c: int, k: int = 3) -> None:
        super().__init__()
        n = k * k
        self.feature = Conv(c, n * c, k, g=c, act=nn.ReLU())
        self.pool = nn.AvgPool2d(k, 1, k // 2)
        self.weigh = nn.Conv2d(c, n * c, 1, groups=c, bias=False)
        self.conv = nn.Conv2d(n * c, c, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c, H, W) to the same shape."""
        attention = self.weigh(self.pool(x)).unflatten(1, (x.shape[1], -1)).softmax(2)
        return self.conv(self.feature(x) * attention.flatten(1, 2))


@register_layer(like=Conv)
class ResidualCondConv(Residual):
    """CondConv, a mixture of four 3x3 kernels per sample."""

    convolution = RoutedConv2d


@register_layer(like=Conv)
class ResidualODConv(Residual):
    """ODConv, a mixture of four 3x3 kernels, weighed in four dimensions per sample."""

    convolution = ODConv2d


@register_layer(like=Conv)
class ResidualRFAConv(Residual):
    """RFAConv, 3x3 features of each position with softmax weights."""

    convolution = RFAConv2d


class One(nn.Module):
    """A branch of SGDM that is switched off: weights of 1, which SGDM still multiplies with, at the cost of time."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.weights = branch.generate.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to ones of shape (B, weights, 1, 1)."""
        return x.new_ones(len(x), self.weights, 1, 1)


@register_layer(like=Conv)
class SGDMStatic(SGDM):
    """SGDM without both branches, a static separable convolution."""

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__(c1, c2, ratio)
        self.channel, self.spatial = One(self.channel), One(self.spatial)


@register_layer(like=Conv)
class SGDMNoSpatial(SGDM):
    """SGDM without the spatial branch."""

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__(c1, c2, ratio)
        self.spatial = One(self.spatial)


@register_layer(like=Conv)
class SGDMNoChannel(SGDM):
    """SGDM without the channel branch."""

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__(c1, c2, ratio)
        self.channel = One(self.channel)


@register_layer(like=Conv)
class SGDMFree(RDConv):
    """SGDM without the guide, the free 3x3 kernel of RDConv inside."""

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__(kept(c1, c2), c2, ratio=ratio)
        self.expand = zero_init(nn.Conv2d(self.razor.conv.out_channels, c2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to the same shape."""
        return x + super().forward(x)


@register_layer(like=Conv)
class SGDMShort(SGDM):
    """SGDM with the kernels 1x3 and 3x1 alone."""

    def __init__(self, c1: int, c2: int, ratio: float = 3) -> None:
        super().__init__(c1, c2, ratio, kernels=((1, 3), (3, 1)))


def _count_operations(conv: CondConv2d, _: tuple, y: Tensor) -> None:
    conv.total_ops += y.numel() * math.prod(conv.weight_shape[1:]) + len(y) * conv.weight.numel()


register_hooks[CondConv2d] = _count_operations  # Ultralytics' GFLOPs leave out a convolution with computed weights

ATTENTION = {"cbam": TimmCBAM, "ca": CoordAttention}
AT_LEAST_THE_PARAMETERS = {
    "condconv": ResidualCondConv,
    "odconv": ResidualODConv,
    "rfaconv": ResidualRFAConv,
    "sgdm-static": SGDMStatic,
}
AT_THE_RATIO = {
    "sgdm-no-spatial": SGDMNoSpatial,
    "sgdm-no-channel": SGDMNoChannel,
    "sgdm-free": SGDMFree,
    "sgdm-short": SGDMShort,
}
OTHER_RATIOS = (2, 3, 4, 8)


def what(layer: type[nn.Module]) -> str:
    """Return what a layer is: the first line of its docstring."""
    return layer.__doc__.partition("\n")[0].rstrip(".")


def narrowest(layer: type[nn.Module], sgdm: Equipped) -> float:
    """Return the largest ratio, to a twentieth, at which `layer` at SGDM's places has its parameters or more, or 1."""
    channels = [sgdm.outline[i].channels for i in sgdm.blocks]

    def parameters(ratio: float) -> int:
        with torch.device("meta"):
            return sum(count(layer(c, c, ratio=ratio)) for c in channels)

    ratios = [r / 20 for r in range(20, 20 * min(channels) + 1)]
    return ratios[max(0, bisect.bisect_right(ratios, -sgdm.added, key=lambda r: -parameters(r)) - 1)]


def opponents(model: str) -> Iterator[tuple[str, str, Equipped]]:
    """Yield name, what it is, and the equipped model of SGDM and of each opponent and ablation.

    Args:
        model: Model YAML, such as `yolov8n.yaml`.

    Raises:
        ConfigError: If the model cannot be equipped.
    """
    sgdm = equip(model)
    yield "sgdm", what(SGDM), sgdm
    for name, layer in ATTENTION.items():
        yield name, what(layer), equip(model, module=layer.__name__)
    for name, layer in AT_LEAST_THE_PARAMETERS.items():
        yield name, what(layer), equip(model, narrowest(layer, sgdm), module=layer.__name__)
    for name, layer in AT_THE_RATIO.items():
        yield name, what(layer), equip(model, sgdm.ratio, module=layer.__name__)
    stages = {FIRST_STAGE, *(sgdm.outline[i].stage for i in sgdm.blocks)}
    yield "sgdm-p2", "SGDM at the first stage too", equip(model, sgdm.ratio, ",".join(f"P{s}" for s in sorted(stages)))
    for ratio in OTHER_RATIOS:
        if ratio != sgdm.ratio:
            yield f"sgdm-ratio{ratio}", f"SGDM with ratio {ratio}", equip(model, ratio)


def text(model: str, title: str, equipped: Equipped) -> str:
    """Return the YAML of an opponent, with what it is above it."""
    words = f"{title}. {equipped.summary().splitlines()[0]}. Written by scripts/opponents.py {model}"
    comment = textwrap.wrap(words, 118, break_on_hyphens=False)
    rows = equipped.text("")
    return "".join(f"# {line}\n" for line in comment) + rows[rows.index("\n\n") + 1 :]


def line(name: str, ratio: float | None, spec: dict, stock: tuple[int, float], title: str) -> str:
    """Return a line of the table: parameters and GFLOPs, and what they are more than those of the stock model."""
    model = skeleton(spec)
    parameters, operations = count(model), gflops(model)
    cells = f"{name:<17}{'' if ratio is None else f'{ratio:g}':>6}{parameters:>12,}{parameters - stock[0]:>+10,}"
    return f"{cells}{operations:>8.2f}{operations - stock[1]:>+7.2f}  {title}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model YAML, such as yolov8n.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the YAMLs to")
    args = parser.parse_args()
    try:
        found = list(opponents(args.model))
    except ConfigError as e:
        sys.exit(f"error: {e}")
    files = {name: args.out / f"{Path(args.model).stem}-{name}.yaml" for name, *_ in found[1:]}
    if there := [str(file) for file in files.values() if file.exists()]:
        sys.exit(f"error: {', '.join(there)} exist and are left as they are; choose another --out, or remove them")
    args.out.mkdir(parents=True, exist_ok=True)
    spec = tasks.yaml_model_load(args.model)
    model = skeleton(spec)
    stock = count(model), gflops(model)
    print(f"{'name':<17}{'ratio':>6}{'parameters':>12}{'added':>10}{'GFLOPs':>8}{'added':>7}  what")
    print(line("stock", None, spec, stock, args.model))
    for name, title, equipped in found:
        if name in files:
            files[name].write_text(text(args.model, title, equipped), encoding="utf-8")
        print(line(name, equipped.ratio, equipped.spec, stock, title), flush=True)


if __name__ == "__main__":
    main()
