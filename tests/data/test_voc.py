import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from PIL import Image
from small_sets import an_object, an_xml, make_voc, tree, write_image
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset

from ultralytics_sgdm import cli
from ultralytics_sgdm.configs import ConfigError
from ultralytics_sgdm.data import convert_voc
from ultralytics_sgdm.data.voc import BadXMLError, read_xml


@pytest.fixture
def src(tmp_path):
    train = {f"t{i}": [an_object("dog", (5, 6, 20, 25)), an_object("cat", (1, 1, 40, 30), i % 2)] for i in range(4)}
    val = {f"v{i}": [an_object("dog", (2, 2, 11, 21)), an_object("bird", (3, 3, 9, 9), 1)] for i in range(2)}
    return make_voc(tmp_path / "src", train=train, val=val, test={"e0": []})


def labels(dest, split, name):
    return [list(map(float, row.split())) for row in (dest / f"labels/{split}/{name}.txt").read_text().splitlines()]


def record(dest):
    return json.loads((dest / "conversion.json").read_text())


def convert_one(tmp_path, xml, **options):
    """Convert an image with this XML beside a good one; return its rows, None if it is skipped, and the complaints."""
    src = make_voc(tmp_path / "src", train={"odd": xml, "good": [an_object("cat")]}, val={"v": [an_object("cat")]})
    convert_voc(src, tmp_path / "dest", **options)
    assert labels(tmp_path / "dest", "train", "good")
    file = tmp_path / "dest/labels/train/odd.txt"
    rows = labels(tmp_path / "dest", "train", "odd") if file.exists() else None
    return rows, record(tmp_path / "dest")["skipped"]["train"]


def test_a_set_is_what_ultralytics_reads(src, tmp_path):
    before = tree(src)
    file = convert_voc(src, tmp_path / "dest")
    data = check_det_dataset(str(file))
    assert data["names"] == {0: "bird", 1: "cat", 2: "dog"}
    dest = tmp_path / "dest"
    # 1-based inclusive (5, 6)-(20, 25) covers 16 x 20 pixels whose corner is at (4, 5), of 40 x 30
    assert labels(dest, "train", "t0")[0] == pytest.approx([2, 12 / 40, 15 / 30, 16 / 40, 20 / 30], abs=1e-6)
    assert labels(dest, "train", "t0")[1] == [1, 0.5, 0.5, 1, 1]
    for split, images, objects in (("train", 4, 6), ("val", 2, 2), ("test", 1, 0)):
        read = YOLODataset(img_path=data[split], data=data, task="detect", augment=False).labels
        assert (len(read), sum(len(r["cls"]) for r in read)) == (images, objects)
        found = record(dest)["splits"][split]
        assert (found["images"], found["objects"]) == (images, objects)
    assert record(dest)["splits"]["train"]["objects_per_class"] == {"bird": 0, "cat": 2, "dog": 4}
    assert record(dest)["splits"]["train"]["difficult"] == 2
    (tmp_path / "dest").rename(tmp_path / "moved")
    assert Path(check_det_dataset(str(tmp_path / "moved/data.yaml"))["val"]).is_file()
    assert tree(src) == before


def test_running_twice_changes_nothing(src, tmp_path):
    convert_voc(src, tmp_path / "dest")
    before = tree(tmp_path / "dest")
    convert_voc(src, tmp_path / "dest")
    assert tree(tmp_path / "dest") == before


@pytest.mark.parametrize("images", ["hardlink", "copy", "symlink"])
def test_images_are_placed_as_asked(src, tmp_path, images):
    convert_voc(src, tmp_path / "dest", images=images)
    image, source = tmp_path / "dest/images/train/t0.jpg", src / "JPEGImages/t0.jpg"
    assert image.read_bytes() == source.read_bytes()
    assert image.is_symlink() == (images == "symlink")
    assert image.samefile(source) == (images != "copy")
    before = tree(tmp_path / "dest")
    convert_voc(src, tmp_path / "dest", images=images)
    assert tree(tmp_path / "dest") == before


