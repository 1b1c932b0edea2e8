"""What model YAMLs may name, what the parser makes of it, and what it says of mistakes in a row."""

import traceback

import pytest
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.nn.modules import C2f

from ultralytics_sgdm import register_layer
from ultralytics_sgdm.errors import ConfigError


@register_layer
class Shift(nn.Module):
    """A user's own layer, parsed like Conv."""

    def __init__(self, c1, c2, bias=0.0):
        super().__init__()
        self.conv, self.bias = nn.Conv2d(c1, c2, 1), bias

    def forward(self, x):
        return self.conv(x) + self.bias


@register_layer(like=C2f)
class Deep(nn.Sequential):
    """A user's own block, parsed like C2f: the repeats come third."""

    def __init__(self, c1, c2, n=1):
        super().__init__(nn.Conv2d(c1, c2, 1), *(nn.Conv2d(c2, c2, 1) for _ in range(n)))


def test_a_users_own_layers_in_a_yaml(model_yaml):
    model = YOLO(model_yaml(3, [-1, 1, "Shift", [256, 2.5]])).model.model
    assert (model[3].conv.in_channels, model[3].conv.out_channels, model[3].bias) == (32, 64, 2.5)
    model = YOLO(model_yaml(4, [-1, 6, "Deep", [256]])).model.model
    assert (len(model[4]), model[4][0].in_channels, model[4][0].out_channels) == (3, 64, 64)
    assert model[5].conv.in_channels == 64


def test_a_traceback_shows_the_lines_of_ultralytics(model_yaml):
    with pytest.raises(ConfigError) as caught:
        YOLO(model_yaml(4, [-1, 6, "RDConv", [256, 2]]))
    frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
    assert any(f.filename == tasks.__file__ and "m(*args)" in f.line for f in frames)


@pytest.mark.parametrize(
    ("index", "row", "message"),
    [
        (4, [-1, 6, "C2fSGMD", [256]], "backbone row 5 (layer 4), [-1, 6, 'C2fSGMD', [256]]: unknown module 'C2fSGMD'"),
        (4, [-1, 6, "c2fsgdm", [256]], "unknown module 'c2fsgdm'; did you mean 'C2fSGDM'"),
        (5, [-1, 1, "nn.Convv2d", [64]], "has no attribute 'Convv2d'"),
        (12, [-1, 3, "C2fSGDM", [512, {"ration": 3}]], "did you mean 'ratio'"),
        (12, [-1, 3, "C2fSGDM", [512, {"ratio": 999}]], "ratio must be a number from 1 to"),
        (
            *(12, [-1, 3, "C2fSGDM", [512, True, 3]]),
            "divisible by groups; the row is written C2fSGDM, [c2, shortcut=False, g=1, e=0.5, {ratio: ..., kernels:",
        ),
        (5, [-1, 1, "RDConv", [512, 4, 2]], "k must be an odd positive integer such as 3, 5 or 7, got 4"),
        (5, [-1, 1, "RDConv", [512, "three", 2]], "got 'three'; the row is written RDConv, [c2, k=3, s=1, ratio=4]"),
        (5, [-1, 1, "RDConv", [512, 3, 2, 4, 1]], "were given; the row is written RDConv, [c2, k=3, s=1, ratio=4]"),
        (5, [-1, 1, "SGDM", []], "c2 is missing; the row is written SGDM, [c2, ratio=3, kernels="),
        (5, [-1, 1, "SGDM", ["wide"]], "c2 must be a number of channels above 0, got 'wide'"),
        (5, [-1, 1, "SGDM", [64, 3, [[1, 99999]]]], "each width in kernels must be at most 255"),
        (5, [-1, 1, "Conv", ["wide", 3, 2]], "'<' not supported"),
        (4, [-1, 6, "Deep", [256, 1, 2, 3]], "; the row is written Deep, [c2]"),
        (5, [-1, 1, "RDConv"], "a row has the four entries [from, repeats, module, arguments], this one has 3"),
        (5, [9, 1, "RDConv", [512]], "the first entry names earlier layers, from 0 to 4 or -1 (the one before), got 9"),
        (5, [-1, 1, "RDConv", 512], "the fourth entry is the list of the module's arguments, got 512"),
        (12, [11, 3, "SGDM", [512, 3]], None),
        (15, [-1, 3, "C2fSGDM", ["nc"]], None),
        (15, [-1, 3, "C2fSGDM", ["128"]], None),
    ],
)
def test_errors_in_a_yaml_that_names_ours_name_the_file_the_row_and_the_fix(model_yaml, index, row, message):
    file = model_yaml(index, row)
    if message is None:
        YOLO(file)
        return
    with pytest.raises(ConfigError) as error:
        YOLO(file)
    assert "yolov8n-mine.yaml, " in str(error.value) and f"(layer {index}), {row}: " in str(error.value)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_row_that_cannot_take_its_input_is_named(model_yaml):
    with pytest.raises(ConfigError, match=r"head row 2 \(layer 11\), \[\[-1, 4\], 1, 'Concat', \[1\]\]: "):
        YOLO(model_yaml(11, [[-1, 4], 1, "Concat", [1]]))


def test_a_class_of_ones_own_makes_a_stock_layer_known(model_yaml):
    from ultralytics.nn.modules import CBAM

    register_layer(type("MyCBAM", (CBAM,), {"__init__": lambda self, c1, c2: CBAM.__init__(self, c1)}))
    assert isinstance(YOLO(model_yaml(4, [-1, 1, "MyCBAM", [256]])).model.model[4], CBAM)


@pytest.mark.parametrize("name", ["Path", "LOGGER", "max", "len", "make_divisible", "torch"])
def test_a_layer_cannot_take_a_name_that_the_parser_uses(name):
    with pytest.raises(ValueError, match=f"the name '{name}' means something else inside Ultralytics; give your class"):
        register_layer(type(name, (nn.Module,), {}))
    YOLO("yolov8n.yaml")
