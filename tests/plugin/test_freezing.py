"""What `freeze` freezes: `stock` all but the added modules, anything else never an added module that is untrained."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from ultralytics import YOLO

from ultralytics_sgdm import equip, register_layer
from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.nn.csp import A2C2fSGDM
from ultralytics_sgdm.placing.weights import added_modules
from ultralytics_sgdm.plugin.freezing import _freeze_parameters, _name_frozen, frozen_names


def trained(model):
    """Move the statistics and zero weights of a model, as a training does."""
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean += 1
    for p in model.parameters():
        p.data += 0.01
    return model


def trainable(model, freeze):
    """Freeze as Ultralytics' trainer does; return the names of the parameters that learn."""
    trainer = SimpleNamespace(args=SimpleNamespace(freeze=frozen_names(model, freeze)), model=model)
    names = trainer.args.freeze
    rows = names if isinstance(names, list) else range(names or 0)
    for k, p in model.named_parameters():
        p.requires_grad = not any(f"model.{x}." in k for x in rows)
    _freeze_parameters(lambda self: None)(trainer)
    return {k for k, p in model.named_parameters() if p.requires_grad}


def of(model, names):
    return {k for k, _ in model.named_parameters() if any(k.startswith(f"{name}.") for name in names)}


@pytest.mark.parametrize("freeze", [None, False, 10, [10, 50], ["4.cv1", 3], "stok", 2.5, (1, 2)])
def test_a_stock_model_is_frozen_as_without_the_package(freeze):
    assert frozen_names(YOLO("yolov8n.yaml").model, freeze) is freeze


def test_a_trainer_that_holds_something_else_is_left_alone():
    trainer = SimpleNamespace(model=SimpleNamespace(), args=SimpleNamespace())
    assert _name_frozen(lambda self: "checkpoint")(trainer) == "checkpoint"


@pytest.mark.parametrize("name", ["yolov8n-sgdm.yaml", "yolov6n-sgdm.yaml", "yolov8n-rdconv.yaml"])
def test_stock_leaves_the_added_modules_alone_to_learn(name):
    model = YOLO(name).model
    assert trainable(model, "stock") == of(model, dict(added_modules(model)))


def test_freezing_reaches_parameters_of_a_block_itself():
    model = nn.ModuleDict({"model": nn.Sequential(A2C2fSGDM(64, 64, 1, True, 1, True))})
    assert "model.0.gamma" in dict(model.named_parameters())  # which belongs to no layer inside the block
    assert trainable(model, "stock") == of(model, ["model.0.sgdm"])
    assert "model.0.conv.weight" in trainable(YOLO("yolov8n.yaml").model, ["0.conv.weight"])  # as in Ultralytics


@pytest.mark.parametrize("name", ["yolov8n-sgdm.yaml", "yolov6n-sgdm.yaml", "yolov8n-rdconv.yaml", "yolov8n-cbam.yaml"])
@pytest.mark.parametrize("freeze", [10, ["8", "9", 5]])
def test_an_untrained_module_stays_trainable_and_a_line_says_so(name, freeze, caplog):
    pytest.importorskip("timm")
    model = YOLO(name).model
    rows = range(freeze) if isinstance(freeze, int) else freeze
    inside = [n for n, _ in added_modules(model) if any(f"{n}.".startswith(f"model.{x}.") for x in rows)]
    before = {k for k, _ in model.named_parameters() if not any(f"model.{x}." in k for x in rows)}
    assert trainable(model, freeze) == before | of(model, inside)
    assert (f"the added modules {', '.join(inside)} are untrained and stay trainable" in caplog.text) == bool(inside)


def test_what_is_trained_is_frozen_as_asked(caplog):
    model = trained(YOLO("yolov8n-sgdm.yaml").model)
    assert frozen_names(model, 10) == 10
    assert not of(model, ["model.8"]) & trainable(model, 10)
    assert "untrained" not in caplog.text


def test_what_was_kept_trainable_stays_so_on_resume(tmp_path):
    model = YOLO("yolov8n-sgdm.yaml").model
    names = frozen_names(model, 10)  # what the checkpoint's arguments hold
    assert frozen_names(trained(model), names) == names
    assert of(model, ["model.8.sgdm"]) <= trainable(model, names)


def test_a_text_that_freezes_nothing_is_refused_for_our_models():
    with pytest.raises(ConfigError, match="freeze='stok' must be 'stock', a number of rows, or a list of rows such as"):
        frozen_names(YOLO("yolov8n-sgdm.yaml").model, "stok")
    with pytest.raises(ConfigError, match="freeze='stock' leaves nothing to train"):
        frozen_names(YOLO("yolov8n.yaml").model, "stock")


def test_stock_layers_without_weights_are_warned_of(caplog):
    model = YOLO("yolov8n-sgdm.yaml").model
    frozen_names(model, "stock")
    assert "the stock layers have random weights and keep them; load weights with pretrained=" in caplog.text
    caplog.clear()
    frozen_names(trained(model), "stock")
    assert "random" not in caplog.text


def test_a_layer_of_the_users_own_that_starts_at_zero_stays_trainable(tmp_path):
    @register_layer
    class Scale(nn.Sequential):
        def __init__(self, c1, c2):
            super().__init__(nn.Conv2d(c1, c2, 1))
            nn.init.zeros_(self[0].weight)

    equip("yolov8n.yaml", module="Scale", at=4, out=tmp_path / "yolov8n-mine.yaml")
    model = YOLO(tmp_path / "yolov8n-mine.yaml").model
    assert of(model, ["model.5"]) <= trainable(model, 10)
    torch.nn.init.ones_(model.model[5][0].weight)
    assert not of(model, ["model.5"]) & trainable(model, 10)


@pytest.mark.parametrize("freeze", [["8.sgdm.expand"], ["8.sgdm"]])
def test_a_part_of_an_untrained_module_stays_trainable_too(freeze, caplog):
    model = YOLO("yolov8n-sgdm.yaml").model
    assert of(model, ["model.8.sgdm"]) <= trainable(model, freeze)
    assert "model.8.sgdm are untrained and stay trainable" in caplog.text


def test_what_weights_did_not_bring_stays_trainable_whatever_its_values(tmp_path):
    """An attention layer has neither BatchNorm nor a zero weight; a layer scale is a vector of zeros."""
    pytest.importorskip("timm")
    equip("yolov8n.yaml", module="se", at=8, out=tmp_path / "yolov8n-se.yaml")
    stock = YOLO("yolov8n.yaml").model
    first, second = (YOLO(tmp_path / "yolov8n-se.yaml").model for _ in range(2))
    first.load(stock)
    second.load(first)  # as a trainer does with a model that was loaded before
    for model in (first, second):
        assert of(model, ["model.9"]) <= trainable(model, 10)
    vars(first).pop("sgdm_untrained")  # as training does
    second.load(first)
    assert not of(second, ["model.9"]) & trainable(second, 10)
