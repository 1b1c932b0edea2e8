from pathlib import Path

import pytest
from small_datasets import ROTATED, TURN, an_object, an_xml, labels, loaded, make_voc, record, tree, write_image
from ultralytics.data.utils import check_det_dataset

from ultralytics_sgdm.data import convert_voc
from ultralytics_sgdm.errors import ConfigError


@pytest.fixture
def src(tmp_path):
    train = {f"t{i}": [an_object("dog", (5, 6, 20, 25)), an_object("cat", (1, 1, 40, 30), i % 2)] for i in range(4)}
    val = {f"v{i}": [an_object("dog", (2, 2, 11, 21)), an_object("bird", (3, 3, 9, 9), 1)] for i in range(2)}
    return make_voc(tmp_path / "src", train=train, val=val, test={"e0": []})


def convert_one(tmp_path, xml, **options):
    """Convert an image with this XML beside a good one; return its rows, None if it is left out, and the reasons."""
    src = make_voc(tmp_path / "src", train={"odd": xml, "good": [an_object("cat")]}, val={"v": [an_object("cat")]})
    dest = convert_voc(src, tmp_path / "dest", **options).parent
    rows = labels(dest, "train", "odd") if (dest / "labels/train/odd.txt").exists() else None
    return rows, record(dest)["skipped"]["train"]


def test_a_dataset_is_what_ultralytics_reads(src, tmp_path):
    before = tree(src)
    file = convert_voc(src, tmp_path / "dest")
    data = check_det_dataset(str(file))
    assert data["names"] == {0: "bird", 1: "cat", 2: "dog"}
    dest = tmp_path / "dest"
    # 1-based inclusive (5, 6)-(20, 25) covers 16 x 20 pixels whose corner is at (4, 5), of 40 x 30
    assert labels(dest, "train", "t0")[0] == pytest.approx([2, 12 / 40, 15 / 30, 16 / 40, 20 / 30], abs=1e-6)
    assert labels(dest, "train", "t0")[1] == [1, 0.5, 0.5, 1, 1]
    for split, images, objects in (("train", 4, 6), ("val", 2, 2), ("test", 1, 0)):
        read = loaded(data, split)
        assert (len(read), sum(len(r["cls"]) for r in read)) == (images, objects)
    assert record(dest)["splits"]["train"]["objects_per_class"] == {"bird": 0, "cat": 2, "dog": 4}
    assert record(dest)["splits"]["train"]["difficult"] == 2
    (tmp_path / "dest").rename(tmp_path / "moved")
    assert Path(check_det_dataset(str(tmp_path / "moved/data.yaml"))["val"]).is_file()
    assert tree(src) == before


@pytest.mark.parametrize(
    ("box", "convention", "expected"),
    [
        ((11, 11, 20, 20), "zero", (11, 11, 20, 20)),
        ((11, 11, 20, 20), "auto", (10, 10, 20, 20)),
        ((0, 11, 20, 20), "auto", (0, 11, 20, 20)),
        ((10.25, 11, 20, 20.5), "auto", (10.25, 11, 20, 20.5)),
        ((30, 20, 90, 90), "voc", (29, 19, 40, 30)),
    ],
)
def test_conventions_of_boxes(tmp_path, box, convention, expected):
    rows, skipped = convert_one(tmp_path, an_xml(an_object(box=box)), boxes=convention)
    left, top, right, bottom = expected
    center = (left + right) / 80, (top + bottom) / 60
    assert rows == [pytest.approx([0, *center, (right - left) / 40, (bottom - top) / 30], abs=1e-6)]
    assert skipped == []


def test_few_fractions_do_not_make_a_dataset_zero_based(tmp_path):
    many = [an_object(box=(1 + i % 9, 1 + i % 7, 10 + i % 11, 12 + i % 13)) for i in range(200)]
    src = make_voc(tmp_path / "src", train={"a": [*many, an_object(box=(3.7, 2, 9, 9))]}, val={"b": []})
    convert_voc(src, tmp_path / "dest")
    assert record(tmp_path / "dest")["boxes"] == "voc"


