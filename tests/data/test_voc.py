import errno
import hashlib
import json
import multiprocessing
import os
import re
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
from ultralytics_sgdm.data.files import PART
from ultralytics_sgdm.data.voc_xml import BadXMLError, read_xml


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
    sums = dict(line.split("  ")[::-1] for line in (tmp_path / "dest/written.sha256").read_text().splitlines())
    texts = {name: content for name, (content, _) in before.items() if not name.startswith("images/")}
    del texts["written.sha256"]
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in texts.items()}
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
    assert not list(dest.rglob(f"*{PART}"))


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
            ("", None, "odd.xml:1: an empty file"),
            ("\0\1", None, "odd.xml:1: "),
            (an_xml(good.replace("<name>cat</name>", "")), None, "odd.xml:3: object without a name"),
            (an_xml(good.replace("<xmin>2</xmin>", "")), None, "odd.xml:3: object 'cat', bndbox/xmin is missing"),
            (an_xml(good.replace("<ymax>9", "<ymax>nan")), None, "bndbox/ymax is no number: 'nan'"),
            (an_xml(good.replace("<ymax>9", "<ymax>1_9")), None, "bndbox/ymax is no number: '1_9"),
            ('<?xml version="1.0" encoding="no-such"?>' + an_xml(good), None, "odd.xml:1: "),
            ("<annotation>" * 100_000, None, "odd.xml:1: no XML (no element found); mend it, or export it again"),
            (an_xml(good, more="<filename>../../secret.jpg</filename>"), 1, ""),
        ]
    ):  # fmt: skip
        rows, skipped = convert_one(tmp_path / str(n), xml)
        assert (rows and len(rows)) == expected_rows, xml[:200]
        assert len(skipped) == bool(complaint), skipped
        assert all(complaint in line and "\n" not in line for line in skipped)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        *(
            (
                an_xml(more=f"<cat{box}</cat>"),
                "2: <cat> looks like an object",
            )
            for box in (
                ' bb="10 20 30 40">',
                ' rect="10,20,30,40">',
                ">[10, 20, 30, 40]",
                ">(10,20),(30,40)",
                ">10px 20px 30px 40px",
                '>{"x":1,"y":2,"w":3,"h":4}',
            )
        ),
        ("<annotations><image/></annotations>", "1: no VOC annotation, its root is <annotations>"),
        ("<Annotation/>", "1: no VOC annotation, its root is <Annotation>"),
        ("<html><body/></html>", "1: no VOC annotation, its root is <html>"),
        (an_xml(more="<objects><object/></objects>"), "2: <objects> looks like an object"),
        (an_xml(more="<Object><name>cat</name></Object>"), "2: <Object> looks like an object"),
        (an_xml(more="<outputs><object><item/></object></outputs>"), "2: <object> looks like an object"),
        (an_xml(more="<data>\n<bounding-box/></data>"), "3: <bounding-box> looks like an object"),
        (an_xml(more='<cat x="1" y="2" w="3" h="4"/>'), "2: <cat> looks like an object"),
        (an_xml(more="<cat>1 2\n3 4</cat>"), "3: <cat> looks like an object"),
        (an_xml(more="<cat><a>1</a><b>2</b><c>3</c><d>4</d></cat>"), "2: <cat> looks like an object"),
        (an_xml(an_object(), more="<item/>"), "2: <item> looks like an object"),
        (an_xml(an_object(more="<object/>")), "4: <object> in an <object>"),
        (
            an_xml(more="<filename>a</filename><filename>a</filename>"),
            "2: <filename> again, VOC has one in <annotation>",
        ),
        (an_xml(more="<size><width>1</width></size>"), "2: <size> again, VOC has one in <annotation>"),
        (an_xml(an_object(more="<name>dog</name>")), "4: <name> again, VOC has one in <object>"),
        (an_xml(an_object(more="<difficult>1</difficult>")), "4: <difficult> again, VOC has one in <object>"),
        (an_xml(an_object().replace("<xmin>", "<xmin>7</xmin><xmin>")), "4: <xmin> again, VOC has one in <bndbox>"),
    ],
)
def test_what_looks_like_objects_is_read_or_told(tmp_path, xml, message):
    with pytest.raises(BadXMLError, match=f"^{message}"):
        read_xml(xml.encode())
    rows, skipped = convert_one(tmp_path, xml)
    assert rows is None and skipped[0].startswith(f"Annotations/odd.xml:{message}")


