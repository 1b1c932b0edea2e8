import json
from pathlib import Path

import numpy as np
import pytest
from small_sets import make_coco, tree, write_image
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset

from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.data.coco import Source, convert_coco, convert_coco_json


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
        "000000000001.jpg: no such image; with its 2 objects",
        "000000000002.jpg: 30x40 pixels, but its annotation says 40x30; with its 1 objects",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [],\n"a', r"val2017.json:2: no JSON from column 1 on .* mend it, or export it again"),
        (b'{"images": "\xe9"}', "val2017.json: not UTF-8 .* save it as UTF-8"),
        ('{"images": [], "images": []}', "'images' is there twice in one object.; it must be an object with lists"),
        ('{"images": []}', "is no COCO instances file .KeyError: 'categories'"),
        ('{"categories": [{"id": 1, "name": null}]}', "category 1 has no name.; it must be an object"),
        ("[]", "is no COCO instances file"),
        ("[" * 100_000, "is no COCO instances file .RecursionError"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "\\ud800"}]}', "UnicodeEncodeError"),
    ],
)
def test_other_files_are_refused(sources, tmp_path, content, message):
    content = content if isinstance(content, bytes) else content.encode()
    sources["val2017"].annotations.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        convert_coco(sources, tmp_path / "coco", ROLES)
    sources["val2017"].annotations.unlink()
    with pytest.raises(ConfigError, match=r"instances_val2017.json: No such file"):
        convert_coco(sources, tmp_path / "coco", ROLES)


def write_json(folder, annotations, names=("a.jpg", "deep/b.png"), **more):
    """Write FOLDER/images and FOLDER/src.json, its ids with gaps and without what COCO has and few tools write."""
    for name in names:
        write_image(folder / "images" / name)
    content = {
        "images": [{"id": 7 * i + 3, "file_name": name} for i, name in enumerate(names)],
        "annotations": [{"image_id": 3, "category_id": 5} | a for a in annotations],
        "categories": [{"id": 5, "name": "cat"}, {"id": 2, "name": "unused"}],
    }
    (folder / "src.json").write_text(json.dumps(content | more))
    return folder / "src.json", folder / "images", folder / "dest"


def read_set(file, split="val"):
    data = check_det_dataset(str(file))
    read = YOLODataset(img_path=data[split], data=data, task="detect", augment=False).labels
    boxes = {Path(r["im_file"]).stem: r["bboxes"].tolist() for r in read}
    return boxes, json.loads((file.parent / "conversion.json").read_text())


BOX = {"bbox": [4, 3, 8, 6]}
RELATIVE = [0.2, 0.2, 0.2, 0.2]


def test_any_coco_json_is_converted(tmp_path):
    mask = np.zeros((30, 40), int)
    mask[3:9, 4:12] = 1
    flat = mask.T.ravel()
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1), len(flat)]
    runs = np.diff(edges).tolist()
    annotations = [
        BOX,
        BOX | {"image_id": 10, "category_id": 5, "iscrowd": 1},
        {"image_id": 10, "segmentation": [[4, 3, 12, 3, 12, 9], [5, 5, 6, 6, 7, 5]], "bbox": []},
        {"image_id": 10, "segmentation": {"size": [30, 40], "counts": runs}},
        {"id": 9, "bbox": [30, 20, 90, 90]},
    ]
    src, folder, dest = write_json(tmp_path, annotations)
    boxes, made = read_set(convert_coco_json(src, folder, dest))
    assert boxes["b"] == [pytest.approx(RELATIVE)]
    assert boxes["a"] == [pytest.approx(RELATIVE), pytest.approx([35 / 40, 25 / 30, 10 / 40, 10 / 30], abs=1e-6)]
    assert made["splits"]["val"]["objects_per_class"] == {"unused": 0, "cat": 3}
    assert made["splits"]["val"]["clipped"] == 1 and made["splits"]["val"]["difficult"] == 1
    (told,) = made["skipped"]["val"]
    assert told == "src.json annotation number 3: the same object again (4, 3)-(12, 9) of cat"