def test_a_linked_source_image_is_linked_itself(src, tmp_path):
    image = src / "JPEGImages/t0.jpg"
    image.rename(tmp_path / "elsewhere.jpg")
    image.symlink_to("../../elsewhere.jpg")
    convert_voc(src, tmp_path / "dest")
    assert (tmp_path / "dest/images/train/t0.jpg").samefile(tmp_path / "elsewhere.jpg")
    assert not (tmp_path / "dest/images/train/t0.jpg").is_symlink()


def test_a_killed_conversion_is_completed(src, tmp_path):
    convert_voc(src, tmp_path / "whole")
    whole = tree(tmp_path / "whole", times=False)
    dest, kills = tmp_path / "dest", 0

    def die_at(step):
        steps = iter(range(step))
        replace = Path.replace

        def counted(self, target):
            if next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(self, target)

        Path.replace = counted
        convert_voc(src, dest)

    for step in (0, 1, 2, 3, 5, 1, 4, 2, 0, 9, 0, 0, 0, 0, 99):
        process = multiprocessing.get_context("fork").Process(target=die_at, args=(step,))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        assert not (dest / "val.txt").exists()
    assert kills > 6
    assert tree(dest, times=False) == whole
    assert not list(dest.rglob("*.part"))


def test_two_processes_may_convert_at_once(src, tmp_path):
    convert_voc(src, tmp_path / "alone")
    fork = multiprocessing.get_context("fork").Process
    processes = [fork(target=convert_voc, args=(src, tmp_path / "dest")) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert tree(tmp_path / "dest", times=False) == tree(tmp_path / "alone", times=False)


@pytest.mark.parametrize(
    ("box", "convention", "expected"),
    [
        ((11, 11, 20, 20), "voc", (10, 10, 20, 20)),
        ((11, 11, 20, 20), "zero", (11, 11, 20, 20)),
        ((11, 11, 20, 20), "auto", (10, 10, 20, 20)),
        ((0, 11, 20, 20), "auto", (0, 11, 20, 20)),
        ((10.25, 11, 20, 20.5), "auto", (10.25, 11, 20, 20.5)),
        ((-5, -5, 10, 10), "zero", (0, 0, 10, 10)),
        ((30, 20, 90, 90), "voc", (29, 19, 40, 30)),
        ((1, 1, 40, 30), "voc", (0, 0, 40, 30)),
    ],
)
def test_both_conventions_of_boxes(tmp_path, box, convention, expected):
    rows, skipped = convert_one(tmp_path, an_xml(an_object(box=box)), boxes=convention)
    left, top, right, bottom = expected
    center = (left + right) / 80, (top + bottom) / 60
    assert rows == [pytest.approx([0, *center, (right - left) / 40, (bottom - top) / 30], abs=1e-6)]
    assert skipped == []


def test_few_fractions_do_not_make_a_set_zero_based(tmp_path):
    many = [an_object(box=(1 + i % 9, 1 + i % 7, 10 + i % 11, 12 + i % 13)) for i in range(200)]
    src = make_voc(tmp_path / "src", train={"a": [*many, an_object(box=(3.7, 2, 9, 9))]}, val={"b": []})
    convert_voc(src, tmp_path / "dest")
    assert record(tmp_path / "dest")["boxes"] == "voc"


def test_no_file_is_without_reason(tmp_path):
    """Each oddity is handled, or leaves a line that names file and line, and the good image stays."""
    good = an_object("cat", (2, 2, 9, 9))
    attributes = "<attributes><attribute><name>id</name></attribute></attributes>"
    part = "<part><name>head</name><bndbox><xmin>7</xmin></bndbox></part>"
    lines = "\n" * 4
    for n, (xml, expected_rows, complaint) in enumerate(
        [
            (an_xml(good, an_object("cat", (5, 5, 5, 9))), 1, "odd.xml:6: box without area"),
            (an_xml(good, an_object("cat", (9, 5, 7, 9))), 1, "odd.xml:6: box without area"),
            (an_xml(good, an_object("cat", (50, 5, 60, 9))), 1, "odd.xml:6: box outside the image"),
            (an_xml(good, good), 1, "odd.xml:6: the same object again"),
            (an_xml(an_object("cat", (2, 2, 9, 9), more=attributes)), 1, ""),
            (an_xml(an_object("cat", (2, 2, 9, 9), more=part)), 1, ""),
            (an_xml(good, size=None), 1, ""),
            (an_xml(good, size=(0, 0)), 1, ""),
            (an_xml(good, size=("", "x")), 1, ""),
            (an_xml(good, size=(30, 40)), None, "odd.xml: 40x30 pixels, but its annotation says 30x40"),
            (lines + an_xml(good)[:-9], None, "odd.xml:10: "),
            ("", None, "odd.xml:1: no element found"),
            ("\0\1", None, "odd.xml:1: "),
            (an_xml(good.replace("<name>cat</name>", "")), None, "odd.xml:3: object without a name"),
            (an_xml(good.replace("<xmin>2</xmin>", "")), None, "odd.xml:3: object 'cat', bndbox/xmin is missing"),
            (an_xml(good.replace("<ymax>9", "<ymax>nan")), None, "bndbox/ymax is no number: 'nan'"),
            ('<?xml version="1.0" encoding="no-such"?>' + an_xml(good), None, "odd.xml:1: "),
            ("<a>" * 100_000, None, "odd.xml:1: no element found"),
            (an_xml(good, more="<filename>../../secret.jpg</filename>"), 1, ""),
        ]
    ):  # fmt: skip
        rows, skipped = convert_one(tmp_path / str(n), xml)
        assert (rows and len(rows)) == expected_rows, xml[:200]
        assert len(skipped) == bool(complaint), skipped
        assert all(complaint in line and "\n" not in line for line in skipped)


def test_entities_are_refused(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("cat")
    for kind in (
        '<!DOCTYPE a [<!ENTITY x "cat"><!ENTITY y "&x;&x;">]>',
        f'<!DOCTYPE a [<!ENTITY y SYSTEM "{secret.as_uri()}">]>',
        f'<!DOCTYPE a [<!ENTITY % y SYSTEM "{secret.as_uri()}"> %y;]>',
    ):
        with pytest.raises(BadXMLError, match=r"^1: entities are refused"):
            read_xml((kind + an_xml(an_object("&y;"))).encode())


def test_file_names_cannot_leave_the_folder(tmp_path):
    write_image(tmp_path / "secret.jpg")
    (tmp_path / "secret.xml").write_text(an_xml(an_object()))
    src = make_voc(tmp_path / "src", train={"good": [an_object()]}, val={"v": [an_object()]})
    (src / "Annotations/thief.xml").write_text(an_xml(an_object(), more="<filename>../../secret.jpg</filename>"))
    names = ["good", "thief", "../../secret", "/etc/passwd", "c:\\x", "a/../../x", "gone", "good"]
    (src / "ImageSets/Main/train.txt").write_text("\n".join(names))
    convert_voc(src, tmp_path / "dest")
    assert [p.name for p in (tmp_path / "dest/images").rglob("*.jpg")] == ["good.jpg", "v.jpg"]
    skipped = record(tmp_path / "dest")["skipped"]["train"]
    assert [line.split(": ")[0] for line in skipped] == [
        *(f"ImageSets/Main/train.txt:{n}" for n in (3, 4, 5, 6, 8)),
        "Annotations/thief.xml",
        "Annotations/gone.xml",
    ]
    assert "no image JPEGImages/thief.* and none named '../../secret.jpg' there" in skipped[5]


def test_images_of_other_names_and_kinds(tmp_path):
    src = make_voc(tmp_path / "src", train={"a": [an_object()]}, val={"v": [an_object()]})
    write_image(src / "JPEGImages/deep/b.PNG".replace("PNG", "png")).rename(src / "JPEGImages/deep/b.PNG")
    write_image(src / "JPEGImages/other name.png")
    write_image(src / "JPEGImages/a.png")
    (src / "Annotations/deep").mkdir()
    (src / "Annotations/deep/b.xml").write_text(an_xml(an_object()))
    (src / "Annotations/c.xml").write_text(an_xml(an_object(), more="<filename>other name.png</filename>"))
    (src / "ImageSets/Main/train.txt").write_text("\ufeffdeep/b\r\nc\r\n\r\na\r\n", encoding="utf-8")
    file = convert_voc(src, tmp_path / "dest")
    data = check_det_dataset(str(file))
    read = YOLODataset(img_path=data["train"], data=data, task="detect", augment=False).labels
    assert sorted(Path(r["im_file"]).name for r in read) == ["b.PNG", "c.png"]
    assert all(len(r["cls"]) == 1 for r in read)
    assert record(tmp_path / "dest")["skipped"]["train"] == [
        "Annotations/a.xml: several images of that name: a.jpg, a.png"
    ]


def test_sizes_are_those_of_the_upright_image(tmp_path):
    src = make_voc(tmp_path / "src", train={"a": an_xml(an_object(box=(1, 1, 30, 40)), size=(30, 40))}, val={"v": []})
    image = Image.open(src / "JPEGImages/a.jpg")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(src / "JPEGImages/a.jpg", exif=exif)
    convert_voc(src, tmp_path / "dest")
    assert labels(tmp_path / "dest", "train", "a") == [[0, 0.5, 0.5, 1, 1]]


def test_bad_images(tmp_path, monkeypatch):
    monkeypatch.setattr("ultralytics.utils.checks.AUTOINSTALL", False)
    entries = {name: an_xml(an_object(), size=None) for name in ("good", "broken", "tiny", "cut", "empty")}
    src = make_voc(tmp_path / "src", train=entries, val={"v": []})
    (src / "JPEGImages/broken.jpg").write_bytes(b"no image")
    (src / "JPEGImages/empty.jpg").write_bytes(b"")
    write_image(src / "JPEGImages/tiny.jpg", 9, 30)
    cut = src / "JPEGImages/cut.jpg"
    cut.write_bytes(cut.read_bytes()[:-2])
    convert_voc(src, tmp_path / "dest")
    complaints = "\n".join(record(tmp_path / "dest")["skipped"]["train"])
    assert complaints.count("unreadable image") == 2 and "9x30 pixels" in complaints and "cut" not in complaints
    assert not (tmp_path / "dest/images/train/cut.jpg").samefile(cut)  # Ultralytics would mend it in place


@pytest.mark.parametrize(("train", "val"), [("drop", "drop"), ("keep", "drop"), ("drop", "keep")])
def test_difficult_objects(src, tmp_path, train, val):
    convert_voc(src, tmp_path / "dest", difficult=train, val_difficult=val)
    splits = record(tmp_path / "dest")["splits"]
    assert splits["train"]["objects"] == (8 if train == "keep" else 6)
    assert splits["val"]["objects"] == (4 if val == "keep" else 2)
    assert splits["train"]["difficult_policy"] == train and splits["test"]["difficult_policy"] == val


def test_classes_in_a_given_order(src, tmp_path):
    (tmp_path / "names.txt").write_text("dog\nfox\n")
    for n, classes in enumerate((["dog", "fox"], "dog,fox", str(tmp_path / "names.txt"))):
        file = convert_voc(src, tmp_path / str(n), classes=classes)
        assert check_det_dataset(str(file))["names"] == {0: "dog", 1: "fox"}
        assert record(tmp_path / str(n))["splits"]["train"]["other_classes"] == {"cat": 2}


def test_lists_of_images_are_chosen(src, tmp_path):
    convert_voc(src, tmp_path / "a", train=["train", "val"], val="test")
    assert {k: v["images"] for k, v in record(tmp_path / "a")["splits"].items()} == {"train": 6, "val": 1}
    (src / "ImageSets/Main/val.txt").rename(src / "ImageSets/Main/trainval.txt")
    (src / "ImageSets/Main/train.txt").unlink()
    convert_voc(src, tmp_path / "b")
    assert {k: v["images"] for k, v in record(tmp_path / "b")["splits"].items()} == {"train": 2, "val": 1}


def test_images_in_several_splits_are_told(src, tmp_path, caplog):
    convert_voc(src, tmp_path / "dest", train="train,val", val="val")
    assert record(tmp_path / "dest")["in_several_splits"] == 2
    assert "WARNING: 2 images are in several splits" in caplog.messages[-1]


def test_the_command_takes_its_folders_by_position_or_by_name(src, tmp_path, caplog):
    for n, arguments in enumerate(([str(src), "{}"], [f"src={src}", "dest={}"], ["boxes=voc", str(src), "{}"])):
        cli.run_command(["voc", *(a.format(tmp_path / str(n)) for a in arguments)])
        assert caplog.messages[-1].endswith(f"data={tmp_path}/{n}/data.yaml")
    for arguments, message in (
        ([], r"SRC and DEST missing; usage: yolo sgdm voc SRC DEST \[train=\] \[val=\]"),
        ([str(src)], "^DEST missing"),
        ([str(src), "a", "b"], "no argument 'b'"),
        ([str(src), "a", "tain=b"], "no argument 'tain=b'.*did you mean 'train'"),
        ([str(src), "a", "train="], "no argument 'train='"),
    ):
        with pytest.raises(ConfigError, match=message):
            cli.run_command(["voc", *arguments])


def test_strict_stops_before_anything_is_written(src, tmp_path):
    (src / "Annotations/t1.xml").write_text("<annotation>")
    with pytest.raises(ConfigError, match=r"strict=True.*\n  Annotations/t1.xml:1: no element found"):
        convert_voc(src, tmp_path / "dest", strict=True)
    assert tree(tmp_path / "dest") == {}
    convert_voc(src, tmp_path / "dest")
    assert record(tmp_path / "dest")["splits"]["train"]["images"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": "one"}, "boxes=one must be one of auto, voc, zero"),
        ({"difficult": "no"}, "difficult=no must be one of drop, keep"),
        ({"images": "move"}, "images=move must be one of hardlink, copy, symlink"),
        ({"strict": "no"}, "strict=no must be one of True, False"),
        ({"train": "trian"}, r"train=trian: .*ImageSets/Main has no trian.txt, only test, train, val"),
        ({"classes": "a,b,a"}, "classes=a,b,a: 'a' is there twice"),
        ({"classes": "gone.txt"}, "classes=gone.txt: No such file"),
    ],
)
def test_wrong_options(src, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        convert_voc(src, tmp_path / "dest", **options)
    assert not (tmp_path / "dest").exists()


def test_wrong_folders(src, tmp_path):
    with pytest.raises(ConfigError, match=r"no folder Annotations in it; did you mean .*/src\?"):
        convert_voc(tmp_path, tmp_path / "dest")
    with pytest.raises(ConfigError, match="lies in the source"):
        convert_voc(src, src / "yolo")
    for name in ("val", "test"):
        (src / f"ImageSets/Main/{name}.txt").unlink()
    with pytest.raises(ConfigError, match=r"no list of images for val; write val.txt.*choose with val= from: train"):
        convert_voc(src, tmp_path / "dest")
    (src / "ImageSets/Main/val.txt").write_text("gone\n")
    with pytest.raises(ConfigError, match=r"split val would have no images\n  Annotations/gone.xml: No such file"):
        convert_voc(src, tmp_path / "dest")


def test_folders_of_others_are_left_alone(src, tmp_path):
    write_image(tmp_path / "mine/images/train/x.jpg")
    before = tree(tmp_path / "mine")
    with pytest.raises(ConfigError, match="mine already holds images of something else"):
        convert_voc(src, tmp_path / "mine")
    assert tree(tmp_path / "mine") == before
    convert_voc(src, tmp_path / "dest")
    before = tree(tmp_path / "dest")
    with pytest.raises(ConfigError, match="was made with difficult=drop, not difficult=keep"):
        convert_voc(src, tmp_path / "dest", difficult="keep")
    assert tree(tmp_path / "dest") == before
