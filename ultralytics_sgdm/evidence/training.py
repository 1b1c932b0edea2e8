"""One run: a model trained with a seed by the standard trainer, in a folder bound to all that decides its figures."""

from __future__ import annotations

import ast
import csv
import importlib
import inspect
import json
import pickle
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from ultralytics import YOLO
from ultralytics.cfg import check_cfg
from ultralytics.data.utils import check_det_dataset, img2label_paths
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn import tasks
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.checks import check_imgsz
from ultralytics.utils.torch_utils import get_flops

from ..configs import ConfigError, near_names
from ..nn import registry
from ..nn.registry import registered_layers
from ..plugin.freezing import freeze_value
from . import records
from .evaluation import evaluate
from .folds import SPLITS, pictures

LAYERS = Path(registry.__file__).parent
METRIC = "mAP50-95"
DETECTIONS = "detections.npz"
FIRST = "first"  # folder of the first stage
# of the recipe, what the validator takes too
VALIDATED = ("imgsz", "batch", "workers", "device", "max_det", "conf", "iou", "agnostic_nms", "classes", "single_cls")


@dataclass(frozen=True)
class Task:
    """A run that is to be done.

    Attributes:
        arm: What the run is called beside others.
        model: Model YAML.
        seed: Seed of the training.
        fold: Fold whose pictures are evaluated, or None.
        recipe: Arguments of the trainer, `data` among them.
        bf16: Whether to train in bfloat16 with channels last, about twice as fast on many CPUs.
        layers: Python files that register layers.
        folder: Folder of the run's own files.
        binding: Checksums of all that decides the figures.
        first: What differs from the recipe in a first stage, from whose last weights the training starts; or nothing.
    """

    arm: str
    model: str
    seed: int
    fold: int | None
    recipe: dict[str, Any]
    bf16: bool
    layers: list[str]
    folder: str
    binding: dict[str, str] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the run's record."""
        return run_name(self.arm, self.seed, self.fold)

    def to_json(self) -> str:
        """Return the task as text."""
        return json.dumps(asdict(self))


def run_name(arm: str, seed: int, fold: int | None) -> str:
    """Return the name of a run's record."""
    return f"{arm}-{seed}" + ("" if fold is None else f"-fold{fold}")


def import_layers(files: Sequence[str]) -> list[str]:
    """Import Python files under the names by which checkpoints find the classes in them; return absolute paths.

    Raises:
        ConfigError: If there is no such file, or Python finds another module of the name.
    """
    for given in files:
        if not Path(given).is_file():
            raise ConfigError(f"layers={given} does not exist")
        if Path(given).suffix != ".py":
            raise ConfigError(f"layers={given} is no Python file (.py)")
    absolute = [Path(given).resolve() for given in files]
    for file in absolute:
        if str(file.parent) not in sys.path:
            sys.path.insert(0, str(file.parent))
        module = importlib.import_module(file.stem)
        if Path(getattr(module, "__file__", None) or "").resolve() != file:
            raise ConfigError(f"layers={file}: Python finds another module named {file.stem}; rename the file")
    return [str(file) for file in absolute]


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError unless Ultralytics has these arguments and takes their values, and the device is here."""
    for key in settings:
        if key not in DEFAULT_CFG_DICT:
            raise ConfigError(f"{key}= is no argument of Ultralytics{near_names(key, list(DEFAULT_CFG_DICT))}")
    try:
        check_cfg(dict(settings))
        check_imgsz(settings.get("imgsz", DEFAULT_CFG_DICT["imgsz"]), max_dim=1)
        freeze_value(settings.get("freeze"))
    except (TypeError, ValueError) as e:
        raise ConfigError(" ".join(str(e).split())) from e
    device = str(settings.get("device") or "cpu")
    if device.removeprefix("cuda:")[:1].isdigit() and not torch.cuda.is_available():
        raise ConfigError(f"device={device} is not to be had: PyTorch finds no CUDA GPU here; device=cpu works")


def bind(model: str, recipe: dict[str, Any], bf16: bool, first: dict[str, Any] | None = None) -> dict[str, str]:
    """Return checksums of all that decides a run's figures but its seed.

    They cover the content of the model YAML, the code of the registered layers in it, the files of pretrained weights,
    names and sizes of pictures and content of labels, the recipe, and the versions.

    Raises:
        ConfigError: If the model or the data cannot be read.
    """
    spec = tasks.yaml_model_load(model)
    named = {row[2] for row in (*spec["backbone"], *spec["head"])}
    code = _code(entry.cls for name, entry in registered_layers() if name in named)
    weights = recipe.get("pretrained")
    stages = {k: v for k, v in recipe.items() if k not in ("data", "pretrained")}
    if first:
        start = first.get("pretrained")
        content = {"pretrained": records.file_digest(Path(start))} if isinstance(start, str) else {}
        stages["first"] = {**first, **content}
    return {
        "model": records.digest({k: v for k, v in spec.items() if k != "yaml_file"}),
        "code": records.digest(code),
        "pretrained": records.file_digest(Path(weights)) if isinstance(weights, str) else str(weights),
        "data": data_digest(recipe["data"]),
        "recipe": records.digest(stages),
        "bf16": str(bf16),
        "versions": records.digest(records.versions()),
    }


def _code(layers: Iterable[type]) -> dict[str, str]:
    """Return checksums of the code of layers, comments aside: all of this package's layers if any is among them."""
    files = {Path(inspect.getfile(cls)) for cls in layers}
    if any(file.parent == LAYERS for file in files):
        files |= set(LAYERS.glob("*.py"))
    return {file.name: records.digest(ast.dump(ast.parse(file.read_text(encoding="utf-8")))) for file in files}