def test_fractions_of_the_image(tmp_path):
    half = an_xml(an_object(box=(0.25, 0.5, 0.75, 1)))
    src = make_voc(tmp_path / "src", train={"a": half}, val={"v": [an_object(box=(0, 0, 1, 1))]})
    for boxes in ("auto", "fraction"):
        convert_voc(src, tmp_path / boxes, boxes=boxes)
        assert labels(tmp_path / boxes, "train", "a") == [[0, 0.5, 0.75, 0.5, 0.5]]
        assert labels(tmp_path / boxes, "val", "v") == [[0, 0.5, 0.5, 1, 1]]
        assert record(tmp_path / boxes)["boxes"] == "fraction"
    why = "object 1: in fractions of the image, but the dataset is in pixels (boxes=voc): (0.25, 0.5)-(0.75, 1) of cat"
    assert convert_one(tmp_path / "mixed", half) == (None, [f"Annotations/odd.xml: {why}; with its 1 object"])
    with pytest.raises(ConfigError, match=r"(?s)no images.*in pixels, .*boxes=fraction.: \(1, 1\)-\(10, 10\)"):
        convert_one(tmp_path / "pixels", an_xml(an_object()), boxes="fraction")


def test_the_label_of_a_rotated_box_is_the_upright_box_around_it(tmp_path, caplog):
    """16 x 8 pixels about (20, 15), by 90 degrees 8 x 16; by 45 degrees (16 + 8) / sqrt(2) both ways."""
    rotated = ROTATED.replace("<name>a<", "<name>cat<")
    turned = an_object("cat", (12, 11, 28, 19), more=TURN.format(45))
    rows, skipped = convert_one(tmp_path, an_xml(rotated.format("1.5707963"), turned, rotated.format(0)))
    side = 24 / 2**0.5
    boxes = [(8, 16), (side, side), (16, 8)]
    assert rows == [pytest.approx([0, 0.5, 0.5, w / 40, h / 30], abs=1e-5) for w, h in boxes] and skipped == []
    assert "boxes=voc; " in caplog.messages[-1] and "becomes the upright box around it" in caplog.messages[-1]
    assert record(tmp_path / "dest")["splits"]["train"]["rotated"] == 2


@pytest.mark.parametrize(
    ("xml", "rows", "reason"),
    [
        (an_xml(an_object(), an_object(box=(5, 5, 5, 9))), 1, "object 2: box without area (5, 5)-(5, 9) of cat"),
        (an_xml(an_object(), an_object(box=(50, 5, 60, 9))), 1, "odd.xml: object 2: box outside the image"),
        (an_xml(an_object(), an_object()), 1, "odd.xml: object 2: the same object again"),
        (an_xml(an_object(), size=None), 1, ""),
        (an_xml(an_object(), size=(30, 40)), None, "odd.xml: 40x30 pixels, but its annotation says 30x40"),
        (an_xml(more="<item/>"), None, "odd.xml: <item> looks like an object"),
        (an_xml(), 0, ""),
    ],
)
def test_nothing_is_left_out_without_a_reason(tmp_path, xml, rows, reason):
    found, skipped = convert_one(tmp_path, xml)
    assert (found if found is None else len(found)) == rows and len(skipped) == bool(reason)
    assert all(reason in line and "\n" not in line for line in skipped)


def test_a_dataset_without_objects_to_train_on_is_refused(src, tmp_path):
    for classes in ("Cats", "bird"):  # which is in val
        message = r"no object at all to train on; left out are 2 difficult .*, and those of other classes \(cat, dog\)"
        with pytest.raises(ConfigError, match=message):
            convert_voc(src, tmp_path / "dest", classes=classes, val_difficult="keep")
    assert not (tmp_path / "dest").exists()


