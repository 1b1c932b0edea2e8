"""The boxes of deploy/predict_onnx.py are those of Ultralytics, without Ultralytics."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from ultralytics import YOLO

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SCRIPT = Path(__file__).parents[2] / "ultralytics_sgdm/deploy/predict_onnx.py"
PREDICT = runpy.run_path(str(SCRIPT))


def check_boxes(model, detector, batch, **options):
    """Compare with `yolo predict` of the same file; return the number of boxes."""
    theirs = model.predict(batch, imgsz=96, verbose=False, batch=len(batch), **options)
    count = 0
    for ours, result in zip(detector(batch, **options), theirs, strict=True):
        boxes = result.boxes.data.numpy()
        assert ours.shape == boxes.shape
        assert np.abs(ours[:, :4] - boxes[:, :4]).max(initial=0) < 1
        assert np.abs(ours[:, 4] - boxes[:, 4]).max(initial=0) < 1e-4
        assert (ours[:, 5] == boxes[:, 5]).all()
        count += len(boxes)
    return count


@pytest.mark.parametrize("kind", ["fixed", "dynamic", "nms", "nms dynamic"])
def test_boxes_are_those_of_ultralytics(models, images, kind):
    model, detector = YOLO(models[kind], task="detect"), PREDICT["Detector"](models[kind])
    assert detector.names == {0: "0", 1: "1", 2: "2"}
    assert sum(check_boxes(model, detector, [image]) for image in images) > 50
    if "dynamic" in kind:
        assert check_boxes(model, detector, images[:4]) > 10
        assert check_boxes(model, detector, [images[0]] * 3) > 10


def test_nms_takes_its_settings_as_ultralytics_does(models, images):
    model, detector = YOLO(models["dynamic"], task="detect"), PREDICT["Detector"](models["dynamic"])
    loose = check_boxes(model, detector, images[:1], conf=0.2, iou=0.9)
    assert check_boxes(model, detector, images[:1], conf=0.2, iou=0.3) < loose
    assert check_boxes(model, detector, images[:1], conf=0.2, iou=0.9, max_det=5) == 5
    both = {"conf": 0.2, "iou": 0.3}
    ours = detector(images[:1], **both, agnostic_nms=True)[0]
    theirs = model.predict(images[0], imgsz=96, verbose=False, agnostic_nms=True, **both)[0].boxes.data.numpy()
    np.testing.assert_allclose(ours, theirs, atol=0.1)
    assert check_boxes(model, detector, images[:1], conf=1.0) == 0


def test_a_model_that_needs_no_nms(end2end, images):
    model, detector = YOLO(end2end, task="detect"), PREDICT["Detector"](end2end)
    assert detector.has_nms
    assert sum(check_boxes(model, detector, [image]) for image in images) > 50
    assert check_boxes(model, detector, images[:1], max_det=3, conf=0.01) == 3


@pytest.fixture
def with_metadata(models, tmp_path):
    """Return a copy of a model with entries of its metadata set, or dropped (None)."""

    def change(kind="fixed", **entries):
        model = onnx.load(models[kind])
        meta = {**{p.key: p.value for p in model.metadata_props}, **entries}
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {k: v for k, v in meta.items() if v is not None})
        onnx.save(model, tmp_path / "changed.onnx")
        return tmp_path / "changed.onnx"

    return change


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"task": None}, "wrote: its metadata lacks 'task'"),
        ({"task": "classify"}, "is a model of task classify"),
        ({"imgsz": None}, "wrote: its metadata lacks 'imgsz'"),
        ({"names": "garbage"}, "is not a model that `yolo export format=onnx` wrote"),
        ({"head": "RTDETRDecoder"}, "head RTDETRDecoder, 3 channels; this takes YOLO detectors"),
        ({"channels": "1"}, "1 channels; this takes YOLO detectors of images with 3 channels"),
    ],
)
def test_metadata_that_is_not_ultralytics(with_metadata, entries, message):
    with pytest.raises(PREDICT["InputError"], match=message):
        PREDICT["Detector"](with_metadata(**entries))


def test_metadata_of_other_versions(with_metadata, images):
    listed = PREDICT["Detector"](with_metadata(names="['a', 'b', 'c']", args=None, end2end=None, head=None, batch=None))
    assert listed.names == {0: "a", 1: "b", 2: "c"} and not listed.has_nms
    inside = PREDICT["Detector"](with_metadata("nms", names="['a']", args=None, end2end=None))
    assert inside.has_nms  # rows of six figures
    with pytest.raises(PREDICT["InputError"], match=r"found the class [12], which its metadata does not name"):
        inside(images[:1])