def data_digest(data: str, splits: Sequence[str] = SPLITS) -> str:
    """Return the checksum of a data set: its classes, names and sizes of its pictures, content of its labels."""
    spec = check_det_dataset(data)
    content: list[Any] = [{str(k): v for k, v in spec["names"].items()}]
    for split in splits:
        files = pictures(spec, split)
        for file, label in zip(files, map(Path, img2label_paths(list(map(str, files)))), strict=True):
            content.append([split, file.name, file.stat().st_size, label.read_text() if label.exists() else None])
    return records.digest(content)


def run(task: Task, command: str = "") -> dict[str, Any]:
    """Train, or go on where an earlier process was stopped; return the record of the run.

    The figures are those of the last checkpoint, whose weights are the moving average (EMA) at the end; best.pt, which
    is the luckiest epoch on the very pictures that it is scored on, stands beside them.

    Args:
        task: The run.
        command: The command line that asked for it.

    Raises:
        ConfigError: If the folder is in use, or holds another run.
    """
    import_layers(task.layers)
    folder = Path(task.folder)
    with records.claimed(folder, "run folder "):
        bound = folder / "binding.json"
        if bound.exists() and json.loads(bound.read_text()) != task.binding:
            raise ConfigError(f"{folder} holds a run of another recipe; choose another scratch=")
        bound.write_text(json.dumps(task.binding, indent=1))
        start = time.monotonic()
        last, best = train(task, folder)
        settings = {key: task.recipe[key] for key in ("data", *VALIDATED) if key in task.recipe}
        if settings.get("batch", 1) < 1:  # a share of the GPU's memory, or -1: what fits a training
            del settings["batch"]
        metrics, detections = evaluate(last, settings, folder)
        detections.save(folder / DETECTIONS)
        best_metrics, _ = evaluate(best, settings, folder)
        with (folder / "results.csv").open() as f:
            rows = list(csv.DictReader(f))
        untrained = YOLO(task.model).model
        return {
            "arm": task.arm,
            "model": task.model,
            "seed": task.seed,
            "fold": task.fold,
            "recipe": task.recipe,
            **({"first": task.first} if task.first else {}),
            "bf16": task.bf16,
            "binding": task.binding,
            METRIC: float(metrics.box.map),
            "mAP50": float(metrics.box.map50),
            "best": {METRIC: float(best_metrics.box.map), "mAP50": float(best_metrics.box.map50)},
            "validation_loss": {kind: float(rows[-1][f"val/{kind}_loss"]) for kind in ("box", "cls", "dfl")},
            "pictures": len(detections.pictures),
            "classes": {
                metrics.names[c]: {"AP50-95": float(all_), "AP50": float(at50)}
                for c, all_, at50 in zip(
                    metrics.box.ap_class_index.tolist(), metrics.box.ap, metrics.box.ap50, strict=True
                )
            },
            "curve": [float(row[f"metrics/{METRIC}(B)"]) for row in rows],
            "parameters": sum(p.numel() for p in untrained.parameters()),
            "gflops": round(get_flops(untrained, task.recipe.get("imgsz", 640)), 3),
            "minutes": round((time.monotonic() - start) / 60, 1),
            **records.circumstances(command, task.recipe.get("device")),
        }


def train(task: Task, folder: Path) -> tuple[Path, Path]:
    """Train to the end, from the last epoch that is whole on disk; return the last and the best checkpoint."""
    last, best = (folder / f"weights/{name}.pt" for name in ("last", "best"))
    for _ in range(2):
        checkpoint = load_checkpoint(last)
        epoch = -2 if checkpoint is None else checkpoint["epoch"]  # from 0; a finished run is soon stripped to -1
        finished = checkpoint is not None and not 0 <= epoch < checkpoint["train_args"]["epochs"] - 1
        if finished and load_checkpoint(best) is not None:
            return last, best
        if checkpoint is None or finished:  # nothing to go on from, or a best.pt that nothing would write again
            _clear(folder)
        resume, recipe = last.exists(), task.recipe
        if task.first and not resume:
            stage = replace(task, recipe={**recipe, **task.first}, first={})
            recipe = {**recipe, "pretrained": str(train(stage, folder / FIRST)[0])}
        yolo = YOLO(last if resume else task.model)
        yolo.add_callback("on_train_start", _to_channels_last)
        if task.bf16:
            yolo.add_callback("on_train_start", _to_bf16)
        place = {"project": str(folder.parent), "name": folder.name, "exist_ok": True, "plots": False}
        yolo.train(**({"resume": True} if resume else {**recipe, **place, "seed": task.seed}))
    return last, best


def load_checkpoint(file: Path) -> dict[str, Any] | None:
    """Return a checkpoint, or None if it is not there or not whole."""
    try:
        return torch.load(file, map_location="cpu", weights_only=False)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError, ValueError):
        return None


def _clear(folder: Path) -> None:
    for path in folder.glob("*"):
        if path.name not in (".lock", "binding.json", FIRST):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _to_channels_last(trainer: BaseTrainer) -> None:
    """Let convolutions read channels side by side: the same training, faster on CPUs."""
    trainer.model.to(memory_format=torch.channels_last)


def _to_bf16(trainer: BaseTrainer) -> None:
    """Train in bfloat16, forward pass and loss; the weights that are saved and validated stay fp32."""
    model = trainer.model
    model.forward = torch.autocast(trainer.device.type, torch.bfloat16)(model.forward)
