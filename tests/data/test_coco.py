import json
from pathlib import Path

import pytest
from small_datasets import labels, loaded, make_coco, record, tree, write_image
from ultralytics.data.utils import check_det_dataset

from ultralytics_sgdm.data import convert_coco_json
from ultralytics_sgdm.data.coco import convert_coco
from ultralytics_sgdm.errors import ConfigError

BOX = {"bbox": [4, 3, 8, 6]}
RELATIVE = [0.2, 0.2, 0.2, 0.2]
OPTIONS = {"classes": None, "share": 0, "images": "hardlink", "strict": False}


@pytest.fixture
def sources(tmp_path):
    src = tmp_path / "src"
    make_coco(src, "train2017", [[(3, [4, 3, 8, 6], 0), (1, [0, 0, 40, 30], 1)], [(1, [-2, 0, 12, 9], 0)], []])
    make_coco(src, "val2017", [[(1, [10, 10, 0, 5], 0), (1, [1, 1, 2, 3], 0), (1, [1, 1, 2, 3], 0)]])
    return {s: (src / f"annotations/instances_{s}.json", src / s) for s in ("train2017", "val2017")}


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


def read_dataset(file, split="val"):
    data = check_det_dataset(str(file))
    read = loaded(data, split)
    return {Path(r["im_file"]).stem: r["bboxes"].tolist() for r in read}, record(file.parent)


def test_a_dataset_is_what_ultralytics_reads(sources, tmp_path):
    before, dest = tree(tmp_path / "src"), tmp_path / "coco"
    published = {"train2017": {"images": 3, "not_difficult": 2}, "val2017": {"annotated": 3}}
    data = check_det_dataset(str(convert_coco(sources, dest, OPTIONS | {"published": published})))
    assert data["names"] == {0: "person", 1: "car"} and data["val"].endswith("/coco/val2017.txt")
    written = [p.read_text() for p in sorted((dest / "labels/train2017").iterdir())]
    assert written == ["1 0.200000 0.200000 0.200000 0.200000\n", "0 0.125000 0.150000 0.250000 0.300000\n", ""]
    read = loaded(data, "val")
    assert [r["bboxes"].tolist() for r in read] == [[pytest.approx([2 / 40, 2.5 / 30, 2 / 40, 3 / 30], abs=1e-6)]]
    assert record(dest)["skipped"]["val2017"] == [
        f"instances_val2017.json image 000000000001.jpg: annotation {reason} of person"
        for reason in ("100: box without area (10, 10)-(10, 15)", "102: the same object again (1, 1)-(3, 4)")
    ]
    assert tree(tmp_path / "src") == before
    with pytest.raises(ConfigError, match=r"train2017 has .'images': 3}, published are .'images': 4.*incomplete"):
        convert_coco(sources, tmp_path / "other", OPTIONS | {"published": {"train2017": {"images": 4}}})
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [],\n"a', "Unterminated string .*line 2 column 1"),
        (b'{"images": "\xe9"}', "'utf-8' codec can't decode byte 0xe9"),
        (b'{"images": []}', "no key 'categories'"),
        (b'{"categories": [{"id": 1, "name": null}]}', "each category needs an id and a name of its own"),
        (b"[" * 100_000, "maximum recursion depth exceeded"),
    ],
)
def test_other_files_are_refused(sources, tmp_path, content, message):
    sources["val2017"][0].write_bytes(content)
    with pytest.raises(ConfigError, match=f"val2017.json cannot be read as a COCO instances file: {message}"):
        convert_coco(sources, tmp_path / "coco", OPTIONS)


def test_any_coco_json_is_converted(tmp_path):
    annotations = [
        BOX,
        BOX | {"image_id": 10, "category_id": 5, "iscrowd": 1},
        {"image_id": 10, "segmentation": [[4, 3, 12, 3, 12, 9], [5, 5, 6, 6, 7, 5]], "bbox": []},
        {"image_id": 10, "segmentation": [[4, 3, 12, 3, 12, 9]], "bbox": [0, 0, 0, 0], "attributes": {"rotation": 9}},
        {"id": 9, "bbox": [30, 20, 90, 90]},
        {"bbox": [4, 3, 12, 9], "bbox_mode": 0, "image_id": 10, "category_id": 2},
        {"bbox": [4, 3, 8, 6], "bbox_mode": "BoxMode.XYWH_ABS", "image_id": 10, "category_id": 2},
    ]
    boxes, made = read_dataset(convert_coco_json(*write_json(tmp_path, annotations)))
    assert boxes["b"] == [pytest.approx(RELATIVE)] * 2
    assert boxes["a"] == [pytest.approx(RELATIVE), pytest.approx([35 / 40, 25 / 30, 10 / 40, 10 / 30], abs=1e-6)]
    assert made["splits"]["val"]["objects_per_class"] == {"unused": 1, "cat": 3}
    assert made["splits"]["val"]["clipped"] == 1 and made["splits"]["val"]["difficult"] == 1
    assert made["skipped"]["val"] == [
        f"src.json image deep/b.png: annotation number {n}: the same object again (4, 3)-(12, 9) of {name}"
        for n, name in ((3, "cat"), (6, "unused"))
    ]


