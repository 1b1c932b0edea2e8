"""Generated annotation files and lists: whatever they hold, nothing is lost in silence and nothing else is touched.

FUZZ_EXAMPLES sets how many examples each test generates, 100 without it; an example is a set of some annotation files.
"""

import itertools
import json
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree
from xml.sax.saxutils import escape

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from small_sets import an_object, make_voc, tree, write_image

from ultralytics_sgdm.data import convert_coco_json, convert_voc
from ultralytics_sgdm.data.dataset import BadDataError
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
IDS = ("a", "b", "my cat 1", "deep/c", "images/d")
NOT_A_BOX = re.compile(r"(box without area|box outside the image|the same object again) \(.*\) of ")


# -- annotations in XML ------------------------------------------------------------------------------------------------
names = st.sampled_from(["cat", "dog", "Cat", "\u732b", "a,b", "<b>", " ", ""])
numbers = st.one_of(
    st.integers(-5, 60).map(str),
    st.floats(0, 1.2).map(str),
    st.floats().map(str),
    st.sampled_from(["", "x", "1e999", "-0", "1_0", "\uff11\uff12", "0x10", "1 2"]),
)


def element(name, content):
    return st.builds(lambda text: f"<{name}>{text}</{name}>\n", content)


def some(*parts, extra=None):
    """Mostly each part once, in any order; sometimes one is missing, there twice, or something else beside."""
    whole = st.tuples(*parts).flatmap(lambda them: st.permutations(them)).map("".join)
    loose = st.lists(st.one_of(*parts, *([extra] if extra is not None else [])), max_size=7).map("".join)
    return st.one_of(whole, whole, whole, loose)


junk = st.recursive(
    st.one_of(st.text(max_size=8).map(escape), numbers),
    lambda inner: st.builds(
        lambda tag, attribute, content: f"<{tag}{attribute}>{content}</{tag}>",
        st.sampled_from(
            ["object", "item", "bndbox", "xmin", "weather", "size", "name", "part", "polygon", "annotation"]
        ),
        st.sampled_from(["", "", ' x="1"', ' a="1" b="2" c="3" d="4"']),
        inner,
    ),
    max_leaves=6,
)
boxes = element("bndbox", some(*(element(side, numbers) for side in ("xmin", "ymin", "xmax", "ymax")), extra=junk))
flags = element("difficult", st.sampled_from(["0", "0", "1", "true", ""]))
objects = element("object", some(element("name", names.map(escape)), flags, boxes, extra=st.one_of(boxes, junk)))
sizes = element("size", some(element("width", st.just("40")), element("height", st.just("30"))))
heads = some(sizes, element("filename", st.sampled_from(["a.jpg", "../a.jpg", ""])), extra=junk)
annotations = st.builds(
    lambda declaration, root, head, them, end: f"{declaration}<{root}>{head}{''.join(them)}{end}</{root}>",
    st.sampled_from(["", "", '<?xml version="1.0" encoding="UTF-8"?>', '<?xml version="1.0" encoding="gb2312"?>']),
    st.sampled_from(["annotation", "annotation", "annotation", "annotation", "annotations"]),
    heads,
    st.lists(objects, max_size=4),
    st.one_of(st.just(""), st.just(""), junk),
).map(lambda text: text.encode("gb18030" if "gb2312" in text else "utf-8", "ignore"))


def damaged(content):
    """Cut out a part of a file, or put another one in."""
    places = st.integers(0, len(content))
    return st.builds(
        lambda a, b, more: content[: min(a, b)] + more + content[max(a, b) :], places, places, st.binary(max_size=9)
    )


documents = st.one_of(annotations, annotations, annotations.flatmap(damaged), st.binary(max_size=60))

