import math

import pytest
from small_datasets import ROTATED, TURN, an_object, an_xml

from ultralytics_sgdm.data.voc import read_xml


def read_objects(xml):
    return read_xml(xml if isinstance(xml, bytes) else xml.encode())[2]


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotations><image/></annotations>", "not a VOC annotation, its root is <annotations>"),
        (an_xml(more="<objects><object/></objects>"), "<objects> looks like an object"),
        (an_xml(more="<data>\n<bounding-box/></data>"), "<bounding-box> looks like an object"),
        (an_xml(more="<a>" * 90_000 + "<box/>" + "</a>" * 90_000), "<box> looks like an object"),
        (an_xml(an_object(more="<object/>")), "object 1, 'cat': VOC has .* and no <object> in it"),
        (an_xml(an_object()).replace("<name>cat</name>", ""), "object 1, '': VOC has a <name>"),
        (an_xml("<object><name>cat</name></object>"), "object 1, 'cat': VOC has a <name> and a <bndbox>"),
        (an_xml(an_object(), an_object()).replace("<xmin>1", "<xmin>", 1), "object 1, .*bndbox/xmin is not a number: "),
        (an_xml(an_object(more="<rotated>1</rotated>")), "object 1, 'cat' is marked as rotated, without an angle"),
        (an_xml(an_object(box=(1, 1, 9, "nan"))), "object 1, 'cat', bndbox/ymax is not a number: 'nan'"),
        ("\n" * 4 + an_xml(an_object())[:-9], "not XML.* line 10"),
        ('<?xml version="1.0" encoding="no-such"?>' + an_xml(), "not .*another encoding.*unknown encoding: no-such"),
        ('<!DOCTYPE a [<!ENTITY x "cat"><!ENTITY y "&x;&x;">]>' + an_xml(an_object("&y;")), "not XML, with entities"),
        ('<!DOCTYPE a [<!ENTITY y SYSTEM "file:///etc/passwd">]>' + an_xml(an_object("&y;")), "not XML, with entities"),
    ],
)
def test_an_annotation_that_is_not_understood_is_never_a_background(xml, message):
    with pytest.raises(ValueError, match=f"(?s)^{message}"):
        read_objects(xml)


def test_an_annotation_without_object_is_a_background():
    """The header of VOC2007, of labelImg and of other tools has no object in it."""
    header = (
        "<folder>JPEGImages</folder><filename>odd.jpg</filename><path>/2 (1)/10 20 30 40/b 1 2.jpg</path>"
        "<source><database>x</database><annotation>y</annotation><image>flickr</image></source><viewpoint/>"
        "<owner><flickrid>a</flickrid><name>b</name></owner><segmented>0</segmented><weather>fog</weather>"
        "<camera id='3'><focus>2.0</focus></camera><timestamp>2020-01-02 10:20:30</timestamp>"
    )
    assert read_xml(an_xml(more=header).encode()) == (40, 30, [])
    for size in (None, ("", "x"), ("inf", 1)):  # is left to the image
        assert read_xml(an_xml(size=size).encode()) == (0, 0, [])


@pytest.mark.parametrize("difficult", ["1", "1.0", "true", "Y", "yes"])
def test_values_are_written_in_several_ways(difficult):
    (written,) = read_objects(an_xml(an_object("traffic\n light", difficult=difficult)))
    assert written.difficult and written.name == "traffic light"


def test_several_boxes_of_an_object_are_several_objects_and_its_parts_are_none():
    box = "<bndbox><ymin>{0}</ymin><xmin>{0}</xmin><xmax>{1}</xmax><ymax>{1}</ymax></bndbox>"
    more = TURN.format(0) + "<part><name>head</name><bndbox><xmin>7</xmin></bndbox></part>"
    xml = an_xml(an_object(box=(1, 1, 20, 15), more=more + box.format(2, 5) + box.format(4, 9)))
    assert sorted(o.box for o in read_objects(xml)) == [(1, 1, 20, 15), (2, 2, 5, 5), (4, 4, 9, 9)]


def test_rotated_boxes_have_their_angle_in_degrees():
    cvat = [an_object("b", (12, 11, 28, 19), more=TURN.format(angle)) for angle in (390, "0.0")]
    objects = read_objects(an_xml(ROTATED.format(math.pi / 6), *cvat))
    assert [o.box for o in objects] == [(12, 11, 28, 19)] * 3
    assert [o.angle for o in objects] == [pytest.approx(30), 30, None]


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        *((e, "\u72d7") for e in ("gb2312", "GBK", "GB18030", "big5", "Shift_JIS", "euc-jp", "utf-8", "utf-16")),
        *(("gb2312", "\u9555"), ("Shift_JIS", "\u2460")),  # not in the set that is declared, but in what is written
        *(("euc-kr", "\uace0\uc591\uc774"), ("iso-8859-1", "\xe9l\xe9phant"), ("windows-1251", "\u043a\u043e\u0442")),
    ],
)
def test_the_declared_encoding_is_read_and_a_false_declaration_is_an_error(encoding, name):
    xml = f'<?xml version="1.0" encoding="{encoding}"?>\n{an_xml(an_object(name))}'
    written = {"gb2312": "gb18030", "Shift_JIS": "cp932"}.get(encoding, encoding)
    assert [o.name for o in read_objects(xml.encode(written))] == [name]
    if encoding in ("gb2312", "Shift_JIS", "euc-jp", "utf-8", "utf-16"):
        with pytest.raises(ValueError, match="another encoding than it declares"):
            read_objects(xml.replace(name, "\x81 ").encode("latin-1"))


@pytest.mark.parametrize("declared", ["utf-8", "utf-16", "gbk", "iso-8859-1"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_outranks_the_declaration(encoding, declared):
    xml = f"<?xml version='1.0' encoding='{declared}'?>\n{an_xml(an_object('猫'))}"
    assert [o.name for o in read_objects(xml.encode(encoding))] == ["猫"]
