import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from helpers import save_detector
from torch import nn
from ultralytics import YOLO
from ultralytics.data.utils import check_det_dataset
from ultralytics.models.yolo.detect import DetectionValidator

from ultralytics_sgdm.data import make_shapes
from ultralytics_sgdm.evidence import noise, records

pytestmark = pytest.mark.slow

SPLITS = {"train": "images/train", "val": "images/val"}


def read(file):
    """Return the rows of a CSV file."""
    with Path(file).open() as f:
        return list(csv.DictReader(f))


def spectrum(noise):
    """Return a function that gives the share of the noise's power between two frequencies, cycles per pixel."""
    power = (np.abs(np.fft.fft2(noise, axes=(0, 1))) ** 2).mean(2)
    f = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in noise.shape[:2]), indexing="ij"))
    return lambda low, high: power[(low <= f) & (f < high)].sum() / power.sum()


def test_highpass_noise_is_what_the_docstring_says():
    grey = np.full((384, 256, 3), 128, np.uint8)
    high, white = (f(grey, 8, np.random.default_rng(0)) - 128.0 for f in (noise.highpass_noise, noise.gaussian_noise))
    assert high.std() == pytest.approx(8, rel=0.005)
    assert white.std() == pytest.approx(8, rel=0.01)
    assert spectrum(white)(0, 0.1) == pytest.approx(np.pi * 0.1**2, rel=0.1)
    assert spectrum(high)(0, 0.1) < 0.002
    passed = [spectrum(high)(f - 0.01, f + 0.01) / spectrum(white)(f - 0.01, f + 0.01) for f in (0.25, 0.6)]
    assert passed[0] / passed[1] == pytest.approx(0.5, abs=0.03)  # -3 dB
    assert abs(np.corrcoef(high[..., 0].ravel(), high[..., 1].ravel())[0, 1]) < 0.02


def test_noise_depends_on_the_file_and_the_seed_alone():
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    before = image.copy()

    def picture(file="a/1.jpg", seed=0):
        return noise.Corrupt("highpass", 16, seed)({"img": image, "im_file": file, "cls": 1})["img"]

    assert np.array_equal(picture(), picture("elsewhere/1.jpg"))
    assert not np.array_equal(picture(), picture("a/2.jpg"))
    assert not np.array_equal(picture(), picture(seed=1))
    assert np.array_equal(image, before)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_corruption_grows_with_its_strength(channels):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, channels), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 1).reshape(image.shape)
    for corruption in noise.CORRUPTIONS.values():
        pictures = [corruption.apply(image, s, np.random.default_rng(0)) for s in corruption.strengths]
        assert all(p.shape == image.shape and p.dtype == image.dtype for p in pictures)
        errors = [np.abs(p.astype(float) - image).mean() for p in pictures]
        assert errors[0] > 0
        assert errors == sorted(errors)


def test_pictures_are_corrupted_after_resizing_and_before_padding(tmp_path):
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


def test_noise_measures_pairs_and_keeps_what_is_done(mistake, command, tmp_path, monkeypatch):
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
    given = (*settings, "gaussian=none", "jpeg=none", "highpass=2000", "blur=8", "out=out")
    status, printed, error = command("sgdm", "noise", *files, *given)
    assert status == 0, error
    rows = read("out/results.csv")
    conditions = [("clean", ""), ("highpass", "2000"), ("blur", "8")]
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

    record = json.loads(Path("out/dots-0.json").read_text())
    assert {"versions", "commit", "machine", "date", "command"} <= record.keys()
    assert record["command"].startswith("yolo sgdm noise")

    kept = {file: file.stat().st_mtime_ns for file in Path("out").glob("*.json")}
    assert command("sgdm", "noise", *files, *given)[0] == 0
    assert {file: file.stat().st_mtime_ns for file in Path("out").glob("*.json")} == kept
    assert "made with noise_seed 0, not 1; choose another" in mistake("noise", *files, *given, "noise_seed=1")
    with records.claimed(Path("out"), "out="):
        assert "out=out is in use by another process" in mistake("noise", *files, *given)
    original = Path("out/dots-0.json").read_text()
    for text, message in (
        ("{", "cannot be read as a record"),
        ("3", "is no record of this command"),
        ('{"noise_seed": 0}', "is no record of this command"),
        (original.replace('"mAP50": 9', '"mAP50": 8'), "was changed after it was written"),
        (Path("out/dots-1.json").read_text(), "dots-0.json is the record of dots-1"),
    ):
        Path("out/dots-0.json").write_text(text)
        assert message in mistake("noise", *files, *given)
    Path("out/dots-0.json").write_text(original)
    label = Path("labels/val/0.txt")
    boxes = label.read_text()
    label.write_text("0 0.5 0.5 0.125 0.125")
    assert "was made with another data" in mistake("noise", *files, *given)
    label.write_text(boxes)
    Path("cut.pt").write_bytes(Path(files[0]).read_bytes()[:1000])
    assert "cut.pt is no whole checkpoint" in mistake("noise", "cut.pt", *given)
    assert "labels holds something else" in mistake("noise", *files, *given[:-1], "out=labels")
    assert "are both dots trained with seed 0" in mistake("noise", *files, files[0], *given)
    save_detector_of_dots("blind", 0, 0)
    assert "blind-0.json is of another training" in mistake("noise", *files, *given)


def test_noise_names_what_does_not_fit(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_shapes(tmp_path, train=1, val=1, size=64)
    file, given = save_detector("yolov8n.yaml", tmp_path), ("data=data.yaml", "imgsz=64", "out=out")
    for names, message in (("01", "detects 3 classes, data.yaml has 2"), ("0a2", "class 1 of .* is '1', of .* 'a'")):
        Path("data.yaml").write_text(yaml.safe_dump({"path": str(tmp_path), "names": list(names), **SPLITS}))
        assert re.search(message, mistake("noise", file, *given))
    for other in ("no.pt", "data.yaml"):
        assert f"{other} is no checkpoint" in mistake("noise", other, *given)
    assert "did you mean 'imgsz'" in mistake("noise", file, *given, "imgzs=64")
    for split in ("foo", "test"):
        assert f"split={split}: data.yaml has train, val" in mistake("noise", file, *given, f"split={split}")
    for batch in (-1, 0, 0.5):
        assert f"batch={batch} must be 1 or more" in mistake("noise", file, *given, f"batch={batch}")
    assert not Path("out").exists()
