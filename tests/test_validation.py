"""Malformed model YAMLs: one line each, by `YOLO`, `equip` and `yolo train` alike; and every valid one passes."""

import re

import pytest
import yaml
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.utils import ROOT

from ultralytics_sgdm import equip
from ultralytics_sgdm.configs import ConfigError, shipped, with_scale
from ultralytics_sgdm.skeleton import skeleton

pytestmark = pytest.mark.slow

GOOD = """nc: 3
scales:
  n: [0.33, 0.25, 1024]
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 3, C2f, [64, True]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 3, C2f, [128, True]]
head:
  - [[2, 4], 1, Detect, [nc]]
"""
ROW = "  - [-1, 1, Conv, [128, 3, 2]]"
WHERE = r"bad\.yaml, backbone row 4 \(layer 3\), .*: "
BACKBONE = GOOD[GOOD.index("backbone") : GOOD.index("head")]
HEAD = GOOD[GOOD.index("head") :]
MALFORMED = {
    "three entries": (ROW, "  - [-1, 1, Conv]", WHERE + r"a row has the four entries \[from, .*, this one has 3"),
    "five entries": (ROW, "  - [-1, 1, Conv, [128], 1]", WHERE + "a row has the four entries .*, this one has 5"),
    "no row": (ROW, "  - Conv", r"backbone row 4 \(layer 3\), Conv: this is the text 'Conv', a row is a list \[from"),
    "number for name": (ROW, "  - [-1, 1, 7, [128]]", WHERE + "the third entry is the module's name, .*got 7"),
    "text for repeats": (ROW, "  - [-1, many, Conv, [128]]", WHERE + "the second entry is the number of repeats"),
    "no list of args": (ROW, "  - [-1, 1, Conv, 128]", WHERE + "the fourth entry is the list of the module's arg.*128"),
    "from ahead": (
        ROW,
        "  - [4, 1, Conv, [128]]",
        WHERE + "reads from 4, which comes later; earlier layers are 0 to 2",
    ),
    "from itself": (ROW, "  - [3, 1, Conv, [128]]", WHERE + "reads from 3, which is the layer itself"),
    "from nowhere": (ROW, "  - [-99, 1, Conv, [128]]", WHERE + "reads from -99, which would be layer -96"),
    "from a text": (ROW, "  - [last, 1, Conv, [128]]", WHERE + "the first entry is the layer to read from.*'last'"),
    "from a list ahead": ("[[2, 4],", "[[2, 99],", r"head row 1 \(layer 5\).*reads from 99, which comes later"),
    "first layer": ("[-1, 1, Conv, [64, 3, 2]]", "[0, 1, Conv, [64]]", "the first layer can only read the image"),
    "zero channels": (ROW, "  - [-1, 1, Conv, [0, 3, 2]]", WHERE + "c2 must be a number of channels above 0, got 0"),
    "negative channels": (ROW, "  - [-1, 1, Conv, [-8]]", WHERE + "c2 must be a number of channels above 0, got -8"),
    "text for channels": (
        ROW,
        "  - [-1, 1, Conv, [big]]",
        WHERE + "c2 must be a number of channels above 0, got 'big'",
    ),
    "text for a kernel": (
        ROW,
        "  - [-1, 1, Conv, [8, big]]",
        WHERE + "k must be a number, got 'big'; the row is written",
    ),
    "maps of two sizes": (ROW, "  - [[0, 1], 1, Concat, [1]]", WHERE + "Sizes of tensors must match"),
    "half a pixel": (ROW, "  - [-1, 1, Conv, [8, 3, 2, 3.5]]", WHERE + r"conv2d\(\) received an invalid combination"),
    "no stride": (ROW, "  - [-1, 1, Conv, [8, 3, 0]]", WHERE + "s must be 1 or more, got 0; the row is written Conv"),
    "no kernel": (ROW, "  - [-1, 1, Conv, [8, 0]]", WHERE + "k must be 1 or more, got 0"),
    "too many channels": (
        ROW,
        "  - [-1, 1, Conv, [100000000000]]",
        WHERE + "c2 must be a number of channels up to 10485",
    ),
    "nc missing": ("nc: 3\n", "", r"head row 1 .*: 'nc' is missing; write nc: 80, the data set's replaces it"),
    "unknown module": (ROW, "  - [-1, 1, Cnv, [8]]", WHERE + "unknown module 'Cnv'; did you mean 'Conv'"),
    "no backbone": (BACKBONE, "", "bad.yaml is no model YAML: it lacks the list 'backbone' of rows"),
    "no head": (HEAD, "", "bad.yaml is no model YAML: it lacks the list 'head' of rows"),
    "empty backbone": (BACKBONE, "backbone:\n", "bad.yaml: 'backbone' is empty, it must be a list of rows"),
    "backbone of no rows": (BACKBONE, "backbone: []\n", "bad.yaml: 'backbone' is empty, it must be a list of rows"),
    "empty head": (HEAD, "head:\n", "bad.yaml: 'head' is empty, it must be a list of rows"),
    "mapping backbone": (
        BACKBONE,
        "backbone: {a: 1}\n",
        "bad.yaml: 'backbone' is a mapping, it must be a list of rows",
    ),
    "a data set": (GOOD, "path: x\ntrain: images\nval: images\nnames: [a]\n", "is the YAML of a data set.* as data="),
    "empty file": (GOOD, "", "bad.yaml is empty; a model YAML has 'nc', 'backbone' and 'head'"),
    "comments only": (GOOD, "# nothing\n", "bad.yaml is empty"),
    "a list": (GOOD, "- 1\n- 2\n", "bad.yaml holds a list at the top level; a model YAML is a mapping"),
    "a text": (GOOD, "hello\n", "bad.yaml holds the text 'hello' at the top level"),
    "two scale numbers": (
        "[0.33, 0.25, 1024]",
        "[0.33, 0.25]",
        r"scale 'n' is \[0.33, 0.25\], 'scales' must be a mapping",
    ),
    "a scale of text": ("[0.33, 0.25, 1024]", "[0.33, wide, 1024]", "scale 'n' is .*for each letter depth, width and"),
    "scales as a list": (
        "  n: [0.33, 0.25, 1024]",
        "  - [0.33, 0.25, 1024]",
        "'scales' is a list, it must be a mapping",
    ),
    "text for nc": ("nc: 3", "nc: three", "bad.yaml: nc is 'three', it must be a number above 0"),
    "no classes": ("nc: 3", "nc: 0", "bad.yaml: nc is 0, it must be a number above 0"),
    "bad syntax": (ROW, "  - [-1, 1, Conv, [128, 3, 2]", r"bad\.yaml is no YAML: line \d+, column \d+: "),
    "a tab": (
        ROW,
        "\t- [-1, 1, Conv, [128, 3, 2]]",
        r"bad\.yaml is no YAML: line 8 is indented by a tab; YAML takes spac",
    ),
    "a key twice": ("nc: 3", "nc: 3\nnc: 4", r"bad\.yaml: the key 'nc' in line 2 stands in line 1 already; keep one"),
    "a scale twice": ("backbone:", "  n: [1, 1, 512]\nbackbone:", "the key 'n' in line 4 stands in line 3 already"),
}


