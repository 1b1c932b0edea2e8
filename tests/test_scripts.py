import csv
import importlib
import json
import re
import runpy
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from helpers import randomize, save_detector
from torch import nn
from ultralytics import YOLO
from ultralytics.data.utils import check_det_dataset
from ultralytics.models.yolo.detect import DetectionValidator

from ultralytics_sgdm.data import make_shapes
from ultralytics_sgdm.nn.dynamic import ChannelBranch, SpatialBranch

SCRIPTS = Path(__file__).parents[1] / "scripts"
SPLITS = {"train": "images/train", "val": "images/val"}


def read(file):
    """Return the rows of a CSV file."""
    with Path(file).open() as f:
        return list(csv.DictReader(f))


@pytest.fixture
def script(monkeypatch):
    """Import a script as a module."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


@pytest.fixture
def error_of(script, monkeypatch):
    """Run the command line of a script that ends with an error, and return its one line."""

    def run(name, *argv):
        monkeypatch.setattr(sys, "argv", [name, *map(str, argv)])
        with pytest.raises(SystemExit) as e:
            script(name).main()
        assert "\n" not in str(e.value.code)
        return e.value.code

    return run


@pytest.fixture
def noise(script):
    pytest.importorskip("scipy")
    return script("noise")


def test_benchmark_compares_with_the_first_model(shell, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # compiling takes minutes
    out = tmp_path / "results/b.json"
    command = (sys.executable, SCRIPTS / "benchmark.py", "yolov8n.yaml", "yolov8n-sgdm.yaml", "--out", out)
    printed = shell(*command, "--imgsz", "128", "--rounds", "1", "--batch", "1", "--compile", cwd=tmp_path)
    result = json.loads(out.read_text())
    stock, ours = result["rows"]
    assert ours["parameters"] - stock["parameters"] == 187_428
    for kind in ("pytorch", "torch_compile", "onnxruntime", "training_step", "training_memory"):
        assert stock[kind]["ratio"] == 1
        assert ours[kind]["ratio"] > 0
    assert {p.name for p in tmp_path.iterdir()} == {"results"}
    assert printed.splitlines()[-1].startswith("yolov8n-sgdm.yaml")
    assert "exists; choose another file" in shell(*command, cwd=tmp_path, status=1)


def test_benchmark_compiles_a_model_into_one_graph(script, monkeypatch):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        program = script("benchmark").compiled("yolov8n-sgdm.yaml", x)
        for _ in range(2):
            program(x)
    assert len(graphs) == 1


def test_benchmark_times_each_row(shell, tmp_path):
    command = (
        sys.executable,
        SCRIPTS / "benchmark.py",
        "yolov8n-rdconv.yaml",
        "--rows",
        "--imgsz",
        "64",
        "--rounds",
        "1",
    )
    rows = [line.split() for line in shell(*command, cwd=tmp_path).splitlines() if line.endswith(" ms")]
    assert len(rows) == 23
    assert rows[5][:2] == ["5", "RDConv"]


def test_compare_pairs_seeds_keeps_what_is_done_and_resumes(shell, tmp_path):
    pytest.importorskip("scipy")
    make_shapes(tmp_path / "shapes", train=8, val=4, size=96)
    spec = {"path": str(tmp_path / "shapes"), "train": "images/train", "val": "images/val", "names": list("abcdef")}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(spec))
    models = ("yolov8n.yaml", "yolov8n-sgdm.yaml")
    settings = ("data=data.yaml", "epochs=2", "imgsz=64", "workers=0", "device=cpu", "--bf16", "--seeds", "0")
    command = (sys.executable, SCRIPTS / "compare.py", *models, *settings, "--out", "results", "--jobs", "2")
    printed = shell(*command, cwd=tmp_path)
    assert "yolov8n-0: done" in printed and "yolov8n-sgdm-0: done" in printed
    ours = json.loads((tmp_path / "results/yolov8n-sgdm-0.json").read_text())
    assert len(ours["curve"]) == 2
    assert ours["recipe"]["epochs"] == 2
    rows = read(tmp_path / "results/summary.csv")
    assert [row["model"] for row in rows] == list(models)
    assert int(rows[1]["parameters"]) - int(rows[0]["parameters"]) == 187_428
    assert {p.name for p in (tmp_path / "results").glob("*.png")} == {"differences.png", "curves.png"}
    table = (tmp_path / "results/summary.md").read_text(encoding="utf-8").splitlines()
    assert table[3].startswith(f"| yolov8n-sgdm | {int(rows[1]['parameters']):,} | 0 |")

    (tmp_path / "results/yolov8n-sgdm-0.json").unlink()  # as if killed between training and its last line
    best, last = (tmp_path / f"runs/compare/results/yolov8n-sgdm-0/weights/{name}.pt" for name in ("best", "last"))
    stamp = best.stat().st_mtime_ns
    assert "yolov8n-0: done" not in shell(*command, cwd=tmp_path)
    (tmp_path / "results/yolov8n-sgdm-0.json").rename(tmp_path / "again.json")
    torch.save({**torch.load(last, weights_only=False), "epoch": 1}, last)  # as if killed before it was stripped
    shell(*command, cwd=tmp_path)
    assert best.stat().st_mtime_ns == stamp
    for file in ("again.json", "results/yolov8n-sgdm-0.json"):
        assert {**json.loads((tmp_path / file).read_text()), "minutes": 0} == {**ours, "minutes": 0}
    assert "was made with another recipe" in shell(*command, "epochs=3", cwd=tmp_path, status=1)


def test_compare_names_a_model_that_is_not_there(error_of, tmp_path, monkeypatch):
    pytest.importorskip("scipy")
    monkeypatch.chdir(tmp_path)
    assert "yolov8n-sdgm.yaml" in error_of("compare", "yolov8n-sdgm.yaml", "data=data.yaml", "--out", "out")
    assert not Path("out").exists()


def test_the_interval_of_a_paired_difference_is_students():
    pytest.importorskip("scipy")
    compare = runpy.run_path(str(SCRIPTS / "compare.py"))["paired_difference"]
    mean, half = compare({0: 3.0, 1: 5.0, 2: 4.0, 9: 0.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    assert mean == 2
    assert half == pytest.approx(4.302653 * 1 / 3**0.5, rel=1e-6)


def spectrum(noise):
    """Return a function that gives the share of the noise's power between two frequencies, cycles per pixel."""
    power = (np.abs(np.fft.fft2(noise, axes=(0, 1))) ** 2).mean(2)
    f = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in noise.shape[:2]), indexing="ij"))
    return lambda low, high: power[(low <= f) & (f < high)].sum() / power.sum()