def test_the_label_of_a_rotated_box_is_the_upright_box_around_it(tmp_path):
    """16 x 8 pixels about (20, 15); one about (2, 15), which sticks out when it is turned by 45 degrees."""
    turns = [([12, 11, 16, 8], 90), ([12, 11, 16, 8], 390), ([12, 11, 16, 8], 0), ([-6, 11, 16, 8], 45.0)]
    boxes = [{"bbox": box, "attributes": {"rotation": angle, "occluded": False}} for box, angle in turns]
    found, made = read_dataset(convert_coco_json(*write_json(tmp_path, boxes, ["a.jpg"])))
    half = 12 / 2**0.5
    sizes = [(8, 16), (16 * 3**0.5 / 2 + 4, 8 + 4 * 3**0.5), (16, 8)]
    wanted = [[0.5, 0.5, w / 40, h / 30] for w, h in sizes] + [[(2 + half) / 80, 0.5, (2 + half) / 40, half / 15]]
    assert found["a"] == [pytest.approx(row, abs=1e-5) for row in wanted]
    assert made["splits"]["val"]["clipped"] == 1 and made["splits"]["val"]["rotated"] == 3


OBJECTS = [
    ({"id": 1}, "annotation 1: neither bbox nor polygons"),
    ({"id": 1, "bbox": [1, 2, 3]}, "annotation 1: not enough values to unpack (expected 4, got 3)"),
    (BOX | {"id": 1, "bbox_mode": 4}, "annotation 1: bbox_mode 4 is not read, only XYXY_ABS and XYWH_ABS"),
    ({"id": 1, "bbox": [1, 2, 3, 10**400]}, "annotation 1: int too large to convert to float"),
    ({"id": 1, "bbox": ["a", 2, 3, 4]}, "annotation 1: could not convert string"),
    (BOX | {"id": 1, "category_id": 6}, "annotation 1: no category 6"),
    (BOX | {"id": 1, "image_id": 99}, "annotation 1: no image 99 for this cat"),
    ({"bbox": [50, 3, 8, 6]}, "image a.jpg: annotation number 1: box outside the image"),
]
IMAGES = [
    ({"id": 1, "file_name": "gone.jpg"}, "image gone.jpg: no such image"),
    ({"id": 1, "file_name": "../src.json"}, "image ../src.json: this name leaves the folder"),
    ({"id": 1, "file_name": "\ud800\0.jpg"}, "image \\ud800\\x00.jpg: no such image"),
    ({"id": 1, "file_name": f"{'x' * 300}.jpg"}, f"image {'x' * 100}...: [Errno 36] File name too long"),
    ({"id": 1, "file_name": "a.png"}, "image a.png: there is another image of this name"),
    ({"id": 1, "file_name": "x.gif"}, "image x.gif: Ultralytics takes no file of this name"),
    (7, "image number 1: of a wrong type: 'int' object is not subscriptable"),
]


@pytest.mark.parametrize(
    ("annotations", "images", "reason"),
    [
        *(([annotation], [], reason) for annotation, reason in OBJECTS),
        *(([], [image], reason) for image, reason in IMAGES),
    ],
)
def test_what_cannot_be_used_is_left_out_with_the_reason(tmp_path, annotations, images, reason):
    images = [{"id": 3, "file_name": "a.jpg"}, *images]
    files = write_json(tmp_path, [BOX, *annotations], ["a.jpg"], images=images)
    boxes, made = read_dataset(convert_coco_json(*files))
    (line,) = made["skipped"]["val"]
    assert line.startswith(f"src.json {reason}") and boxes == {"a": [pytest.approx(RELATIVE)]}


@pytest.mark.parametrize(("image_id", "key"), [(3, "3"), (" 3", 3), (3.0, 3)])
def test_an_id_as_text_is_matched_to_a_number(tmp_path, image_id, key):
    annotation = BOX | {"image_id": image_id, "category_id": "5"}
    files = write_json(tmp_path, [annotation], ["a.jpg"], images=[{"id": key, "file_name": "a.jpg"}])
    boxes, made = read_dataset(convert_coco_json(*files))
    assert boxes == {"a": [pytest.approx(RELATIVE)]} and made["skipped"]["val"] == []