@pytest.mark.parametrize(
    ("annotation", "complaint"),
    [
        ({"id": 1}, "annotation 1: neither bbox nor an outline"),
        ({"id": 1, "segmentation": {"size": [30, 40], "counts": "abc"}}, "annotation 1: neither bbox nor an outline"),
        ({"id": 1, "bbox": [1, 2, 3]}, "annotation 1: not enough values"),
        ({"id": 1, "bbox": [1, 2, 3, float("nan")]}, "annotation 1: bbox [1, 2, 3, nan]"),
        ({"id": 1, "bbox": [1, 2, 3, 10**400]}, "annotation 1: int too large to convert to float"),
        ({"id": 1, "bbox": ["a", 2, 3, 4]}, "annotation 1: could not convert string"),
        (BOX | {"id": 1, "category_id": 6}, "annotation 1: no category 6"),
        (BOX | {"id": 1, "image_id": 99}, "annotation 1: no image 99 for this cat"),
        (BOX | {"id": 1, "image_id": "3"}, "annotation 1: no image '3' for this cat"),
        ({"bbox": [50, 3, 8, 6]}, "annotation number 1: box outside the image"),
        ({"bbox": [5, 3, -8, 6]}, "annotation number 1: box without area"),
    ],
)
def test_an_object_that_cannot_be_used_is_told(tmp_path, annotation, complaint):
    boxes, made = read_set(convert_coco_json(*write_json(tmp_path, [BOX, annotation])))
    (told,) = made["skipped"]["val"]
    assert told.startswith(f"src.json {complaint}") and boxes["a"] == [pytest.approx(RELATIVE)]


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        ({"id": 1, "file_name": "gone.jpg"}, "gone.jpg: no such image"),
        ({"id": 1, "file_name": "../src.json"}, "src.json image ../src.json: this name leaves the data set's folder"),
        ({"id": 1, "file_name": "/etc/a.jpg"}, "src.json image /etc/a.jpg: this name leaves the data set's folder"),
        ({"id": 1, "file_name": "a\0.jpg"}, "src.json image a\\x00.jpg: a line of a list cannot hold this name"),
        ({"id": 1, "file_name": "a\u2028.jpg"}, "src.json image a\\u2028.jpg: a line of a list cannot hold this name"),
        ({"id": 1, "file_name": "\ud800.jpg"}, "src.json image \\ud800.jpg: a line of a list cannot hold this name"),
        ({"id": 1, "file_name": "a.png"}, "src.json image a.png: there is another image of this name"),
        ({"id": 1, "file_name": "a.gif"}, "src.json image a.gif: there is another image of this name"),
        ({"id": 1, "file_name": "x.gif"}, "x.gif: Ultralytics takes no file of this name"),
        ({"id": 1}, "src.json image number 1: no file_name or id"),
        (7, "src.json image number 1: no file_name or id"),
    ],
)
def test_an_image_that_cannot_be_used_is_told(tmp_path, image, complaint):
    src, folder, dest = write_json(tmp_path, [BOX], ["a.jpg"])
    content = json.loads(src.read_text())
    content["images"].append(image)
    src.write_text(json.dumps(content))
    boxes, made = read_set(convert_coco_json(src, folder, dest))
    (told,) = made["skipped"]["val"]
    assert told.startswith(complaint) and boxes == {"a": [pytest.approx(RELATIVE)]}


def test_splits_of_a_coco_json(tmp_path):
    names = [f"{i}.jpg" for i in range(10)]
    annotations = [BOX | {"image_id": 7 * i + 3} for i in range(10)]
    src, folder, dest = write_json(tmp_path, annotations, names)
    held = read_set(convert_coco_json(src, folder, dest, val="0.3"))[0].keys()
    file = convert_coco_json(src, folder, tmp_path / "again", val=0.3, images="symlink")
    assert read_set(file)[0].keys() == held and len(held) == 3
    assert read_set(file, "train")[0].keys() == {str(i) for i in range(10)} - held
    file = convert_coco_json(src, folder, tmp_path / "pair", val=str(src), test=str(src), classes="cat")
    data = check_det_dataset(str(file))
    assert data["names"] == {0: "cat"} and Path(data["test"]).name == "test.txt"
    assert [len(read_set(file, split)[0]) for split in ("train", "val", "test")] == [10, 10, 10]
    assert check_det_dataset(str(convert_coco_json(src, folder, tmp_path / "alone")))["train"] is None
    for options, message in (
        ({"val": "1.5"}, "val=1.5: a share that is held out lies between 0 and 1"),
        ({"val": "gone.json"}, "gone.json: No such file"),
        ({"val_folder": "x"}, "val_folder=x: there is no val= whose images are there; give val=FILE.json, or leave"),
        ({"val": 0.3, "val_folder": "x"}, "val_folder=x: val=0.3 holds out images of SRC; give val=FILE.json, or"),
        ({"val": 0.3, "test_folder": "x"}, "test_folder=x: there is no test= whose images are there"),
        ({"folder": tmp_path / "gone"}, "gone: no such folder; FOLDER is where the file names"),
        ({"dest": folder / "dest"}, "lies in the source"),
    ):
        with pytest.raises(ConfigError, match=message):
            convert_coco_json(**{"src": src, "folder": folder, "dest": tmp_path / "refused"} | options)
        assert not (tmp_path / "refused").exists()


