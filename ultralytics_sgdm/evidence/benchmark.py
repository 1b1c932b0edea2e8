"""What models cost: parameters, GFLOPs, latency, training step and memory, each beside the first model named.

Models run in turn, round by round; a ratio is the median over rounds of a model's time to the first model's in the
same round. On the CPU a time is the processor time of one thread, which other work on the machine disturbs least.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from ultralytics import YOLO
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.torch_utils import get_flops, get_num_params

from ..errors import ConfigError, import_extra, wrap_errors
from . import records
from .train import import_layers, load_model

WARM_UP = 2


def time_in_turn(calls: Sequence[Callable[[], object]], rounds: int, device: torch.device) -> list[dict[str, float]]:
    """Return milliseconds and the ratio to the first call of each call, medians over `rounds`."""

    def clock() -> float:
        if device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(device)
        return time.perf_counter()

    times = np.empty((WARM_UP + rounds, len(calls)))
    for i, j in np.ndindex(times.shape):
        start = clock()
        calls[j]()
        times[i, j] = 1000 * (clock() - start)
    times = times[WARM_UP:]
    medians, ratios = np.median(times, 0), np.median(times / times[:, :1], 0)
    return [{"ms": round(ms, 2), "ratio": round(r, 4)} for ms, r in zip(medians.tolist(), ratios.tolist(), strict=True)]


def export_onnx(name: str, imgsz: int, folder: Path) -> Callable[[Tensor], object]:
    """Return a call of a model exported to ONNX, on one thread of the CPU."""
    onnxruntime = import_extra("onnxruntime", "export")
    file, yolo = folder / f"{Path(name).stem}.onnx", YOLO(name)
    yolo.model.pt_path = str(file.with_suffix(".pt"))  # Ultralytics exports beside it: the user's files stay
    yolo.export(format="onnx", imgsz=imgsz)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {session.get_inputs()[0].name: x.numpy()})


def build_step(name: str, imgsz: int, batch: int, device: torch.device) -> Callable[[], None]:
    """Return one step of training, forward, loss and backward, on random images with four boxes each."""
    model = YOLO(name).model.train().to(device).requires_grad_()
    model.args = DEFAULT_CFG
    data = {
        "img": torch.rand(batch, 3, imgsz, imgsz, device=device),
        "batch_idx": torch.arange(batch, device=device).repeat_interleave(4).float(),
        "cls": torch.zeros(4 * batch, 1, device=device),
        "bboxes": torch.rand(4 * batch, 4, device=device) * 0.3 + 0.3,
    }

    def step() -> None:
        model.zero_grad()
        model(data)[0].sum().backward()

    return step


def measure_memory(step: Callable[[], None], device: torch.device) -> float:
    """Return the most MiB of tensors, beyond the parameters, that a first training step holds in torch's allocator."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        profiler.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]")
    return max(itertools.accumulate(change for _, change in changes)) / 2**20


def measure(names: Sequence[str], imgsz: int, batch: int, rounds: int, x: Tensor) -> list[dict[str, Any]]:
    """Return a row of figures for each model, on the device of the image `x`."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        calls = [partial(YOLO(name).model.eval().fuse(verbose=False).to(x.device), x) for name in names]
        inference = time_in_turn(calls, rounds, x.device)
        calls = [partial(export_onnx(name, imgsz, Path(folder)), x.cpu()) for name in names]
        exported = time_in_turn(calls, rounds, torch.device("cpu"))
    steps = [build_step(name, imgsz // 2, batch, x.device) for name in names]
    peaks = [measure_memory(step, x.device) for step in steps]
    training = time_in_turn(steps, max(3, rounds // 2), x.device)
    rows = []
    for i, name in enumerate(names):
        model = YOLO(name).model
        row = {"model": name, "parameters": get_num_params(model), "gflops": round(get_flops(model, imgsz), 3)}
        row |= {"pytorch": inference[i], "onnxruntime": exported[i], "training_step": training[i]}
        rows.append(row | {"training_memory": {"MiB": round(peaks[i]), "ratio": round(peaks[i] / peaks[0], 4)}})
    return rows


def benchmark(
    *models: str,
    imgsz: int = 640,
    batch: int = 4,
    rounds: int = 20,
    device: str = "cpu",
    layers: list[str] | None = None,
    out: Path | None = None,
) -> None:
    """Time models beside each other: inference, ONNX Runtime, a training step, and its memory.

    Args:
        models: Model YAMLs; the first is the one that others are compared with.
        imgsz: Pixels; the training step takes half, so a multiple of twice the models' stride.
        batch: Images of a training step.
        rounds: How often each model runs in turn.
        device: cpu or cuda:0.
        layers: Python files that register layers.
        out: JSON file to write.

    Raises:
        ConfigError: If a model, a size or the device is not available, or OUT exists.
    """
    for module in ("onnx", "onnxruntime"):
        import_extra(module, "export")
    if not models or min(batch, rounds, imgsz) < 1:
        raise ConfigError("name the models, the one to compare with first; batch=, rounds= and imgsz= are 1 or more")
    if out and out.exists():
        raise ConfigError(f"out={out} exists; choose another file")
    with wrap_errors(f"device={device} is not available"):
        x = torch.rand(1, 3, imgsz, imgsz, device=device)
    import_layers(layers or ())
    for name in models:
        if imgsz % (multiple := 2 * int(load_model(name).model.stride.max())):
            raise ConfigError(f"imgsz={imgsz} must be a multiple of {multiple}: a training step takes half")
    if out:
        records.make_folder(out.parent)
    torch.set_num_threads(1)
    rows = measure(models, imgsz, batch, rounds, x)
    for row in rows:
        print(f"{row['model']}: {row['parameters']:,} parameters, {row['gflops']:.2f} GFLOPs")
        for kind in ("pytorch", "onnxruntime", "training_step", "training_memory"):
            print(f"  {kind:<16}{' '.join(f'{value} {unit}' for unit, value in row[kind].items())}")
    if out:
        settings = {"imgsz": imgsz, "training_imgsz": imgsz // 2, "training_batch": batch, "rounds": rounds}
        records.write({**records.describe_run(device), "settings": settings, "rows": rows}, out)
