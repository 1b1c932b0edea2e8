"""Each seam by what it brings: every test here fails when its seam is taken out of `plugin.install`."""

import sys
import textwrap
import traceback

import pytest
import torch
import ultralytics.data.utils
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn import tasks
from ultralytics.nn.modules import C2f
from ultralytics.utils import checks
from ultralytics.utils.callbacks.base import get_default_callbacks
from ultralytics.utils.dist import generate_ddp_file

from ultralytics_sgdm import plugin, register_layer
from ultralytics_sgdm.configs import CFG, ConfigError
from ultralytics_sgdm.data import make_shapes


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


@pytest.fixture
def model_yaml(tmp_path):
    """Write yolov8.yaml of a folder with one row replaced, and return the path that asks for its scale n."""

    def write(index, row, folder="mine", name="yolov8-mine.yaml"):
        spec = yaml.safe_load((CFG / "models/yolov8-sgdm.yaml").read_text())
        section, i = ("backbone", index) if index < len(spec["backbone"]) else ("head", index - len(spec["backbone"]))
        spec[section][i] = row
        file = tmp_path / folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(spec))
        return file.with_name(name.replace("yolov8", "yolov8n"))

    return write


# Seam 1: the parser


@pytest.mark.parametrize("scale", "nm")
@pytest.mark.parametrize(("ours", "stock"), [("yolov8{}-sgdm", "yolov8{}"), ("yolov5{}-sgdm", "yolov5{}")])
def test_every_stock_tensor_keeps_its_name_and_shape(ours, stock, scale):
    ours, stock = (YOLO(f"{name.format(scale)}.yaml").model.state_dict() for name in (ours, stock))
    assert {k: v.shape for k, v in stock.items()} == {k: v.shape for k, v in ours.items() if ".sgdm." not in k}


def test_a_detector_starts_with_exactly_the_outputs_of_the_stock_one():
    ours, stock = YOLO("yolov8n-sgdm.yaml").model.eval(), YOLO("yolov8n.yaml").model.eval()
    ours.load(stock, verbose=False)
    x = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        assert torch.equal(ours(x)[0], stock(x)[0])


