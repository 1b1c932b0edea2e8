"""Stock weights in equipped models, with and without inserted rows, and training that moves the added parts alone."""

import re

import pytest
import torch
import yaml
from helpers import close
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import LOGGER

from ultralytics_sgdm import SGDM, equip
from ultralytics_sgdm.data import make_shapes
from ultralytics_sgdm.transfer import added_modules, follow_rows

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
            for m in stock.model.modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.running_mean.normal_(std=0.1)
                    m.running_var.uniform_(0.8, 1.2)
            stock.save(file)
        return file, YOLO(file).model.float()

    return save


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("yolo11n", "499 of 499 pretrained tensors moved; 54 tensors of the model are new (3 SGDM)"),
        ("yolov6n", "335 of 335 pretrained tensors moved, 20 rows of them behind inserted rows; 36 .* new (2 SGDM)"),
        ("yolov3-tiny", "123 of 123 pretrained tensors moved, 5 rows of them behind inserted rows; 18 .* new (1 SGDM)"),
    ],
)
def test_every_stock_tensor_moves(checkpoint, said, name, line):
    file, stock = checkpoint(name)
    model = YOLO(f"{name}-sgdm.yaml").load(file).model
    assert re.fullmatch(re.escape(f"ultralytics_sgdm: {line}").replace(re.escape(".*"), ".*"), said[-1])
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(x)[0], stock.eval()(x)[0])


def test_an_equipped_checkpoint_moves_into_its_own_yaml(tmp_path, said):
    model = YOLO("yolov6n-sgdm.yaml")
    model.save(tmp_path / "ours.pt")
    YOLO("yolov6n-sgdm.yaml").load(tmp_path / "ours.pt")
    assert said[-1] == "ultralytics_sgdm: 371 of 371 pretrained tensors moved"


def test_an_sgdm_of_another_width_stays_behind_as_a_whole(checkpoint, tmp_path, said):
    """As from a checkpoint of 0.1.0: the new modules start as the identity, and the line says why."""
    file, stock = checkpoint("yolov8n")
    old = YOLO("yolov8n-sgdm-p3.yaml").load(file)
    with torch.no_grad():
        for _, module in added_modules(old.model):
            for p in module.parameters():
                p.normal_()
    old.save(tmp_path / "old.pt")
    model = YOLO("yolov8n-sgdm.yaml").load(tmp_path / "old.pt").model
    assert "355 of 481 pretrained tensors moved; 30 did not because the shape differs (model.8.sgdm.razor" in said[-1]
    assert "; 6 did not because the rest of their module does not fit (model.8.sgdm" in said[-1]
    assert "; 90 did not because the model has no such tensor (model.4.sgdm" in said[-1]
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(x)[0], stock.eval()(x)[0])


@pytest.mark.parametrize("module", ["RDConv", "SGDM", "ResidualCondConv"])
def test_any_module_of_another_ratio_stays_behind_as_a_whole(tmp_path, said, module):
    old, new = (tmp_path / f"yolov8n-{ratio}.yaml" for ratio in (4, 8))
    for file, ratio in ((old, 4), (new, 8)):
        equip("yolov8n.yaml", module=module, at="8", ratio=ratio, out=file)
    trained = YOLO(old)
    with torch.no_grad():
        for p in trained.model.parameters():
            p.normal_()
    trained.save(tmp_path / "old.pt")
    fresh, model = YOLO(new).model, YOLO(new)
    before = {name: {k: v.clone() for k, v in m.state_dict().items()} for name, m in added_modules(model.model)}
    model.load(tmp_path / "old.pt")
    assert [*before] and "because the rest of their module does not fit" in said[-1]
    for name, m in added_modules(model.model):
        assert all(torch.equal(v, before[name][k]) for k, v in m.state_dict().items())
    assert len(before) == len([*added_modules(fresh)])


