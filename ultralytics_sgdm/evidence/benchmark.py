"""What models cost: parameters, GFLOPs, latency, training step and memory, each beside the first model named.

    python scripts/benchmark.py yolov8n.yaml yolov8n-sgdm.yaml --compile --out results/benchmark-yolov8n.json
    python scripts/benchmark.py yolov8n-sgdm.yaml --rows        # where the time goes, row by row

Models run in turn, round by round; a ratio is the median over rounds of a model's time to the first model's in the
same round. On the CPU a time is the processor time of one thread, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import ultralytics
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.torch_utils import get_cpu_info, get_flops

import ultralytics_sgdm

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
    import onnxruntime

    file = folder / f"{Path(name).stem}.onnx"
    Path(YOLO(name).export(format="onnx", imgsz=imgsz)).rename(file)
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


def benchmark(
    names: Sequence[str], imgsz: int, batch: int, rounds: int, device: torch.device, compile_too: bool
) -> dict:
    """Return the machine, the versions, and a row of figures for each model."""
    models = [fused(name, device) for name in names]
    x = torch.rand(1, 3, imgsz, imgsz, device=device)
    rows = []
    for name in names:
        model = YOLO(name).model
        parameters = sum(p.numel() for p in model.parameters())
        rows.append({"model": name, "parameters": parameters, "gflops": round(get_flops(model, imgsz), 3)})
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        figures = {"pytorch": in_turn([lambda m=m: m(x) for m in models], rounds, device)}
        if compile_too:
            programs = [compiled(name, x) for name in names]
            figures["torch_compile"] = in_turn([lambda p=p: p(x) for p in programs], rounds, device)
        sessions = [onnx_session(name, imgsz, Path(folder)) for name in names]
        figures["onnxruntime"] = in_turn([lambda s=s: s(x.cpu()) for s in sessions], rounds, torch.device("cpu"))
    steps = [training_step(name, imgsz // 2, batch, device) for name in names]
    peaks = [peak_memory(step, device) for step in steps]
    figures["training_step"] = in_turn(steps, max(3, rounds // 2), device)
    figures["training_memory"] = [{"MiB": round(p), "ratio": round(p / peaks[0], 4)} for p in peaks]
    for kind, values in figures.items():
        for row, value in zip(rows, values, strict=True):
            row[kind] = value
    return {
        "machine": {
            "processor": get_cpu_info(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "ultralytics": ultralytics.__version__,
            "ultralytics_sgdm": ultralytics_sgdm.__version__,
        },
        "settings": {"imgsz": imgsz, "training_imgsz": imgsz // 2, "training_batch": batch, "rounds": rounds},
        "rows": rows,
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="model YAMLs; the first is the one that others are compared with")
    parser.add_argument("--imgsz", type=int, default=640, help="pixels; the training step takes half")
    parser.add_argument("--batch", type=int, default=4, help="images of a training step")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="torch.compile too: minutes a model, a C++ compiler")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu or cuda:0")
    parser.add_argument("--rows", action="store_true", help="time each row of the models instead")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    if args.out and args.out.exists():
        sys.exit(f"error: {args.out} exists; choose another file")
    torch.set_num_threads(1)
    if args.rows:
        for name in args.models:
            print(name)
            for i, kind, ms in row_times(name, args.imgsz, args.rounds, args.device):
                print(f"{i:>4}  {kind:<16}{ms:>8.2f} ms")
        return
    result = benchmark(args.models, args.imgsz, args.batch, args.rounds, args.device, args.compile)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")
    kinds = [key for key, value in result["rows"][0].items() if isinstance(value, dict)]
    print(f"{'model':<26}{'parameters':>12}{'GFLOPs':>8}" + "".join(f"{kind:>24}" for kind in kinds))
    for row in result["rows"]:
        cells = []
        for kind in kinds:
            unit = next(iter(row[kind]))
            cells.append(f"{row[kind][unit]} {unit} ({row[kind]['ratio']:.3f}x)")
        print(f"{row['model']:<26}{row['parameters']:>12,}{row['gflops']:>8.2f}" + "".join(f"{c:>24}" for c in cells))


if __name__ == "__main__":
    main()
