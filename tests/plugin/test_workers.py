"""Processes that never imported us, started by Ultralytics in its several ways."""

import sys
import textwrap

import pytest
import yaml
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.callbacks.base import get_default_callbacks
from ultralytics.utils.dist import generate_ddp_file

from ultralytics_sgdm.configs import CFG
from ultralytics_sgdm.data import make_shapes

pytestmark = pytest.mark.slow


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