def test_a_dataset_to_validate_on(tmp_path, caplog):
    src = make_voc(tmp_path / "src", test={"a": [an_object()]})
    file = convert_voc(src, tmp_path / "dest")
    assert "no training split: the dataset is for `yolo val`" in caplog.messages[-1]
    data = check_det_dataset(str(file))
    assert data["train"] is None and data["val"].endswith("/val.txt")


def test_what_ultralytics_repairs_is_a_copy(src, tmp_path):
    """A JPEG with bytes behind its end is rewritten in place by Ultralytics."""
    padded = src / "JPEGImages/t0.jpg"
    padded.write_bytes(padded.read_bytes() + bytes(9))
    before = tree(src)
    data = check_det_dataset(str(convert_voc(src, tmp_path / "dest")))
    assert len(loaded(data)) == 4
    assert (tmp_path / "dest/images/train/t0.jpg").read_bytes() != padded.read_bytes() and tree(src) == before


@pytest.mark.parametrize(("train", "val"), [("keep", "drop"), ("drop", "keep")])
def test_difficult_objects(src, tmp_path, train, val):
    convert_voc(src, tmp_path / "dest", difficult=train, val_difficult=val)
    splits = record(tmp_path / "dest")["splits"]
    assert splits["train"]["objects"] == (8 if train == "keep" else 6)
    assert splits["val"]["objects"] == (4 if val == "keep" else 2)
    assert splits["train"]["difficult_policy"] == train and splits["test"]["difficult_policy"] == val


def test_classes_in_a_given_order(src, tmp_path, caplog):
    (tmp_path / "names.txt").write_text("dog\nfox\n")
    for n, classes in enumerate((["dog", "fox"], "dog,fox", str(tmp_path / "names.txt"))):
        file = convert_voc(src, tmp_path / str(n), classes=classes)
        assert check_det_dataset(str(file))["names"] == {0: "dog", 1: "fox"}
        assert record(tmp_path / str(n))["splits"]["train"]["other_classes"] == {"cat": 2}
        assert "WARNING: no object of 'fox'\n" in caplog.messages[-1]
    convert_voc(src, tmp_path / "near", classes="dog,catt")
    assert "WARNING: no object of 'catt'; did you mean 'cat'?" in caplog.messages[-1]
    (tmp_path / "names.txt").write_bytes(b"dog\nw\xe4c")
    with pytest.raises(ConfigError, match=r"names.txt is not in UTF-8; save it as UTF-8"):
        convert_voc(src, tmp_path / "latin", classes=str(tmp_path / "names.txt"))


def test_lists_of_images_are_chosen(src, tmp_path, caplog):
    convert_voc(src, tmp_path / "a", train=["train", "val"], val="test")
    assert {k: v["images"] for k, v in record(tmp_path / "a")["splits"].items()} == {"train": 6, "val": 1}
    convert_voc(src, tmp_path / "b", train="train,val", val="val")
    assert "WARNING: in several splits: 2 images\n  v0\n  v1" in caplog.messages[-1]
    (src / "ImageSets/Main/val.txt").rename(src / "ImageSets/Main/trainval.txt")
    (src / "ImageSets/Main/train.txt").unlink()
    convert_voc(src, tmp_path / "c")
    assert {k: v["images"] for k, v in record(tmp_path / "c")["splits"].items()} == {"train": 2, "val": 1}


