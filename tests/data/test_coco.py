import json

import pytest
from small_sets import make_coco, tree, write_image
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset

from ultralytics_sgdm.configs import ConfigError
from ultralytics_sgdm.data.coco import Source, convert_coco
from ultralytics_sgdm.data.layout import Expected

ROLES = {"train": "train2017", "val": "val2017"}


@pytest.fixture
def sources(tmp_path):
    src = tmp_path / "src"
    make_coco(src, "train2017", [[(3, [4, 3, 8, 6], 0), (1, [0, 0, 40, 30], 1)], [(1, [-2, 0, 12, 9], 0)], []])
    make_coco(src, "val2017", [[(1, [10, 10, 0, 5], 0), (1, [1, 1, 2, 3], 0), (1, [1, 1, 2, 3], 0)]])
    return {s: Source(src / f"annotations/instances_{s}.json", src / s) for s in ROLES.values()}


def test_a_set_is_what_ultralytics_reads(sources, tmp_path):
    before = tree(tmp_path / "src")
    expected = {"train2017": Expected(3, 3, 2), "val2017": Expected(1, 3)}
    dest = tmp_path / "coco"
    file = convert_coco(sources, dest, ROLES, expected=expected)
    data = check_det_dataset(str(file))
    assert data["names"] == {0: "person", 1: "car"} and data["val"].endswith("/coco/val2017.txt")
    labels = [p.read_text() for p in sorted((dest / "labels/train2017").iterdir())]
    assert labels == ["1 0.200000 0.200000 0.200000 0.200000\n", "0 0.125000 0.150000 0.250000 0.300000\n", ""]
    read = YOLODataset(img_path=data["val"], data=data, task="detect", augment=False).labels
    assert [r["bboxes"].tolist() for r in read] == [[pytest.approx([2 / 40, 2.5 / 30, 2 / 40, 3 / 30], abs=1e-6)]]
    assert json.loads((dest / "conversion.json").read_text())["skipped"]["val2017"] == [
        "instances_val2017.json annotation 100: box without area (10, 10)-(10, 15) of person",
        "instances_val2017.json annotation 102: the same object again (1, 1)-(3, 4) of person",
    ]
    made = tree(dest)
    convert_coco(sources, dest, ROLES, expected=expected)
    made.pop("labels/val2017.cache", None)
    assert {k: v for k, v in tree(dest).items() if not k.endswith(".cache")} == made
    assert tree(tmp_path / "src") == before


def test_bad_images_are_skipped(sources, tmp_path):
    folder = sources["train2017"].images
    (folder / "000000000001.jpg").unlink()
    write_image(folder / "000000000002.jpg", 30, 40)
    convert_coco(sources, tmp_path / "coco", ROLES)
    skipped = json.loads((tmp_path / "coco/conversion.json").read_text())["skipped"]["train2017"]
    assert skipped == [
        "000000000001.jpg: no such image",
        "000000000002.jpg: 30x40 pixels, but its annotation says 40x30",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no COCO instances file .JSONDecodeError"),
        ('{"images": []}', "is no COCO instances file .KeyError: 'categories'"),
        ("[]", "is no COCO instances file"),
    ],
)
def test_other_files_are_refused(sources, tmp_path, content, message):
    sources["val2017"].annotations.write_text(content)
    with pytest.raises(ConfigError, match=message):
        convert_coco(sources, tmp_path / "coco", ROLES)
    sources["val2017"].annotations.unlink()
    with pytest.raises(ConfigError, match=r"instances_val2017.json: No such file"):
        convert_coco(sources, tmp_path / "coco", ROLES)


def test_splits_of_different_classes_are_refused(sources, tmp_path):
    make_coco(tmp_path / "src", "val2017", [[]], categories=((1, "person"), (3, "bus")))
    with pytest.raises(ConfigError, match="categories are not those of the other splits"):
        convert_coco(sources, tmp_path / "coco", ROLES)
