"""Generated annotations: whatever they hold, nothing is lost without a reason and nothing else is touched.

FUZZ_EXAMPLES sets how many examples each test generates, 100 without it.
"""

import json
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree
from xml.sax.saxutils import escape

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from small_sets import an_object, make_voc, record, tree, write_image

from ultralytics_sgdm.data import convert_coco_json, convert_voc
from ultralytics_sgdm.data.images import find_label
from ultralytics_sgdm.data.voc_xml import read_xml
from ultralytics_sgdm.errors import ConfigError

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 100))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    database=None,
)
IDS = ("a", "b", "deep/c")
NOT_A_BOX = re.compile(r"(box without area|box outside the image|the same object again) \(.*\) of ")

numbers = st.one_of(
    st.integers(-5, 60).map(str), st.floats().map(str), st.sampled_from(["", "x", "1e999", "1_0", "\uff11", "1 2"])
)


def element(name, content):
    return st.builds(lambda text: f"<{name}>{text}</{name}>\n", content)


def some(*parts):
    """Mostly each part once, in any order; sometimes one is missing, or there twice."""
    whole = st.tuples(*parts).flatmap(st.permutations).map("".join)
    return st.one_of(whole, whole, whole, st.lists(st.one_of(*parts), max_size=7).map("".join))


junk = st.recursive(
    st.one_of(st.text(max_size=8).map(escape), numbers),
    lambda inner: st.builds(
        lambda tag, attribute, content: f"<{tag}{attribute}>{content}</{tag}>",
        st.sampled_from(["object", "item", "bndbox", "xmin", "weather", "size", "part", "annotation"]),
        st.sampled_from(["", ' x="1"', ' a="1" b="2" c="3" d="4"']),
        inner,
    ),
    max_leaves=6,
)
boxes = element("bndbox", some(*(element(side, numbers) for side in ("xmin", "ymin", "xmax", "ymax"))))
names = element("name", st.sampled_from(["cat", "dog", "\u732b", "a,b", "<b>", " "]).map(escape))
objects = element("object", some(names, element("difficult", st.sampled_from(["0", "1", ""])), boxes, boxes | junk))
annotations = st.builds(
    lambda declaration, root, them, end: f"{declaration}<{root}>{''.join(them)}{end}</{root}>",
    st.sampled_from(["", '<?xml version="1.0" encoding="UTF-8"?>', '<?xml version="1.0" encoding="gb2312"?>']),
    st.sampled_from(["annotation", "annotation", "annotation", "annotations"]),
    st.lists(objects, max_size=4),
    st.one_of(st.just(""), junk),
).map(lambda text: text.encode("gb18030" if "gb2312" in text else "utf-8", "ignore"))


def damaged(content):
    """Cut out a part of a file, or put another one in."""
    places = st.integers(0, len(content))
    return st.builds(
        lambda a, b, more: content[: min(a, b)] + more + content[max(a, b) :], places, places, st.binary(max_size=9)
    )


