"""What the dynamic mixture does with a picture: its spatial and channel weights, layer by layer.

For each picture OUT gets a folder of its name with

    network.png   every layer with dynamic weights in a row: the spatial weights gamma of each kernel over the picture,
                  on one colour scale for the network, and box plots of the channel weights alpha
    layer-*.png   each such layer by itself, on its own colour scale, with histograms of alpha
    weights.csv   mean, spread and range of the gamma and alpha of each kernel

The response of kernel m counts alpha[m, channel] * gamma[m, position] times; both lie in (0, 2), and both are 1 at the
start of training, where the layer is an ordinary convolution. A scale reaches as far from 1 as the weights, and at
least 0.05: what hardly moved looks so. The colour bar says what was seen, and what the colours reach to.

Layers have the numbers that Ultralytics gives to the rows of a model YAML, from 0. Static kernels are named by height x
width, those of RDConv by the place of their tap, down and right of the centre (-1,0 is above it). Pictures are resized
and padded as for prediction, and shown as the network sees them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn
from ultralytics import YOLO

from ..configs import ConfigError
from ..nn import RDConv
from ..nn.dynamic import ChannelBranch, SpatialBranch
from . import records

IN_A_ROW = 6  # kernels beside each other in the figure of a layer, at most
LEAST = 0.05  # that a scale reaches to either side of 1
COLOURS, OPACITY = "RdBu_r", 0.5  # of the maps over the picture
GAMMA, ALPHA = r"spatial weight $\gamma$", r"channel weight $\alpha$"


class Mixture(NamedTuple):
    """The weights of a layer's M kernels for one picture.

    Attributes:
        layer: Number of the row in the model YAML.
        name: Class of the row, and where in it the layer is, such as "C2fSGDM.sgdm".
        kernels: Names of the kernels.
        gamma: Spatial weights (M, H, W), or None if the layer has no such branch.
        alpha: Channel weights (M, C), or None likewise.
    """

    layer: int
    name: str
    kernels: list[str]
    gamma: np.ndarray | None
    alpha: np.ndarray | None


def branches(layer: nn.Module) -> dict[type[nn.Module], str]:
    """Return the names of the branches that are children of `layer`, by their class."""
    kinds = ChannelBranch, SpatialBranch
    return {kind: name for name, child in layer.named_children() for kind in kinds if isinstance(child, kind)}


def kernel_names(layer: nn.Module, count: int | None) -> list[str]:
    """Return the names of a layer's kernels: height x width of static ones, place of each tap in RDConv, or numbers.

    Args:
        layer: The layer.
        count: Number of kernels, where it is known otherwise.
    """
    if isinstance(layer, RDConv):
        k = layer.base.kernel_size[0]
        names = [f"{i - k // 2},{j - k // 2}" for i in range(k) for j in range(k)]
    else:
        names = ["x".join(map(str, conv.kernel_size)) for conv in getattr(layer, "static", ())]
    return names if count in (None, len(names)) else [f"kernel {m}" for m in range(count)]


def watch(model: nn.Module) -> dict[str, np.ndarray]:
    """Return a dictionary that each forward pass of `model`, or of a copy, fills.

    It holds the input of the model (3, H, W) as "", and the output of each branch, without the batch, by its name.
    """
    seen: dict[str, np.ndarray] = {}

    def keep(name: str, x: Tensor) -> None:
        seen[name] = x[0].float().cpu().numpy()

    model.register_forward_pre_hook(lambda _, inputs: keep("", inputs[0]))
    for name, layer in model.named_modules():
        for child in branches(layer).values():
            path = f"{name}.{child}"
            layer.get_submodule(child).register_forward_hook(lambda _, __, y, path=path: keep(path, y))
    return seen


def mixtures(model: nn.Module, seen: dict[str, np.ndarray]) -> list[Mixture]:
    """Return what each dynamic layer of `model` did in the forward pass that was seen."""
    found = []
    for name, layer in model.named_modules():
        if names := branches(layer):
            gamma, alpha = (seen.get(f"{name}.{names.get(kind)}") for kind in (SpatialBranch, ChannelBranch))
            kernels = kernel_names(layer, None if gamma is None else len(gamma))
            if alpha is not None:
                alpha = alpha.reshape(len(kernels), -1)
            _, row, *inner = name.split(".")
            found.append(
                Mixture(int(row), ".".join([type(model.model[int(row)]).__name__, *inner]), kernels, gamma, alpha)
            )
    return found


def reach(values: Sequence[np.ndarray | None]) -> float:
    """Return how far a scale for these weights goes from 1: as far as they do, and at least `LEAST`."""
    return max([LEAST, *(float(np.abs(v - 1).max()) for v in values if v is not None)])


def cell(picture: np.ndarray) -> np.ndarray:
    """Return width and height, in inches, of the space for one map of a picture (3, H, W) of any proportions."""
    ratio = picture.shape[1] / picture.shape[2]
    width = np.clip(1.7 * ratio**-0.5, 1, 2.6)
    return np.array([width, np.clip(width * ratio, 1.1, 3.4)])


def show_gamma(axes: Axes, picture: np.ndarray, gamma: np.ndarray, scale: CenteredNorm) -> None:
    """Draw the spatial weights (H, W) of one kernel over the picture (3, H', W')."""
    grey, (height, width) = picture.mean(0), picture.shape[1:]
    dark, light = grey.min(), grey.max()
    axes.set(xticks=[], yticks=[])
    axes.imshow(grey, cmap="gray", vmin=2 * dark - light - 1e-6, vmax=light)  # no darker than half, to keep the colours
    axes.imshow(gamma, cmap=COLOURS, norm=scale, alpha=OPACITY, extent=(-0.5, width - 0.5, height - 0.5, -0.5))


def show_scale(figure: FigureBase, values: Sequence[np.ndarray], scale: CenteredNorm, **place: Any) -> None:
    """Draw the colour bar of spatial weights: what was seen, and what the colours reach to."""
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    label = f"{GAMMA}: {low:.4f} to {high:.4f}\ncolours: {scale.vmin:.3g} to {scale.vmax:.3g}"
    figure.colorbar(ScalarMappable(scale, COLOURS), alpha=OPACITY, label=label, **place)


def draw_layer(mixture: Mixture, picture: np.ndarray) -> Figure:
    """Return the figure of a layer: a map of gamma for each kernel, and below them histograms of alpha."""
    m = len(mixture.kernels)
    across = m if m <= IN_A_ROW else math.isqrt(m - 1) + 1
    down = -(-m // across)
    parts = [part for part in ("gamma", "alpha") if getattr(mixture, part) is not None]
    width, height = 1.4 * cell(picture)
    size = width * across + 1.4, 0.8 + down * len(parts) * (height + 0.5)
    figure, grid = plt.subplots(down * len(parts), across, figsize=size, squeeze=False, layout="constrained")
    for part, block in zip(parts, grid.reshape(len(parts), down, across), strict=True):
        values = getattr(mixture, part)
        for axes in block.flat[m:]:
            axes.set_axis_off()
        used = block.flat[:m]
        for axes, kernel in zip(used, mixture.kernels, strict=True):
            axes.set_title(kernel)
        far = reach([values])
        if part == "gamma":
            scale = CenteredNorm(1, far)
            for axes, weights in zip(used, values, strict=True):
                show_gamma(axes, picture, weights, scale)
            show_scale(figure, values, scale, ax=block)
        else:
            bins = np.linspace(1 - far, 1 + far, 32)
            most = max(np.histogram(weights, bins)[0].max() for weights in values)
            for axes, weights in zip(used, values, strict=True):
                axes.hist(weights, bins, color="tab:gray")
                axes.axvline(1, color="black", linewidth=0.8)
                axes.set_ylim(0, 1.05 * most)
                axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            for axes in block[:, 0]:
                axes.set_ylabel("channels")
            for axes in block[-1]:
                axes.set_xlabel(ALPHA)
    positions = "" if mixture.gamma is None else ", {}x{} positions".format(*mixture.gamma.shape[1:])
    figure.suptitle(f"layer {mixture.layer}, {mixture.name}{positions}")
    return figure


def draw_network(found: Sequence[Mixture], picture: np.ndarray) -> Figure:
    """Return the figure of the network: the picture, and for each layer maps of gamma and boxes of alpha."""
    across = max(len(mixture.kernels) for mixture in found)
    width, height = cell(picture)
    widths, heights = [*[width] * across, 0.25 * across + 1.4], [1, len(found) * (height + 0.6)]
    figure = plt.figure(figsize=(sum(widths) + 0.1 * across + 0.8, sum(heights)), layout="constrained")
    header, body = figure.subfigures(2, 1, height_ratios=heights)
    left, right = header.subfigures(1, 2, width_ratios=[width, sum(widths[1:])])
    start, bar = left.subplots(), right.subplots()
    grid = body.subplots(len(found), len(widths), squeeze=False, width_ratios=widths)
    for axes in (start, *grid.flat):
        axes.set_axis_off()
    start.imshow(picture.transpose(1, 2, 0))
    gammas = [mixture.gamma for mixture in found if mixture.gamma is not None]
    scale = CenteredNorm(1, reach(gammas))
    if gammas:
        show_scale(right, gammas, scale, cax=bar, orientation="horizontal")
    else:
        bar.set_axis_off()
    far = 1.1 * reach([mixture.alpha for mixture in found])
    for row, mixture in zip(grid, found, strict=True):
        label = f"layer {mixture.layer}\n{mixture.name}"
        row[0].text(-0.06, 0.5, label, transform=row[0].transAxes, rotation=90, ha="right", va="center", ma="center")
        if mixture.gamma is not None:
            for axes, kernel, weights in zip(row, mixture.kernels, mixture.gamma, strict=False):
                show_gamma(axes, picture, weights, scale)
                axes.set_title(kernel)
        if mixture.alpha is not None:
            row[-1].set_axis_on()
            row[-1].boxplot(mixture.alpha.T, tick_labels=mixture.kernels, widths=0.6, sym=".")
            row[-1].axhline(1, color="black", linewidth=0.8)
            row[-1].set_ylim(1 - far, 1 + far)
            row[-1].set_title(rf"$\alpha$ of {mixture.alpha.shape[1]} channels")
            if len(mixture.kernels) > IN_A_ROW:
                row[-1].tick_params("x", labelrotation=90, labelsize="small")
    return figure


def table(found: Sequence[Mixture]) -> list[dict[str, Any]]:
    """Return mean, spread and range of the weights of each kernel."""
    rows = []
    for mixture in found:
        for m, kernel in enumerate(mixture.kernels):
            row = {"layer": mixture.layer, "name": mixture.name, "kernel": kernel}
            for part in ("gamma", "alpha"):
                values = getattr(mixture, part)
                for statistic in ("mean", "std", "min", "max"):
                    row[f"{part} {statistic}"] = (
                        "" if values is None else round(float(getattr(values[m], statistic)()), 4)
                    )
            rows.append(row)
    return rows


def save(figure: Figure, file: Path) -> None:
    """Write a figure and forget it."""
    figure.savefig(file, dpi=120)
    plt.close(figure)


def draw(yolo: YOLO, image: Path, seen: dict[str, np.ndarray], imgsz: int | None, folder: Path) -> None:
    """Write the pictures and the table of one image to a new folder."""
    yolo.predict(image, verbose=False, **({"imgsz": imgsz} if imgsz else {}))
    found, picture = mixtures(yolo.model, seen), seen[""]
    folder.mkdir(parents=True)
    save(draw_network(found, picture), folder / "network.png")
    for mixture in found:
        place = mixture.name.partition(".")[2]
        name = f"layer-{mixture.layer:02d}" + (f"-{place}" if place else "")
        save(draw_layer(mixture, picture), folder / f"{name}.png")
    with (folder / "weights.csv").open("w", newline="") as f:
        rows = table(found)
        writer = csv.DictWriter(f, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def _exists(folder: Path, out: Path) -> bool:
    try:
        return folder.exists()
    except OSError as e:  # a name that is too long, a folder that may not be entered
        raise ConfigError(f"out={out} cannot be written: {e.strerror}") from e


def visualize(model: str, *images: Path, out: Path, imgsz: int | None = None) -> None:
    """Draw what the dynamic mixture does with pictures: its spatial and channel weights, layer by layer.

    For each picture OUT gets a folder of its name with network.png (all layers on one scale), layer-*.png (each by
    itself) and weights.csv.

    Args:
        model: Checkpoint, or a model YAML as it starts.
        images: Pictures.
        out: Folder of the results.
        imgsz: Pixels; as the checkpoint was trained, or 640, unless given.

    Raises:
        ConfigError: If a picture or the model cannot be used, or a folder exists already.
    """
    folders = {image: out / image.stem for image in images}
    if not images:
        raise ConfigError("name the pictures")
    if imgsz is not None and imgsz < 1:
        raise ConfigError(f"imgsz={imgsz} must be 1 or more")
    for image, folder in folders.items():
        if image.is_dir():
            raise ConfigError(f"{image} is a folder; name the pictures in it, such as {image}/*.jpg")
        if not image.is_file() or cv2.imread(str(image)) is None:
            raise ConfigError(f"{image} is no picture that can be read")
        if _exists(folder, out):
            raise ConfigError(f"{folder} exists; choose another out=")
    if len(set(folders.values())) < len(images):
        raise ConfigError("two of the images have the same name; choose an out= for each")
    if Path(model).suffix == ".pt" and not Path(model).is_file():
        raise ConfigError(f"{model} does not exist")
    yolo = YOLO(model)
    if not isinstance(yolo.model, nn.Module) or not any(map(branches, yolo.model.modules())):
        raise ConfigError(f"{model} has no layer with dynamic weights (SGDM, RDConv)")
    records.writable(out)
    seen = watch(yolo.model)
    for image, folder in folders.items():
        draw(yolo, image, seen, imgsz, folder)
        print(folder)
