import json
import re
import shutil
import sys
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

from ultralytics_sgdm.evidence import noise

pytestmark = pytest.mark.slow

pytest.importorskip("scipy")
pandas = pytest.importorskip("pandas")
KEYS = ["corruption", "strength", "model"]  # of a row of a summary


def test_highpass_noise_is_what_the_docstring_says():
    grey = np.full((384, 256, 3), 128, np.uint8)
    high, white = (noise.corrupt(grey, kind, 8, np.random.default_rng(0)) - 128.0 for kind in ("highpass", "gaussian"))
    assert high.std() == pytest.approx(8, rel=0.005) and white.std() == pytest.approx(8, rel=0.01)
    assert abs(np.corrcoef(high[..., 0].ravel(), high[..., 1].ravel())[0, 1]) < 0.02
    gain = [(np.abs(np.fft.fft2(values, axes=(0, 1))) ** 2).mean(2) for values in (high, white)]
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(384), np.fft.fftfreq(256), indexing="ij"))  # cycles per pixel
    low, middle, most = (np.divide(*(g[abs(f - at) < 0.01].sum() for g in gain)) for at in (0.01, 0.25, 0.6))
    assert low < 0.01 and middle / most == pytest.approx(0.5, abs=0.03)  # -3 dB


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("corruption", "strengths"), [("highpass", (4, 8)), ("gaussian", (4, 8)), ("jpeg", (50, 10)), ("blur", (0.5, 2))]
)
def test_each_corruption_grows_with_its_strength(corruption, strengths, channels):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, channels), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 1).reshape(image.shape)
    images = [noise.corrupt(image, corruption, s, np.random.default_rng(0)) for s in strengths]
    assert all(i.shape == image.shape and i.dtype == image.dtype for i in images)
    errors = [np.abs(i.astype(float) - image).mean() for i in images]
    assert 0 < errors[0] < errors[1]


def test_images_are_corrupted_between_resizing_and_padding_by_the_file_alone(project):
    def read_image(validator, i=0):
        v = validator(args={"data": "data.yaml", "imgsz": 64, "rect": True}, save_dir=project)
        v.data, v.stride = check_det_dataset("data.yaml"), 32
        return v.build_dataset(v.data["val"], batch=1)[i]["img"].numpy().astype(int)

    corrupting = noise.corrupting(DetectionValidator, "gaussian", 40)
    clean, changed = read_image(DetectionValidator), read_image(corrupting)
    where = (clean != changed).any(0)
    assert where.shape == (96, 96) and where[16:80, 16:80].mean() > 0.9
    assert where.sum() == where[16:80, 16:80].sum()
    assert np.array_equal(changed, read_image(corrupting))
    assert not np.array_equal(changed - clean, read_image(corrupting, 1) - read_image(DetectionValidator, 1))


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


