"""`equip`: where it puts modules, what it writes, what it refuses."""

import re

import pytest
import torch
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import ROOT
from ultralytics.utils.torch_utils import get_num_params

from ultralytics_sgdm import cli, equip, register_layer
from ultralytics_sgdm.commands import parse
from ultralytics_sgdm.configs import list_shipped, split_suffix
from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.placing.outline import build_outline, count_gflops, read_features

STOCK = sorted(f.name for f in (ROOT / "cfg/models").rglob("*.yaml") if not re.search("resnet|seg|pose|obb", f.stem))


class Plain1x1(nn.Conv2d):
    """A user's own layer without a ratio, parsed like Conv."""

    def __init__(self, c1, c2):
        super().__init__(c1, c2, 1)


@pytest.fixture
def own_layer():
    """Register the user's own layer for one test."""
    register_layer(Plain1x1)


def rows(spec):
    return [*spec["backbone"], *spec["head"]]


def layers(equipped):
    return list(equipped.places)


@pytest.mark.parametrize(
    ("model", "added", "at"),
    [
        ("yolov8n.yaml", 186_552, [8, 21]),
        ("yolov5n.yaml", 326_928, [8, 23]),
        ("yolov8n-p6.yaml", 186_552, [10, 29]),
        ("yolov6n.yaml", 122_496, [9, 29]),
    ],
)
def test_the_defaults_are_the_last_stage_and_the_sizes_of_the_paper(model, added, at):
    equipped = equip(model)
    assert (equipped.added, layers(equipped)) == (added, at)


def test_the_sizes_are_those_of_the_paper():
    """+0.19 M on YOLOv8n and +0.33 M on YOLOv5n (arXiv 2403.18282)."""
    assert 185_000 <= equip("yolov8n.yaml").added <= 195_000
    assert 325_000 <= equip("yolov5n.yaml").added <= 335_000


def test_the_deepest_stage_stays_the_deepest_when_it_is_equipped(tmp_path):
    """The stage before it is not taken in its place without a word."""
    equip("yolo11n.yaml", at="P3,P4,P5", out=tmp_path / "p3.yaml")
    for name in ("yolov8n-sgdm.yaml", tmp_path / "p3.yaml"):
        with pytest.raises(ConfigError, match=r"the rows at=deepest have SGDM already"):
            equip(name)


@pytest.mark.parametrize("file", list_shipped("models"), ids=lambda f: f.name)
def test_shipped_files_are_what_equip_gives(file):
    stock, module = split_suffix(file.name)
    assert file.read_text() == equip(stock, module=module).text(file.name)


@pytest.mark.parametrize("name", STOCK)
def test_rdconv_replaces_strided_rows_of_every_family_that_has_them(name):
    stock = rows(tasks.yaml_model_load(name))
    if re.match(r"yolov3-tiny|yolov8-ghost|yolov9", name):  # strided in another way
        with pytest.raises(ConfigError, match=r"(there are no|its stages with) strided 3x3 Conv"):
            equip(name, module="RDConv")
        return
    equipped = equip(name, module="RDConv")
    ours = rows(equipped.spec)
    assert equipped.places and equipped.added < 0 and len(ours) == len(stock)
    for i, (new, old) in enumerate(zip(ours, stock, strict=True)):
        assert new == ([*old[:2], "RDConv", old[3]] if i in equipped.places else old)
    assert all(equipped.features[i].stage >= 4 for i in equipped.places)


def test_rdconv_replaces_by_stage_and_number_and_takes_a_ratio():
    assert layers(equip("yolov8n.yaml", module="RDConv", at="P3,P4")) == [3, 5, 16]
    assert layers(equip("yolov8n.yaml", module="RDConv", at="1,backbone,P5")) == [1, 7]
    assert rows(equip("yolov8n.yaml", module="RDConv", at=7, ratio=8).spec)[7] == [-1, 1, "RDConv", [1024, 3, 2, 8]]
    with pytest.raises(
        ConfigError, match=r"\(layer 9\).*: RDConv replaces rows Conv, \[c2, k, s\] with an odd k alone"
    ):
        equip("yolov8n.yaml", module="RDConv", at=9)
    with pytest.raises(ConfigError, match="module=RDConv does not take budget="):
        equip("yolov8n.yaml", module="RDConv", budget=1000)


@pytest.mark.parametrize("name", STOCK)  # the other tasks differ in the head alone
def test_every_stock_yaml_keeps_its_rows_or_inserts(name):
    stock, equipped = rows(tasks.yaml_model_load(name)), equip(name)
    ours = rows(equipped.spec)
    assert equipped.added > 0
    assert min(equipped.features[i].stage for i in equipped.places) >= 3
    if equipped.inserted:
        assert [r[2] for r in ours if r[2] != "SGDM"] == [r[2] for r in stock]
    else:
        assert all(i in equipped.places or row == stock[i] for i, row in enumerate(ours))
        assert all(ours[i][2] == f"{stock[i][2]}SGDM" and ours[i][:2] == stock[i][:2] for i in equipped.places)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("backbone", [4, 6, 8]),
        ("neck", [12, 15, 18, 21]),
        ("P2,P3", [2, 4, 15]),
        ("backbone,deepest", [8]),
        ("neck,deepest,P3,2", [2, 15, 21]),
        ("backbone,P2,P5", [2, 8]),
        ("backbone, neck", [4, 6, 8, 12, 15, 18, 21]),
        (4, [4]),
        (["neck", "P4"], [12, 18]),
    ],
)
def test_at_selects_by_section_stage_and_layer(at, expected):
    assert layers(equip("yolov8n.yaml", at=at)) == expected