def test_strict_stops_before_anything_is_written(src, tmp_path):
    (src / "Annotations/t1.xml").write_text("<annotation>")
    with pytest.raises(ConfigError, match=r"strict=True.*\n  Annotations/t1.xml: not XML.*no element found"):
        convert_voc(src, tmp_path / "dest", strict=True)
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": "one"}, "boxes=one must be one of auto, voc, zero"),
        ({"train": "trian"}, r"no list trian for train; choose with train= from: test, train, val"),
        ({"classes": "a,b,a"}, "classes=a,b,a: a name is there twice"),
        ({"src": "."}, r"is not a folder in VOC layout, such as .*: no ImageSets/Main in it"),
        ({"dest": "file/below/dest"}, "dest cannot be made: .*file is not a folder that you may write to"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(src, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ultralytics_sgdm.data.voc._read_split", lambda *a: pytest.fail("has read"))
    Path("file").touch()
    with pytest.raises(ConfigError, match=message):
        convert_voc(**{"src": src, "dest": tmp_path / "dest"} | options)
    assert not (tmp_path / "dest").exists()


def make_lists(tmp_path, lines):
    names = ("a", "b", "my cat 1", "deep/c", "images/d")
    src = make_voc(tmp_path / "src", train={}, val={"v": [an_object()], **{name: [an_object()] for name in names}})
    (src / "ImageSets/Main/val.txt").write_text("v\n")
    (src / "ImageSets/Main/train.txt").write_bytes(lines.encode(errors="surrogateescape"))
    return src


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ("\ufeffa\r\n\n  b\t\n", ["a", "b"]),
        ("my cat 1", ["my cat 1"]),
        ("a.jpg\nb.JPG\ndeep/c.jpg", ["a", "b", "deep/c"]),
        ("JPEGImages/a.jpg\n./JPEGImages/deep/c.jpg\nVOC2007/Annotations/b.xml", ["a", "b", "deep/c"]),
        ("/home/me/VOC/JPEGImages/a.jpg\nimages/d", ["a", "images/d"]),
        ("JPEGImages/a.jpg Annotations/a.xml\nJPEGImages/deep/c.jpg\tAnnotations/deep/c.xml", ["a", "deep/c"]),
        ("a  1\nb -1\ndeep/c  0\nmy cat 1 +1", ["a", "deep/c", "my cat 1"]),
    ],
)
def test_what_is_unambiguous_in_a_list_is_taken(tmp_path, lines, names):
    data = check_det_dataset(str(convert_voc(make_lists(tmp_path, lines), tmp_path / "dest")))
    read = loaded(data)
    found = {r["im_file"].partition("images/train/")[2].removesuffix(".jpg") for r in read}
    assert sorted(found) == names and all(len(r["cls"]) == 1 for r in read)
    assert record(tmp_path / "dest")["skipped"]["train"] == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("JPEGImages/a.jpg Annotations/b.xml", "Annotations/b.xml.xml: no such file"),
        ("a 1", "Annotations/a 1.xml: no such file"),
        ("../../secret", "Annotations/../../secret.xml: no such file"),
        ("images/d", "Annotations/images/d.xml: 2 images JPEGImages/images/d.*"),
    ],
)
def test_what_is_ambiguous_in_a_list_is_left_out(tmp_path, line, reason):
    src = make_lists(tmp_path, f"b\n{line}\n")
    write_image(src / "JPEGImages/images/d.png")
    (tmp_path / "secret.xml").write_text(an_xml(an_object()))
    convert_voc(src, tmp_path / "dest")
    (told,) = record(tmp_path / "dest")["skipped"]["train"]
    assert reason in told


def test_a_list_in_another_encoding_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"train.txt is not in UTF-8; save it as UTF-8"):
        convert_voc(make_lists(tmp_path, "gone\udce9"), tmp_path / "dest")


def test_lists_of_classes_only(tmp_path):
    src = make_lists(tmp_path, "a 1\nb -1\n")
    for split in ("train", "val"):
        (src / f"ImageSets/Main/{split}.txt").rename(src / f"ImageSets/Main/cat_{split}.txt")
    message = "no list train, trainval for train; choose with train= from: cat_train, cat_val"
    with pytest.raises(ConfigError, match=message):
        convert_voc(src, tmp_path / "dest")
    convert_voc(src, tmp_path / "dest", train="cat_train", val="cat_val.txt")
    assert record(tmp_path / "dest")["splits"]["train"]["images"] == 1