def test_noise_measures_pairs(mistake, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("images/train", "images/val", "labels/val"):
        Path(folder).mkdir(parents=True)
    for i, brightness in enumerate((250, 60, 150, 20)):
        image = np.zeros((64, 64, 3), np.uint8)
        image[8 * i : 8 * i + 8, 16:24] = brightness
        cv2.imwrite(f"images/val/{i}.png", image)
        Path(f"labels/val/{i}.txt").write_text(f"0 {20 / 64} {(8 * i + 4) / 64} 0.125 0.125")
    splits = {"train": "images/train", "val": "images/val"}
    Path("data.yaml").write_text(yaml.safe_dump({"path": str(tmp_path), "names": ["0"], **splits}))
    files = [save_detector_of_dots(*model) for model in (("dots", 0, 1), ("dots", 1, 1), ("blind", 0, 0))]
    settings = ("data=data.yaml", "imgsz=64", "rect=False", "workers=0", "device=cpu")
    given = (*settings, "gaussian=none", "jpeg=none", "highpass=2000", "blur=8")
    status, printed, error = command("sgdm", "noise", *files, *given, "out=out")
    assert status == 0, error
    found = {file.stem: json.loads(file.read_text()) for file in Path("out").glob("*.json")}
    assert found.keys() == {"blind-0", "dots-0", "dots-1"}
    rows = found["dots-0"]["rows"]
    assert [(r["corruption"], r["strength"]) for r in rows] == [("clean", None), ("highpass", 2000), ("blur", 8)]
    clean, loud, blurred = (r["mAP50-95"] for r in rows)
    assert clean > 99 and loud < 20 and 10 < blurred < 90
    assert rows == found["dots-1"]["rows"]  # same weights, same noise
    summary = pandas.read_csv("out/summary.csv").set_index(KEYS).sort_index().loc["highpass", 2000]
    reference, blind = summary.loc["dots"], summary.loc["blind"]
    assert (reference["seeds"], blind["seeds"]) == ("0 1", "0") and np.isnan(blind["difference +-"])
    assert reference["loss"] == pytest.approx(clean - loud, abs=0.002)
    assert reference["loss std"] == blind["loss"] == 0 and np.isnan(reference["difference"])
    assert blind["difference"] == -reference["loss"]
    assert re.match(r" *blur +8.0+ +blind ", printed.splitlines()[-1]) and not Path("runs").exists()
    assert found["dots-0"]["command"].startswith("yolo sgdm noise") and found["dots-0"]["versions"]

    assert "out=out holds something already" in mistake("noise", *files, *given, "out=out")
    Path("cut.pt").write_bytes(Path(files[0]).read_bytes()[:1000])
    assert "cut.pt cannot be loaded" in mistake("noise", "cut.pt", *given, "out=new")
    twice = "each checkpoint must be of another model or seed"
    assert twice in mistake("noise", *files, files[0], *given, "out=new")
    assert not Path("new").exists()


def test_the_summary_of_records_of_0_2_0_is_made_anew():
    root = Path(__file__).parents[2] / "results/noise-animals"
    if not root.is_dir():
        pytest.skip("an sdist holds no results")
    found = [json.loads(file.read_text()) for file in sorted(root.glob("*.json"))]
    both = noise.summarize(found), pandas.read_csv(root / "summary.csv")
    ours, theirs = (table.dropna(subset="strength").set_index(KEYS).sort_index() for table in both)
    theirs.loc[(slice(None), slice(None), "yolov8n"), ["difference", "difference +-"]] = np.nan  # 0 in 0.2.0
    pandas.testing.assert_frame_equal(ours, theirs, rtol=0, atol=0.0011)


def test_noise_names_what_does_not_fit(mistake, project):
    file, given = save_detector("yolov8n.yaml", project), ("imgsz=64", "out=out")
    spec = yaml.safe_load(Path("data.yaml").read_text())
    Path("data.yaml").write_text(yaml.safe_dump({**spec, "names": list("0a2"), "test": "images/nowhere"}))
    for arguments, message in (
        ((file,), "must be a checkpoint that is trained to find ['0', 'a', '2']"),
        (("yolov8n.yaml",), "must be a checkpoint that is trained to find ['0', 'a', '2']"),
        (("no.pt",), "no.pt cannot be loaded: "),
        ((file, "imgzs=64"), "imgsz"),
        ((file, "split=test"), "data=data.yaml, split=test: there are no images"),
        ((file, "blur=0"), "strengths must be above 0"),
    ):
        assert message in mistake("noise", *arguments, "data=data.yaml", *given)
    assert not Path("out").exists()


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_nothing_in_a_checkpoint_is_executed_under_safe_load(yolo, shell, project):
    torch.save({"model": Evil(), "epoch": 0, "train_args": {"epochs": 3}}, "evil.pt")
    arguments = ("sgdm", "noise", "evil.pt", "data=data.yaml", "imgsz=64", "out=out")
    assert "evil.pt cannot be loaded" in yolo(*arguments, cwd=project, status=2, ULTRALYTICS_SAFE_LOAD="1")
    script = (
        "from pathlib import Path\nfrom ultralytics_sgdm.evidence.train import Task, train\n"
        "recipe = {'data': 'data.yaml', 'epochs': 1, 'imgsz': 64, 'batch': 2, 'workers': 0, 'device': 'cpu'}\n"
        "train(Task('tiny-0', 'tiny', 'tiny.yaml', 0, None, recipe, False, [], 'run', {}), Path('run').resolve())\n"
    )
    Path("run/weights").mkdir(parents=True)
    shutil.copy("evil.pt", "run/weights/last.pt")
    shell(sys.executable, "-c", script, cwd=project, ULTRALYTICS_SAFE_LOAD="1")
    assert not Path("executed").exists()
    torch.load("evil.pt", weights_only=False)  # it would have been
    assert Path("executed").exists()
