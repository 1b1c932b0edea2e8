"""docs/howto/own-layer.md as a newcomer runs it, in small: a layer, a YAML, stock weights, a comparison, an export."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from helpers import save_shapes
from ultralytics import YOLO

from ultralytics_sgdm import equip
from ultralytics_sgdm.nn.timm_names import ATTENTION

PAGE = Path(__file__).parents[1] / "docs/howto/own-layer.md"


@pytest.mark.long
def test_the_page_from_zero(shell, yolo, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("scipy")
    save_shapes(tmp_path, val=4).rename(tmp_path / "my.yaml")
    YOLO("yolov8n.yaml").save(tmp_path / "yolov8n.pt")
    first, second, *_ = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    second = second.replace("epochs=50", "epochs=1, imgsz=32, batch=4, workers=0, device='cpu', project='runs'")
    shell(sys.executable, "-c", first, cwd=tmp_path)
    out = shell(sys.executable, "-c", second, cwd=tmp_path)
    assert "Gate behind C2f in layers" in out and "355 of 355 pretrained tensors moved" in out
    assert list(tmp_path.rglob("*.onnx"))
    command = re.search(r"yolo (sgdm compare .*?)\n```", PAGE.read_text(encoding="utf-8"), re.S)[1].replace("\\\n", " ")
    small = command.replace("epochs=50", "epochs=1 imgsz=32 batch=4 workers=0 device=cpu nbs=4").split()
    yolo(*small, cwd=tmp_path)
    summary = (tmp_path / "results/gate/summary.md").read_text()
    assert all(f"| {name} |" in summary for name in ("yolov8n", "yolov8n-gate", "yolov8n-sgdm"))
    assert len(list((tmp_path / "results/gate").glob("yolov8n*.json"))) == 9


@pytest.mark.parametrize("name", ATTENTION)
def test_timms_attention_layers_are_layers_by_name(name, tmp_path):
    pytest.importorskip("timm")
    x = torch.rand(1, 64, 16, 12)
    layer = getattr(importlib.import_module("ultralytics_sgdm.nn.attention"), name)
    assert torch.equal(layer(64, 64).eval()(x), x) == ("starts as the identity" in ATTENTION[name])
    identity = layer(64, 64, "identity").eval()
    assert torch.equal(identity(x), x)
    identity(x).sum().backward()
    assert identity.scale.grad is not None
    with pytest.raises(ValueError, match="start must be one of timm, identity, got 'zero'"):
        layer(64, 64, "zero")
    equip("yolov8n.yaml", module=name, start="identity", out=tmp_path / "yolov8n-mine.yaml")
    model = YOLO(tmp_path / "yolov8n-mine.yaml").model
    assert type(model.model[9]) is layer and model.model[9].scale.item() == 0