@pytest.mark.parametrize(
    ("model", "at", "read"),
    [
        ("yolov6n.yaml", [9, 29], [[-1, 6], [-1, 4], [-1, 16], [-1, 11], [20, 24, 29]]),
        ("yolov3-tiny.yaml", [16], [-3, [-1, 8], [20, 16]]),
    ],
)
def test_behind_an_inserted_row_every_layer_reads_what_it_read_through_it(model, at, read):
    equipped = equip(model)
    assert layers(equipped) == at and [f for f, *_ in rows(equipped.spec) if f != -1] == read


def test_a_numbered_layer_without_a_composite_gets_a_row():
    spec = equip("yolov8n.yaml", at=9).spec
    assert rows(spec)[10] == [-1, 1, "SGDM", [1024, 2.25]]
    assert rows(spec)[-1][0] == [16, 19, 22]


@pytest.mark.parametrize(
    ("model", "module"), [("yolov6n.yaml", "SGDM"), ("yolov8n.yaml", "Plain1x1"), ("yolov8n.yaml", "RDConv")]
)
def test_a_row_that_has_the_module_is_not_equipped_again(tmp_path, model, module, own_layer):
    once = tmp_path / model
    equip(model, module=module, at="backbone,P5", out=once)
    with pytest.raises(ConfigError, match=rf"at=backbone,P5 (have {module} already|selects no row)"):
        equip(once, module=module, at="backbone,P5")
    assert equip(once, module=module, at="neck,P5").inserted == equip(model, module=module, at="neck,P5").inserted


def test_module_puts_another_registered_layer_into_rows(own_layer):
    equipped = equip("yolov8n.yaml", module="Plain1x1", at="P5")
    assert [rows(equipped.spec)[i] for i in equipped.places] == [[-1, 1, "Plain1x1", [1024]]] * 2
    DetectionModel(equipped.spec, verbose=False)(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("at", ["deepest", "P4,P5", "backbone,neck"])
@pytest.mark.parametrize(("budget", "goal"), [(120_000, 120_000), ("0.19M", 190_000), ("250k", 250_000)])
def test_a_budget_is_met_by_a_ratio_for_each_place(budget, goal, at):
    equipped = equip("yolov8n.yaml", budget=budget, at=at)
    assert equipped.added == pytest.approx(goal, rel=0.03)
    again = equip("yolov8n.yaml", equipped.ratios, at)
    assert (again.added, again.spec["head"]) == (equipped.added, equipped.spec["head"])


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": (3, 4), "at": "P5"},
        {"budget": "250k", "at": "P4,P5"},
        {"module": "RDConv", "ratio": 8},
        {"module": "se"},
        {"module": "se", "start": "identity", "at": "backbone"},
    ],
    ids=str,
)
def test_the_command_in_the_header_gives_the_file(options):
    if options.get("module") == "se":
        pytest.importorskip("timm")
    text = equip("yolov8s.yaml", **options).text("mine.yaml")
    command = re.search(r"yolo sgdm equip (.+?) out=mine.yaml", re.sub(r"\n#\s+", " ", text))[1]
    arguments, given = parse("equip", cli.equip, command.split())
    assert equip(*arguments, **given).text("mine.yaml") == text


@pytest.mark.parametrize("name", ["yolov8s.yaml", "yolov6n.yaml", "yolov3-tiny.yaml", "yolo26m.yaml"])
def test_the_file_says_what_the_dictionary_says_and_keeps_the_scale(name, tmp_path):
    file = tmp_path / "my.yaml"
    equipped = equip(name, out=file)
    assert yaml.safe_load(file.read_text()) == {k: equipped.spec[k] for k in yaml.safe_load(file.read_text())}
    again = tasks.yaml_model_load(file)
    assert get_num_params(build_outline(again)) == equipped.parameters + equipped.added
    comments = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert any("yolo train model=my.yaml" in line for line in comments)
    assert all(len(line) <= 120 for line in comments)


def test_a_users_own_yaml_and_its_equipped_name(tmp_path):
    """The deepest stage of a model that ends at P3 is that stage."""
    source, name = tmp_path / "mine.yaml", tmp_path / "mine-sgdm.yaml"
    stem, down = ([-1, 1, "Conv", [c, 3, 2]] for c in (16, 32))
    backbone = [stem, down, [-1, 1, "C2f", [32, True]], down, [-1, 2, "C2f", [64, True]]]
    source.write_text(yaml.safe_dump({"nc": 3, "backbone": backbone, "head": [[[4], 1, "Detect", ["nc"]]]}))
    model = YOLO(name).model
    assert [type(m).__name__ for m in model.model[2:5]] == ["C2f", "Conv", "C2fSGDM"]
    assert layers(equip(source, ratio=1, out=name)) == [4]  # a file of that name is what counts
    assert get_num_params(YOLO(name).model) > get_num_params(model)


