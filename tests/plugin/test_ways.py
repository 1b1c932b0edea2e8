"""Every way into a trainer or exporter of Ultralytics: `freeze=stock` and valid half precision hold in each."""

import pickle
import sys

import cloudpickle
import pytest
from helpers import changed, save_detector, save_shapes
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import tuner
from ultralytics.utils.callbacks.base import get_default_callbacks
from ultralytics.utils.dist import generate_ddp_file

from ultralytics_sgdm.nn import registry
from ultralytics_sgdm.plugin import workers

pytestmark = pytest.mark.slow

TINY = {"epochs": 1, "imgsz": 32, "batch": 4, "workers": 0, "device": "cpu", "plots": False, "val": False}
LEARN = {"optimizer": "AdamW", "lr0": 0.01, "warmup_epochs": 0, "nbs": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small dataset and a checkpoint that has seen data, as far as its statistics tell."""
    folder = tmp_path_factory.mktemp("ways")
    save_shapes(folder, classes=3)
    save_detector("yolov8n-sgdm.yaml", folder).rename(folder / "sgdm.pt")
    return folder


@pytest.fixture
def options(folder, tmp_path):
    return {"data": str(folder / "small.yaml"), "project": str(tmp_path), "name": "run", **TINY, **LEARN}


def assert_frozen(folder, trained):
    stock, added = changed(folder / "sgdm.pt", trained)
    assert stock == 0 and added > 0


def test_a_trainer_of_ones_own(folder, options, tmp_path):
    own = {"get_model": lambda self, *args, **kwargs: DetectionTrainer.get_model(self, *args, **kwargs)}
    YOLO(folder / "sgdm.pt").train(trainer=type("Mine", (DetectionTrainer,), own), freeze="stock", **options)
    assert_frozen(folder, tmp_path / "run/weights/last.pt")


OWN_LAYER = """
from torch import nn
from ultralytics_sgdm import register_layer

@register_layer
class Pointwise(nn.Conv2d):
    def __init__(self, c1, c2):
        super().__init__(c1, c2, 1)
"""


def test_the_worker_file_trains_where_nobody_imported_the_plugin(shell, options, model_yaml, tmp_path, monkeypatch):
    """What Ultralytics writes for several GPUs, run on one CPU, with a layer of the user's own beside ours."""
    (tmp_path / "mylayers.py").write_text(OWN_LAYER)
    monkeypatch.syspath_prepend(tmp_path)
    __import__("mylayers")
    overrides = {**options, "model": str(model_yaml(9, [-1, 1, "Pointwise", [1024]]))}
    trainer = DetectionTrainer(overrides=overrides, _callbacks=get_default_callbacks())
    assert isinstance(trainer.model, str)
    shell(sys.executable, generate_ddp_file(trainer))
    assert (tmp_path / "run/weights/last.pt").exists()


def test_the_trainers_made_for_several_data_sets(folder, options, tmp_path):
    """A callback of the user's makes Ultralytics train here, by one trainer for each set."""
    model = YOLO(folder / "sgdm.pt")
    model.add_callback("on_train_start", lambda trainer: None)
    model.train(freeze="stock", **{**options, "data": [options["data"]], "name": None})
    assert_frozen(folder, tmp_path / "multitrain/small/weights/last.pt")


@pytest.mark.parametrize(
    "load",
    [
        "import torch; torch.load('sgdm.pt', weights_only=False)",
        "import pickle; pickle.load(open('model.pkl', 'rb'))",
        "from ultralytics.nn.tasks import load_checkpoint; load_checkpoint('sgdm.pt')",
    ],
    ids=["torch.load", "pickle", "load_checkpoint"],
)
def test_whoever_loads_a_model_of_ours_has_the_plugin(shell, folder, load):
    (folder / "model.pkl").write_bytes(pickle.dumps(YOLO(folder / "sgdm.pt")))
    script = "import ultralytics.engine.trainer as t; print('HAS', hasattr(t.BaseTrainer.setup_model, '__wrapped__'))"
    assert "HAS True" in shell(sys.executable, "-c", f"{load}; {script}", cwd=folder)


def test_tuning(folder, options, tmp_path):
    YOLO(folder / "sgdm.pt").tune(iterations=1, freeze="stock", space={"box": (5.0, 6.0)}, **options)
    assert_frozen(folder, tmp_path / "run/weights/last.pt")


@pytest.mark.long
def test_the_command_of_tuning_knows_us_with_a_stock_model(shell, tmp_path):
    from ultralytics.cfg import _YOLO_CLI_COMMAND

    YOLO("yolov8n.yaml").save(tmp_path / "stock.pt")
    arguments = ["train", f"model={tmp_path / 'stock.pt'}", "data=shaps.yaml", "device=cpu"]
    assert "did you mean 'shapes.yaml'" in shell(*_YOLO_CLI_COMMAND, *arguments, cwd=tmp_path, status=None)


def test_workers_of_ray(shell, folder, tmp_path, monkeypatch):
    """Ray pickles the model for them: whoever unpickles it has the plugin, also for a model of stock layers."""
    sent, stock = [], YOLO("yolov8n.yaml")
    ours = {k: v for k, v in registry._layers.items() if v.cls.__module__.startswith("ultralytics_sgdm")}
    monkeypatch.setattr(registry, "_layers", ours)  # those of other tests are in no module that can be imported there

    def put(model, **_):
        sent.append(cloudpickle.dumps(model))

    workers._with_setup_in_model(put)(stock)
    assert workers._KEY not in vars(stock)
    (tmp_path / "model.pkl").write_bytes(sent[0])
    script = "import pickle, sys; pickle.load(open('model.pkl', 'rb')); print('ultralytics_sgdm.plugin' in sys.modules)"
    assert shell(sys.executable, "-c", script, cwd=tmp_path).splitlines()[-1] == "True"
    assert tuner.run_ray_tune.__code__.co_filename == workers.__file__


def test_training_with_a_teacher_and_going_on_with_it(folder, options, tmp_path):
    options |= {"distill_model": str(folder / "sgdm.pt"), "imgsz": 64, "epochs": 2, "freeze": "stock"}

    class StoppedError(Exception):
        pass

    def stop(trainer):
        raise StoppedError

    model = YOLO(folder / "sgdm.pt")
    model.add_callback("on_model_save", stop)
    with pytest.raises(StoppedError):
        model.train(exist_ok=True, **options)
    YOLO(tmp_path / "run/weights/last.pt").train(resume=True)
    assert_frozen(folder, tmp_path / "run/weights/last.pt")


def test_benchmarking_exports_as_exporting_does(folder, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sgdm.pt").write_bytes((folder / "sgdm.pt").read_bytes())
    YOLO("sgdm.pt").benchmark(data=str(folder / "small.yaml"), imgsz=32, half=True, device="cpu", format="onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "sgdm.onnx"), full_check=True)
