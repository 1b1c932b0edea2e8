"""The main job from the shell: train, kill and resume, validate, predict, export; stock and many processes."""

import csv
import re
import sys

import pytest
import torch
from helpers import save_shapes
from ultralytics import YOLO

pytestmark = pytest.mark.slow

TINY = ("imgsz=64", "batch=4", "workers=0", "plots=False", "device=cpu")


def to(folder, name):
    return f"project={folder}", f"name={name}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small dataset in it."""
    folder = tmp_path_factory.mktemp("training")
    save_shapes(folder, train=16, val=4, size=96)
    return folder


@pytest.fixture(scope="module")
def best(yolo, folder):
    """Train for two epochs; return best.pt."""
    yolo("train", "model=yolov8n-sgdm.yaml", "data=small.yaml", "epochs=2", *TINY, *to(folder, "run"), cwd=folder)
    return folder / "run/weights/best.pt"


def epochs(folder):
    with (folder / "results.csv").open() as f:
        return [int(row["epoch"]) for row in csv.DictReader(f)]


def test_train_leaves_a_checkpoint_of_our_layers(best):
    model = YOLO(best).model
    assert type(model.model[8]).__module__ == "ultralytics_sgdm.nn.csp"
    assert epochs(best.parents[1]) == [1, 2]


def test_val(yolo, folder, best):
    out = yolo("val", f"model={best}", "data=small.yaml", *TINY, *to(folder, "val"), cwd=folder)
    assert re.search(r"all\s+4\s+\d+", out)


def test_predict_under_safe_load_writes_the_picture(yolo, folder, best):
    source = folder / "shapes/images/val/0000.jpg"
    arguments = (f"model={best}", f"source={source}", "imgsz=64", *to(folder, "predict"))
    yolo("predict", *arguments, cwd=folder, ULTRALYTICS_SAFE_LOAD="1")
    assert (folder / "predict/0000.jpg").stat().st_size > 0


def test_a_process_that_never_imports_us_loads_the_checkpoint_but_not_safely(shell, best):
    """Ultralytics refuses classes that nobody has imported, and that is what its flag is for."""
    script = f"from ultralytics import YOLO; print(type(YOLO({str(best)!r}).model.model[8]).__name__)"
    assert "C2fSGDM" in shell(sys.executable, "-c", script)
    flag = {"ULTRALYTICS_SAFE_LOAD": "1"}
    if hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):  # older torch loads as ever
        refused = shell(sys.executable, "-c", script, status=1, **flag)
        assert "references types outside the supported Ultralytics checkpoint format" in refused


KILLED = """
import os, signal, sys, ultralytics_sgdm
from ultralytics import YOLO
model = YOLO("yolov8n-sgdm.yaml")
model.add_callback("on_train_batch_end", lambda trainer: trainer.epoch == 1 and os.kill(os.getpid(), signal.SIGKILL))
where = dict(option.split("=") for option in sys.argv[1:])
model.train(data="small.yaml", epochs=3, imgsz=64, batch=4, workers=0, plots=False, device="cpu", **where)
"""


def test_training_goes_on_after_sigkill_in_the_middle_of_an_epoch(yolo, shell, folder):
    shell(sys.executable, "-c", KILLED, *to(folder, "killed"), cwd=folder, status=-9)
    assert epochs(folder / "killed") == [1]
    yolo("train", "resume=True", f"model={folder}/killed/weights/last.pt", cwd=folder)
    assert epochs(folder / "killed") == [1, 2, 3]
