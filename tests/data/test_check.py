import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from small_datasets import an_object, loaded, make_voc, tree, write_image

from ultralytics_sgdm.data import check, check_set, convert_voc
from ultralytics_sgdm.errors import ConfigError

GOOD = "0 0.5 0.5 0.2 0.2\n"
# A label and what is said of it: None where training takes it without a word.
LABELS = {
    "good": (GOOD, None),
    "bom": ("\ufeff" + GOOD, None),
    "tolerated": ("0 1.005 0.5 0.01 0.2\n", None),
    "empty": ("\n", "label empty"),
    "missing": (None, "label missing"),
    "sticks_out": ("0 0.95 0.5 0.2 0.2\n", "doubtful boxes"),
    "no_area": ("0 0.5 0.5 0 0.2\n", "doubtful boxes"),
    "twice": (GOOD * 2, "doubtful boxes"),
    "words": ("cat 0.5 0.5 0.2 0.2\n", "left out"),
    "columns": ("0 0.5 0.5 0.2\n", "left out"),
    "pixels": ("0 20 15 8 6\n", "left out"),
    "negative": ("0 -0.5 0.5 0.2 0.2\n", "left out"),
    "class": ("2 0.5 0.5 0.2 0.2\n", "left out"),
    "half_a_class": ("0.5 0.5 0.5 0.2 0.2\n", "left out"),
    "nan": ("0 nan 0.5 0.2 0.2\n", "left out"),
    "latin1": (b"0 0.5 0.5 0.2 0.2 \xe9\n", "left out"),
    "oriented": ("1 0.1 0.2 0.2 0.1 0.3 0.2 0.2 0.3\n", None),
}
POSES = {
    "good": (f"{GOOD.strip()} 0.4 0.4 2 0.6 0.6 0\n", None),
    "box": (GOOD, "left out"),
    "mixed": (f"{GOOD}{GOOD.strip()} 0.4 0.4 2 0.6 0.6 0\n", "left out"),
    "negative": (f"{GOOD.strip()} 0.4 -0.4 2 0.6 0.6 0\n", "left out"),
    "twice": (f"{GOOD.strip()} 0.4 0.4 2 0.6 0.6 0\n" * 2, "doubtful boxes"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        write_image(tmp_path / f"set/images/{split}/{split}.jpg")
        (tmp_path / f"set/labels/{split}").mkdir(parents=True)
        (tmp_path / f"set/labels/{split}/{split}.txt").write_text(GOOD)
    content = {"path": str(tmp_path / "set"), "train": "images/train", "val": "images/val", "names": ["cat", "dog"]}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "set"


def add(folder, split, name, label=GOOD):
    write_image(folder / f"images/{split}/{name}.png")
    if label is not None:
        (folder / f"labels/{split}/{name}.txt").write_bytes(label if isinstance(label, bytes) else label.encode())


@pytest.mark.parametrize("task", ["detect", "pose"])
def test_what_is_left_out_is_what_ultralytics_leaves_out(folder, task):
    wanted = dict(LABELS if task == "detect" else POSES)
    data = {"names": {0: "cat", 1: "dog"}, "train": str(folder / "images/train")}
    (folder / "labels/train/train.txt").unlink()
    if task == "pose":
        data["kpt_shape"] = [2, 3]
        Path("own.yaml").write_text(Path("own.yaml").read_text() + "kpt_shape: [2, 3]\n")
    for name, (label, _) in wanted.items():
        add(folder, "train", name, label)
    for name, cut in (("cut", slice(300)), ("padded", slice(None))):
        content = (folder / "images/train/train.jpg").read_bytes() + bytes(9)
        (folder / f"images/train/{name}.jpg").write_bytes(content[cut])
    wanted |= {"cut": (None, "left out"), "padded": (None, "label missing"), "train": (None, "label missing")}
    (folder / "labels/train/lonely.txt").write_text(GOOD)
    before = tree(folder)
    said = check_set("own.yaml", near=0)["splits"]["train"]
    assert tree(folder) == before and said["label without image"] == ["lonely.txt"]
    taken = {Path(r["im_file"]).stem: len(r["cls"]) for r in loaded(data, task=task)}
    assert said["images"] == len(taken) and said["objects"] == sum(taken.values())
    older = {name for name in wanted if (name in taken) == (wanted[name][1] == "left out")}  # differ between versions
    assert older <= {"bom", "half_a_class"}
    for kind in ("left out", "label missing", "label empty", "doubtful boxes"):
        names = {line.partition(".")[0] for line in said[kind]}
        assert names - older == {n for n, (_, k) in wanted.items() if k == kind} - older
    if task == "detect":
        assert {
            "class.png: class.txt: Label class 2 exceeds dataset class count 2. Possible class labels are 0-1",
            "no_area.txt: box without area: 0 0.5 0.5 0 0.2",
            "sticks_out.txt: box sticks out of the image: 0 0.95 0.5 0.2 0.2",
        } <= {*said["left out"], *said["doubtful boxes"]}


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_that_is_not_there_is_named_and_the_rest_is_checked(folder, split, caplog):
    """As every Roboflow export without a test split; its paths begin with ../ and mean folders beside the YAML."""
    content = {split: f"../{split}/images", "train": "../images/train", "names": ["cat", "dog"]}
    (folder / "data.yaml").write_text(yaml.safe_dump({"val": "../images/val"} | content))
    said = check_set(str(folder / "data.yaml"))
    assert [*said["splits"]] == (["train", "val"] if split == "test" else ["train"])
    assert f"{split}: not checked: " in caplog.text and f"/{split}/images" in caplog.text
    assert said["splits"]["train"]["objects"] == 1
    (folder / "data.yaml").write_text(yaml.safe_dump(content | {"train": "gone", "val": "../images/val"}))
    with pytest.raises(ConfigError, match=r"train: not checked: .*gone"):
        check_set(str(folder / "data.yaml"))


def test_duplicates_between_splits(folder, caplog):
    pixels = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8), (0, 0), 9)
    pixels = cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX)
    cv2.imwrite(str(folder / "images/train/a.jpg"), pixels)
    cv2.imwrite(str(folder / "images/val/b.jpg"), cv2.resize(pixels, (100, 75)), [cv2.IMWRITE_JPEG_QUALITY, 60])
    shutil.copy(folder / "images/train/train.jpg", folder / "images/val/copy.jpg")
    shutil.copy(folder / "images/train/a.jpg", folder / "images/train/again.jpg")
    said = check_set("own.yaml")
    assert said["duplicates"] == ["train: a.jpg, again.jpg", "train and val: train.jpg, copy.jpg"]
    near = [line.partition(" differ")[0] for line in said["near duplicates"]]
    assert near == ["train a.jpg and val b.jpg", "train again.jpg and val b.jpg"]
    assert "near duplicates: 2" in caplog.text
    assert check_set("own.yaml", near=0)["near duplicates"] is None
    with pytest.raises(ConfigError, match="images left out: 0; images in several splits: 1"):
        check_set("own.yaml", strict=True)
    Path("own.yaml").write_text(Path("own.yaml").read_text() + "test: [images/val]\n")
    assert check_set("own.yaml")["duplicates"] == said["duplicates"]
    assert "test: not checked, it names the images of val:" in caplog.text


