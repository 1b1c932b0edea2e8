"""Lists of images as tools write them: what is unambiguous is taken, the rest is left out with the reason."""

import pytest
from small_sets import an_object, make_voc, record
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
    with pytest.raises(
        ConfigError, match=r"no list of images for train; .*train= from: cat_train, cat_val .*of a class"
    ):
        convert_voc(src, tmp_path / "dest")
    convert_voc(src, tmp_path / "dest", train="cat_train", val="cat_val.txt")
    assert record(tmp_path / "dest")["splits"]["train"]["images"] == 1