def test_an_annotation_without_object_is_a_background(tmp_path):
    """The header of VOC2007, of labelImg and of other tools has no object in it."""
    source = (
        "<source><database>x</database><annotation>y</annotation><image>flickr</image><flickrid>3</flickrid></source>"
    )
    header = (
        f"<folder>JPEGImages</folder><filename>odd.jpg</filename><path>/2 (1)/10 20 30 40/b 1 2.jpg</path>{source}"
        "<owner><flickrid>a</flickrid><name>b</name></owner><segmented>0</segmented><weather>fog</weather>"
        "<camera id='3'><focus>2.0</focus></camera><timestamp>2020-01-02 10:20:30</timestamp>"
    )
    assert convert_one(tmp_path, an_xml(more=header)) == ([], [])


@pytest.mark.parametrize("difficult", ["1", "1.0", "true", "Y", "yes"])
def test_difficult_is_said_in_several_ways(difficult):
    (written,) = read_xml(an_xml(an_object(difficult=difficult)).encode()).objects
    assert written.difficult


def test_a_name_on_two_lines_is_the_same_class():
    (written,) = read_xml(an_xml(an_object("traffic\n light")).encode()).objects
    assert written.name == "traffic light"


def test_several_boxes_of_an_object_are_several_rows(tmp_path):
    box = "<bndbox><ymin>{0}</ymin><xmin>{0}</xmin><xmax>{1}</xmax><ymax>{1}</ymax></bndbox>"
    rows, skipped = convert_one(
        tmp_path, an_xml(an_object(box=(1, 1, 20, 15), more=box.format(2, 5) + box.format(4, 9)))
    )
    assert sorted(row[3] for row in rows) == [4 / 40, 6 / 40, 20 / 40] and skipped == []
    assert record(tmp_path / "dest")["splits"]["train"]["annotated"] == 4


def test_fractions_of_the_picture(tmp_path):
    half = an_xml(an_object(box=(0.25, 0.5, 0.75, 1)))
    src = make_voc(tmp_path / "src", train={"a": half}, val={"v": [an_object(box=(0, 0, 1, 1))]})
    for boxes in ("auto", "fraction"):
        convert_voc(src, tmp_path / boxes, boxes=boxes)
        assert labels(tmp_path / boxes, "train", "a") == [[0, 0.5, 0.75, 0.5, 0.5]]
        assert labels(tmp_path / boxes, "val", "v") == [[0, 0.5, 0.5, 1, 1]]
        assert record(tmp_path / boxes)["boxes"] == "fraction"
    rows, skipped = convert_one(tmp_path / "mixed", half)
    assert rows is None
    assert skipped == [
        "Annotations/odd.xml:3: fractions of the picture, but boxes=voc: (0.25, 0.5)-(0.75, 1) of cat; left out is the "
        "image with its 1 objects"
    ]
    with pytest.raises(
        ConfigError, match=r"(?s)would have no images.*a.xml:3: fractions of the picture, but boxes=voc"
    ):
        convert_voc(src, tmp_path / "voc", boxes="voc")
    with pytest.raises(ConfigError, match=r"(?s)no images.*: pixels, but boxes=fraction: \(1, 1\)-\(10, 10\)"):
        convert_one(tmp_path / "pixels", an_xml(an_object()), boxes="fraction")


def test_a_set_without_objects_is_refused(src, tmp_path):
    with pytest.raises(ConfigError, match=r"no object at all; the names in the data are 'cat', 'dog'; did you"):
        convert_voc(src, tmp_path / "dest", classes="Cat")
    with pytest.raises(ConfigError, match="did you mean 'dog'"):
        convert_voc(src, tmp_path / "dest", classes="DOG,zebra")
    none = make_voc(tmp_path / "none", train={"a": []}, val={"b": []})
    with pytest.raises(ConfigError, match=r"no object at all$"):
        convert_voc(none, tmp_path / "dest")
    hard = make_voc(tmp_path / "hard", train={"a": [an_object(difficult=1)]}, val={"b": []})
    with pytest.raises(ConfigError, match=r"no object at all; 1 are difficult .* and dropped"):
        convert_voc(hard, tmp_path / "dest")
    assert tree(tmp_path / "dest") == {}


