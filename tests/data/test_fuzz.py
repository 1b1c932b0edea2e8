"""Generated annotation files: whatever they hold, nothing is lost without a reason and nothing else is touched."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_datasets import record, tree, write_image

from ultralytics_sgdm.data import convert_coco_json
from ultralytics_sgdm.data.images import find_label

pytestmark = pytest.mark.slow

NOT_A_BOX = re.compile(r"(box without area|box outside the image|the same object again) \(.*\) of ")

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


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(st.lists(record_of(id=keys, file_name=files), min_size=1, max_size=5), st.lists(coco_objects, max_size=9))
def test_coco_files(tmp_path_factory, images, annotations):
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("good.jpg", "a.jpg", "b.jpg", "deep/c.jpg"):
        write_image(folder / "images" / name)
    content = {
        "images": [{"id": 0, "file_name": "good.jpg"}, *images],
        "annotations": [*annotations, {"image_id": 0, "category_id": 1, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}, {"id": 3, "name": "\u732b"}],
    }
    (folder / "src.json").write_text(json.dumps(content))
    before = tree(folder)
    dest = convert_coco_json(folder / "src.json", folder / "images", folder / "dest").parent
    assert {k: v for k, v in tree(folder).items() if not k.startswith("dest/")} == before
    report, skipped = record(dest)["splits"]["val"], record(dest)["skipped"]["val"]
    listed = (dest / "val.txt").read_text().splitlines()
    rows = [row for line in listed for row in find_label(dest / line).read_text().splitlines()]
    assert all(0 <= float(v) <= 1 for row in rows for v in row.split()[1:])
    unusable = [line for line in skipped if NOT_A_BOX.search(line)]
    assert len(listed) == report["images"] and report["annotated"] == len(rows) + len(unusable) + report["difficult"]
    assert all("\n" not in line for line in skipped)
    with_images = [int(number) for line in skipped for number in re.findall(r"with its (\d+) objects?", line)]
    alone = [s for s in skipped if " annotation " in s and "with its" not in s and not NOT_A_BOX.search(s)]
    assert report["annotated"] + sum(with_images) + len(alone) == len(annotations) + 1, skipped