def write(folder, old, new):
    assert old in GOOD
    (folder / "bad.yaml").write_text(GOOD.replace(old, new, 1))
    return folder / "bad.yaml"


@pytest.mark.parametrize("build", [YOLO, equip])
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_are_named_in_one_line(tmp_path, case, build):
    old, new, message = MALFORMED[case]
    with pytest.raises(ConfigError) as error:
        build(write(tmp_path, old, new))
    assert re.search(message, str(error.value)), str(error.value)
    assert "\n" not in str(error.value) and "bad.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            HEAD,
            "head:\n  - [-1, 1, Conv, [64]]\n",
            r"head row 1 \(layer 5\), .*: a model ends in the head of a task, such ",
        ),
        (ROW, "  - [-1, 1, Conv, [8, 3, 2, -1]]", WHERE + "negative padding is not supported"),
        (ROW, "  - [-1, 1, Detect, [nc]]", WHERE + r"Detect reads several layers: .*, such as \[-1\] or \[-1, 6\]"),
    ],
)
def test_what_shows_when_a_model_is_built_is_named_too(tmp_path, old, new, message):
    with pytest.raises(ConfigError, match=message):
        YOLO(write(tmp_path, old, new))


def test_the_good_file_builds(tmp_path):
    (tmp_path / "good.yaml").write_text(GOOD)
    assert YOLO(tmp_path / "good.yaml").model.yaml["nc"] == 3


def test_the_command_line_says_the_line_alone(yolo, tmp_path):
    old, new, _ = MALFORMED["three entries"]
    write(tmp_path, old, new)
    (tmp_path / "folder.yaml").mkdir()
    for argv in (("train", "model=bad.yaml", "data=shapes.yaml"), ("sgdm", "equip", "model=bad.yaml")):
        out = yolo(*argv, cwd=tmp_path, status=None)
        assert "Traceback" not in out and out.splitlines()[-1].startswith("error: ")
        assert "this one has 3" in out.splitlines()[-1]
    out = yolo("sgdm", "equip", "model=folder.yaml", cwd=tmp_path, status=None)
    assert out.splitlines()[-1].endswith("folder.yaml is a folder; give the YAML in it")


def test_text_in_another_encoding_is_named(tmp_path):
    (tmp_path / "bad.yaml").write_text(GOOD, encoding="utf-16")
    with pytest.raises(ConfigError, match=r"bad\.yaml is text in UTF-16; save it as UTF-8"):
        YOLO(tmp_path / "bad.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"# caf\xe9\n" + GOOD.encode())
    assert YOLO(tmp_path / "latin.yaml").task == "detect"


def test_a_scale_that_the_file_lacks_is_named(tmp_path):
    (tmp_path / "my-yolov8.yaml").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"my-yolov8s\.yaml: there is no scale 's' in the file, its 'scales' are n$"):
        YOLO(tmp_path / "my-yolov8s.yaml")
    with pytest.raises(KeyError):
        YOLO(tmp_path / "my-yolov8s.yaml")


STOCK = sorted(f.name for f in (ROOT / "cfg/models").rglob("*.yaml"))


@pytest.mark.parametrize("name", [*STOCK, *(f.name for f in shipped("models"))])
def test_no_valid_yaml_meets_a_refusal(name):
    """Every YAML of Ultralytics and ours is read at each of its scales, and built at the first."""
    for letter in tasks.yaml_model_load(name).get("scales") or ():
        tasks.yaml_model_load(with_scale(name, letter))
    spec = tasks.yaml_model_load(name)
    if any(row[2] == "TorchVision" for row in spec["backbone"]):  # which would fetch weights
        spec["backbone"] = [[f, n, m, [*args[:2], None, *args[3:]]] for f, n, m, args in spec["backbone"]]
    skeleton(spec)


@pytest.mark.parametrize("name", ["yolov8n-sgdm.yaml", "yolo11n-seg.yaml", "yolo26n.yaml"])
def test_a_dictionary_of_a_checkpoint_is_built_again(name):
    model = YOLO(name).model
    type(model)(yaml.safe_load(yaml.safe_dump(model.yaml)), verbose=False)
