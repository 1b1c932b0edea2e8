"""Every family and task of Ultralytics' detectors at its smallest scale, equipped: build, transfer, train, fuse."""

import pytest
import torch
from helpers import close
from test_zoo import documented
from ultralytics import RTDETR, YOLO
from ultralytics.cfg import get_cfg
from ultralytics.utils.torch_utils import get_num_params

from ultralytics_sgdm import SGDM
from ultralytics_sgdm.configs import list_shipped, stock_name, with_scale
from ultralytics_sgdm.placing import zoo

pytestmark = pytest.mark.slow

NAMES = [names[0] for family, names in zoo.list_families().items() if family.endswith("-sgdm")]


def batch_of(model, task, size):
    """Two random images with two objects each, labelled for the task."""
    batch = {"img": torch.rand(2, 3, size, size)}
    if task == "classify":
        return {**batch, "cls": torch.tensor([1, 2])}
    boxes = torch.tensor([[0.3, 0.3, 0.4, 0.5], [0.6, 0.7, 0.5, 0.4]] * 2)
    batch |= {"batch_idx": torch.tensor([0.0, 0, 1, 1]), "cls": torch.zeros(4, 1), "bboxes": boxes}
    if task == "obb":
        batch["bboxes"] = torch.cat([boxes, torch.full((4, 1), 0.3)], 1)
    elif task == "pose":
        batch["keypoints"] = torch.cat([torch.rand(4, 17, 2), torch.full((4, 17, 1), 2.0)], 2)
    elif task == "segment":
        batch["masks"] = torch.randint(0, 3, (2, size // 4, size // 4))
        batch["sem_masks"] = torch.zeros(2, size // 4, size // 4)
    return batch


def output_of(model, x):
    with torch.no_grad():
        y = model.eval()(x)
    y = y[0] if isinstance(y, tuple) else y
    return y[0] if isinstance(y, tuple) else y  # a segmenter gives (detections, prototypes)


def maps_of(model, x):
    """What the head reads: its own output is a ranking, which near ties may turn around."""
    seen = []
    hook = model.model[-1].register_forward_pre_hook(lambda _, args: seen.extend(args[0]))
    output_of(model, x)
    hook.remove()
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_starts_as_stock_takes_a_training_step_and_fuses(name):
    kind = RTDETR if "rtdetr" in name else YOLO
    stock, ours = kind(stock_name(name)), kind(name)
    assert ours.task == stock.task
    task, stock, model = ours.task, stock.model, ours.model
    assert documented(name) == [
        get_num_params(stock),
        get_num_params(model),
        get_num_params(model) - get_num_params(stock),
    ]
    for m in stock.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.normal_(std=0.1)
            m.running_var.uniform_(0.8, 1.2)
    model.load(stock, verbose=False)
    size = 160 if kind is RTDETR else 128 if "-p6" in name else 64  # a decoder chooses 300 positions; P6 is 64 px wide
    batch = batch_of(model, task, size)
    assert torch.equal(output_of(model, batch["img"]), output_of(stock, batch["img"]))

    modules = [m for m in model.modules() if isinstance(m, SGDM)]
    model.args, model.nc = get_cfg(overrides={"task": task}), 80  # as a trainer sets them
    model.train()
    loss, items = model.loss(batch)
    loss.sum().backward()
    assert loss.isfinite().all() and loss.sum() > 0 and items
    torch.optim.SGD(model.parameters(), lr=1e-5).step()
    assert modules and all(m.expand.weight.abs().max() > 0 for m in modules)  # zero before the step
    assert all(p.isfinite().all() for p in model.parameters())

    before = maps_of(model, batch["img"])
    model.fuse(verbose=False)
    assert model.is_fused()
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for s in modules for m in s.modules())
    assert all(close(a, b, 1e-3) for a, b in zip(maps_of(model, batch["img"]), before, strict=True))


@pytest.mark.parametrize("name", [with_scale(file.name, scale) for file in list_shipped("models") for scale in "nx"])
def test_builds_and_runs_forward_and_backward(name):
    model = YOLO(name).model.train()
    outputs = model(torch.rand(2, 3, 64, 64))
    loss = sum(v.float().square().mean() for v in outputs.values() if isinstance(v, torch.Tensor))
    loss.backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