def test_highpass_noise_is_what_the_docstring_says(noise):
    grey = np.full((384, 256, 3), 128, np.uint8)
    high, white = (f(grey, 8, np.random.default_rng(0)) - 128.0 for f in (noise.highpass_noise, noise.gaussian_noise))
    assert high.std() == pytest.approx(8, rel=0.005)
    assert white.std() == pytest.approx(8, rel=0.01)
    assert spectrum(white)(0, 0.1) == pytest.approx(np.pi * 0.1**2, rel=0.1)
    assert spectrum(high)(0, 0.1) < 0.002
    passed = [spectrum(high)(f - 0.01, f + 0.01) / spectrum(white)(f - 0.01, f + 0.01) for f in (0.25, 0.6)]
    assert passed[0] / passed[1] == pytest.approx(0.5, abs=0.03)  # -3 dB
    assert abs(np.corrcoef(high[..., 0].ravel(), high[..., 1].ravel())[0, 1]) < 0.02


def test_noise_depends_on_the_file_and_the_seed_alone(noise):
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    before = image.copy()

    def picture(file="a/1.jpg", seed=0):
        return noise.Corrupt("highpass", 16, seed)({"img": image, "im_file": file, "cls": 1})["img"]

    assert np.array_equal(picture(), picture("elsewhere/1.jpg"))
    assert not np.array_equal(picture(), picture("a/2.jpg"))
    assert not np.array_equal(picture(), picture(seed=1))
    assert np.array_equal(image, before)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_corruption_grows_with_its_strength(noise, channels):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, channels), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 1).reshape(image.shape)
    for corruption in noise.CORRUPTIONS.values():
        pictures = [corruption.apply(image, s, np.random.default_rng(0)) for s in corruption.strengths]
        assert all(p.shape == image.shape and p.dtype == image.dtype for p in pictures)
        errors = [np.abs(p.astype(float) - image).mean() for p in pictures]
        assert errors[0] > 0
        assert errors == sorted(errors)


