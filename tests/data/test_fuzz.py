"""Generated annotations: whatever they hold, nothing is lost without a reason and nothing else is touched.

FUZZ_EXAMPLES sets how many examples each test generates, 100 without it.
"""

import json
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_datasets import an_object, make_voc, record, tree, write_image

from ultralytics_sgdm.data import convert_coco_json, convert_voc
from ultralytics_sgdm.data.images import find_label

pytestmark = pytest.mark.slow

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", 100)),
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    database=None,
)
NOT_A_BOX = re.compile(r"(box without area|box outside the image|the same object again) \(.*\) of ")


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
    """Convert FOLDER/src into FOLDER/dest, and return counts and what was left out of the validation split."""
    before = tree(folder)
    convert(folder / "dest")
    found = record(folder / "dest")
    report, skipped = found["splits"]["val"], found["skipped"]["val"]
    listed = [folder / "dest" / line for line in (folder / "dest/val.txt").read_text().splitlines()]
    rows = [row for image in listed for row in find_label(image).read_text().splitlines()]
    unusable = [line for line in skipped if NOT_A_BOX.search(line)]
    dropped = report["difficult"] + sum(report["other_classes"].values())
    assert len(listed) == report["images"] and report["annotated"] == len(rows) + len(unusable) + dropped, found
    assert all(0 <= float(v) <= 1 for row in rows for v in row.split()[1:])
    assert all("\n" not in line for line in skipped)
    assert {k: v for k, v in tree(folder).items() if not k.startswith("dest/")} == before
    return report, skipped


def element(name, *contents):
    return st.builds(lambda *texts: f"<{name}>{''.join(texts)}</{name}>", *contents)


numbers = st.integers(-5, 60).map(str) | st.sampled_from(["", "x", "nan", "1e999", "1_0", "1.5", "1 2"])
junk = st.sampled_from(
    ["", "", "<part/>", "<item/>", "<object/>", '<cat a="1" b="2" c="3" d="4"/>', "&amp;", "&x;", "<b>"]
)
boxes = element("bndbox", *(element(side, numbers) for side in ("xmin", "ymin", "xmax", "ymax")), junk)
names = element("name", st.sampled_from(["cat", "dog", "\u732b", "a,b", " "]))
objects = element("object", names, element("difficult", st.sampled_from(["0", "1", ""])), junk | boxes, boxes)
annotations = element("annotation", st.lists(objects, max_size=4).map("".join), junk).map(str.encode)
cut = st.builds(
    lambda content, a, b, more: content[:a] + more + content[b:],
    annotations,
    *[st.integers(0, 300)] * 2,
    st.binary(max_size=9),
)
documents = st.one_of(annotations, annotations, cut)


@fuzz
@given(st.lists(documents, min_size=3, max_size=3))
def test_voc_folders(place, contents):
    folder = place()
    src = make_voc(folder / "src", train={"good": [an_object()]}, val={"good": [an_object()]})
    documents = dict(zip(("a", "b", "deep/c"), contents, strict=True))
    for name, content in documents.items():
        write_image(src / f"JPEGImages/{name}.jpg")
        (src / f"Annotations/{name}.xml").parent.mkdir(exist_ok=True)
        (src / f"Annotations/{name}.xml").write_bytes(content)
    (src / "ImageSets/Main/val.txt").write_text("\n".join(["good", *documents]))
    report, skipped = check_conversion(folder, lambda dest: convert_voc(src, dest))
    annotated = 1
    for name, content in documents.items():
        if (folder / f"dest/images/val/{name}.jpg").exists():
            annotated += len(ElementTree.fromstring(content).findall("object/bndbox"))
        else:
            assert any(f"Annotations/{name}.xml" in line for line in skipped)
    assert report["annotated"] == annotated


values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers()))
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
    report, skipped = check_conversion(
        folder, lambda dest: convert_coco_json(folder / "src.json", folder / "images", dest)
    )
    with_images = [int(number) for line in skipped for number in re.findall(r"with its (\d+) objects?", line)]
    alone = [s for s in skipped if " annotation " in s and "with its" not in s and not NOT_A_BOX.search(s)]
    assert report["annotated"] + sum(with_images) + len(alone) == len(annotations) + 1, skipped
