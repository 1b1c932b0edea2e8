from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import randomize
from matplotlib import pyplot as plt
from matplotlib.colors import CenteredNorm
from matplotlib.text import Text
from torch import nn
from ultralytics import YOLO

from ultralytics_sgdm import SGDM, RDConv
from ultralytics_sgdm.evidence import visualize
from ultralytics_sgdm.nn.dynamic import ChannelBranch, SpatialBranch

pytestmark = pytest.mark.slow

DYNAMIC = """nc: 2
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C2fSGDM, [16, False, {ratio: 1, kernels: [[1, 3], [5, 1]]}]]
  - [-1, 1, SGDM, [16, 1, [[1, 3]], False]]
  - [-1, 1, RDConv, [16, 3, 2, 1]]
head: [[[3], 1, Detect, [nc]]]
"""


def test_visualize_draws_the_weights_and_names_what_cannot_be_drawn(command, mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(DYNAMIC)
    cv2.imwrite("a.png", np.random.default_rng(0).integers(0, 256, (48, 96, 3), np.uint8))
    assert command("sgdm", "visualize", "tiny.yaml", "a.png", "imgsz=64", "out=out")[0] == 0
    assert len(np.unique(cv2.imread("out/a.png").reshape(-1, 3), axis=0)) > 100
    for arguments, message in (
        (("tiny.yaml", "a.png", "out=out"), "a.png exists; choose another out="),
        (("yolov8n.yaml", "a.png", "out=b"), "has no layer with dynamic weights"),
        (("tiny.yaml", "tiny.yaml", "out=b"), "tiny.yaml is not an image"),
        (("tiny.yaml", "a.png", "out=a.png"), "out=a.png cannot be written"),
    ):
        assert message in mistake("visualize", *arguments)
    assert not Path("b").exists()


def test_visualize_sees_the_weights_at_each_position():
    model = randomize(YOLO("yolov8n-sgdm.yaml").model).eval()
    branches = [m for m in model.modules() if isinstance(m, (SpatialBranch, ChannelBranch))]
    inputs = {}
    for branch in branches:
        branch.register_forward_pre_hook(lambda m, x: inputs.update({m: x[0]}))
    seen = visualize.watch(model)
    with torch.inference_mode():
        model(torch.rand(1, 3, 64, 96))
        found, wanted = dict(seen), {m: m(inputs[m])[0] for m in branches}
    assert found.pop("").shape == (3, 64, 96) and len(found) == len(branches) == 4
    assert found["model.8.sgdm.spatial"].shape == (4, 2, 3)
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[model.get_submodule(name)], atol=1e-6)
        assert values.std() > 1e-3


@pytest.mark.parametrize(("gap", "reach"), [(0.0015, 0.05), (0.4, 0.4)])
def test_a_scale_shows_what_hardly_moved_as_such_and_the_bar_says_both(gap, reach):
    gamma = (1 + gap * np.linspace(-1, 0.5, 256)).reshape(4, 8, 8)
    seen = {"": np.ones((3, 64, 64)), "0.spatial": gamma, "0.channel": gamma.reshape(-1, 1, 1)}
    figure = visualize.draw(nn.Sequential(SGDM(16, 16)), seen)
    norms = [image.norm for axes in figure.axes for image in axes.images if isinstance(image.norm, CenteredNorm)]
    assert len(norms) == 4 and all((n.vmin, n.vmax) == pytest.approx((1 - reach, 1 + reach)) for n in norms)
    assert any(text.get_text().endswith(f"{1 - gap:.4f} to {1 + gap / 2:.4f}") for text in figure.findobj(Text))
    plt.close(figure)


def test_kernels_are_named_by_their_size_or_the_position_of_their_tap():
    assert visualize.name_kernels(RDConv(8, 8, 3))[:4] == ["-1,-1", "-1,0", "-1,1", "0,-1"]
    assert visualize.name_kernels(SGDM(16, 16, kernels=[[1, 3], [5, 1]])) == ["1x3", "5x1"]
