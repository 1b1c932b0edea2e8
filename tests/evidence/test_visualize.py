import csv
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import randomize
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.text import Text
from ultralytics import YOLO

from ultralytics_sgdm.evidence import visualize
from ultralytics_sgdm.nn.dynamic import ChannelBranch, SpatialBranch

pytestmark = pytest.mark.slow


def read(file):
    """Return the rows of a CSV file."""
    with Path(file).open() as f:
        return list(csv.DictReader(f))


def test_visualize_draws_and_lists_the_weights_of_each_kernel(command, mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text("""nc: 2
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C2fSGDM, [16, False, {ratio: 1, kernels: [[1, 3], [5, 1]]}]]
  - [-1, 1, RDConv, [16, 3, 2, 1]]
head:
  - [[2], 1, Detect, [nc]]
""")
    ramps = {SpatialBranch: lambda m: 0.5 + m / 10, ChannelBranch: lambda m: 1.6 - m // 16 / 10}
    for kind, ramp in ramps.items():

        def known(self, x, forward=kind.forward, ramp=ramp):
            y = forward(self, x)
            return torch.zeros_like(y) + ramp(torch.arange(y.shape[1])).view(1, -1, 1, 1)

        monkeypatch.setattr(kind, "forward", known)
    cv2.imwrite("a.png", np.full((48, 96, 3), 99, np.uint8))
    assert command("sgdm", "visualize", "tiny.yaml", "a.png", "imgsz=64", "out=out")[0] == 0

    found = read("out/a/weights.csv")
    taps = [f"{i},{j}" for i in (-1, 0, 1) for j in (-1, 0, 1)]
    names = [("1", "C2fSGDM.sgdm", k) for k in ("1x3", "5x1")] + [("2", "RDConv", k) for k in taps]
    assert [(r["layer"], r["name"], r["kernel"]) for r in found] == names
    for m, row in zip((0, 1, *range(9)), found, strict=True):
        for part, value in (("gamma", 0.5 + m / 10), ("alpha", 1.6 - m / 10)):
            statistics = [float(row[f"{part} {s}"]) for s in ("mean", "std", "min", "max")]
            assert statistics == pytest.approx([value, 0, value, value], abs=1e-4)
    drawn = {file.name: cv2.imread(str(file)) for file in Path("out/a").glob("*.png")}
    assert drawn.keys() == {"network.png", "layer-01-sgdm.png", "layer-02.png"}
    assert all(len(np.unique(picture.reshape(-1, 3), axis=0)) > 100 for picture in drawn.values())
    assert {p.name for p in tmp_path.iterdir()} == {"tiny.yaml", "a.png", "out"}

    assert "a exists; choose another out=" in mistake("visualize", "tiny.yaml", "a.png", "out=out")
    assert "has no layer with dynamic weights" in mistake("visualize", "yolov8n.yaml", "a.png", "out=b")
    assert "tiny.yaml is no picture" in mistake("visualize", "tiny.yaml", "tiny.yaml", "out=b")
    assert "no.pt does not exist" in mistake("visualize", "no.pt", "a.png", "out=b")
    assert not Path("b").exists()
    for out in ("a.png", "a.png/b", "b" * 300):
        assert f"out={out} cannot be written" in mistake("visualize", "tiny.yaml", "a.png", f"out={out}")


def test_visualize_sees_the_weights_at_each_position():
    model = randomize(YOLO("yolov8n-sgdm.yaml").model).eval()
    branches = [m for m in model.modules() if isinstance(m, (SpatialBranch, ChannelBranch))]
    inputs = {}
    for branch in branches:
        branch.register_forward_pre_hook(lambda m, x: inputs.update({m: x[0]}))
    seen = visualize.watch(model)
    with torch.inference_mode():
        model(torch.rand(1, 3, 64, 96))
        wanted = {m: m(inputs[m])[0] for m in branches}
    found = visualize.mixtures(model, seen)
    assert (found[0].layer, found[0].gamma.shape) == (8, (4, 2, 3))
    for kind, part in ((SpatialBranch, "gamma"), (ChannelBranch, "alpha")):
        for mixture, values in zip(found, (y for m, y in wanted.items() if isinstance(m, kind)), strict=True):
            assert np.allclose(getattr(mixture, part).ravel(), values.ravel(), atol=1e-6)
            assert values.std() > 1e-3


def mixture(gap, kernels=4, inside=(8, 8)):
    """Return a layer whose weights go `gap` from 1 at most."""
    gamma = 1 + gap * np.linspace(-1, 0.5, kernels * inside[0] * inside[1]).reshape(kernels, *inside)
    return visualize.Mixture(4, "C2fSGDM.sgdm", [f"1x{m}" for m in range(kernels)], gamma, gamma.reshape(kernels, -1))


@pytest.mark.parametrize(("gap", "reach"), [(0, 0.05), (0.0015, 0.05), (0.05, 0.05), (0.4, 0.4)])
def test_a_scale_shows_what_hardly_moved_as_such_and_the_bar_says_both(gap, reach):
    picture, found = np.random.default_rng(0).random((3, 64, 64)), mixture(gap)
    for figure in (visualize.draw_network([found], picture), visualize.draw_layer(found, picture)):
        norms = [image.norm for axes in figure.axes for image in axes.images if image.get_array().ndim == 2]
        norms = [n for n in norms if isinstance(n, CenteredNorm)]
        assert len(norms) == 4 and all((n.vmin, n.vmax) == pytest.approx((1 - reach, 1 + reach)) for n in norms)
        every = figure.findobj(Text)
        label = f"{1 - gap:.4f} to {1 + gap / 2:.4f}\ncolours: {1 - reach:.3g} to {1 + reach:.3g}"
        assert any(text.get_text().endswith(label) for text in every)
        limits = [axes.get_xlim() for axes in figure.axes if axes.patches] + [
            axes.get_ylim() for axes in figure.axes if len(axes.lines) > 4
        ]
        assert limits and all(high - low >= 2 * reach - 1e-9 for low, high in limits)
        plt.close(figure)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kernels", [4, 9])
@pytest.mark.parametrize("size", [(64, 64), (32, 640), (640, 32)])
def test_the_figures_have_no_large_blank_whatever_the_proportions(tmp_path, size, kernels):
    picture = np.random.default_rng(0).random((3, *size))
    found = mixture(0.3, kernels, (size[0] // 16, size[1] // 16))
    for name, figure in (
        ("network", visualize.draw_network([found] * 3, picture)),
        ("layer", visualize.draw_layer(found, picture)),
    ):
        figure.canvas.draw()
        maps = [axes for axes in figure.axes if axes.images and isinstance(axes.images[-1].norm, CenteredNorm)]
        assert all(max(axes.get_window_extent().size) > 0.9 * figure.dpi for axes in maps)
        seen = [axes.get_tightbbox() for axes in figure.findobj(Axes) if axes.axison or axes.images]
        assert not any(a.padded(-2).overlaps(b.padded(-2)) for a, b in itertools.combinations(seen, 2)), name
        visualize.save(figure, tmp_path / f"{name}.png")
        drawn = cv2.imread(str(tmp_path / f"{name}.png")).min(2) < 250
        assert max(drawn.shape) < 120 * 36
        for axis in (0, 1):
            marks = np.flatnonzero(drawn.any(axis))
            edges = np.array([-1, *marks, drawn.shape[1 - axis]])
            assert np.diff(edges).max() < 120, (name, axis)  # an inch
        header = drawn[:60].any(0)  # of the network: the picture, and the bar beside it up to the end
        assert name == "layer" or np.diff(np.flatnonzero(header)).max() < 0.25 * len(header)
