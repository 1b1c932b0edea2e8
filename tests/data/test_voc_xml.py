import math

import pytest
from small_datasets import an_object, an_xml

from ultralytics_sgdm.data import voc_xml
from ultralytics_sgdm.data.voc_xml import read_xml

BOX_LIKE = (
    ' bb="10 20 30 40">',
    ">[10, 20, 30, 4e1]",
    ">(10,20),(30,40)",
    ">10px 20px 30px 40px",
    '>{"x":1,"y":2,"w":3,"h":4}',
)
SIZE = "<size><width>1</width></size>"
ROTATED = "<cx>20</cx><cy>15</cy><w>16</w><h>8</h><angle>{}</angle>"


def read_objects(xml):
    return read_xml(xml if isinstance(xml, bytes) else xml.encode())[2]


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        *((an_xml(more=f"<cat{box}</cat>"), "<cat> looks like an object") for box in BOX_LIKE),
        ("<annotations><image/></annotations>", "not a VOC annotation, its root is <annotations>"),
        (an_xml(more="<objects><object/></objects>"), "<objects> looks like an object"),
        (an_xml(more="<Object><name>cat</name></Object>"), "<Object> looks like an object"),
        (an_xml(more="<data>\n<bounding-box/></data>"), "<bounding-box> looks like an object"),
        (an_xml(more='<cat x="1" y="2" w="3" h="4"/>'), "<cat> looks like an object"),
        (an_xml(more="<cat><a>1</a><b>2</b><c>3</c><d>4</d></cat>"), "<cat> looks like an object"),
        (an_xml(an_object(), more="<item/>"), "<item> looks like an object"),
        (an_xml(an_object(more="<object/>")), "object 1, 'cat': <object> in an <object>"),
        (an_xml(more="<filename>a</filename><filename>a</filename>"), "<filename> again, VOC has one in <annotation>"),
        (an_xml(more=SIZE), "<size/width> again, VOC has one in <annotation>"),
        (an_xml(an_object(more="<name>dog</name>")), "<name> again, VOC has one in <object>"),
        (an_xml(an_object().replace("<xmin>", "<xmin>7</xmin><xmin>")), "<xmin> again, VOC has one in <bndbox>"),
        (an_xml(an_object()).replace("<name>cat</name>", ""), "object 1 without a name"),
        (an_xml(an_object(), an_object()).replace("<xmin>1", "<xmin>", 1), "object 1, 'cat', bndbox/xmin is missing"),
        (an_xml("<object><name>cat</name></object>"), "object 1, 'cat', bndbox is missing"),
        (an_xml(an_object(box=(1, 1, 9, "nan"))), "object 1, 'cat', bndbox/ymax is not a number: 'nan'"),
        (an_xml(an_object(box=(1, 1, 9, "1_9"))), "object 1, 'cat', bndbox/ymax is not a number: '1_9'"),
        (an_xml(an_object(more="<rotated>1</rotated>")), "object 1, 'cat' is marked as rotated, without an angle"),
        ("", "line 1: not XML"),
        ("\n" * 4 + an_xml(an_object())[:-9], "line 10: not XML"),
        ("<annotation>" * 100_000, r"line 1: not XML \(no element found.*fix it, or export it again"),
        (an_xml(more="<a>" * 90_000 + "<box/>" + "</a>" * 90_000), "<box> looks like an object"),
        ('<?xml version="1.0" encoding="no-such"?>' + an_xml(), "unknown encoding: no-such.; save it as UTF-8"),
    ],
)
def test_an_annotation_that_is_not_understood_is_never_a_background(xml, message):
    with pytest.raises(ValueError, match=f"(?s)^(not in the encoding.*)?{message}"):
        read_objects(xml)


def test_an_annotation_without_object_is_a_background():
    """The header of VOC2007, of labelImg and of other tools has no object in it."""
    source = "<source><database>x</database><annotation>y</annotation><image>flickr</image></source><viewpoint/>"
    header = (
        f"<folder>JPEGImages</folder><filename>odd.jpg</filename><path>/2 (1)/10 20 30 40/b 1 2.jpg</path>{source}"
        "<owner><flickrid>a</flickrid><name>b</name></owner><segmented>0</segmented><weather>fog</weather>"
        "<camera id='3'><focus>2.0</focus></camera><timestamp>2020-01-02 10:20:30</timestamp>"
    )
    assert read_xml(an_xml(more=header).encode()) == ("odd.jpg", (40, 30), [])