def test_what_is_not_looked_for_has_no_number(folder, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    said = check_set("own.yaml")
    assert said["near duplicates"] is said["near duplicate pairs"] is None
    assert "near duplicates: not looked for (in the clone, pip install '.[check]')" in caplog.text


def test_one_split_has_no_near_duplicates_and_one_label_of_two_images_is_doubtful(folder, caplog):
    content = {"train": "images/train", "val": "gone", "names": ["cat", "dog"]}
    (folder / "alone.yaml").write_text(yaml.safe_dump(content))
    shutil.copy(folder / "images/train/train.jpg", folder / "images/train/train.png")
    said = check_set(str(folder / "alone.yaml"))
    assert said["splits"]["train"]["doubtful boxes"] == ["train.txt: the label of train.jpg and train.png; rename one"]
    assert said["near duplicates"] is None and "near duplicates: not looked for (only one split)" in caplog.text


def test_near_duplicates_are_those_of_every_pair(monkeypatch):
    """Hashes of 8 bits are alike often."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(check, "MOST_PAIRS", 20)
    found = {
        split: [check._File(Path(f"{split}{i}"), str(i), digest=f"{i % 9}", hash=int(h)) for i, h in enumerate(hashes)]
        for split, hashes in (("train", rng.integers(0, 256, 90)), ("val", rng.integers(0, 256, 70)))
    }
    pairs = [(a, b) for a in found["train"] for b in found["val"] if a.digest != b.digest]
    wanted = [f"train {a.name} and val {b.name}" for a, b in pairs if bin(a.hash ^ b.hash).count("1") <= 2]
    number, lines = check._find_near_duplicates(found, 2)
    assert number == len(wanted) > 100 and [line.partition(" differ")[0] for line in lines] == wanted[:20]


def test_classes_and_sizes(folder, caplog):
    """At imgsz=640 an image of 40 x 30 is 16 times as large: a box of 0.2 is 128 x 96 pixels."""
    add(folder, "train", "small", "0 0.5 0.5 0.02 0.02\n")
    said = check_set("own.yaml")["splits"]["train"]
    assert said["objects_per_class"] == {"cat": 2, "dog": 0} and "below the stride" in caplog.text
    assert said["sizes"] == {"small": 1, "medium": 0, "large": 1, "below the stride": 0}
    said = check_set("own.yaml", imgsz=64)["splits"]["train"]
    assert said["sizes"] == {"small": 2, "medium": 0, "large": 0, "below the stride": 1}


def test_the_contact_sheet_has_a_row_per_class(folder):
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[10:20, 10:30] = (0, 200, 0)
    cv2.imwrite(str(folder / "images/val/green.png"), pixels)
    (folder / "labels/val/green.txt").write_text("1 0.25 0.25 0.25 0.166667\n")
    check_set("own.yaml", sheet="sheet.png")
    check_set("own.yaml")
    assert sorted(p.name for p in Path().glob("*.png")) == ["own-check.png", "sheet.png"]
    sheet = np.asarray(Image.open("sheet.png"))
    assert sheet.shape[0] == 2 * check.TILE
    row = sheet[check.TILE :, -check.SAMPLES * check.TILE :]
    centre = row[check.TILE // 2, check.TILE // 2]
    assert centre.tolist() == [0, 200, 0] and (row[:, check.TILE :] == 255).all()


def test_a_converted_dataset_has_no_findings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    src = make_voc(tmp_path / "src", train={"a": [an_object()], "images/b": [an_object("dog")]}, val={"c": []})
    said = check_set(str(convert_voc(src, tmp_path / "dest")), strict=True)
    assert said["splits"]["train"]["objects_per_class"] == {"cat": 1, "dog": 1}
    kinds = ("left out", "label missing", "doubtful boxes", "label without image")
    assert not any(s[kind] for s in said["splits"].values() for kind in kinds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "gone.yaml"}, r"data=gone.yaml: .*gone.yaml"),
        ({"data": "empty.yaml"}, r"data=empty.yaml: no images, neither train"),
        ({"imgsz": 0}, "imgsz=0 must be at least 1"),
        ({"near": 99}, r"near=99 from 0 to 64"),
        ({"sheet": "own.png"}, "sheet=own.png must be a new .png or .jpg"),
        ({"sheet": "gone/a.png"}, r"sheet=gone/a.png must be .* in a folder that you may write to"),
    ],
)
def test_wrong_arguments(folder, options, message):
    write_image(Path("own.png"))
    Path("empty.yaml").write_text("train:\nval:\nnames: [a]\n")
    with pytest.raises(ConfigError, match=message):
        check_set(**{"data": "own.yaml"} | options)