# -- lists of images ---------------------------------------------------------------------------------------------------
ids = st.sampled_from([*IDS, "gone"])
lines = st.one_of(
    ids,
    ids,
    st.builds("{}.jpg".format, ids),
    st.builds("{} {}".format, ids, st.sampled_from(["1", "-1", "0", "2"])),
    st.builds("JPEGImages/{0}.jpg Annotations/{0}.xml".format, ids),
    st.builds("{}{}".format, st.sampled_from(["/", "../", "C:\\", "x/JPEGImages/"]), ids),
    st.text(max_size=12),
)
lists = st.builds(
    lambda good, them, end, encoding: end.join([good, *them]).encode(encoding, "ignore"),
    st.sampled_from(["good", "good", "good.jpg", "good 1"]),
    st.lists(lines, max_size=7),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "latin-1", "utf-16"]),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a fresh folder on each call, and remove the one before."""
    top = tmp_path_factory.mktemp("fuzz")
    counter = itertools.count()

    def fresh():
        shutil.rmtree(top)
        folder = top / str(next(counter))
        folder.mkdir(parents=True)
        return folder

    return fresh


def check_conversion(folder, convert):
    """Convert FOLDER/src into FOLDER/dest; return the record, or None if the source was refused in words."""
    before = tree(folder)
    try:
        file = convert(folder / "dest")
    except ConfigError as e:
        assert str(e)
        made = None
    else:
        made = json.loads((folder / "dest/conversion.json").read_text())
        assert file == folder / "dest/data.yaml" and file.is_file()
        for split, report in made["splits"].items():
            listed = (folder / f"dest/{split}.txt").read_text().splitlines()
            assert len(listed) == report["images"] and all((folder / "dest" / line).is_file() for line in listed)
            rows = [row for line in listed for row in label_of(folder / "dest" / line).read_text().splitlines()]
            told = [line for line in made["skipped"][split] if NOT_A_BOX.search(line)]
            dropped = report["difficult"] + sum(report["other_classes"].values())
            assert report["annotated"] == len(rows) + len(told) + dropped, made
            assert all(len(row.split()) == 5 and min(map(float, row.split())) >= 0 for row in rows)
            assert all(max(map(float, row.split()[1:])) <= 1 for row in rows)
            assert all("\n" not in line for line in made["skipped"][split])
    after = tree(folder)
    assert {k: v for k, v in after.items() if not k.startswith("dest/")} == before
    return made


def label_of(image):
    head, _, tail = str(image).rpartition("/images/")
    return type(image)(f"{head}/labels/{tail}").with_suffix(".txt")


@fuzz
@given(st.lists(documents, min_size=len(IDS), max_size=len(IDS)), lists)
def test_voc_folders(place, contents, image_list):
    folder = place()
    src = make_voc(folder / "src", train={"good": [an_object()]}, val={"good": [an_object()]})
    for name, content in zip(IDS, contents, strict=True):
        write_image(src / f"JPEGImages/{name}.jpg")
        (src / f"Annotations/{name}.xml").parent.mkdir(parents=True, exist_ok=True)
        (src / f"Annotations/{name}.xml").write_bytes(content)
    (src / "ImageSets/Main/train.txt").write_bytes(image_list)
    (src / "ImageSets/Main/val.txt").write_text("\n".join(["good", *IDS]))
    made = check_conversion(folder, lambda dest: convert_voc(src, dest))
    assert made or not is_text(image_list) or b"good 1" in image_list  # in the list of a class all lines are so
    if made:
        kept = {
            line.removeprefix("./images/val/").removesuffix(".jpg")
            for line in (folder / "dest/val.txt").read_text().splitlines()
        }
        told = "\n".join(made["skipped"]["val"])
        assert all(name in kept or f"Annotations/{name}.xml" in told for name in IDS)
        assert made["splits"]["val"]["annotated"] == 1 + sum(
            count_boxes(content) for name, content in zip(IDS, contents, strict=True) if name in kept
        )


def is_text(content):
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def count_boxes(content):
    """Count the boxes of an annotation with another parser."""
    if b"gb2312" in content[:60]:
        content = content.replace(b' encoding="gb2312"', b"", 1).decode("gb18030").encode()
    root = ElementTree.fromstring(content)
    assert root.tag == "annotation"
    assert not {e.tag for e in root.iter()} & {"item"} - {e.tag for o in root.findall("object") for e in o.iter()}
    return sum(len(o.findall("bndbox")) for o in root.findall("object"))


@settings(fuzz, max_examples=10 * EXAMPLES)
@given(documents)
@example(b'<?xml\0 version="1.0" encoding="gb2312"?><annotation></annotation>')
def test_annotations(content):
    try:
        objects = read_xml(content)[2]
    except BadDataError as e:
        assert str(e) and "\n" not in str(e)
    else:
        assert len(objects) == count_boxes(content)


# -- annotations in JSON -----------------------------------------------------------------------------------------------
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)
small = st.one_of(st.integers(-3, 45), st.floats(-3, 45), st.integers(-3, 45), st.integers(-3, 45), values)


def record_of(required, optional):
    """Mostly a dictionary as it should be; sometimes with something missing or of another kind."""
    good = st.fixed_dictionaries(required, optional=optional)
    odd = st.fixed_dictionaries({}, optional={k: st.one_of(v, values) for k, v in (required | optional).items()})
    return st.one_of(good, good, good, odd, values)


keys = st.integers(1, 4)
coco = st.fixed_dictionaries(
    {
        "images": st.lists(
            record_of(
                {
                    "id": keys,
                    "file_name": st.sampled_from(["a.jpg", "b.jpg", "deep/c.jpg", "../a.jpg", "a.png", "\ud800.jpg"]),
                },
                {"width": st.just(40), "height": st.just(30)},
            ),
            min_size=1,
            max_size=5,
        ),
        "annotations": st.lists(
            record_of(
                {"image_id": keys, "category_id": keys, "bbox": st.lists(small, min_size=4, max_size=4)},
                {
                    "id": st.integers(),
                    "iscrowd": st.integers(0, 1),
                    "segmentation": st.lists(st.lists(small, min_size=6, max_size=6), max_size=2),
                },
            ),
            max_size=9,
        ),
        "categories": st.just([{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}, {"id": 3, "name": "\u732b"}]),
    }
)


def convert_json(folder, content):
    for name in ("good.jpg", "a.jpg", "b.jpg", "deep/c.jpg"):
        write_image(folder / "images" / name)
    (folder / "src.json").write_text(json.dumps(content))
    return check_conversion(folder, lambda dest: convert_coco_json(folder / "src.json", folder / "images", dest))


@fuzz
@given(coco)
def test_coco_files(place, content):
    content["images"].insert(0, {"id": 0, "file_name": "good.jpg"})
    content["annotations"].append({"image_id": 0, "category_id": 1, "bbox": [1, 1, 9, 9]})
    made = convert_json(place(), content)
    told = made["skipped"]["val"]
    with_images = [int(number) for line in told for number in re.findall(r"with its (\d+) objects?", line)]
    alone = [line for line in told if " annotation " in line and "with its" not in line and not NOT_A_BOX.search(line)]
    assert made["splits"]["val"]["annotated"] + sum(with_images) + len(alone) == len(content["annotations"]), told


@fuzz
@given(st.one_of(values, st.fixed_dictionaries(dict.fromkeys(("images", "annotations", "categories"), values))))
def test_other_json_files(place, content):
    assert convert_json(place(), content) is None