def test_pictures_are_corrupted_after_resizing_and_before_padding(noise, tmp_path):
    make_shapes(tmp_path, train=1, val=1, size=96)
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"path": str(tmp_path), "names": list("abcdef"), **SPLITS}))

    def picture(validator):
        v = validator(args={"data": "data.yaml", "imgsz": 64, "rect": True}, save_dir=tmp_path)
        v.data, v.stride = check_det_dataset(tmp_path / "data.yaml"), 32
        return v.build_dataset(v.data["val"], batch=1)[0]["img"].numpy()

    clean = picture(DetectionValidator)
    corrupted = picture(noise.corrupting(DetectionValidator, noise.Corrupt("gaussian", 40, 0)))
    assert clean.shape == corrupted.shape == (3, 96, 96)
    changed = (clean != corrupted).any(0)
    assert changed[16:80, 16:80].mean() > 0.9
    assert changed.sum() == changed[16:80, 16:80].sum()


def save_detector_of_dots(name, seed, weight):
    """Save a detector of 8x8 squares on the grid: its score is their brightness times a weight, its box the square."""
    Path(f"{name}.yaml").write_text("nc: 1\nbackbone: [[-1, 1, Conv, [16, 8, 8, 0]]]\nhead: [[[0], 1, Detect, [nc]]]\n")
    yolo = YOLO(f"{name}.yaml")
    conv, head = yolo.model.model
    nn.init.constant_(conv.conv.weight, 1 / (3 * 8 * 8))
    box, score = nn.Conv2d(16, 4 * head.reg_max, 1), nn.Conv2d(16, 1, 1)
    for layer in (box, score):
        nn.init.zeros_(layer.weight)
    box.bias.data = torch.tensor([0.0, 0.0] + [-99.0] * (head.reg_max - 2)).repeat(4)  # half a stride to each side
    nn.init.constant_(score.bias, -3)
    nn.init.constant_(score.weight, weight)
    head.cv2[0], head.cv3[0] = box, score
    yolo.save("saved.pt")
    torch.save({**torch.load("saved.pt", weights_only=False), "train_args": {"seed": seed}}, f"{name}-{seed}.pt")
    return f"{name}-{seed}.pt"