def test_fractions_of_the_picture(tmp_path):
    boxes, made = read_set(convert_coco_json(*write_json(tmp_path, [{"bbox": [0.1, 0.1, 0.2, 0.2]}])))
    assert boxes["a"] == [pytest.approx(RELATIVE)] and made["boxes"] == "fraction"


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ((1, "cat"), (5, "cat"), r"categories of one name: 'cat' \(id 1\) and 'cat' \(id 5\); give them one id"),
        ((1, "cat"), (5, " cat\n"), "categories of one name"),
        ((5, "cat"), (5, "dog"), r"categories of one id: 'cat' \(id 5\) and 'dog' \(id 5\); give them two ids"),
        ((5, "cat"), (5.0, "dog"), "categories of one id"),
        ((5, "cat"), (5, "cat"), ""),
    ],
)
def test_categories_of_one_name_or_id_are_refused(tmp_path, one, other, message):
    names = [dict(zip(("id", "name"), them, strict=True)) for them in (one, other)]
    files = write_json(tmp_path, [BOX], categories=names)
    if message:
        with pytest.raises(ConfigError, match=message):
            convert_coco_json(*files)
    else:
        assert read_set(convert_coco_json(*files))[1]["splits"]["val"]["objects_per_class"] == {"cat": 1}


def test_an_id_of_two_images_leaves_both_out(tmp_path):
    images = [{"id": i, "file_name": name} for i, name in ((3, "a.jpg"), (3, "b.jpg"), (4, "c.jpg"))]
    names = ["a.jpg", "b.jpg", "c.jpg"]
    files = write_json(tmp_path, [BOX, BOX, BOX | {"image_id": 4}], names, images=images)
    boxes, made = read_set(convert_coco_json(*files))
    assert boxes == {"c": [pytest.approx(RELATIVE)]}
    reason = "its id, 3, is another image's too; nobody knows whose an object is"
    assert made["skipped"]["val"] == [
        f"src.json image a.jpg: {reason}; with its 2 objects",
        f"src.json image b.jpg: {reason}",
    ]


def test_an_image_that_is_listed_twice_has_the_objects_of_both(tmp_path):
    images = [{"id": i, "file_name": name} for i, name in ((3, "a.jpg"), (4, "./a.jpg"), (4, "./a.jpg"), (5, "a.png"))]
    annotations = [BOX | {"id": 1}, {"id": 1, "image_id": 4, "bbox": [1, 1, 5, 5]}, BOX | {"image_id": 5}]
    boxes, made = read_set(convert_coco_json(*write_json(tmp_path, annotations, ["a.jpg"], images=images)))
    assert len(boxes["a"]) == 2
    assert made["remarks"]["val"] == [
        "src.json: ids of several annotations, each of which is taken: 1",
        *["src.json image ./a.jpg: again; its objects are added"] * 2,
    ]
    (told,) = made["skipped"]["val"]
    assert told.startswith("src.json image a.png: there is another image of this name") and "its 1 objects" in told


def test_splits_of_different_classes_are_refused(sources, tmp_path):
    make_coco(tmp_path / "src", "val2017", [[]], categories=((1, "person"), (3, "bus")))
    with pytest.raises(ConfigError, match="categories are not those of the other splits"):
        convert_coco(sources, tmp_path / "coco", ROLES)
