"""What several test files need."""

from pathlib import Path

import torch
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from ultralytics_sgdm.data import make_shapes
from ultralytics_sgdm.placing.weights import stock_norms, stock_parameters


def randomize(module: nn.Module) -> nn.Module:
    """Give every weight, bias and running statistic a random value, so that no branch is idle; return `module`."""
    for p in module.parameters():
        nn.init.normal_(p, std=p[0].numel() ** -0.5 if p.dim() > 1 else 0.3)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.running_mean, std=0.3)
            nn.init.uniform_(m.running_var, 0.5, 1.5)
    return module


def save_detector(name: str, folder: Path) -> Path:
    """Save a detector of three classes that finds many overlapping boxes, no branch of ours idle; return its file."""
    torch.manual_seed(0)
    model = YOLO(name)
    model.model = DetectionModel(name, nc=3, verbose=False)
    randomize(model.model.model[:-1])
    head = model.model.model[-1]
    for level in (*head.cv3, *getattr(head, "one2one_cv3", ())):
        nn.init.normal_(level[-1].weight)
        nn.init.constant_(level[-1].bias, -1)
    model.save(folder / "model.pt")
    return folder / "model.pt"


def save_shapes(folder: Path, train: int = 8, val: int = 2, size: int = 64, classes: int = 6) -> Path:
    """Draw a small dataset, its classes taken modulo `classes`; return its YAML, `small.yaml`."""
    make_shapes(folder / "shapes", train=train, val=val, size=size)
    for labels in (folder / "shapes/labels").rglob("*.txt"):
        rows = [line.split() for line in labels.read_text().splitlines()]
        labels.write_text("".join(f"{int(c) % classes} {' '.join(box)}\n" for c, *box in rows))
    spec = {"path": str(folder / "shapes"), "train": "images/train" if train else "images/val", "val": "images/val"}
    spec["names"] = list("abcdef")[:classes]
    (folder / "small.yaml").write_text(yaml.safe_dump(spec))
    return folder / "small.yaml"


def changed(before: Path, after: Path) -> tuple[int, int]:
    """Return how many stock and how many added tensors of a checkpoint a training from another one has changed."""
    old, new = (YOLO(file).model.float() for file in (before, after))
    stock = {n for n, _ in stock_parameters(old)} | {f"{n}.running_mean" for n, _ in stock_norms(old)}
    state = new.state_dict()
    differ = {k for k, v in old.state_dict().items() if not torch.equal(v, state[k])}
    return len(differ & stock), len(differ - stock)


def computed_weights(graph) -> list[str]:
    """Return the convolutions of an ONNX graph whose weight is neither a constant nor one that is quantized."""
    constant = {t.name for t in graph.initializer} | {n.output[0] for n in graph.node if n.op_type == "Constant"}
    for n in graph.node:
        if n.op_type in ("QuantizeLinear", "DequantizeLinear") and n.input[0] in constant:
            constant.add(n.output[0])
    return [n.name for n in graph.node if n.op_type == "Conv" and n.input[1] not in constant]


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    """Whether two tensors agree relative to the largest value."""
    return bool((a - b).abs().max() <= tolerance * b.abs().max())