def test_splits_of_a_coco_json(tmp_path):
    names = [f"{i}.jpg" for i in range(10)]
    src, folder, dest = write_json(tmp_path, [BOX | {"image_id": 7 * i + 3} for i in range(10)], names)
    file = convert_coco_json(src, folder, dest, val=0.3)
    train, held = (sorted(read_dataset(file, split)[0]) for split in ("train", "val"))
    assert (len(train), len(held)) == (7, 3) and not {*train} & {*held}
    again = convert_coco_json(src, folder, tmp_path / "again", val="0.3")
    assert sorted(read_dataset(again)[0]) == held
    file = convert_coco_json(src, folder, tmp_path / "three", val=str(src), test=str(src), classes="cat")
    data = check_det_dataset(str(file))
    assert data["names"] == {0: "cat"} and Path(data["test"]).name == "test.txt"
    assert [len(read_dataset(file, split)[0]) for split in ("train", "val", "test")] == [10, 10, 10]
    assert check_det_dataset(str(convert_coco_json(src, folder, tmp_path / "alone")))["train"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": "1.5"}, "val=1.5: a share that is held out lies between 0 and 1"),
        ({"val": "ten"}, "val: .*/ten must be a JSON"),
        ({"val": 0.3, "test_folder": "x"}, "test_folder=x: there is no test=FILE.json"),
        ({"folder": "gone"}, "gone the folder where its file names start"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(tmp_path, monkeypatch, options, message):
    src, folder, dest = write_json(tmp_path, [BOX])
    monkeypatch.setattr("ultralytics_sgdm.data.coco._read_json", lambda *a: pytest.fail("has read"))
    with pytest.raises(ConfigError, match=message):
        convert_coco_json(**{"src": src, "folder": folder, "dest": dest} | options)


def test_fractions_of_the_image(tmp_path):
    boxes, made = read_dataset(convert_coco_json(*write_json(tmp_path, [{"bbox": [0.1, 0.1, 0.2, 0.2]}])))
    assert boxes["a"] == [pytest.approx(RELATIVE)] and made["boxes"] == "fraction"


def test_ids_of_categories_may_be_numbers_and_text(tmp_path):
    categories = [{"id": "10", "name": "dog"}, {"id": 5, "name": "cat"}]
    file = convert_coco_json(*write_json(tmp_path, [BOX | {"category_id": 10}], categories=categories))
    assert check_det_dataset(str(file))["names"] == {0: "cat", 1: "dog"}


@pytest.mark.parametrize("other", [(1, "cat"), (5, "dog"), (5.0, "dog")])
def test_categories_of_one_name_or_id_are_refused(tmp_path, other):
    files = write_json(tmp_path, [BOX], categories=[{"id": key, "name": name} for key, name in ((5, "cat"), other)])
    with pytest.raises(ConfigError, match="each category needs an id and a name of its own"):
        convert_coco_json(*files)


def test_an_id_of_two_images_leaves_both_out(tmp_path):
    images = [{"id": i, "file_name": name} for i, name in ((3, "a.jpg"), (3, "b.jpg"), (4, "c.jpg"))]
    files = write_json(tmp_path, [BOX, BOX, BOX | {"image_id": 4}], ["a.jpg", "b.jpg", "c.jpg"], images=images)
    boxes, made = read_dataset(convert_coco_json(*files))
    reason = "another image has its id, 3, too; whose objects are they?"
    assert boxes == {"c": [pytest.approx(RELATIVE)]}
    lines = [f"src.json image {image}.jpg: {reason}; with its {n} objects" for image, n in (("a", 2), ("b", 0))]
    assert made["skipped"]["val"] == lines


def test_an_image_that_is_listed_twice_has_the_objects_of_both(tmp_path):
    images = [{"id": i, "file_name": name} for i, name in ((3, "a.jpg"), (4, "./a.jpg"), (4, "./a.jpg"), (5, "a.png"))]
    annotations = [BOX | {"id": 1}, {"id": 1, "image_id": 4, "bbox": [1, 1, 5, 5]}, BOX | {"image_id": 5}]
    boxes, made = read_dataset(convert_coco_json(*write_json(tmp_path, annotations, ["a.jpg"], images=images)))
    assert len(boxes["a"]) == 2
    (line,) = made["skipped"]["val"]
    assert line.startswith("src.json image a.png: there is another image of this name") and "its 1 object" in line


def test_a_split_may_lack_classes_and_has_no_others(sources, tmp_path):
    make_coco(tmp_path / "src", "val2017", [[]], categories=((1, "person"), (3, "bus")))
    with pytest.raises(ConfigError, match=r"train2017.json lacks categories of another split \(bus\); name those"):
        convert_coco(sources, tmp_path / "coco", OPTIONS)
    assert convert_coco(sources, tmp_path / "some", OPTIONS | {"classes": ["person", "car"]}).is_file()
    make_coco(tmp_path / "src", "val2017", [[(7, [4, 3, 8, 6], 0)]], categories=((7, "car"),))
    assert check_det_dataset(str(convert_coco(sources, tmp_path / "coco", OPTIONS)))["names"] == {0: "person", 1: "car"}
    assert labels(tmp_path / "coco", "val2017", "000000000001") == [[1, 0.2, 0.2, 0.2, 0.2]]
