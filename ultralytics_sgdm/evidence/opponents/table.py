"""The opponents and the ablations of SGDM as model YAMLs, each at the places of SGDM, and SGDM at other places.

Attention (CBAM, CoordAttention) multiplies what the block gives, as in its paper, and costs what it costs there.

Dynamic convolutions (CondConv, ODConv, RFAConv) stand in the form of SGDM, see `form.py`. It is the dense 3x3
convolution that their paper replaces, with the paper's own settings, and the razor is as narrow as it can be without
fewer parameters than SGDM: with SGDM's razor a dense convolution would have several times the parameters, and as a
depthwise one it would not be the convolution that its paper measured. Their razor is not rounded to blocks of 16, which
would leave steps of half the parameters; so compare their accuracy, and their times with that in mind.

Ablations are SGDM itself, at its ratio, with one thing changed; without both branches the razor is widened until the
parameters are those of SGDM or more.

GFLOPs are at 640 pixels, as Ultralytics counts them. It takes what is computed on pooled maps (CBAM, CoordAttention,
the channel branch of SGDM) to grow with the image, which on YOLOv8n is up to 0.04 too much.
"""

from __future__ import annotations

import bisect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from ultralytics.nn import tasks

from ...configs import FIRST_STAGES, OTHER_RATIOS, ConfigError
from ...equipment import Equipped, equip
from ...nn import SGDM
from ...skeleton import count, gflops, skeleton
from .. import records
from . import NAMES, layer

ATTENTION = ("cbam", "ca")
AT_THE_RATIO = ("sgdm-no-spatial", "sgdm-no-channel", "sgdm-free", "sgdm-short")


def what(layer: type[nn.Module]) -> str:
    """Return what a layer is: the first line of its docstring."""
    return (layer.__doc__ or "").partition("\n")[0].rstrip(".")


def narrowest(layer: type[nn.Module], sgdm: Equipped) -> float:
    """Return the largest ratio, to a twentieth, at which `layer` at SGDM's places has its parameters or more, or 1."""
    channels = [feature.channels for i in sgdm.blocks if (feature := sgdm.outline[i])]

    def parameters(ratio: float) -> int:
        with torch.device("meta"):
            return sum(count(layer(c, c, ratio=ratio)) for c in channels)

    ratios = [r / 20 for r in range(20, 20 * min(channels) + 1)]
    return ratios[max(0, bisect.bisect_right(ratios, -sgdm.added, key=lambda r: -parameters(r)) - 1)]


def equipped(model: str | Path, name: str) -> Equipped:
    """Return a model equipped with an opponent or an ablation, at the places of SGDM, or with another form of SGDM.

    Args:
        model: Model YAML, such as `yolov8n.yaml`.
        name: One of `configs.EQUIPPED`, other than `sgdm`.

    Raises:
        ConfigError: If the model cannot be equipped, or the extra `compare` is not installed.
    """
    if name in OTHER_RATIOS:
        return equip(model, OTHER_RATIOS[name])
    if name in ATTENTION:
        return equip(model, module=layer(name).__name__)
    if name in FIRST_STAGES:
        ratio = 2 if Path(model).name.startswith("yolov5") else 3
        return equip(model, ratio, [f"P{stage}" for stage in range(FIRST_STAGES[name], 10)])
    sgdm = equip(model)
    cls = layer(name)
    return equip(model, sgdm.ratio if name in AT_THE_RATIO else narrowest(cls, sgdm), module=cls.__name__)


def variants(model: str) -> Iterator[tuple[str, str, Equipped]]:
    """Yield name, what it is, and the equipped model of SGDM, of each opponent and ablation, and of other ratios.

    Args:
        model: Model YAML, such as `yolov8n.yaml`.

    Raises:
        ConfigError: As `equipped` does.
    """
    sgdm = equip(model)
    yield "sgdm", what(SGDM), sgdm
    for name in NAMES:
        yield name, what(layer(name)), equipped(model, name)
    for name, stage in FIRST_STAGES.items():
        yield name, f"SGDM behind each block from P{stage} on", equipped(model, name)
    for name, ratio in OTHER_RATIOS.items():
        if ratio != sgdm.ratio:
            yield name, f"SGDM with ratio {ratio}", equipped(model, name)


def text(model: str, title: str, equipped: Equipped) -> str:
    """Return the YAML of an opponent, with what it is above it."""
    words = f"{title}. {equipped.summary().splitlines()[0]}. Written by yolo sgdm opponents {model}"
    comment = textwrap.wrap(words, 118, break_on_hyphens=False)
    rows = equipped.text("")
    return "".join(f"# {line}\n" for line in comment) + rows[rows.index("\n\n") + 1 :]


def line(name: str, ratio: float | None, spec: dict, stock: tuple[int, float], title: str) -> str:
    """Return a line of the table: parameters and GFLOPs, and what they are more than those of the stock model."""
    model = skeleton(spec)
    parameters, operations = count(model), gflops(model)
    cells = f"{name:<17}{'' if ratio is None else f'{ratio:g}':>6}{parameters:>12,}{parameters - stock[0]:>+10,}"
    return f"{cells}{operations:>8.2f}{operations - stock[1]:>+7.2f}  {title}"


def opponents(model: str, out: Path | None = None) -> None:
    """List the opponents and ablations of SGDM for a model: parameters and GFLOPs beside stock; write them as YAMLs.

    Args:
        model: Model YAML, such as yolov8n.yaml.
        out: Folder to write yolov8n-cbam.yaml and the like to, for editing; by their names they train without a file.

    Raises:
        ConfigError: If the model cannot be equipped, or a file exists already.
    """
    found = list(variants(model))
    files = {} if out is None else {name: out / f"{Path(model).stem}-{name}.yaml" for name, *_ in found[1:]}
    if there := [str(file) for file in files.values() if file.exists()]:
        raise ConfigError(f"{', '.join(there)} exist and are left as they are; choose another out=, or remove them")
    if out:
        records.writable(out)
    spec = tasks.yaml_model_load(model)
    bare = skeleton(spec)
    stock = count(bare), gflops(bare)
    print(f"{'name':<17}{'ratio':>6}{'parameters':>12}{'added':>10}{'GFLOPs':>8}{'added':>7}  what")
    print(line("stock", None, spec, stock, model))
    for name, title, variant in found:
        if name in files:
            files[name].write_text(text(model, title, variant), encoding="utf-8")
        print(line(name, variant.ratio, variant.spec, stock, title), flush=True)
