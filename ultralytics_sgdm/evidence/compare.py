"""Compare models in pairs: the same recipe, data and seeds for each, through the standard trainer."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
from ultralytics.cfg import get_cfg

from ..errors import ConfigError, import_extra, pluralize, wrap_errors
from ..files import write_atomic
from . import plan as plans
from . import records, report
from .folds import SPLITS, write_folds
from .plan import Plan
from .train import Task, bind, digest_data, import_layers, load_model, run_in_processes, run_over_ray

EXTRAS = ("scipy.stats", "statsmodels.stats.power", "pandas", "sklearn.model_selection")
OURS = ("model", "data", "seed", "split", "cfg", "project", "name", "resume", "mode", "task", "plots", "exist_ok")


def compare(
    *models: str,
    out: Path,
    data: str | None = None,
    seeds: list[int] | None = None,
    folds: int = 0,
    groups: str | None = None,
    jobs: int = 1,
    bf16: bool = False,
    layers: list[str] | None = None,
    plan: Path | None = None,
    ray: str | None = None,
    scratch: Path = Path("runs/compare"),
    **recipe: Any,
) -> int:
    """Train models with the same recipe, data and seeds, and report how sure their differences are.

    Differences are to the first model, seed by seed, in mAP points of the last checkpoint, with simultaneous intervals
    over seeds and images. OUT gets a record of each finished run and, made from all of them, summary.csv, summary.md,
    analysis.json and differences.png. Run again, the command keeps what is finished and goes on with what was
    interrupted; models and seeds may be added. Going on is Ultralytics' resume, with figures that differ in the last
    digits.

    Args:
        models: Model YAMLs, the reference first.
        out: Folder of the results.
        data: YAML of the dataset.
        seeds: Seeds of the trainings (default: 0,1,2).
        folds: Parts of all images, each scored by a training on the others; 0 for the dataset's own split.
        groups: Regular expression whose bracket is an image's group (its video, say); groups stay together.
        jobs: Runs at a time, each on one thread.
        bf16: Train in bfloat16 with channels last: twice as fast on CPUs with such instructions, far slower on others.
        layers: Python files that register layers.
        plan: A committed plan (YAML) in place of models, data, seeds and recipe; the report states its verdicts.
        ray: Spread the runs over a Ray cluster, one per GPU: host:port, auto, or local to start one.
        scratch: Folder of the trainings' own files.
        recipe: Arguments of Ultralytics' trainer, for all models alike.

    Raises:
        ConfigError: If something is wrong with models, data, recipe or plan, before the first run.
    """
    for module in EXTRAS:
        import_extra(module, "compare")
    if ray:
        import_extra("ray", "ray")
    command = records.command_line()
    if plan:
        if models or data or seeds or folds or groups or bf16 or layers or recipe:
            raise ConfigError("plan= states models, data, seeds and recipe: leave them out")
        planned = plans.read(plan)
        command += f" (plan at {plans.find_commit(plan)})"
    elif models and data:
        given = {"models": list(models), "data": data, "recipe": recipe, "folds": folds, "groups": groups, "bf16": bf16}
        unplanned = {"question": "", "better": 0, "equal": 0, "stop": ""}
        planned = plans.build({**given, **unplanned, "seeds": seeds or [0, 1, 2], "layers": layers or []})
    else:
        example = "yolo sgdm compare yolov8n.yaml yolov8n-sgdm.yaml data=my.yaml ..."
        raise ConfigError(f"name the models, and the dataset with data=: {example}")
    if jobs < 1:
        raise ConfigError("jobs= must be 1 or more")
    absolute = import_layers(planned.layers)
    for variant in planned.models:
        _check(variant.model, {**planned.recipe, **variant.recipe}, ray)
    own = scratch / out.resolve().name
    with wrap_errors(f"scratch={own} cannot be written, or is in use by another process"):
        own.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(own / ".lock").acquire(timeout=0)
    with held:
        tasks = _list_tasks(planned, absolute, own)
        records.make_folder(out)
        _check_kept(out, planned, tasks, plan)
        left = [task for task in tasks if not (out / f"{task.name}.json").exists()]
        try:
            failed = run_over_ray(left, out, ray, command) if ray else run_in_processes(left, out, jobs, command)
        except KeyboardInterrupt:
            done = sum((out / f"{task.name}.json").exists() for task in tasks)
            print(f"{done} of {len(tasks)} runs are done; the same command goes on from here", file=sys.stderr)
            raise
    if failed:
        runs = f"{pluralize(len(failed), 'run')} failed: {', '.join(failed)}"
        print(f"error: {runs}; fix what their logs say", file=sys.stderr)
        return 1
    print(report.write(out, planned, own))
    return 0


def _check(model: str, recipe: Mapping[str, Any], ray: str | None) -> None:
    """Raise ConfigError unless a model is the YAML of a detector and Ultralytics' trainer takes its recipe."""
    if ours := [key for key in recipe if key in OURS]:
        raise ConfigError(f"{ours[0]}= is not for a recipe, it is the same or set for all runs (seeds= names seeds)")
    with wrap_errors("Ultralytics"):
        get_cfg(overrides=dict(recipe))
    if ray and recipe.get("device", "cpu") != "cpu":
        raise ConfigError("with ray= each run has the GPU that Ray gives it: leave device= out, or say device=cpu")
    if Path(model).suffix == ".pt":
        raise ConfigError(f"{model} is not the YAML of a detector; weights are named with pretrained=")
    load_model(model)


