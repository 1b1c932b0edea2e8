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

from ..configs import ConfigError
from ..errors import import_extra as extra
from . import records
from .training import import_layers

WARM_UP = 2


def clock(device: torch.device) -> float:
    """Return seconds: processor time on the CPU, time after all work is done on a GPU."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def in_turn(calls: Sequence[Callable[[], object]], rounds: int, device: torch.device) -> list[dict[str, float]]:
    """Return milliseconds and the ratio to the first call of each call, medians over `rounds`."""
    times: list[list[float]] = [[] for _ in calls]
    for i in range(WARM_UP + rounds):
        for call, record in zip(calls, times, strict=True):
            start = clock(device)
            call()
            if i >= WARM_UP:
                record.append(1000 * (clock(device) - start))
    return [
        {
            "ms": round(statistics.median(t), 2),
            "ratio": round(statistics.median(a / b for a, b in zip(t, times[0], strict=True)), 4),
        }
        for t in times
    ]


def fused(name: str, device: torch.device) -> nn.Module:
    """Return a model as it is used for inference."""
    return YOLO(name).model.eval().fuse(verbose=False).to(device)


def compiled(name: str, x: Tensor) -> nn.Module:
    """Return `fused` under torch.compile; its first call compiles."""
    model = fused(name, x.device)
    model(x)  # the Detect head keeps what follows from the size, which is no part of a graph
    return torch.compile(model)


def onnx_session(name: str, imgsz: int, folder: Path) -> Callable[[Tensor], object]:
    """Return a call of a model exported to ONNX, on one thread of the CPU."""
    onnxruntime = extra("onnxruntime", "export")
    file = folder / f"{Path(name).stem}.onnx"
    yolo = YOLO(name)
    yolo.model.pt_path = str(file.with_suffix(".pt"))  # where Ultralytics exports beside: the user's files stay
    yolo.export(format="onnx", imgsz=imgsz)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {session.get_inputs()[0].name: x.numpy()})


def training_step(name: str, imgsz: int, batch: int, device: torch.device) -> Callable[[], None]:
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


def peak_memory(step: Callable[[], None], device: torch.device) -> float:
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


def row_times(name: str, imgsz: int, rounds: int, device: torch.device) -> list[tuple[int, str, float]]:
    """Return index, type and median milliseconds of each row of a model."""
    model, x = fused(name, device), torch.rand(1, 3, imgsz, imgsz, device=device)
    starts: dict[nn.Module, float] = {}
    times: dict[nn.Module, list[float]] = {row: [] for row in model.model}
    for row in model.model:
        row.register_forward_pre_hook(lambda m, _: starts.update({m: clock(device)}))
        row.register_forward_hook(lambda m, *_: times[m].append(1000 * (clock(device) - starts[m])))
    with torch.inference_mode():
        for _ in range(WARM_UP + rounds):
            model(x)
    return [(row.i, row.type.rpartition(".")[2], statistics.median(t[WARM_UP:])) for row, t in times.items()]


def measure(
    names: Sequence[str], imgsz: int, batch: int, rounds: int, device: torch.device, compile_too: bool
) -> list[dict]:
    """Return a row of figures for each model."""
    models = [fused(name, device) for name in names]
    x = torch.rand(1, 3, imgsz, imgsz, device=device)
    rows = []
    for name in names:
        model = YOLO(name).model
        parameters = sum(p.numel() for p in model.parameters())
        rows.append({"model": name, "parameters": parameters, "gflops": round(get_flops(model, imgsz), 3)})
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        figures = {"pytorch": in_turn([partial(model, x) for model in models], rounds, device)}
        if compile_too:
            programs = [compiled(name, x) for name in names]
            figures["torch_compile"] = in_turn([partial(p, x) for p in programs], rounds, device)
        sessions = [onnx_session(name, imgsz, Path(folder)) for name in names]
        figures["onnxruntime"] = in_turn([partial(s, x.cpu()) for s in sessions], rounds, torch.device("cpu"))
    steps = [training_step(name, imgsz // 2, batch, device) for name in names]
    peaks = [peak_memory(step, device) for step in steps]
    figures["training_step"] = in_turn(steps, max(3, rounds // 2), device)
    figures["training_memory"] = [{"MiB": round(p), "ratio": round(p / peaks[0], 4)} for p in peaks]
    for kind, values in figures.items():
        for row, value in zip(rows, values, strict=True):
            row[kind] = value
    return rows


def benchmark(
    *models: str,
    imgsz: int = 640,
    batch: int = 4,
    rounds: int = 20,
    compile: bool = False,
    device: str = "cpu",
    rows: bool = False,
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
        rows: Time each row of the models instead.
        layers: Python files that register layers.
        out: JSON file to write.

    Raises:
        ConfigError: If a model, a size or the device is not to be had, or OUT exists.
    """
    if not models:
        raise ConfigError(
            "name the models, the one to compare with first: yolo sgdm benchmark yolov8n.yaml yolov8n-sgdm.yaml"
        )
    if out and out.exists():
        raise ConfigError(f"out={out} exists; choose another file")
    if out and rows:
        raise ConfigError("rows=True prints alone: leave out out=")
    if batch < 1 or rounds < 1:
        raise ConfigError("batch= and rounds= must be 1 or more")
    try:
        where = torch.device(device)
        if where.type not in ("cpu", "cuda"):
            raise ConfigError(f"device={device} must be cpu or cuda:0")
        torch.zeros(1, device=where)
    except (RuntimeError, AssertionError) as e:
        raise ConfigError(f"device={device} is not to be had: {str(e).splitlines()[0]}") from e
    import_layers(layers or ())
    stride = max(_stride(name) for name in models)
    if imgsz < 1 or imgsz % (2 * stride):
        near = max(2 * stride, round(imgsz / (2 * stride)) * 2 * stride)
        raise ConfigError(
            f"imgsz={imgsz} must be a multiple of {2 * stride}, such as {near}: a training step takes half"
        )
    if out:
        records.writable(out.parent)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if rows:
            _print_rows(models, imgsz, rounds, where)
            return
        figures = measure(models, imgsz, batch, rounds, where, compile)
        settings = {"imgsz": imgsz, "training_imgsz": imgsz // 2, "training_batch": batch, "rounds": rounds}
        result = {**records.circumstances(records.command(), device), "settings": settings, "rows": figures}
    finally:
        torch.set_num_threads(threads)
    if out:
        records.keep(result, out)
    kinds = [key for key, value in figures[0].items() if isinstance(value, dict)]
    wide = 2 + max(len(row["model"]) for row in figures)
    print(f"{'model':<{wide}}{'parameters':>12}{'GFLOPs':>8}" + "".join(f"{kind:>24}" for kind in kinds))
    for row in figures:
        cells = []
        for kind in kinds:
            unit = next(iter(row[kind]))
            cells.append(f"{row[kind][unit]} {unit} ({row[kind]['ratio']:.3f}x)")
        print(
            f"{row['model']:<{wide}}{row['parameters']:>12,}{row['gflops']:>8.2f}" + "".join(f"{c:>24}" for c in cells)
        )


def _stride(name: str) -> int:
    """Return the stride of a detector, what alone a training step can be timed of."""
    if Path(name).suffix == ".pt" and not Path(name).is_file():
        raise ConfigError(f"{name} does not exist")
    yolo = YOLO(name)
    if not isinstance(yolo.model, nn.Module):
        raise ConfigError(f"{name} is no model YAML or checkpoint (.pt)")
    if yolo.task != "detect":
        raise ConfigError(f"{name} is a model of the task {yolo.task}, this takes detect")
    return int(yolo.model.stride.max())


def _print_rows(models: Sequence[str], imgsz: int, rounds: int, device: torch.device) -> None:
    for name in models:
        print(name)
        for i, kind, ms in row_times(name, imgsz, rounds, device):
            print(f"{i:>4}  {kind:<16}{ms:>8.2f} ms")
