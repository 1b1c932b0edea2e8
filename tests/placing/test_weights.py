"""Stock weights in equipped models, with and without inserted rows, and training that moves the added parts alone."""

import re

import pytest
import torch
import yaml
from helpers import close, randomize
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import LOGGER, ROOT

from ultralytics_sgdm import equip
from ultralytics_sgdm.placing.weights import added_modules

pytestmark = pytest.mark.slow


@pytest.fixture
def said(monkeypatch):
    """What Ultralytics' logger was given."""
    lines = []
    monkeypatch.setattr(LOGGER, "info", lambda line, *_: lines.append(line))
    return lines


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Save a stock model with random weights and statistics as Ultralytics does; return file and module."""
    folder = tmp_path_factory.mktemp("stock")

    def save(name, nc=80):
        file = folder / f"{name}-{nc}.pt"
        if not file.exists():
            stock = YOLO(f"{name}.yaml")
            stock.model = DetectionModel(f"{name}.yaml", nc=nc, verbose=False)
            randomize(stock.model)
            stock.save(file)
        return file, YOLO(file).model.float()

    return save


@pytest.mark.parametrize(
    ("name", "moved", "new"),
    [
        ("yolo11n", "499 of 499 pretrained tensors moved", "54 tensors of the model are new (3 SGDM)"),
        (
            *("yolov6n", "335 of 335 pretrained tensors moved, 20 rows of them to rows of another number"),
            "36 tensors of the model are new (2 SGDM)",
        ),
    ],
)
def test_every_stock_tensor_moves(checkpoint, said, name, moved, new):
    file, stock = checkpoint(name)
    model = YOLO(f"{name}-sgdm.yaml").load(file).model
    assert said[-1] == f"ultralytics_sgdm: {moved}; {new}"
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(x)[0], stock.eval()(x)[0])


def test_an_sgdm_of_another_width_stays_behind_as_a_whole(checkpoint, tmp_path, said):
    """As from a checkpoint of 0.1.0: the new modules start as the identity, and the line says why."""
    file, stock = checkpoint("yolov8n")
    equip("yolov8n.yaml", ratio=3, at="P3,P4,P5", out=tmp_path / "yolov8n-p3.yaml")
    old = YOLO(tmp_path / "yolov8n-p3.yaml").load(file)
    for _, module in added_modules(old.model):
        randomize(module)
    old.save(tmp_path / "old.pt")
    model = YOLO("yolov8n-sgdm.yaml").load(tmp_path / "old.pt").model
    assert "355 of 481 pretrained tensors moved; 30 did not because the shape differs (model.8.sgdm.razor" in said[-1]
    assert "; 6 did not because the rest of their module does not fit (model.8.sgdm" in said[-1]
    assert "; 90 did not because the model has no such tensor (model.4.sgdm" in said[-1]
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(x)[0], stock.eval()(x)[0])


@pytest.mark.parametrize(("module", "at"), [("RDConv", 7), ("ResidualCondConv", 8)])
def test_any_module_of_another_ratio_stays_behind_as_a_whole(tmp_path, said, module, at):
    old, new = (tmp_path / f"yolov8n-{ratio}.yaml" for ratio in (4, 8))
    for file, ratio in ((old, 4), (new, 8)):
        equip("yolov8n.yaml", module=module, at=at, ratio=ratio, out=file)
    trained, model = YOLO(old), YOLO(new)
    randomize(trained.model)
    trained.save(tmp_path / "old.pt")
    before = {name: {k: v.clone() for k, v in m.state_dict().items()} for name, m in added_modules(model.model)}
    model.load(tmp_path / "old.pt")
    assert before and "because the rest of their module does not fit" in said[-1]
    for name, m in added_modules(model.model):
        assert all(torch.equal(v, before[name][k]) for k, v in m.state_dict().items())


def test_a_trained_model_moves_into_itself_without_a_word_of_other_shapes(tmp_path, said):
    model = YOLO("yolov8n-sgdm.yaml")
    model.model = DetectionModel("yolov8n-sgdm.yaml", nc=3, verbose=False)
    model.save(tmp_path / "last.pt")
    DetectionModel("yolov8n-sgdm.yaml", nc=3, verbose=False).load(YOLO(tmp_path / "last.pt").model)
    assert said[-1] == "ultralytics_sgdm: 391 of 391 pretrained tensors moved"


def test_another_number_of_classes_is_named(checkpoint, said):
    """Ultralytics widens the class branch of YOLOv8 to the weights' width and makes its last convolutions anew."""
    DetectionModel("yolov8n-sgdm.yaml", nc=6, verbose=False).load(checkpoint("yolov8n")[1])
    names = "model.22.cv3.0.2.weight, model.22.cv3.0.2.bias, model.22.cv3.1.2.weight, ..."
    assert f"349 of 355 pretrained tensors moved; 6 did not because the shape differs ({names}); 36 tens" in said[-1]
    _, stock = checkpoint("yolov6n", nc=20)
    model = DetectionModel("yolov6n-sgdm.yaml", nc=3, verbose=False)
    model.load(stock)
    names = "model.30.cv3.0.2.weight, model.30.cv3.0.2.bias, model.30.cv3.1.2.weight, ..."
    assert (
        f"329 of 335 pretrained tensors moved, 20 rows of them to rows of another number; 6 did not because the shape "
        f"differs ({names});" in said[-1]
    )