def test_a_class_of_other_capitals_is_told(src, tmp_path, caplog):
    convert_voc(src, tmp_path / "dest", classes="dog,Cat")
    assert "WARNING: no object of 'Cat'; did you mean 'cat'?" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        *((e, "\u72d7") for e in ("gb2312", "GBK", "GB18030", "big5", "Shift_JIS", "euc-jp", "utf-8", "utf-16")),
        *((e, "\uace0\uc591\uc774") for e in ("euc-kr", "ks_c_5601-1987")),
        *(("iso-8859-1", "\xe9l\xe9phant"), ("windows-1251", "\u043a\u043e\u0442"), ("gb2312", "\u732b\u9ad4")),
    ],
)
def test_the_declared_encoding_is_read(tmp_path, encoding, name):
    xml = f'<?xml version="1.0" encoding="{encoding}"?>\n{an_xml(an_object(name))}'
    content = xml.encode("gbk" if encoding == "gb2312" else encoding)
    read = read_xml(content).objects[0]
    assert (read.name, read.where) == (name, 4)
    src = make_voc(tmp_path / "src", train={"a": [an_object("dog")]}, val={"b": []})
    (src / "Annotations/a.xml").write_bytes(content)
    assert check_det_dataset(str(convert_voc(src, tmp_path / "dest")))["names"] == {0: name}


@pytest.mark.parametrize("declared", ["utf-8", "utf-16", "gbk", "iso-8859-1"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_outranks_the_declaration(encoding, declared):
    xml = f"<?xml version='1.0' encoding='{declared}'?>\n{an_xml(an_object('猫'))}"
    assert [o.name for o in read_xml(xml.encode(encoding)).objects] == ["猫"]
    with pytest.raises(BadXMLError, match="1: not in UTF-8, which its byte-order mark says; save it as UTF-8"):
        read_xml(b"\xef\xbb\xbf" + xml.encode("gbk").replace("猫".encode("gbk"), b"\xe9"))


def test_a_folder_of_images_that_cannot_be_read_is_named(src, tmp_path, monkeypatch):
    (src / "JPEGImages/cam").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("cam"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConfigError, match=r"src/JPEGImages/cam: cannot be read .Permission denied.. Make it readable"):
        convert_voc(src, tmp_path / "dest")


def test_an_image_has_one_annotation(tmp_path):
    def named(name):
        return an_xml(an_object(), more=f"<filename>{name}.jpg</filename>")

    train = {"a": [an_object()], "b": named("a"), "c": named("z"), "d": named("z"), "e": named("y"), "f": named("a")}
    src = make_voc(tmp_path / "src", train=train, val={"v": [an_object()]})
    for name in "bcde":
        (src / f"JPEGImages/{name}.jpg").unlink()
    for name in "zy":
        write_image(src / f"JPEGImages/{name}.jpg")
    convert_voc(src, tmp_path / "dest")
    assert sorted(p.stem for p in (tmp_path / "dest/labels/train").iterdir()) == ["a", "e", "f"]
    assert record(tmp_path / "dest")["skipped"]["train"] == [
        "Annotations/b.xml: no image JPEGImages/b.*, and a.jpg, which it names, is that of a.xml",
        "Annotations/c.xml: its image z.jpg is that of Annotations/d.xml too; make them one",
        "Annotations/d.xml: its image z.jpg is that of Annotations/c.xml too; make them one",
    ]


@pytest.mark.parametrize("encoding", ["gb2312", "shift_jis", "euc-jp", "utf-8", "utf-16", "hex", "idna", "no-such"])
def test_a_false_declaration_costs_one_file(tmp_path, encoding):
    src = make_voc(tmp_path / "src", train={"a": [], "good": [an_object()]}, val={"b": []})
    content = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + an_xml(an_object("\x81 ")).encode("latin-1")
    (src / "Annotations/a.xml").write_bytes(content)
    convert_voc(src, tmp_path / "dest")
    (told,) = record(tmp_path / "dest")["skipped"]["train"]
    assert re.match(r"Annotations/a.xml:[14]: ", told)


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
    file = convert_voc(make_lists(tmp_path, lines), tmp_path / "dest")
    data = check_det_dataset(str(file))
    read = YOLODataset(img_path=data["train"], data=data, task="detect", augment=False).labels
    found = {r["im_file"].partition("images/train/")[2].removesuffix(".jpg") for r in read}
    assert sorted(found) == names
    assert all(len(r["cls"]) == 1 for r in read)
    made = record(tmp_path / "dest")
    assert made["skipped"]["train"] == []
    assert ("marked -1" in str(made["remarks"])) == ("-1" in lines)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("JPEGImages/a.jpg Annotations/b.xml", "no Annotations/*.xml of this name; a line is the name of an image"),
        ("a 1", "no Annotations/*.xml of this name; a line is the name of an image"),
        ("a 7", "no Annotations/*.xml of this name; a line is the name of an image"),
        ("deep\\c", "a \\ in this name; folders are divided by /"),
        ("/etc/passwd", "this name leaves the data set's folder"),
        ("x" * 250, "a name of more than 240 bytes"),
        ("gone", "Annotations/gone.xml: No such file or directory"),
    ],
)
def test_what_is_ambiguous_in_a_list_is_told(tmp_path, line, complaint):
    convert_voc(make_lists(tmp_path, f"b\n{line}\n"), tmp_path / "dest")
    (told,) = record(tmp_path / "dest")["skipped"]["train"]
    assert complaint in told and (told.startswith("ImageSets/Main/train.txt:2: ") or line == "gone")