documents = st.one_of(annotations, annotations, annotations.flatmap(damaged), st.binary(max_size=60))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return an empty folder on each call."""
    top = tmp_path_factory.mktemp("fuzz")

    def empty():
        shutil.rmtree(top)
        top.mkdir()
        return top

    return empty


def check_conversion(folder, convert):
    """Convert FOLDER/src into FOLDER/dest; return the record, or None if the source was refused in words."""
    before = tree(folder)
    try:
        convert(folder / "dest")
        made = record(folder / "dest")
    except ConfigError as e:
        assert str(e) and tree(folder) == before
        return None
    for split, report in made["splits"].items():
        listed = [folder / "dest" / line for line in (folder / f"dest/{split}.txt").read_text().splitlines()]
        rows = [row for image in listed for row in find_label(image).read_text().splitlines()]
        told = [line for line in made["skipped"][split] if NOT_A_BOX.search(line)]
        dropped = report["difficult"] + sum(report["other_classes"].values())
        assert len(listed) == report["images"] and report["annotated"] == len(rows) + len(told) + dropped, made
        assert all(0 <= float(v) <= 1 for row in rows for v in row.split()[1:])
        assert all("\n" not in line for line in made["skipped"][split])
    assert {k: v for k, v in tree(folder).items() if not k.startswith("dest/")} == before
    return made


def count_boxes(content):
    """Count the boxes of an annotation with another parser."""
    if b"gb2312" in content[:60]:
        content = content.replace(b' encoding="gb2312"', b"", 1).decode("gb18030").encode()
    root = ElementTree.fromstring(content)
    assert (root.tag == "annotation" and not [*root.iter("item")]) or [*root.iter("object")]
    return sum(len(o.findall("bndbox")) for o in root.findall("object"))


@fuzz
@given(st.lists(documents, min_size=len(IDS), max_size=len(IDS)))
def test_voc_folders(place, contents):
    folder = place()
    src = make_voc(folder / "src", train={"good": [an_object()]}, val={"good": [an_object()]})
    for name, content in zip(IDS, contents, strict=True):
        write_image(src / f"JPEGImages/{name}.jpg")
        (src / f"Annotations/{name}.xml").parent.mkdir(parents=True, exist_ok=True)
        (src / f"Annotations/{name}.xml").write_bytes(content)
    (src / "ImageSets/Main/val.txt").write_text("\n".join(["good", *IDS]))
    made = check_conversion(folder, lambda dest: convert_voc(src, dest))
    listed = (folder / "dest/val.txt").read_text().splitlines()
    kept = {line.removeprefix("./images/val/").removesuffix(".jpg") for line in listed}
    told = "\n".join(made["skipped"]["val"])
    assert all(name in kept or f"Annotations/{name}.xml" in told for name in IDS)
    found = [count_boxes(content) for name, content in zip(IDS, contents, strict=True) if name in kept]
    assert made["splits"]["val"]["annotated"] == 1 + sum(found)


@settings(fuzz, max_examples=10 * EXAMPLES)
@given(documents)
@example(b'<?xml\0 version="1.0" encoding="gb2312"?><annotation></annotation>')
def test_annotations(content):
    try:
        found = read_xml(content)[2]
    except ValueError as e:
        assert str(e) and "\n" not in str(e)
    else:
        assert len(found) == count_boxes(content)


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=4)
)
sides = st.one_of(st.integers(-3, 45), st.floats(-3, 45), st.integers(-3, 45), values)
keys = st.integers(1, 4)
files = st.sampled_from(["a.jpg", "b.jpg", "deep/c.jpg", "../a.jpg", "a.png", "\ud800.jpg"])


def record_of(**parts):
    """Mostly a dictionary as it should be; sometimes with something missing or of another kind."""
    good = st.fixed_dictionaries(parts)
    odd = st.fixed_dictionaries({}, optional={k: st.one_of(v, values) for k, v in parts.items()})
    return st.one_of(good, good, good, odd, values)


box = st.lists(sides, min_size=4, max_size=4)
outline = st.lists(st.lists(sides, min_size=6, max_size=6), max_size=2)
coco_objects = record_of(image_id=keys, category_id=keys, bbox=box, id=st.integers(), segmentation=outline)


@fuzz
@given(st.lists(record_of(id=keys, file_name=files), min_size=1, max_size=5), st.lists(coco_objects, max_size=9))
def test_coco_files(place, images, annotations):
    folder = place()
    for name in ("good.jpg", "a.jpg", "b.jpg", "deep/c.jpg"):
        write_image(folder / "images" / name)
    content = {
        "images": [{"id": 0, "file_name": "good.jpg"}, *images],
        "annotations": [*annotations, {"image_id": 0, "category_id": 1, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}, {"id": 3, "name": "\u732b"}],
    }
    (folder / "src.json").write_text(json.dumps(content))
    made = check_conversion(folder, lambda dest: convert_coco_json(folder / "src.json", folder / "images", dest))
    told = made["skipped"]["val"]
    with_images = [int(number) for line in told for number in re.findall(r"with its (\d+) objects?", line)]
    alone = [line for line in told if " annotation " in line and "with its" not in line and not NOT_A_BOX.search(line)]
    assert made["splits"]["val"]["annotated"] + sum(with_images) + len(alone) == len(annotations) + 1, told
