"""What importing the package changes of Ultralytics: the written list, and nothing for a stock model or name."""

import sys

import pytest

pytestmark = pytest.mark.slow

CHANGED = {  # attribute: why it differs
    "ultralytics.nn.tasks.parse_model.__code__": "compares a registered layer as the stock layer it is parsed like",
    "ultralytics.nn.tasks.DetectionModel.__init__": "names the row of a model with our layers that cannot run",
    "ultralytics.nn.tasks.BaseModel.load": "weights follow inserted rows",
    "ultralytics.nn.tasks.yaml_model_load": "<model>-sgdm.yaml is equipped when it is loaded",
    "ultralytics.utils.checks.check_file": "shipped YAMLs are found by their names",
    "ultralytics.utils.downloads.attempt_download_asset": "weights of our names, which nobody publishes, are explained",
    "ultralytics.utils.dist.torch_save": "workers of several GPUs import the package",
    "ultralytics.utils.tuner.run_ray_tune": "workers of Ray import the package",
    "ultralytics.cfg._YOLO_CLI_COMMAND": "processes that tuning starts import the package",
    "ultralytics.engine.trainer.BaseTrainer.setup_model": "freeze=stock, and untrained added modules stay trainable",
    "ultralytics.engine.trainer.BaseTrainer._setup_train": "freeze=stock reaches parameters of a block itself",
    "ultralytics.engine.exporter.Exporter.export_onnx": "half-precision ONNX of models with our layers is sorted",
}

SCRIPT = """
import importlib, inspect, pkgutil, sys, types
import ultralytics
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.utils import dist, tuner, downloads, checks
import ultralytics.engine.exporter, ultralytics.engine.trainer, ultralytics.models, ultralytics.data.utils

def snapshot():
    seen = {}
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] != "ultralytics" or not isinstance(module, types.ModuleType):
            continue
        for key, value in list(vars(module).items()):
            record(seen, name, key, value)
            if isinstance(value, type) and value.__module__ == name:
                for inner, method in list(vars(value).items()):
                    record(seen, f"{name}.{key}", inner, method)
    return seen

def record(seen, owner, key, value):
    if key.startswith("__") and key != "__init__":
        return
    code = getattr(value, "__code__", None)
    state = list(value) if isinstance(value, list) else None
    seen[f"{owner}.{key}"] = (id(value), code, repr(state)[:500])

before = snapshot()
import ultralytics_sgdm
after = snapshot()
for name in sorted(after):
    if name not in before:
        if "__sgdm" not in name:
            print("NEW", name)
    elif before[name] != after[name]:
        kind = ".__code__" if before[name][0] == after[name][0] and before[name][1] is not after[name][1] else ""
        print("CHANGED", name + kind)
for name in sorted(before.keys() - after.keys()):
    print("GONE", name)
"""


def test_the_list_of_what_differs_is_complete(shell, tmp_path):
    lines = [line.split() for line in shell(sys.executable, "-c", SCRIPT, cwd=tmp_path).splitlines()]
    changed = {name for kind, name in (line for line in lines if len(line) == 2) if kind == "CHANGED"}
    aliases = {name for name in changed if name not in CHANGED}
    wrapped = {name.rpartition(".")[2].removesuffix("__code__").rstrip(".") for name in CHANGED} | {"parse_model"}
    assert CHANGED.keys() <= changed
    assert {a for a in aliases if a.removesuffix(".__code__").rpartition(".")[2] not in wrapped} == set()
    new = {line[1] for line in lines if line[:1] == ["NEW"]}
    ours = {name.rpartition(".")[2] for name in new}
    assert all(name.startswith("ultralytics.nn.tasks.") for name in new)
    assert all(name.endswith("SGDM") or name in ("RDConv",) or name.startswith("_sgdm_") for name in ours)
    assert not [line for line in lines if line[:1] == ["GONE"]]


STOCK = """
import json, sys, torch
if sys.argv[1] == "with":
    import ultralytics_sgdm
from pathlib import Path
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER, checks
LOGGER.setLevel(50)
said = []
def attempt(what, call):
    try:
        said.append([what, repr(call())[:300]])
    except Exception as e:
        said.append([what, type(e).__module__, type(e).__name__, str(e)[:500]])
torch.manual_seed(0)
model = YOLO("yolov8n.yaml").model.eval()
with torch.no_grad():
    said.append(["output", float(model(torch.ones(1, 3, 64, 64))[0].double().sum())])
GOOD = {"nc": 1, "backbone": [[-1, 1, "Conv", [16, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]]}
import yaml
def build(**changes):
    Path("mine.yaml").write_text(yaml.safe_dump({**GOOD, **changes}))
    return type(YOLO("mine.yaml").model).__name__
attempt("good", lambda: build())
attempt("typo", lambda: build(backbone=[[-1, 1, "Convv", [16, 3, 2]]]))
attempt("short", lambda: build(backbone=[[-1, 1, "Conv"]]))
attempt("later", lambda: build(backbone=[[5, 1, "Conv", [16, 3, 2]]]))
attempt("stock layer without parser", lambda: build(backbone=[[-1, 1, "CBAM", [16]]]))
attempt("concat", lambda: build(head=[[[0, -5], 1, "Concat", [1]], [[1], 1, "Detect", ["nc"]]]))
attempt("no head", lambda: build(head=[[-1, 1, "Conv", [16]]]))
attempt("activation", lambda: build(activation="Swish"))
attempt("scales", lambda: build(scales={"n": [1, 1]}))
def text(content, name="odd.yaml"):
    Path(name).write_text(content)
    return YOLO(name).task
ROWS = "backbone:\\n  - [-1, 1, Conv, [16, 3, 2]]\\nhead:\\n  - [[0], 1, Detect, [nc]]\\n"
attempt("twice", lambda: text("nc: 1\\nnc: 2\\n" + ROWS))
attempt("empty", lambda: text(""))
attempt("tab", lambda: text("nc: 1\\n\\tbackbone: []"))
attempt("missing", lambda: YOLO("nosuch.yaml"))
attempt("missing weights", lambda: YOLO("nosuch.pt"))
attempt("data", lambda: __import__("ultralytics.data.utils", fromlist=["x"]).check_det_dataset("coco9.yaml"))
attempt("model as data", lambda: __import__("ultralytics.data.utils", fromlist=["x"]).check_det_dataset("yolov8.yaml"))
other = YOLO("yolov8n.yaml").model
attempt("load", lambda: (other.load(model), float(sum(p.double().sum() for p in other.parameters())))[1])
class Broken(torch.nn.Module):
    calls = 0
    def __init__(self, *a):
        super().__init__()
    def forward(self, x):
        Broken.calls += 1
        raise RuntimeError("broken")
tasks.Broken = Broken
attempt("broken", lambda: build(backbone=[[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Broken", [16]]]))
said.append(["forward passes", Broken.calls])
print("SAID", json.dumps(said))
"""


def test_stock_models_names_and_mistakes_are_as_without_the_package(shell, tmp_path):
    """The same outputs, error types and texts, and number of forward passes."""
    both = []
    for how in ("with", "without"):
        (tmp_path / how).mkdir()
        out = shell(sys.executable, "-c", STOCK, how, cwd=tmp_path / how)
        both.append(next(line for line in out.splitlines() if line.startswith("SAID")))
    assert both[0] == both[1]
