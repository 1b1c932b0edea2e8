"""What the dynamic mixture does with an image: its spatial weights gamma and channel weights alpha, layer by layer.

The response of kernel m counts alpha[m, channel] * gamma[m, position] times; both lie in (0, 2), and both are 1 at the
start of training, where the layer is an ordinary convolution. Layers have the numbers of Ultralytics, from 0. Static
kernels are named by height x width, those of RDConv by the position of their tap, down and right of the centre.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from torch import Tensor, nn
from ultralytics.cfg import TASK2DATA

from ..errors import ConfigError
from ..nn import RDConv
from ..nn.dynamic import ChannelBranch, SpatialBranch
from . import records
from .train import load_model

LEAST = 0.05  # that a scale reaches to either side of 1, so that what hardly moved looks so
COLOURS = "RdBu_r"
NOTHING = torch.empty(0)


class Mixture(NamedTuple):
    """The weights of a layer's M kernels for one image; empty if the layer has no such branch."""

    name: str  # such as "8 C2fSGDM.sgdm"
    kernels: list[str]
    gamma: np.ndarray  # spatial weights (M, H, W)
    alpha: np.ndarray  # channel weights (M, C)


def name_kernels(layer: nn.Module) -> list[str]:
    """Return the names of a layer's kernels: height x width of static ones, position of each tap in RDConv."""
    if isinstance(layer, RDConv):
        k = layer.base.kernel_size[0]
        return [f"{i - k // 2},{j - k // 2}" for i in range(k) for j in range(k)]
    return ["x".join(map(str, conv.kernel_size)) for conv in getattr(layer, "static", ())]


def watch(model: nn.Module) -> dict[str, Tensor]:
    """Return what each forward pass of `model`, or of a copy, fills: the input as "", outputs of branches by name."""
    seen: dict[str, Tensor] = {}
    model.register_forward_pre_hook(lambda _, inputs: seen.update({"": inputs[0][0]}))
    for name, layer in model.named_modules():
        if isinstance(layer, (ChannelBranch, SpatialBranch)):
            layer.register_forward_hook(lambda _, __, y, name=name: seen.update({name: y[0]}))
    return seen


def collect_mixtures(model: nn.Module, seen: Mapping[str, Tensor]) -> list[Mixture]:
    """Return what each dynamic layer of `model` did in the forward pass that was seen."""
    found = []
    for name in dict.fromkeys(branch.rpartition(".")[0] for branch in seen if branch):
        kernels, (_, row, *inner) = name_kernels(model.get_submodule(name)), name.split(".")
        title = ".".join([f"{row} {type(model.model[int(row)]).__name__}", *inner])
        gamma, alpha = (seen.get(f"{name}.{kind}", NOTHING).float().cpu().numpy() for kind in ("spatial", "channel"))
        found.append(Mixture(title, kernels, gamma, alpha.reshape(len(kernels), -1)))
    return found


def draw(found: Sequence[Mixture], image: np.ndarray) -> Figure:
    """Return a figure: in a row for each layer, maps of gamma over the image (3, H, W), and boxes of alpha."""
    across, grey = max(len(mixture.kernels) for mixture in found), image.mean(0)
    size = 2 * across + 5, 0.8 + len(found) * (0.6 + 2 * min(2, grey.shape[0] / grey.shape[1]))
    layout = {"squeeze": False, "width_ratios": [*[2] * across, 3], "layout": "constrained"}
    figure, grid = plt.subplots(len(found), across + 1, figsize=size, **layout)
    gammas, alphas = (np.concatenate([getattr(m, part).ravel() for m in found]) for part in ("gamma", "alpha"))
    far, wide = (np.abs(values - 1).max(initial=LEAST) for values in (gammas, alphas))
    scale, whole = CenteredNorm(1, far), {"extent": (0, 1, 1, 0), "aspect": "auto"}
    for axes in grid.flat:
        axes.set_axis_off()
    for row, mixture in zip(grid, found, strict=True):
        for axes, kernel, weights in zip(row, mixture.kernels, mixture.gamma, strict=False):
            axes.imshow(grey, "gray", **whole)
            axes.imshow(weights, COLOURS, scale, alpha=0.5, **whole)
            axes.set_title(kernel, loc="right", fontsize="small")
        row[0].set_title(f"layer {mixture.name}\n", loc="left", fontsize="small")
        if mixture.alpha.size:
            row[-1].set_axis_on()
            row[-1].boxplot(mixture.alpha.T, tick_labels=mixture.kernels, sym=".")
            row[-1].set_ylim(1 - 1.1 * wide, 1 + 1.1 * wide)
            row[-1].set_title(rf"$\alpha$ of {mixture.alpha.shape[1]} channels", fontsize="small")
    if gammas.size:
        label = rf"$\gamma$: {gammas.min():.4f} to {gammas.max():.4f}, colours {1 - far:.3g} to {1 + far:.3g}"
        figure.colorbar(ScalarMappable(scale, COLOURS), ax=grid, label=label, aspect=60)
    return figure


def visualize(model: str, *images: Path, out: Path, imgsz: int | None = None) -> None:
    """Draw what the dynamic mixture does with images: its spatial and channel weights, layer by layer.

    For each image OUT gets a figure of its name, with all layers on one scale.

    Args:
        model: Checkpoint, or a model YAML as it starts.
        images: Images.
        out: Folder of the results.
        imgsz: Pixels (default: as the checkpoint was trained, or 640).

    Raises:
        ConfigError: If an image or the model cannot be used, or a figure exists already.
    """
    files = {image: out / f"{image.stem}.png" for image in images}
    if not images or len(set(files.values())) < len(images):
        raise ConfigError("name the images, each of another name")
    for image, file in files.items():
        if cv2.imread(str(image)) is None:
            raise ConfigError(f"{image} is not an image that can be read")
        if file.exists():
            raise ConfigError(f"{file} exists; choose another out=")
    yolo = load_model(model, list(TASK2DATA))
    if not any(isinstance(m, (ChannelBranch, SpatialBranch)) for m in yolo.model.modules()):
        raise ConfigError(f"{model} has no layer with dynamic weights (SGDM, RDConv)")
    records.writable(out)
    seen = watch(yolo.model)
    for image, file in files.items():
        yolo.predict(image, verbose=False, **({"imgsz": imgsz} if imgsz else {}))
        figure = draw(collect_mixtures(yolo.model, seen), seen[""].float().cpu().numpy())
        figure.savefig(file, dpi=120)
        plt.close(figure)
        print(file)