def test_fuse_leaves_the_outputs_and_no_batchnorm():
    from helpers import close, randomize

    model = YOLO("yolov8n-sgdm.yaml").model.eval()
    for m in model.modules():
        if type(m).__name__ == "SGDM":
            randomize(m)
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        before = model(x)[0]
        after = model.fuse(verbose=False)(x)[0]
    assert close(after, before, 1e-5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_a_users_own_layers_in_a_yaml(model_yaml):
    model = YOLO(model_yaml(3, [-1, 1, "Shift", [256, 2.5]])).model.model
    assert (model[3].conv.in_channels, model[3].conv.out_channels, model[3].bias) == (32, 64, 2.5)
    model = YOLO(model_yaml(4, [-1, 6, "Deep", [256]])).model.model
    assert (len(model[4]), model[4][0].in_channels, model[4][0].out_channels) == (3, 64, 64)
    assert model[5].conv.in_channels == 64


def test_a_traceback_shows_the_lines_of_ultralytics(model_yaml):
    with pytest.raises(ConfigError) as caught:
        YOLO(model_yaml(4, [-1, 6, "Deep", [256, 1, 2, 3]]))
    frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
    assert any(f.filename == tasks.__file__ and "m(*args)" in f.line for f in frames)


@pytest.mark.parametrize(
    ("index", "row", "message"),
    [
        (4, [-1, 6, "C2fSGMD", [256]], r"backbone row 5 \(layer 4\).*unknown module 'C2fSGMD'; did you mean 'C2fSGDM'"),
        (12, [-1, 3, "C2fSGDM", [512, {"ration": 3}]], r"head row 3 \(layer 12\).*did you mean 'ratio'"),
        (12, [-1, 3, "C2fSGDM", [512, {"ratio": 999}]], r"head row 3 \(layer 12\).*ratio must be a number from 1 to"),
        (5, [-1, 1, "RDConv", [512, 4, 2]], r"backbone row 6 \(layer 5\).*k must be an odd .*built as RDConv\(c1"),
        (5, [-1, 1, "Conv", [512, 3, 2, None, 1, 1, True, 9, 9]], r"backbone row 6 .*built as Conv\(c1, c2"),
        (5, [-1, 1, "Conv", []], r"backbone row 6 .*index out of range"),
        (5, [-99, 1, "Conv", [64]], r"backbone row 6 "),
        (5, [-1, 1, "nn.Convv", [64]], r"backbone row 6 .*Convv"),
    ],
)
def test_errors_name_the_file_the_row_and_the_fix(model_yaml, index, row, message):
    with pytest.raises(ConfigError, match=rf"yolov8n-mine\.yaml, {message}"):
        YOLO(model_yaml(index, row))


def test_a_layer_cannot_take_a_name_that_the_parser_uses(monkeypatch):
    from ultralytics_sgdm.nn import registry

    monkeypatch.setattr(registry, "_layers", dict(registry._layers))
    register_layer(type("Path", (nn.Module,), {}))
    with pytest.raises(ConfigError, match="'Path' means something else inside Ultralytics; rename your class"):
        YOLO("yolov8n.yaml")


def test_an_ultralytics_that_parses_differently_is_refused_by_version(monkeypatch):
    def parse_model(d, ch, verbose=True):
        return nn.Sequential(*(nn.Identity() for _ in d["backbone"])), []

    monkeypatch.setattr(tasks, "parse_model", parse_model)
    with pytest.raises(RuntimeError, match=rf"model parser of Ultralytics {ultralytics.__version__} .*see the README"):
        plugin.install_parser.__wrapped__()


# Seam 2: YAML names


def test_shipped_names_resolve_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert YOLO("yolov8s-sgdm.yaml").model.yaml["scale"] == "s"
    assert ultralytics.data.utils.check_file("shapes.yaml") == str(CFG / "datasets/shapes.yaml")
    assert checks.check_yaml("coco8.yaml").endswith("coco8.yaml")


def test_the_scale_is_read_from_the_files_name_only(model_yaml):
    model = YOLO(model_yaml(3, [-1, 1, "Shift", [256]], folder="user7m")).model
    assert model.yaml["scale"] == "n"
    assert model.model[3].conv.out_channels == 64


def test_the_users_file_goes_before_the_shipped_one(model_yaml, monkeypatch):
    file = model_yaml(3, [-1, 1, "Shift", [256]], name="yolov8-sgdm.yaml")
    monkeypatch.chdir(file.parent)
    assert type(YOLO("yolov8n-sgdm.yaml").model.model[3]) is Shift


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("yolov8n-sgmd.yaml", "yolov8n-sgdm.yaml"),
        ("yolov5x-rdcon.yaml", "yolov5x-rdconv.yaml"),
        ("yolo1n.yaml", "yolo11n"),
    ],
)
def test_an_unknown_model_names_the_nearest(name, near):
    with pytest.raises(FileNotFoundError, match=rf"'{name}' does not exist; did you mean .*'{near}"):
        YOLO(name)


def test_an_unknown_dataset_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'shaps\.yaml' does not exist; did you mean 'shapes\.yaml'"):
        ultralytics.data.utils.check_det_dataset("shaps.yaml")


# Seam 3: workers of multi-GPU training


def test_the_worker_file_trains_in_an_interpreter_that_never_imported_the_plugin(shell, tmp_path, monkeypatch):
    """What Ultralytics writes for several GPUs, run on one CPU, with a layer of the user's own beside ours."""
    (tmp_path / "mylayers.py").write_text(
        textwrap.dedent("""
        from torch import nn
        from ultralytics_sgdm import register_layer

        @register_layer
        class Pointwise(nn.Conv2d):
            def __init__(self, c1, c2):
                super().__init__(c1, c2, 1)
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    __import__("mylayers")
    spec = yaml.safe_load((CFG / "models/yolov8-sgdm.yaml").read_text())
    spec["backbone"][9] = [-1, 1, "Pointwise", [1024]]
    (tmp_path / "yolov8-mine.yaml").write_text(yaml.safe_dump(spec))
    make_shapes(tmp_path / "shapes", train=4, val=2, size=64)
    data = {"path": str(tmp_path / "shapes"), "train": "images/train", "val": "images/val", "nc": 6}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(data))
    trainer = DetectionTrainer(
        overrides={
            "model": str(tmp_path / "yolov8n-mine.yaml"),
            "data": str(tmp_path / "data.yaml"),
            "project": str(tmp_path),
            "name": "run",
            **{"epochs": 1, "imgsz": 32, "workers": 0, "device": "cpu", "plots": False, "exist_ok": True},
        },
        _callbacks=get_default_callbacks(),
    )
    assert isinstance(trainer.model, str)
    shell(sys.executable, generate_ddp_file(trainer))
    assert (tmp_path / "run/weights/last.pt").exists()
