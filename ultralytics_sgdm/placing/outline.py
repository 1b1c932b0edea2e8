"""The outline of a model: its layers on the meta device, to read channels, strides, parameters and GFLOPs.

Nothing is allocated or computed, so the largest model takes a fraction of a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor
from ultralytics.nn import tasks
from ultralytics.nn.modules import C2fAttn, Detect, ImagePoolingAttn
from ultralytics.utils.torch_utils import get_flops

from ..errors import wrap_errors
from .rows import row_location

SHAPELESS = (torch.nn.BatchNorm2d, torch.nn.SiLU, torch.nn.ReLU)  # take most of the time on the meta device
IMAGE = 256  # pixels: every stage from P1/2 to P6/64 has a map of its own size


class Feature(NamedTuple):
    """The output of a layer: a map of so many channels at stage P<stage>, stride `2**stage` pixels."""

    channels: int
    stage: int

    def __str__(self) -> str:
        return f"P{self.stage}/{2**self.stage}"


def build_outline(spec: dict[str, Any]) -> tasks.BaseModel:
    """Return the model of a model dictionary on the meta device, in evaluation mode.

    Args:
        spec: What `yaml_model_load` returns; without a scale letter, the first of its scales counts.
    """
    spec = deepcopy(spec)
    if spec.get("scales"):
        spec["scale"] = spec.get("scale") or next(iter(spec["scales"]))
    model = tasks.BaseModel()
    with torch.device("meta"):
        model.model, model.save = tasks.parse_model(spec, ch=spec.get("channels", 3), verbose=False)
    model.yaml = spec
    return model.eval()


def read_features(model: tasks.BaseModel) -> list[Feature | None]:
    """Return the output of each layer of a model except the last, the task's head; None where it is not one map.

    Raises:
        ConfigError: If a row cannot take its input.
    """
    device = next(model.parameters(), torch.empty(0, device="meta")).device
    x: Any = torch.zeros(1, model.yaml.get("channels", 3), IMAGE, IMAGE, device=device)
    text = torch.zeros(1, model.yaml.get("nc", 1), 512, device=device)  # the text input of YOLO-World's neck
    outputs: list[Any] = []
    with _bypass(model, *SHAPELESS):
        for layer in model.model[:-1]:
            if layer.f != -1:
                x = outputs[layer.f] if isinstance(layer.f, int) else [x if j == -1 else outputs[j] for j in layer.f]
            with wrap_errors(row_location(model.yaml, layer.i)):
                if isinstance(layer, ImagePoolingAttn):
                    text = layer(x, text)
                else:
                    x = layer(x, text) if isinstance(layer, C2fAttn) else layer(x)
            outputs.append(x)
    return [_read_feature(y) for y in outputs]


@contextmanager
def _bypass(model: torch.nn.Module, *kinds: type[torch.nn.Module]) -> Iterator[None]:
    """Let the layers of some kinds return their input."""
    bypassed = [m for m in model.modules() if type(m) in kinds]
    for m in bypassed:
        m.forward = lambda x: x
    try:
        yield
    finally:
        for m in bypassed:
            del m.forward


def _read_feature(y: Any) -> Feature | None:
    if not isinstance(y, Tensor) or y.dim() != 4:
        return None
    return Feature(y.shape[1], round(math.log2(IMAGE / y.shape[2])))


def count_gflops(model: tasks.BaseModel) -> float:
    """Return the GFLOPs of an outline at 640 x 640 pixels, as Ultralytics counts them; its tensors become zeros."""
    head = model.model[-1]
    if isinstance(head, Detect):
        features = read_features(model)
        head.stride = model.stride = torch.tensor([2.0 ** features[j].stage for j in head.f])
    model.model.to_empty(device="cpu")  # it counts on small images, which take less time than the meta device
    for tensor in (*model.model.parameters(), *model.model.buffers()):
        torch.nn.init.zeros_(tensor)
    return get_flops(model)
