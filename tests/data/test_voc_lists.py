"""Lists of images as tools write them: what is unambiguous is taken, the rest is left out with the reason."""

from pathlib import Path

import pytest
from small_datasets import an_object, an_xml, make_voc, record, write_image
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset

from ultralytics_sgdm.data import convert_voc
from ultralytics_sgdm.errors import ConfigError


def make_lists(tmp_path, lines, **encoding):
    names = ("a", "b", "my cat 1", "deep/c", "images/d", "12:30:01")
    src = make_voc(tmp_path / "src", train={}, val={"v": [an_object()], **{name: [an_object()] for name in names}})
    (src / "ImageSets/Main/val.txt").write_text("v\n")
    (src / "ImageSets/Main/train.txt").write_bytes(lines.encode(**encoding))
    return src


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ("a\r\nb\r\n", ["a", "b"]),
        ("\ufeffa\n\n  b\t\n", ["a", "b"]),
        ("my cat 1\na", ["a", "my cat 1"]),
        ("my cat 1", ["my cat 1"]),
        ("a.jpg\nb.JPG\ndeep/c.jpg", ["a", "b", "deep/c"]),
        ("JPEGImages/a.jpg\n./JPEGImages/deep/c.jpg\nVOC2007/Annotations/b.xml", ["a", "b", "deep/c"]),
        ("/home/me/VOC/JPEGImages/a.jpg\nimages/d", ["a", "images/d"]),
        ("JPEGImages/a.jpg Annotations/a.xml\nJPEGImages/deep/c.jpg\tAnnotations/deep/c.xml", ["a", "deep/c"]),
        ("a  1\nb -1\ndeep/c  0\nmy cat 1 +1", ["a", "deep/c", "my cat 1"]),
        ("12:30:01", ["12:30:01"]),
    ],
)
def test_what_is_unambiguous_in_a_list_is_taken(tmp_path, lines, names):
    data = check_det_dataset(str(convert_voc(make_lists(tmp_path, lines), tmp_path / "dest")))
    read = YOLODataset(img_path=data["train"], data=data, task="detect", augment=False).labels
    found = {r["im_file"].partition("images/train/")[2].removesuffix(".jpg") for r in read}
    assert sorted(found) == names and all(len(r["cls"]) == 1 for r in read)
    made = record(tmp_path / "dest")
    assert made["skipped"]["train"] == []
    assert ("1 image marked -1" in str(made["notes"])) == ("-1" in lines)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("JPEGImages/a.jpg Annotations/b.xml", "Annotations/b.xml.xml: No such file or directory"),
        ("a 1", "Annotations/a 1.xml: No such file or directory"),
        ("deep\\c", "train.txt:2: 'deep\\\\c': a \\ in this name; folders are divided by /"),
        ("/etc/passwd", "train.txt:2: '/etc/passwd': this name leaves the folder of the dataset"),
        ("x" * 250, "a name of more than 240 bytes"),
    ],
)
def test_what_is_ambiguous_in_a_list_is_left_out(tmp_path, line, reason):
    convert_voc(make_lists(tmp_path, f"b\n{line}\n"), tmp_path / "dest")
    (told,) = record(tmp_path / "dest")["skipped"]["train"]
    assert reason in told


def test_lists_of_classes_only(tmp_path):
    src = make_lists(tmp_path, "a 1\nb -1\n")
    main = src / "ImageSets/Main"
    (main / "train.txt").rename(main / "cat_train.txt")
    (main / "val.txt").rename(main / "cat_val.txt")
    message = r"no list of images for train; .*train= from: cat_train, cat_val .*of a class"
    with pytest.raises(ConfigError, match=message):
        convert_voc(src, tmp_path / "dest")
    convert_voc(src, tmp_path / "dest", train="cat_train", val="cat_val.txt")
    assert record(tmp_path / "dest")["splits"]["train"]["images"] == 1


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
    assert "no image JPEGImages/thief.*, and ../../secret.jpg is not its image" in skipped[5]


def test_images_of_other_names_and_kinds(tmp_path):
    src = make_voc(tmp_path / "src", train={"a": [an_object()]}, val={"v": [an_object()]})
    write_image(src / "JPEGImages/deep/b.png").rename(src / "JPEGImages/deep/b.PNG")
    write_image(src / "JPEGImages/other name.png")
    write_image(src / "JPEGImages/a.png")
    (src / "Annotations/deep").mkdir()
    (src / "Annotations/deep/b.xml").write_text(an_xml(an_object()))
    (src / "Annotations/c.xml").write_text(an_xml(an_object(), more="<filename>other name.png</filename>"))
    (src / "ImageSets/Main/train.txt").write_text("\ufeffdeep/b\r\nc\r\n\r\na\r\n", encoding="utf-8")
    data = check_det_dataset(str(convert_voc(src, tmp_path / "dest")))
    read = YOLODataset(img_path=data["train"], data=data, task="detect", augment=False).labels
    assert sorted(Path(r["im_file"]).name for r in read) == ["b.PNG", "c.png"]
    assert all(len(r["cls"]) == 1 for r in read)
    told = ["Annotations/a.xml: several images of that name: a.jpg, a.png"]
    assert record(tmp_path / "dest")["skipped"]["train"] == told
