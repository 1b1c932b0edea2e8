"""What the dynamic mixture does with an image: its spatial weights gamma and channel weights alpha, layer by layer.

The response of kernel m counts alpha[m, channel] * gamma[m, position] times; both lie in (0, 2), and both are 1 at the
start of training, where the layer is an ordinary convolution. Static kernels are named by height x width, those of
RDConv by the position of their tap, down and right of the centre.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from torch import nn
from ultralytics.cfg import TASK2DATA

from ..errors import ConfigError
from ..nn import RDConv
from ..nn.dynamic import ChannelBranch, SpatialBranch
from . import records
from .train import load_model

LEAST = 0.05  # that a scale reaches to either side of 1, so that what hardly moved looks so
COLOURS = "RdBu_r"


def name_kernels(layer: nn.Module) -> list[str]:
    """Return the names of a layer's kernels: height x width of static ones, position of each tap in RDConv."""
    if isinstance(layer, RDConv):
        k = layer.base.kernel_size[0]
        return [f"{i - k // 2},{j - k // 2}" for i in range(k) for j in range(k)]
    return ["x".join(map(str, conv.kernel_size)) for conv in layer.static]


def watch(model: nn.Module) -> dict[str, np.ndarray]:
    """Return what each forward pass of `model`, or of a copy, fills: the input as "", outputs of branches by name."""
    seen: dict[str, np.ndarray] = {}
    model.register_forward_pre_hook(lambda _, inputs: seen.update({"": inputs[0][0].float().cpu().numpy()}))
    for name, layer in model.named_modules():
        if isinstance(layer, (ChannelBranch, SpatialBranch)):
            layer.register_forward_hook(lambda _, __, y, name=name: seen.update({name: y[0].float().cpu().numpy()}))
    return seen


def draw(model: nn.Module, seen: Mapping[str, np.ndarray]) -> Figure:
    """Return a figure: in a row for each layer, maps of gamma over the image, and boxes of alpha."""
    image, branches = seen[""].mean(0), [name for name in seen if name]
    layers = {name: name_kernels(model.get_submodule(name)) for name in (b.rpartition(".")[0] for b in branches)}
    across, (height, width) = max(map(len, layers.values())), image.shape
    size = 2 * across + 5, 0.8 + len(layers) * (0.6 + 2 * min(2, height / width))
    layout = {"squeeze": False, "width_ratios": [*[2] * across, 3], "layout": "constrained"}
    figure, grid = plt.subplots(len(layers), across + 1, figsize=size, **layout)
    weights = np.concatenate([seen[name].ravel() for name in branches])
    reach = max(LEAST, np.abs(weights - 1).max())
    scale, extent = CenteredNorm(1, reach), (0, width, height, 0)
    for axes in grid.flat:
        axes.set_axis_off()
    for (*maps, boxes), (name, kernels) in zip(grid, layers.items(), strict=True):
        for axes, kernel, gamma in zip(maps, kernels, seen.get(f"{name}.spatial", ()), strict=False):
            axes.imshow(image, "gray", extent=extent)
            axes.imshow(gamma, COLOURS, scale, alpha=0.5, extent=extent)
            axes.set_title(kernel, loc="right", fontsize="small")
        maps[0].set_title(f"{name}\n", loc="left", fontsize="small")
        if f"{name}.channel" in seen:
            boxes.set_axis_on()
            boxes.boxplot(seen[f"{name}.channel"].reshape(len(kernels), -1).T, tick_labels=kernels, sym=".")
            boxes.tick_params(axis="x", rotation=90 if len(kernels) > 4 else 0)  # nine taps of RDConv
            boxes.set_ylim(1 - 1.1 * reach, 1 + 1.1 * reach)
            boxes.set_title(r"$\alpha$ of the channels", fontsize="small")
    label = rf"$\gamma$; all weights are from {weights.min():.4f} to {weights.max():.4f}"
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
    files = {out / f"{image.stem}.png": cv2.imread(str(image)) for image in images}
    if not images or len(files) < len(images):
        raise ConfigError("name the images, each of another name")
    for image, (file, pixels) in zip(images, files.items(), strict=True):
        if pixels is None:
            raise ConfigError(f"{image} is not an image that can be read")
        if file.exists():
            raise ConfigError(f"{file} exists; choose another out=")
    yolo = load_model(model, list(TASK2DATA))
    if not any(isinstance(m, (ChannelBranch, SpatialBranch)) for m in yolo.model.modules()):
        raise ConfigError(f"{model} has no layer with dynamic weights (SGDM, RDConv)")
    records.make_folder(out)
    seen = watch(yolo.model)
    for file, pixels in files.items():
        yolo.predict(pixels, verbose=False, **({"imgsz": imgsz} if imgsz else {}))
        figure = draw(yolo.model, seen)
        figure.savefig(file, dpi=120)
        plt.close(figure)
        print(file)
