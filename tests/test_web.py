"""The page of examples/web in headless Chromium, with a real exported model.

Needs Chromium and npm, which `make browser` brings where apt-get is at hand.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import save_detector
from ultralytics import YOLO

from ultralytics_sgdm.data import make_shapes

ROOT = Path(__file__).parents[1]
WEB = ROOT / "examples/web"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH"),
    pytest.mark.skipif(shutil.which("node") is None, reason="needs node on PATH"),
    pytest.mark.skipif(not (WEB / "node_modules").exists(), reason="needs `npm install` in examples/web"),
]


@pytest.fixture(scope="module")
def address():
    """The page as `npm start` serves it, on a free port of the loopback."""
    server = runpy.run_path(str(WEB / "serve.py"))["server"](0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "options", [pytest.param({"dynamic": True}, marks=pytest.mark.long), {"nms": True}], ids=["dynamic", "nms"]
)
def test_boxes_of_the_page_are_those_of_the_script(address, tmp_path, options):
    pytest.importorskip("onnxruntime")
    model = YOLO(save_detector("yolov8n-sgdm.yaml", tmp_path)).export(format="onnx", imgsz=160, **options)
    make_shapes(tmp_path / "shapes", train=0, val=1, size=160)
    picture = str(tmp_path / "picture.png")  # 160 x 120: no browser's way of scaling is in the comparison
    cv2.imwrite(picture, cv2.imread(str(tmp_path / "shapes/images/val/0000.jpg"))[:120])
    screenshot = str(tmp_path / "web.png")
    command = ["node", "check.mjs", CHROMIUM, address, model, picture, screenshot]
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)

    detector = runpy.run_path(str(ROOT / "ultralytics_sgdm/deploy/predict_onnx.py"))["Detector"](Path(model))
    expected = detector([cv2.imread(picture)])[0]
    got = np.array([[b[k] for k in ("x1", "y1", "x2", "y2", "score", "class")] for b in seen["boxes"]])
    assert len(expected) > 5
    assert got.shape == expected.shape
    assert np.abs(got[:, :4] - expected[:, :4]).max() < 1
    assert np.abs(got[:, 4] - expected[:, 4]).max() < 1e-3
    assert (got[:, 5] == expected[:, 5]).all()
    assert [b["name"] for b in seen["boxes"]] == [detector.names[int(c)] for c in expected[:, 5]]

    assert seen["dropped"] == seen["boxes"]
    assert seen["early"] == "choose a model first"
    name, classes, backend = seen["about"]
    assert (name, classes) == (Path(model).name, ", ".join(detector.names.values()))
    threads = min(4, len(os.sched_getaffinity(0)))
    assert backend in ("WebGPU", f"WebAssembly, {threads} thread{'s' * (threads > 1)}")
    assert re.fullmatch(r"\d+ boxes; prepare [\d.]+ ms, infer [\d.]+ ms, boxes [\d.]+ ms", seen["shown"])
    assert "infer" in seen["live"] and int(seen["cameraWidth"]) >= 320
    assert "this is no ONNX file" in seen["refused"] or "no detector" in seen["refused"]
    assert seen["unreadable"] == "no.png is no picture that this browser can read"
    assert [r for r in seen["requests"] if not r.startswith((address, "data:", f"blob:{address}"))] == []
    assert cv2.imread(screenshot) is not None