def test_a_list_that_is_no_text_is_refused(tmp_path):
    for encoding, message in (("utf-16", "train.txt is in UTF-16; save it as UTF-8"), ("utf-16-le", ":1: a NUL byte")):
        with pytest.raises(ConfigError, match=message):
            convert_voc(make_lists(tmp_path, "a\nb\n", encoding=encoding), tmp_path / "dest")


def test_lists_of_classes_only(tmp_path):
    src = make_lists(tmp_path, "a 1\nb -1\n")
    main = src / "ImageSets/Main"
    (main / "train.txt").rename(main / "cat_train.txt")
    (main / "val.txt").rename(main / "cat_val.txt")
    with pytest.raises(
        ConfigError, match=r"no list of images for train; .*train= from: cat_train, cat_val .*of a class"
    ):
        convert_voc(src, tmp_path / "dest")
    convert_voc(src, tmp_path / "dest", train="cat_train", val="cat_val")
    assert record(tmp_path / "dest")["splits"]["train"]["images"] == 1


@pytest.mark.slow
def test_a_set_to_validate_on(tmp_path, yolo, caplog):
    src = make_voc(tmp_path / "src", test={"a": [an_object()]}, cat_test={"a": [an_object()]})
    file = convert_voc(src, tmp_path / "dest")
    assert "no training split: the set is for `yolo val`" in caplog.messages[-1]
    data = check_det_dataset(str(file))
    assert data["train"] is None and data["val"].endswith("/val.txt")
    said = yolo("val", "model=yolov8n.yaml", f"data={file}", "imgsz=32", "device=cpu", "plots=False", cwd=tmp_path)
    assert "1 images, 0 backgrounds, 0 corrupt" in said
    assert "train" in yolo("train", "model=yolov8n.yaml", f"data={file}", "imgsz=32", cwd=tmp_path, status=1)