def test_noise_measures_pairs_and_keeps_what_is_done(noise, error_of, shell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ("images", "labels"):
        for split in ("train", "val"):
            Path(kind, split).mkdir(parents=True)
    for i, brightness in enumerate((250, 60, 150, 20)):
        image = np.zeros((64, 64, 3), np.uint8)
        image[8 * i : 8 * i + 8, 16:24] = brightness
        cv2.imwrite(f"images/val/{i}.png", image)
        Path(f"labels/val/{i}.txt").write_text(f"0 {20 / 64} {(8 * i + 4) / 64} 0.125 0.125")
    Path("data.yaml").write_text(yaml.safe_dump({"path": str(tmp_path), "names": ["0"], **SPLITS}))
    files = [save_detector_of_dots(*model) for model in (("dots", 0, 1), ("dots", 1, 1), ("blind", 0, 0))]
    settings = ("data=data.yaml", "imgsz=64", "rect=False", "workers=0", "device=cpu")
    given = (*settings, "--gaussian", "--jpeg", "--highpass", "2000", "--blur", "8", "--out", "out")
    printed = shell(sys.executable, SCRIPTS / "noise.py", *files, *given, cwd=tmp_path)
    rows = read("out/results.csv")
    conditions = [("clean", ""), ("highpass", "2000.0"), ("blur", "8.0")]
    assert [(r["corruption"], r["strength"]) for r in rows] == 3 * conditions
    assert [(r["model"], r["seed"]) for r in rows[::3]] == [("blind", "0"), ("dots", "0"), ("dots", "1")]
    clean, loud, blurred = (float(r["mAP50-95"]) for r in rows[3:6])
    assert clean > 99
    assert loud < 20
    assert 10 < blurred < 90
    assert float(rows[4]["mAP50-95 loss"]) == pytest.approx(clean - loud, abs=0.002)
    assert [r["mAP50"] for r in rows[3:6]] == [r["mAP50"] for r in rows[6:]]  # same weights, same noise
    summary = {(r["corruption"], r["model"]): r for r in read("out/summary.csv")}
    reference, blind = summary["highpass", "dots"], summary["highpass", "blind"]
    assert (reference["seeds"], blind["seeds"], blind["difference +-"]) == ("0 1", "0", "")
    assert float(reference["loss std"]) == float(reference["difference +-"]) == float(blind["loss"]) == 0
    assert float(blind["difference"]) == -float(reference["loss"]) == -float(rows[4]["mAP50-95 loss"])
    assert cv2.imread("out/losses.png") is not None
    assert not Path("runs").exists()
    assert re.match(r"blur +8 +blind ", printed.splitlines()[-1])

    kept = {file: file.stat().st_mtime_ns for file in Path("out").glob("*.json")}
    monkeypatch.setattr(sys, "argv", ["noise", *files, *given])
    noise.main()
    assert {file: file.stat().st_mtime_ns for file in Path("out").glob("*.json")} == kept
    assert "made with noise_seed 0, not 1; choose another" in error_of("noise", *files, *given, "--noise-seed", 1)
    assert "labels holds something else" in error_of("noise", *files, *given[:-1], "labels")
    assert "are both dots trained with seed 0" in error_of("noise", *files, files[0], *given)
    save_detector_of_dots("blind", 0, 0)
    assert "blind-0.json is of another training" in error_of("noise", *files, *given)


def test_noise_names_what_does_not_fit(noise, error_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_shapes(tmp_path, train=1, val=1, size=64)
    file, given = save_detector("yolov8n.yaml", tmp_path), ("data=data.yaml", "imgsz=64", "--out", "out")
    for names, message in (("01", "detects 3 classes, data.yaml has 2"), ("0a2", "class 1 of .* is '1', of .* 'a'")):
        Path("data.yaml").write_text(yaml.safe_dump({"path": str(tmp_path), "names": list(names), **SPLITS}))
        assert re.search(message, error_of("noise", file, *given))
    for other in ("no.pt", "data.yaml"):
        assert f"{other} is no checkpoint" in error_of("noise", other, *given)
    assert "did you mean 'imgsz'" in error_of("noise", file, *given, "imgzs=64")
    assert not Path("out").exists()


def test_visualize_draws_and_lists_the_weights_of_each_kernel(script, error_of, tmp_path, monkeypatch):
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
    monkeypatch.setattr(sys, "argv", ["visualize", "tiny.yaml", "a.png", "--imgsz", "64", "--out", "out"])
    script("visualize").main()

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

    assert "a exists; choose another --out" in error_of("visualize", "tiny.yaml", "a.png", "--out", "out")
    assert "has no layer with dynamic weights" in error_of("visualize", "yolov8n.yaml", "a.png", "--out", "b")
    assert "tiny.yaml is no picture" in error_of("visualize", "tiny.yaml", "tiny.yaml", "--out", "b")
    assert "no.pt does not exist" in error_of("visualize", "no.pt", "a.png", "--out", "b")
    assert not Path("b").exists()


def test_visualize_sees_the_weights_at_each_position(script):
    model = randomize(YOLO("yolov8n-sgdm.yaml").model).eval()
    branches = [m for m in model.modules() if isinstance(m, (SpatialBranch, ChannelBranch))]
    inputs = {}
    for branch in branches:
        branch.register_forward_pre_hook(lambda m, x: inputs.update({m: x[0]}))
    visualize = script("visualize")
    seen = visualize.watch(model)
    with torch.inference_mode():
        model(torch.rand(1, 3, 64, 96))
        wanted = {m: m(inputs[m])[0] for m in branches}
    found = visualize.mixtures(model, seen)
    assert (found[0].layer, found[0].gamma.shape) == (4, (4, 8, 12))
    for kind, part in ((SpatialBranch, "gamma"), (ChannelBranch, "alpha")):
        for mixture, values in zip(found, (y for m, y in wanted.items() if isinstance(m, kind)), strict=True):
            assert np.allclose(getattr(mixture, part).ravel(), values.ravel(), atol=1e-6)
            assert values.std() > 1e-3