def _list_tasks(plan: Plan, layers: list[str], scratch: Path) -> list[Task]:
    """Return the runs of a plan, seeds in turn over all folds and models; what they read is read once."""
    folds: Iterable[tuple[int | None, str | Path]] = [(None, plan.data)]
    if plan.folds:
        every = digest_data(plan.data, SPLITS)
        name = records.digest([str(Path(plan.data).resolve()), every, plan.folds, plan.groups])[:8]
        folds = enumerate(write_folds(plan.data, plan.folds, plan.groups, scratch / f"folds-{name}"))
    data = [(fold, str(file), digest_data(str(file), ("train", "val"))) for fold, file in folds]
    tasks = []
    for seed, (fold, file, checksum), variant in itertools.product(plan.seeds, data, plan.models):
        recipe = {**plan.recipe, **variant.recipe, "data": file}
        binding = bind(variant.model, recipe, plan.bf16, checksum)
        name = records.run_name(variant.name, seed, fold)
        folder = str(scratch.resolve() / f"{name}-{records.digest(binding)[:10]}")
        tasks.append(Task(name, variant.name, variant.model, seed, fold, recipe, plan.bf16, layers, folder, binding))
    return tasks


def _check_kept(out: Path, plan: Plan, tasks: Sequence[Task], file: Path | None) -> None:
    """Raise ConfigError unless all records in a folder can stand beside what is to be done; keep the plan beside them.

    A record has the binding of the run that is most like it: of its fold and model, or else of a model compared with
    it, which may differ in its model and code. A plan has its own runs alone.
    """
    names = {task.name for task in tasks}
    for name, record in records.read_runs(out).items():
        if file and name not in names:
            raise ConfigError(f"{out} holds {name}, which is not in the plan; choose another out=")
        model, fold, binding = records.model_of(record), record.get("fold"), record.get("binding", {})
        task = min(tasks, key=lambda task: (task.fold != fold, task.arm != model))
        own = () if task.arm == model else ("model", "code")
        if differing := [key for key, value in task.binding.items() if binding.get(key) != value and key not in own]:
            raise ConfigError(f"{out / name}.json was made with another {differing[0]}; choose another out=")
    kept = out / "plan.yaml"
    if file and not kept.exists():
        write_atomic(kept, file.read_bytes())
    elif file and plans.read(kept) != plan:
        raise ConfigError(f"plan={file} was changed since {out} was begun with {kept}: choose another out=")
