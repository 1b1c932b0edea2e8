"""Runs: each a model trained with a seed by the standard trainer, in a folder bound to all that decides its figures.

They are done in processes of this machine, or as tasks of a Ray cluster. Results are the same.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.data.utils import check_det_dataset
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn import tasks
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset
from ultralytics.utils.torch_utils import get_flops

from ..errors import ConfigError, import_extra, wrap_errors
from ..files import sha256
from ..nn import registry
from ..placing.rows import list_rows
from . import records
from .evaluation import evaluate
from .folds import list_images
from .records import METRIC

DETECTIONS = "detections.npz"
ALONE = {"OMP_NUM_THREADS": "1"}  # runs side by side share no core
# of the recipe, what the validator takes too
VALIDATED = ("imgsz", "batch", "workers", "device", "max_det", "conf", "iou", "agnostic_nms", "classes", "single_cls")


@dataclass(frozen=True)
class Task:
    """A run that is to be done."""

    name: str  # of its record
    arm: str  # name of the model in records and tables
    model: str  # YAML
    seed: int
    fold: int | None
    recipe: dict[str, Any]  # arguments of the trainer, `data` among them
    bf16: bool
    layers: list[str]  # Python files that register layers
    folder: str  # of the run's own files
    binding: dict[str, str]  # what `bind` returns


def import_layers(files: Sequence[str]) -> list[str]:
    """Import Python files under the names by which checkpoints find the classes in them; return absolute paths."""
    paths = [Path(file).resolve() for file in files]
    for path in paths:
        sys.path.insert(0, str(path.parent))
        try:
            module = importlib.import_module(path.stem)
        except Exception as e:  # whatever the user's file raises
            lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if Path(frame.filename) == path]
            where = f", line {lines[-1]}" if lines else " is not a Python file that can be imported"
            raise ConfigError(f"layers={path}{where}: {traceback.format_exception_only(e)[-1].strip()}") from e
        if Path(getattr(module, "__file__", None) or "").resolve() != path:
            raise ConfigError(f"layers={path}: Python finds another module named {path.stem}; rename the file")
    return [str(path) for path in paths]


def load_model(name: str, kinds: Sequence[str] = ("detect",)) -> YOLO:
    """Return the model of a YAML or a checkpoint; raise ConfigError if it is not one of these tasks."""
    with wrap_errors(f"{name} cannot be loaded"):  # under ULTRALYTICS_SAFE_LOAD nothing in it is executed
        yolo = YOLO(name)
    if yolo.task not in kinds or not isinstance(yolo.model, nn.Module):
        raise ConfigError(f"{name} is not a model YAML or a checkpoint (.pt) of the task {' or '.join(kinds)}")
    return yolo


def bind(model: str, recipe: Mapping[str, Any], bf16: bool, data: str) -> dict[str, str]:
    """Return checksums of all that decides a run's figures but its seed.

    The code is that of the registered layers in the model, with all of this package's if any is among them.
    """
    spec = tasks.yaml_model_load(model)
    named = {row[2] for row in list_rows(spec)}
    files = {Path(inspect.getfile(entry.cls)) for name, entry in registry.registered_layers() if name in named}
    ours = set(Path(registry.__file__).parent.glob("*.py"))
    files |= ours if files & ours else set()
    code = {file.name: records.digest(ast.dump(ast.parse(file.read_text(encoding="utf-8")))) for file in files}
    return {
        "model": records.digest({k: v for k, v in spec.items() if k != "yaml_file"}),
        "code": records.digest(code),
        "pretrained": digest_weights(recipe.get("pretrained")),
        "data": data,
        "recipe": records.digest({k: v for k, v in recipe.items() if k not in ("data", "pretrained")}),
        "bf16": str(bf16),
        "versions": records.digest(records.VERSIONS),
    }


def digest_weights(pretrained: Any) -> str:
    """Return the checksum of the weights that a training with `pretrained` loads, published ones after a download."""
    if not isinstance(pretrained, str):
        return str(pretrained)
    with wrap_errors(f"pretrained={pretrained}"):
        is_published = Path(pretrained).name in GITHUB_ASSETS_NAMES
        return sha256(Path(attempt_download_asset(pretrained) if is_published else pretrained))


def digest_data(data: str, splits: Sequence[str]) -> str:
    """Return the checksum of splits of a dataset: classes, names and sizes of images, content of labels."""
    with wrap_errors(f"data={data}"):
        spec = check_det_dataset(data)
        content: list[Any] = [{str(k): v for k, v in spec["names"].items()}]
        for split in splits:
            for file, label in list_images(spec, split):
                content.append([split, file.name, file.stat().st_size, label.read_text() if label.exists() else None])
        return records.digest(content)


def run(task: Task, command: str) -> dict[str, Any]:
    """Train, or go on where an earlier process was stopped; return the record, with figures of the last checkpoint."""
    import_layers(task.layers)
    if digest_weights(task.recipe.get("pretrained")) != task.binding["pretrained"]:
        raise ConfigError(f"pretrained={task.recipe['pretrained']}: other weights here than where the run was planned")
    start, folder = time.monotonic(), Path(task.folder)
    last = train(task, folder)
    settings = {key: task.recipe[key] for key in ("data", *VALIDATED) if key in task.recipe}
    if settings.get("batch", 1) < 1:  # a share of the GPU's memory, or -1: what fits a training
        del settings["batch"]
    metrics, detections = evaluate(last, settings, folder)
    np.savez_compressed(folder / DETECTIONS, **detections._asdict())
    rows = import_extra("pandas", "compare").read_csv(folder / "results.csv").to_dict("records")
    untrained, box = YOLO(task.model).model, metrics.box
    by_class = zip(box.ap_class_index.tolist(), box.ap, box.ap50, strict=True)
    return {
        **{key: getattr(task, key) for key in ("arm", "model", "seed", "fold", "recipe", "bf16", "binding")},
        METRIC: float(box.map),
        "mAP50": float(box.map50),
        "validation_loss": {kind: float(rows[-1][f"val/{kind}_loss"]) for kind in ("box", "cls", "dfl")},
        "pictures": len(detections.pictures),
        "classes": {metrics.names[c]: {"AP50-95": float(ap), "AP50": float(ap50)} for c, ap, ap50 in by_class},
        "curve": [float(row[f"metrics/{METRIC}(B)"]) for row in rows],
        "parameters": sum(p.numel() for p in untrained.parameters()),
        "gflops": round(get_flops(untrained, task.recipe.get("imgsz", 640)), 3),
        "minutes": round((time.monotonic() - start) / 60, 1),
        **records.describe_run(task.recipe.get("device"), command),
    }


def train(task: Task, folder: Path) -> Path:
    """Train to the end, from the last epoch that is whole on disk; return the last checkpoint."""
    last, checkpoint = folder / "weights/last.pt", None
    if last.exists():
        with contextlib.suppress(OSError, EOFError, TypeError, RuntimeError, KeyError, ValueError):  # half a file
            checkpoint = tasks.torch_safe_load(last)[0]  # under ULTRALYTICS_SAFE_LOAD nothing in it is executed
    if checkpoint and not 0 <= checkpoint["epoch"] < checkpoint["train_args"]["epochs"] - 1:  # -1 once it is finished
        return last

    def prepare(trainer: BaseTrainer) -> None:
        """Let convolutions read channels side by side, and train in bfloat16; weights are saved in fp32."""
        model = trainer.model.to(memory_format=torch.channels_last)
        if task.bf16:
            model.forward = torch.autocast(trainer.device.type, torch.bfloat16)(model.forward)

    yolo = YOLO(last if checkpoint else task.model)
    yolo.add_callback("on_train_start", prepare)
    own = {"project": str(folder.parent), "name": folder.name, "exist_ok": True, "plots": False, "seed": task.seed}
    yolo.train(**({"resume": True} if checkpoint else {**task.recipe, **own}))
    return last


def collect(pending: Mapping[Future[dict[str, Any]], Task], out: Path) -> list[str]:
    """Write the record of each run that is done, with lines of progress; return the names of those that failed."""
    failed, left, start = [], dict(pending), time.monotonic()
    epochs = {task.name: _count_epochs(task) for task in left.values()}
    most = {task.name: task.recipe.get("epochs", 100) for task in left.values()}
    before = sum(epochs.values())
    while left:
        finished = wait(left, 1, FIRST_COMPLETED).done  # a second at a time: Ctrl-C may reach another thread
        for name, now in [(task.name, _count_epochs(task)) for task in left.values()]:
            if now > epochs[name]:
                epochs[name] = now
                done = sum(epochs.values())
                minutes = (time.monotonic() - start) / 60 * (sum(most.values()) - done) / (done - before)
                left_over = f"{len(left)} of {len(pending)} runs left, about {minutes:.0f} min"
                print(f"{name}: epoch {now} of {most[name]}; {left_over}", flush=True)
        for future in finished:
            name = left.pop(future).name
            try:
                records.write(future.result(), out / f"{name}.json")
                print(f"{name}: done", flush=True)
            except Exception as e:  # whatever a training raises
                print(f"{name}: failed: {str(e).rstrip().rpartition(chr(10))[2]}", flush=True)
                failed.append(name)
    return failed


def _count_epochs(task: Task) -> int:
    """Return the epochs that a run has in its folder, if that is on this machine."""
    file = Path(task.folder, "results.csv")
    return max(file.read_text().count("\n") - 1, 0) if file.exists() else 0


def run_in_processes(tasks: Sequence[Task], out: Path, jobs: int, command: str) -> list[str]:
    """Do runs in processes of their own, `jobs` at a time, and write their records; return the names of what failed."""
    reader, writer = os.pipe()  # a run ends when this process has closed it, or has been killed

    def run_one(task: Task) -> dict[str, Any]:
        argv = [sys.executable, "-m", __name__, json.dumps(asdict(task)), command]
        environment, log = {**os.environ, **ALONE}, Path(f"{task.folder}.log")
        print(f"{task.name}: started, see {log}", flush=True)
        with log.open("ab") as f:  # in a session of its own: Ctrl-C ends this process
            done = subprocess.run(argv, stdin=reader, stdout=f, stderr=f, env=environment, start_new_session=True)
        if done.returncode:
            raise RuntimeError(log.read_text(errors="replace"))
        return records.read(Path(task.folder, "record.json"))

    pool = ThreadPoolExecutor(jobs)
    try:
        return collect({pool.submit(run_one, task): task for task in tasks}, out)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # else the next run starts as this one ends
        os.close(writer)
        pool.shutdown()
        os.close(reader)


def run_over_ray(tasks: Sequence[Task], out: Path, address: str, command: str) -> list[str]:
    """Do runs in a Ray cluster, one per GPU or CPU, and write their records; return the names of what failed.

    A run whose process or node dies is done again, up to three times, from its last epoch if its folder is shared.
    """
    ray = import_extra("ray", "ray")
    with wrap_errors(f"ray={address}"):
        ray.init(address, include_dashboard=False, log_to_driver=False)
    on_gpu = ray.cluster_resources().get("GPU", 0) > 0 and any(task.recipe.get("device") != "cpu" for task in tasks)
    options = {"num_cpus": 1, "num_gpus": int(on_gpu), "max_calls": 1, "max_retries": 3}  # a process per run
    folder = Path.cwd()

    def run_in_folder(task: Task) -> dict[str, Any]:
        os.chdir(folder)
        return run(task, command)

    remote = ray.remote(**options, runtime_env={"env_vars": ALONE})(run_in_folder)
    try:
        return collect({remote.remote(task).future(): task for task in tasks}, out)
    finally:
        ray.shutdown()


def main(task: str, command: str) -> None:
    """Do one run in this process and write its record to its folder; end with whoever holds standard input open."""
    threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()
    given = Task(**json.loads(task))
    records.write(run(given, command), Path(given.folder, "record.json"))


if __name__ == "__main__":
    main(*sys.argv[1:])