@pytest.mark.parametrize("size", [None, (0, 0), ("", "x"), ("inf", 1)])
def test_a_size_that_is_none_is_left_to_the_image(size):
    assert read_xml(an_xml(size=size).encode())[1] is None


@pytest.mark.parametrize("difficult", ["1", "1.0", "true", "Y", "yes"])
def test_values_are_written_in_several_ways(difficult):
    (written,) = read_objects(an_xml(an_object("traffic\n light", difficult=difficult)))
    assert written.difficult and written.name == "traffic light"


def test_parts_and_attributes_of_an_object_are_not_objects():
    attributes = "<attributes><attribute><name>id</name></attribute></attributes>"
    part = "<part><name>head</name><bndbox><xmin>7</xmin></bndbox></part>"
    assert len(read_objects(an_xml(an_object(more=attributes + part)))) == 1


def test_several_boxes_of_an_object_are_several_objects():
    box = "<bndbox><ymin>{0}</ymin><xmin>{0}</xmin><xmax>{1}</xmax><ymax>{1}</ymax></bndbox>"
    objects = read_objects(an_xml(an_object(box=(1, 1, 20, 15), more=box.format(2, 5) + box.format(4, 9))))
    assert sorted(o.box for o in objects) == [(1, 1, 20, 15), (2, 2, 5, 5), (4, 4, 9, 9)]


def test_rotated_boxes_have_their_angle_in_degrees():
    turn = "<attributes><attribute><name>rotation</name><value>{}</value></attribute></attributes>"
    xml = an_xml(
        f"<object><name>a</name><robndbox>{ROTATED.format(math.pi / 6)}</robndbox></object>",
        an_object("b", (12, 11, 28, 19), more=turn.format(390)),
        an_object("c", (12, 11, 28, 19), more=turn.format("0.0") + "<rotated>0</rotated>"),
    )
    objects = read_objects(xml)
    assert [o.box for o in objects] == [(12, 11, 28, 19)] * 3
    assert [o.angle for o in objects] == [pytest.approx(30), 30, None]


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        *((e, "\u72d7") for e in ("gb2312", "GBK", "GB18030", "big5", "Shift_JIS", "euc-jp", "utf-8", "utf-16")),
        *((e, "\uace0\uc591\uc774") for e in ("euc-kr", "ks_c_5601-1987")),
        *(("iso-8859-1", "\xe9l\xe9phant"), ("windows-1251", "\u043a\u043e\u0442"), ("gb2312", "\u732b\u9ad4")),
    ],
)
def test_the_declared_encoding_is_read(encoding, name):
    xml = f'<?xml version="1.0" encoding="{encoding}"?>\n{an_xml(an_object(name))}'
    assert [o.name for o in read_objects(xml.encode("gbk" if encoding == "gb2312" else encoding))] == [name]


@pytest.mark.parametrize("declared", ["utf-8", "utf-16", "gbk", "iso-8859-1"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_outranks_the_declaration(encoding, declared):
    xml = f"<?xml version='1.0' encoding='{declared}'?>\n{an_xml(an_object('猫'))}"
    assert [o.name for o in read_objects(xml.encode(encoding))] == ["猫"]
    with pytest.raises(ValueError, match=r"not in the encoding that it declares .*; save it as UTF-8"):
        read_objects(b"\xef\xbb\xbf" + xml.encode("gbk").replace("猫".encode("gbk"), b"\xe9"))


@pytest.mark.parametrize("encoding", ["gb2312", "shift_jis", "euc-jp", "utf-8", "utf-16", "hex", "idna", "no-such"])
def test_a_false_declaration_is_an_error(encoding):
    content = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + an_xml(an_object("\x81 ")).encode("latin-1")
    with pytest.raises(ValueError):
        read_objects(content)


def test_hostile_files_are_refused(tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text("cat")
    for kind in (
        '<!DOCTYPE a [<!ENTITY x "cat"><!ENTITY y "&x;&x;">]>',
        f'<!DOCTYPE a [<!ENTITY y SYSTEM "{secret.as_uri()}">]>',
        f'<!DOCTYPE a [<!ENTITY % y SYSTEM "{secret.as_uri()}"> %y;]>',
    ):
        with pytest.raises(ValueError, match=r"^entities are refused"):
            read_objects(kind + an_xml(an_object("&y;")))
    monkeypatch.setattr(voc_xml, "LARGEST", 50)
    with pytest.raises(ValueError, match=r"^more than the 50 bytes of the largest"):
        read_objects(an_xml(an_object()))