def test_folders_of_images_that_are_links(src, tmp_path):
    write_image(tmp_path / "disk/e.jpg")
    images = src / "JPEGImages"
    (images / "cam1").symlink_to(tmp_path / "disk")
    (images / "cam2").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/loop").symlink_to(images)
    (src / "Annotations/cam1").mkdir()
    (src / "Annotations/cam1/e.xml").write_text(an_xml(an_object("dog")))
    (src / "ImageSets/Main/train.txt").write_text("cam1/e\nt1\n")
    convert_voc(src, tmp_path / "dest")
    assert (tmp_path / "dest/images/train/cam1/e.jpg").samefile(tmp_path / "disk/e.jpg")
    made = record(tmp_path / "dest")
    assert made["skipped"]["train"] == [] and made["splits"]["train"]["images"] == 2
    assert made["remarks"]["train"] == [
        "JPEGImages/cam2 leads to a folder that is read already; not followed",
        "JPEGImages/cam1/loop leads to a folder that is read already; not followed",
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
    cut.write_bytes(cut.read_bytes()[:-200])
    convert_voc(src, tmp_path / "dest")
    complaints = "\n".join(record(tmp_path / "dest")["skipped"]["train"])
    assert complaints.count("unreadable image") == 3 and "9x30 pixels" in complaints
    assert "empty.xml: unreadable image (empty file)" in complaints and "cut.xml: unreadable image" in complaints


def test_what_ultralytics_repairs_is_not_the_users(src, tmp_path):
    """A JPEG with bytes behind its end is rewritten in place by Ultralytics; that is no change by the user."""
    padded = src / "JPEGImages/t0.jpg"
    padded.write_bytes(padded.read_bytes() + bytes(9))
    before = tree(src)
    file = convert_voc(src, tmp_path / "dest")
    data = check_det_dataset(str(file))
    assert len(YOLODataset(img_path=data["train"], data=data, task="detect", augment=False).labels) == 4
    repaired = (tmp_path / "dest/images/train/t0.jpg").read_bytes()
    assert repaired != padded.read_bytes()
    convert_voc(src, tmp_path / "dest")
    assert (tmp_path / "dest/images/train/t0.jpg").read_bytes() == repaired and tree(src) == before


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
    assert record(tmp_path / "dest")["in_several_splits"] == ["v0", "v1"]
    assert "WARNING: 2 images are in several splits: v0, v1" in caplog.messages[-1]


def test_the_command_takes_its_folders_by_position_or_by_name(src, tmp_path, caplog):
    for n, arguments in enumerate(([str(src), "{}"], [f"src={src}", "dest={}"], ["boxes=voc", str(src), "{}"])):
        cli.run_command(["voc", *(a.format(tmp_path / str(n)) for a in arguments)])
        assert caplog.messages[-1].endswith(f"data={tmp_path}/{n}/data.yaml")
    for arguments, message in (
        ([], r"SRC and DEST missing; usage: yolo sgdm voc SRC DEST \[train=\] \[val=\]"),
        ([str(src)], "^DEST missing"),
        ([str(src), "a", "b"], "no argument 'b'"),
        ([str(src), "a", "tain=b"], "no argument 'tain=b'.*did you mean 'train'"),
        ([str(src), "a", "train="], "train= needs a value"),
    ):
        with pytest.raises(ConfigError, match=message):
            cli.run_command(["voc", *arguments])


def test_strict_stops_before_anything_is_written(src, tmp_path):
    (src / "Annotations/t1.xml").write_text("<annotation>")
    with pytest.raises(ConfigError, match=r"strict=True.*\n  Annotations/t1.xml:1: no XML .no element found"):
        convert_voc(src, tmp_path / "dest", strict=True)
    assert tree(tmp_path / "dest") == {}
    convert_voc(src, tmp_path / "dest")
    assert record(tmp_path / "dest")["splits"]["train"]["images"] == 3


@pytest.mark.parametrize("given", ["train.txt", "SRC/ImageSets/Main/train.txt"])
def test_a_list_is_given_by_its_file_too(src, tmp_path, given):
    convert_voc(src, tmp_path / "dest", train=given.replace("SRC", str(src)), val="val")
    assert record(tmp_path / "dest")["splits"]["train"]["images"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": "one"}, "boxes=one must be one of auto, voc, zero"),
        ({"difficult": "no"}, "difficult=no must be one of drop, keep"),
        ({"images": "move"}, "images=move must be one of hardlink, copy, symlink"),
        ({"strict": "no"}, "strict=no must be one of True, False"),
        ({"train": "trian"}, r"train=trian: .*ImageSets/Main has no trian.txt, only test, train, val"),
        ({"train": "lists/mine.txt"}, r"mine.txt is not in .*ImageSets/Main; put it there and give its name, mine"),
        ({"classes": "a,b,a"}, "classes=a,b,a: 'a' is there twice"),
        ({"classes": "gone.txt"}, "classes=gone.txt: No such file"),
    ],
)
def test_wrong_options(src, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        convert_voc(src, tmp_path / "dest", **options)
    assert not (tmp_path / "dest").exists()


def test_a_class_list_is_text(src, tmp_path):
    (tmp_path / "names.txt").write_bytes("cat\n\xe9".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"classes=.*names.txt:2: not UTF-8; save it as UTF-8"):
        convert_voc(src, tmp_path / "dest", classes=str(tmp_path / "names.txt"))


def test_wrong_folders(src, tmp_path):
    with pytest.raises(ConfigError, match="gone: no such folder; SRC is a folder in VOC layout"):
        convert_voc(tmp_path / "gone", tmp_path / "dest")
    with pytest.raises(ConfigError, match=r"val\.txt: not a folder"):
        convert_voc(src / "ImageSets/Main/val.txt", tmp_path / "dest")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/below/dest: Not a directory"):
        convert_voc(src, tmp_path / "file/below/dest")
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
    for name in (".lock", ".journal"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("mine")
        with pytest.raises(ConfigError, match=f"{name} is not ours"):
            convert_voc(src, tmp_path / name)
        assert [(f.name, f.read_text()) for f in (tmp_path / name).iterdir()] == [(name, "mine")]
    convert_voc(src, tmp_path / "dest")
    before = tree(tmp_path / "dest")
    with pytest.raises(ConfigError, match="was made with difficult=drop, not difficult=keep"):
        convert_voc(src, tmp_path / "dest", difficult="keep")
    assert tree(tmp_path / "dest") == before


@pytest.mark.parametrize(
    "name",
    ["images", "labels", "data.yaml", "conversion.json", "written.sha256", "train.txt", "val.txt", "test.txt"],
)
def test_every_name_that_we_write_may_be_the_users(src, tmp_path, name):
    (tmp_path / "dest").mkdir()
    for kind in ("file", "broken link"):
        if kind == "file":
            (tmp_path / "dest" / name).write_text("mine")
        else:
            (tmp_path / "dest" / name).unlink()
            (tmp_path / "dest" / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ConfigError, match=name):
            convert_voc(src, tmp_path / "dest")
        assert [p.name for p in (tmp_path / "dest").iterdir()] == [name] and not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "name", ["labels/train/t0.txt", "data.yaml", "train.txt", "val.txt", "conversion.json", "images/train/t0.jpg"]
)
def test_what_the_user_has_edited_is_refused_and_kept(src, tmp_path, name):
    dest = tmp_path / "dest"
    convert_voc(src, dest, images="copy")
    (dest / name).write_bytes((dest / name).read_bytes() + b"\n")
    before = tree(dest)
    with pytest.raises(ConfigError, match=f"{name} .*(was|were) changed"):
        convert_voc(src, dest, images="copy")
    assert tree(dest) == before
    (dest / name).unlink()
    convert_voc(src, dest, images="copy")


def test_a_changed_source_changes_the_set(src, tmp_path):
    dest = tmp_path / "dest"
    convert_voc(src, dest)
    (src / "Annotations/t0.xml").write_text(an_xml(an_object("ant", (1, 1, 20, 15))))
    (src / "ImageSets/Main/train.txt").write_text("t0\nt1\n")
    file = convert_voc(src, dest)
    assert check_det_dataset(str(file))["names"] == {0: "ant", 1: "bird", 2: "cat", 3: "dog"}
    assert labels(dest, "train", "t0") == [[0, 0.25, 0.25, 0.5, 0.5]]
    convert_voc(src, tmp_path / "anew")
    anew = tree(tmp_path / "anew", times=False)
    assert {
        k: v for k, v in tree(dest, times=False).items() if k in anew and k != "written.sha256"
    }.items() <= anew.items()


def test_another_way_of_placing_may_follow_one_that_failed(src, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ConfigError, match="use images=copy or images=symlink"):
        convert_voc(src, tmp_path / "dest")
    convert_voc(src, tmp_path / "dest", images="copy")
    assert not (tmp_path / "dest/images/train/t0.jpg").samefile(src / "JPEGImages/t0.jpg")