def test_class_rows_are_matched_by_name_behind_inserted_rows(checkpoint):
    _, stock = checkpoint("yolov6n", nc=20)
    stock.names = {i: f"kind {i}" for i in range(20)}
    model = DetectionModel("yolov6n-sgdm.yaml", nc=2, verbose=False)
    model.names = {0: "Kind 7", 1: "kind 3"}
    model.load(stock)
    ours, theirs = (m.model[-1].cv3[0][-1].weight for m in (model, stock))
    assert torch.equal(ours, theirs[[7, 3]])
    assert torch.equal(model.model[-1].cv3[0][-1].bias, stock.model[-1].cv3[0][-1].bias[[7, 3]])


def test_a_first_convolution_for_other_channels_moves(checkpoint, said):
    _, stock = checkpoint("yolov8n")
    model = DetectionModel("yolov8n-sgdm.yaml", ch=1, verbose=False)
    model.load(stock)
    ours, theirs = model.model[0].conv.weight, stock.model[0].conv.weight
    older, newer = theirs[:, :1], theirs.sum(1, keepdim=True)  # Ultralytics
    assert torch.equal(ours, older) or close(ours, newer, 1e-5)
    line = "355 of 355 pretrained tensors moved, 1 of them converted to another shape (model.0.conv.weight);"
    assert line in said[-1]


def test_a_keyword_of_a_newer_ultralytics_is_passed_on(checkpoint):
    from ultralytics_sgdm.plugin.loading import _align

    given = {}
    _, stock = checkpoint("yolov6n")
    follow = _align(lambda self, weights, verbose=True, strict=False: given.update(strict=strict))
    follow(YOLO("yolov6n-sgdm.yaml").model, stock, strict=True)
    assert given == {"strict": True}


def assert_moved(model, stock, pairs):
    """Assert that each row of `pairs` has the stock weights."""
    ours, theirs = model.state_dict(), stock.state_dict()
    for i, j in pairs.items():
        for k, v in theirs.items():
            if k.startswith(f"model.{i}."):
                assert torch.equal(ours[k.replace(f"model.{i}.", f"model.{j}.", 1)], v), (i, j, k)


EDITS = {  # channels of the SGDM in front of a row, the layer that a row becomes (None: it goes), what is said
    "the README's": ({9: 1024}, {5: "RDConv"}, "6 did not .* rows 5 (Conv); 37 .* are new (1 RDConv, 1 SGDM)"),
    "several inserted": ({2: 128, 7: 512, 13: 512}, {}, "355 of 355 .* moved, 21 rows .*; 54 .* new (3 SGDM)"),
    "at the very front": ({0: 12}, {}, "1 did not because the shape differs (model.1.conv.weight); 24 .* (1 SGDM)"),
    "behind Detect's inputs": ({16: 256, 19: 512, 22: 1024}, {}, "355 of 355 .* moved, 7 rows .*; 54 .* (3 SGDM)"),
    "a block exchanged": ({13: 512}, {6: "C3"}, "36 did not .* rows 6 (C2f); 60 .* are new (1 SGDM, row 6, C3)"),
    "removed": ({8: 1024}, {9: None}, "343 of 355 .*; 12 did not .* rows 9 (SPPF); 18 .* are new (1 SGDM)"),
}


def edit(spec, inserted, changed):
    """Edit rows as a user does, references moved; return the new number of each old row that is still the same."""
    rows, new = [*spec["backbone"], *spec["head"]], []
    number = [i + sum(j <= i for j in inserted) - sum(j <= i for j in changed if not changed[j]) for i in range(23)]
    for i, (f, n, name, args) in enumerate(rows):
        if i in inserted:
            new.append([-1, 1, "SGDM", [inserted[i], 3]])
        if name := changed.get(i, name):
            new.append([[j if j < 0 else number[j] for j in f] if isinstance(f, list) else f, n, name, args])
    spec |= {"backbone": new[:-1], "head": new[-1:]}
    return {i: j for i, j in enumerate(number) if i not in changed}


@pytest.mark.parametrize(("inserted", "changed", "line"), EDITS.values(), ids=EDITS)
def test_weights_follow_every_row_that_an_edit_by_hand_leaves(checkpoint, said, tmp_path, inserted, changed, line):
    file, stock = checkpoint("yolov8n")
    spec = yaml.safe_load((ROOT / "cfg/models/v8/yolov8.yaml").read_text())
    pairs = edit(spec, inserted, changed)
    if 0 in inserted:
        del pairs[0]  # its first convolution reads other channels
    (tmp_path / "yolov8-mine.yaml").write_text(yaml.safe_dump(spec))
    model = YOLO(tmp_path / "yolov8n-mine.yaml").load(file).model
    assert_moved(model, stock, pairs)
    assert re.search(line.replace("(", r"\(").replace(")", r"\)"), said[-1])


def test_weights_follow_into_another_head_and_another_pyramid(checkpoint, said):
    file, stock = checkpoint("yolov8n")
    segment = YOLO("yolov8n-seg-sgdm.yaml").load(file).model
    assert_moved(segment, stock, {i: i for i in range(23)})  # Segment extends Detect
    assert "355 of 355 pretrained tensors moved" in said[-1]
    pyramid = YOLO("yolov8n-p2-sgdm.yaml").load(file).model
    assert_moved(pyramid, stock, {**{i: i for i in range(16)}, 16: 22, 18: 24, 19: 25, 21: 27})
    assert "pretrained tensors moved" in said[-1]
    assert_moved(YOLO("yolov8n-p6-sgdm.yaml").load(file).model, stock, {i: i for i in range(7)})
