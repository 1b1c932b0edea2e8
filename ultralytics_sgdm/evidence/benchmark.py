"""What models cost: parameters, GFLOPs, latency, training step and memory, each beside the first model named.

Models run in turn, round by round; a ratio is the median over rounds of a model's time to the first model's in the
same round. On the CPU a time is the processor time of one thread, which other work on the machine disturbs least.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.torch_utils import get_flops

from ..errors import ConfigError, import_extra, one_line
from . import records
from .train import import_layers

WARM_UP = 2


def clock(device: torch.device) -> float:
    """Return seconds: processor time on the CPU, time after all work is done on a GPU."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def time_in_turn(calls: Sequence[Callable[[], object]], rounds: int, device: torch.device) -> list[dict[str, float]]:
    """Return milliseconds and the ratio to the first call of each call, medians over `rounds`."""
    times: list[list[float]] = [[] for _ in calls]
    for i in range(WARM_UP + rounds):
        for call, record in zip(calls, times, strict=True):
            start = clock(device)
            call()
            if i >= WARM_UP:
                record.append(1000 * (clock(device) - start))
    ratios = [statistics.median(a / b for a, b in zip(t, times[0], strict=True)) for t in times]
    return [{"ms": round(statistics.median(t), 2), "ratio": round(r, 4)} for t, r in zip(times, ratios, strict=True)]


def fuse(name: str, x: Tensor, compiled: bool = False) -> nn.Module:
    """Return a model as it is used for inference, under torch.compile if asked for; its first call compiles."""
    model = YOLO(name).model.eval().fuse(verbose=False).to(x.device)
    model(x)  # the Detect head keeps what follows from the size, which is not part of a graph
    return torch.compile(model) if compiled else model


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
    model = YOLO(name).model.train().to(device)
    model.args = DEFAULT_CFG
    for parameter in model.parameters():
        parameter.requires_grad = True
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
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        profiler.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]")
    return max(itertools.accumulate(change for _, change in changes)) / 2**20


def measure(names: Sequence[str], imgsz: int, batch: int, rounds: int, x: Tensor, compile_too: bool) -> list[dict]:
    """Return a row of figures for each model, on the device of the image `x`."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for kind in ("pytorch", "torch_compile") if compile_too else ("pytorch",):
            calls = [partial(fuse(name, x, kind == "torch_compile"), x) for name in names]
            figures[kind] = time_in_turn(calls, rounds, x.device)
        calls = [partial(export_onnx(name, imgsz, Path(folder)), x.cpu()) for name in names]
        figures["onnxruntime"] = time_in_turn(calls, rounds, torch.device("cpu"))
    steps = [build_step(name, imgsz // 2, batch, x.device) for name in names]
    peaks = [measure_memory(step, x.device) for step in steps]
    figures["training_step"] = time_in_turn(steps, max(3, rounds // 2), x.device)
    figures["training_memory"] = [{"MiB": round(p), "ratio": round(p / peaks[0], 4)} for p in peaks]
    rows = []
    for i, name in enumerate(names):
        model = YOLO(name).model
        row = {"model": name, "parameters": sum(p.numel() for p in model.parameters())}
        row |= {"gflops": round(get_flops(model, imgsz), 3), **{kind: values[i] for kind, values in figures.items()}}
        rows.append(row)
    return rows


def benchmark(
    *models: str,
    imgsz: int = 640,
    batch: int = 4,
    rounds: int = 20,
    compile: bool = False,
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
        compile: Time torch.compile too: minutes a model, and a C++ compiler.
        device: cpu or cuda:0.
        layers: Python files that register layers.
        out: JSON file to write.

    Raises:
        ConfigError: If a model, a size or the device is not available, or OUT exists.
    """
    for module in ("onnx", "onnxruntime"):
        import_extra(module, "export")
    if not models or batch < 1 or rounds < 1 or imgsz < 1:
        raise ConfigError("name the models, the one to compare with first; batch=, rounds= and imgsz= are 1 or more")
    if out and out.exists():
        raise ConfigError(f"out={out} exists; choose another file")
    try:
        x = torch.rand(1, 3, imgsz, imgsz, device=device)
        x.sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        raise ConfigError(f"device={device} is not available: {one_line(e)}") from e
    import_layers(layers or ())
    for name in models:
        yolo = YOLO(name) if Path(name).suffix != ".pt" or Path(name).is_file() else None
        if yolo is None or yolo.task != "detect" or not isinstance(yolo.model, nn.Module):
            raise ConfigError(f"{name} is not a detector: a model YAML or a checkpoint (.pt) of the task detect")
        if imgsz % (multiple := 2 * int(yolo.model.stride.max())):
            raise ConfigError(f"imgsz={imgsz} must be a multiple of {multiple}: a training step takes half")
    if out:
        records.writable(out.parent)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = measure(models, imgsz, batch, rounds, x, compile)
        settings = {"imgsz": imgsz, "training_imgsz": imgsz // 2, "training_batch": batch, "rounds": rounds}
        result = {**records.describe_run(records.command_line(), device), "settings": settings, "rows": rows}
    finally:
        torch.set_num_threads(threads)
    if out:
        records.write(result, out)
    for row in rows:
        print(f"{row['model']}: {row['parameters']:,} parameters, {row['gflops']:.2f} GFLOPs")
        for kind, cost in row.items():
            if isinstance(cost, dict):
                print(f"  {kind:<16}{' '.join(f'{value} {unit}' for unit, value in cost.items())}")
