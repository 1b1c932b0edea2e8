"""What `freeze` takes, what it means, and what `freeze=stock` leaves to learn."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import LOGGER

from ultralytics_sgdm.configs import ConfigError
from ultralytics_sgdm.nn.csp import A2C2fSGDM
from ultralytics_sgdm.plugin.freezing import freeze_value


class Trainer(BaseTrainer):
    """A trainer that is asked to freeze, as far as its names go."""

    def __init__(self, model, freeze="stock"):
        self.args, self.model = SimpleNamespace(freeze=freeze), model
        self.freeze_layer_names = [".dfl"]

    def learns(self):
        names = self.freeze_layer_names
        return {k for k, _ in self.model.named_parameters() if not any(x in k for x in names)}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, None),
        (False, None),
        ("stock", "stock"),
        (3, 3),
        (2.0, 2),
        ((0, 1, 2), [0, 1, 2]),
        ([0, 1.0], [0, 1]),
        (range(2), [0, 1]),
        ({5}, [5]),
        (torch.tensor(4).numpy()[()], 4),
        (["4.cv1", 3], ["4.cv1", 3]),
    ],
)
def test_what_is_meant_is_taken(given, meant):
    assert freeze_value(given) == meant and type(freeze_value(given)) is type(meant)


@pytest.mark.parametrize("given", ["stok", "3", True, -1, 2.5, [1, -2], [True], [None], {"a": 1}, b"x", float("nan")])
def test_what_would_have_no_effect_is_refused(given):
    with pytest.raises(ConfigError, match="must be 'stock', a number of layers, or a list of layers such as"):
        freeze_value(given)


def test_layers_that_are_not_there_are_refused():
    model = YOLO("yolov8n.yaml").model
    with pytest.raises(ConfigError, match=r"freeze=\[0, 23\]: there is no layer 23, the layers are 0 to 22"):
        Trainer(model, [0, 23])
    with pytest.raises(ConfigError, match="freeze=24: there is no layer 23"):
        Trainer(model, 24)
    with pytest.raises(ConfigError, match=r"no parameter has a name with 'model\.4\.cv9\.'"):
        Trainer(model, ["4.cv9"])


def test_a_trainer_whose_checkpoint_imports_us_late_acts_on_it_too():
    model = YOLO("yolov8n.yaml").model
    with pytest.raises(ConfigError, match="freeze='stok' must be"):
        Trainer(model, "stok")
    assert not any(k.startswith(("model.0.", "model.1.")) for k in Trainer(model, (0, 1)).learns())


def test_freezing_reaches_parameters_of_a_block_itself():
    block = A2C2fSGDM(64, 64, 1, True, 1, True)  # its gamma belongs to no layer inside it
    trainer = Trainer(nn.Sequential(block))
    assert trainer.learns() == {f"0.sgdm.{name}" for name, _ in block.sgdm.named_parameters()}
    norms = {f"0.{name}" for name, m in block.named_modules() if isinstance(m, nn.BatchNorm2d)}
    kept = {n for n in norms if any(x in n for x in trainer.freeze_layer_names)}
    assert kept == {n for n in norms if "sgdm" not in n}


@pytest.mark.parametrize("name", ["yolov8n-sgdm.yaml", "yolov6n-sgdm.yaml", "yolov8n-rdconv.yaml"])
def test_the_added_parts_of_a_model_learn_alone(name):
    model = YOLO(name).model
    learns = Trainer(model).learns()
    added = {n for n, m in model.named_modules() if type(m).__name__ in ("SGDM", "RDConv")}
    assert learns == {n for n, _ in model.named_parameters() if any(n.startswith(f"{a}.") for a in added)}


def test_freezing_needs_something_to_train():
    with pytest.raises(ConfigError, match="freeze='stock' leaves nothing to train"):
        Trainer(nn.Sequential(nn.Conv2d(3, 3, 1)))


def test_stock_layers_without_weights_are_warned_of(caplog, monkeypatch):
    monkeypatch.setattr(LOGGER, "propagate", True)
    model = YOLO("yolov8n-sgdm.yaml").model
    with caplog.at_level(logging.WARNING):
        Trainer(model)
    assert "the stock layers are as they were initialised and stay so; give weights with pretrained=" in caplog.text
    caplog.clear()
    model.model[0].bn.running_mean += 1
    Trainer(model)
    assert "initialised" not in caplog.text