def test_another_number_of_classes_is_named(checkpoint, said):
    _, stock = checkpoint("yolov6n", nc=20)
    model = DetectionModel("yolov6n-sgdm.yaml", nc=3, verbose=False)
    model.load(stock)
    names = "model.30.cv3.0.2.weight, model.30.cv3.0.2.bias, model.30.cv3.1.2.weight, ..."
    assert (
        f"329 of 335 pretrained tensors moved, 20 rows of them behind inserted rows; 6 did not because the shape "
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


def test_other_rows_than_those_of_the_model_move_by_name(checkpoint, said):
    _, stock = checkpoint("yolov6n")
    DetectionModel("yolov8n-sgdm.yaml", verbose=False).load(stock)
    assert re.search(r"; \d+ did not because the rows of the two models differ \(model\.2\.0", said[-1])


def test_a_first_convolution_for_other_channels_moves(checkpoint, said):
    _, stock = checkpoint("yolov8n")
    model = DetectionModel("yolov8n-sgdm.yaml", ch=1, verbose=False)
    model.load(stock)
    ours, theirs = model.model[0].conv.weight, stock.model[0].conv.weight
    assert torch.equal(ours, theirs[:, :1]) or close(
        ours, theirs.sum(1, keepdim=True), 1e-5
    )  # older, newer Ultralytics
    moved = "355 of 355 pretrained tensors moved, 1 of them made to fit another shape (model.0.conv.weight); 36 tensors"
    assert moved in said[-1]


def test_a_keyword_of_a_newer_ultralytics_is_passed_on(checkpoint):
    from ultralytics_sgdm.plugin.transfer import _following_rows

    given = {}
    _, stock = checkpoint("yolov6n")
    follow = _following_rows(lambda self, weights, verbose=True, strict=False: given.update(strict=strict))
    follow(YOLO("yolov6n-sgdm.yaml").model, stock, strict=True)
    assert given == {"strict": True}


def test_stock_models_load_as_ever(checkpoint, said):
    file, _ = checkpoint("yolov6n")
    YOLO("yolov6n.yaml").load(file)
    assert said[-1] == "Transferred 335/335 items from pretrained weights"


@pytest.mark.parametrize(
    ("source", "target", "places"),
    [
        ("ABC", "ABC", {0: 0, 1: 1, 2: 2}),
        ("ABC", "ASBCS", {0: 0, 1: 2, 2: 3}),
        ("AAB", "ASASB", {0: 0, 1: 2, 2: 4}),
        ("ABC", "ACB", None),
        ("ABC", "AB", None),
    ],
)
def test_rows_are_followed_past_inserted_ones(source, target, places):
    assert follow_rows(source, target) == places


def test_freezing_stock_trains_the_added_parts_alone(yolo, checkpoint, tmp_path):
    make_shapes(tmp_path / "shapes", train=8, val=2, size=64)
    spec = {"path": str(tmp_path / "shapes"), "train": "images/train", "val": "images/val", "names": list("abcdef")}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(spec))
    file, stock = checkpoint("yolo11n", nc=6)
    run = ("epochs=2", "imgsz=64", "batch=4", "workers=0", "device=cpu", "plots=False", f"project={tmp_path}")
    data = ("data=small.yaml", "warmup_epochs=0", "nbs=4", "lr0=0.01", "optimizer=AdamW", "weight_decay=0.1")
    arguments = ("model=yolo11n-sgdm.yaml", f"pretrained={file}", "freeze=stock", *data, *run, "name=run")
    out = yolo("train", *arguments, cwd=tmp_path)
    assert "499 of 499 pretrained tensors moved" in out
    trained = sum(
        p.numel() for m in YOLO("yolo11n-sgdm.yaml").model.modules() if type(m) is SGDM for p in m.parameters()
    )
    assert f"freeze=stock: 3 modules train, {trained:,} of " in out

    saved = torch.load(tmp_path / "run/weights/last.pt", weights_only=False)
    assert saved["train_args"]["freeze"] == "stock"
    ours, theirs = saved["model"].float().state_dict(), stock.state_dict()
    assert [k for k in theirs if not torch.equal(ours[k], theirs[k])] == []  # weights, BatchNorm statistics, counters
    added = [name for name, _ in added_modules(saved["model"])]
    assert all(ours[f"{name}.expand.weight"].abs().max() > 0 for name in added)
    assert all((ours[f"{name}.razor.bn.running_mean"] != 0).any() for name in added)