def test_names_of_stock_models_resolve_with_scale_and_task():
    model = YOLO("yolo11s-seg-sgdm.yaml")
    assert model.task == "segment"
    assert model.model.yaml["yaml_file"] == "yolo11s-seg-sgdm.yaml" and model.model.yaml["scale"] == "s"
    assert get_num_params(model.model) == get_num_params(build_outline(equip("yolo11s-seg.yaml").spec))


def test_python_function_and_command_write_the_same(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, out, error = command("sgdm", "equip", "model=yolo11n-seg.yaml", "ratio=3", "at=backbone,neck", "out=my.yaml")
    assert "+264,384 parameters" in out and "written to my.yaml" in out, error
    assert (tmp_path / "my.yaml").read_text() == equip("yolo11n-seg.yaml", 3, "backbone,neck").text("my.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "yolov8n.pt"}, "model=yolov8n.pt is not a YAML"),
        ({"model": "coco8.yaml"}, "model=coco8.yaml is not a model YAML: it has no lists 'backbone' and 'head'"),
        ({"model": "yolov8n-cls-resnet50.yaml"}, "SGDM has no place here: there are no blocks"),
        ({"at": "P9"}, "at=P9 selects no row for SGDM; its stages with blocks are P2, P3, P4, P5"),
        ({"module": "RDConv", "at": "P6"}, "its stages with strided 3x3 Conv rows are P2, P3, P4, P5"),
        (
            {"at": "neckk"},
            "'neckk' is not one of backbone, neck, stages such as P3, deepest, layers from 0 to 21; did you mean",
        ),
        ({"at": "p4"}, "did you mean 'P4'"),
        ({"at": 11}, "head row 2 (layer 11), [[-1, 6], 1, 'Concat', [1]]: SGDM cannot be placed behind a row"),
        ({"ratio": 300}, "(layer 8), [-1, 3, 'C2fSGDM', [1024, True, {'ratio': 300}]]: ratio must be a number from 1"),
        ({"ratio": [2, 3, 4]}, "ratio=2,3,4: give one, or one for each of the 2 places"),
        ({"ratio": 3, "budget": "1M"}, "give ratio= or budget=, not both"),
        ({"budget": "much"}, "budget=much must be a number of parameters, such as 190000, 190k or 0.19M"),
        ({"budget": 1}, "budget=1 cannot be met here: SGDM adds from 19,416 to 610,056 parameters; choose in between"),
        ({"module": "sgdm"}, "module='sgdm' is not a registered layer; did you mean 'SGDM'"),
        ({"module": "Plain1x1", "ratio": 3}, "module=Plain1x1 does not take ratio= or budget="),
        ({"start": "identity"}, "module=SGDM does not take start="),
        ({"out": "my.txt"}, "out=my.txt must end in .yaml"),
        ({"out": "nowhere/my.yaml"}, "there is no folder nowhere"),
    ],
)
def test_mistakes_are_named(arguments, message, tmp_path, monkeypatch, own_layer):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        equip(**{"model": "yolov8n.yaml", **arguments})
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["- a", "a: [", "text", "backbone: [[-1, 1, SGDM]]\nhead: []"])
def test_what_is_not_a_mapping_or_no_row_is_named(tmp_path, content):
    (tmp_path / "mine.yaml").write_text(content)
    row = r"\S+mine.yaml, backbone row 1 \(layer 0\), .*: a row has the four entries .*, this one has 3"
    with pytest.raises(ConfigError, match=row if "SGDM" in content else r"model=\S+mine.yaml is not a model YAML: "):
        equip(tmp_path / "mine.yaml")


def test_the_head_may_read_the_row_before_it(tmp_path):
    rows = "[[-1, 1, Conv, [32, 3, 2]], [-1, 1, Conv, [64, 3, 2]]]\nhead: [[[-1], 1, Detect, [nc]]]"
    (tmp_path / "mine.yaml").write_text(f"nc: 2\nbackbone: {rows}")
    assert equip(tmp_path / "mine.yaml").places == {2: "Conv"}


def test_an_existing_file_stays(tmp_path):
    (tmp_path / "my.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is left as it is; give another name, or remove it first"):
        equip("yolov8n.yaml", out=tmp_path / "my.yaml")
    assert (tmp_path / "my.yaml").read_text() == "mine"


@pytest.mark.slow
def test_the_skeleton_counts_and_measures_as_the_model_does():
    from ultralytics.utils.torch_utils import get_flops

    for name in ("yolov8n-p6-sgdm.yaml", "yolo26n-sgdm.yaml"):
        model, outline = YOLO(name).model, build_outline(tasks.yaml_model_load(name))
        read = [read_features(outline)[j].stage for j in outline.model[-1].f]
        assert [2**stage for stage in read] == model.stride.tolist()
        assert get_num_params(outline) == get_num_params(model)
        assert count_gflops(outline) == pytest.approx(get_flops(model), rel=1e-6)
