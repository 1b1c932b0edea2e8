"""Compare models in pairs: the same recipe, data and seeds for each, through the standard trainer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import DEFAULT_CFG, LOGGER

from ..configs import ConfigError
from . import folds as fold_sets
from . import plans, records, runners
from .plans import APART, Arm, Plan
from .report import Report, all_records, arm_of, by_arm
from .training import Task, bind, check_settings, data_digest, import_layers

OURS = ("model", "seed", "project", "name", "resume", "mode", "task", "plots", "exist_ok")  # set by each run
ELSEWHERE = {
    "cfg": "would take the recipe from a file that may change unseen: state its arguments",
    "data": "is the same for all arms and stages: it stands beside the recipe",
    "split": "has no effect on what is scored, the pictures of val: name others there, in the YAML of the set",
}
PLAN = "plan.yaml"  # copy in out= of the plan under which its records were begun
WIDEST_IN_BF16 = 13  # of a depthwise kernel: in PyTorch 2.14 on AVX-512, channels last, 1x15 on a map of 32 never ends


def compare(
    *models: str,
    out: Path,
    data: str | None = None,
    seeds: list[int] | None = None,
    folds: int = 0,
    groups: str | None = None,
    repeat: int = 0,
    jobs: int = 1,
    bf16: bool = False,
    layers: list[str] | None = None,
    plan: Path | None = None,
    ray: str | None = None,
    scratch: Path = Path("runs/compare"),
    resamples: int = 1000,
    **recipe: Any,
) -> int:
    """Train models with the same recipe, data and seeds, and say how sure their differences are.

    Differences are to the first model, seed by seed, in points of mAP of the last checkpoint. Each has an interval over
    seeds, which holds for these pictures only, and one over seeds and pictures. OUT gets a record of each finished run
    and, made from all of them, summary.csv, summary.md, power.md, analysis.json, differences.png and curves.png. Run
    again, it keeps what is finished and goes on with what was interrupted; models and seeds may be added. Going on
    after an interruption is Ultralytics' resume, whose figures differ in the last digits.

    Args:
        models: Model YAMLs, the reference first.
        out: Folder of the results.
        data: YAML of the data set.
        seeds: Seeds of the trainings (default: 0,1,2).
        folds: Parts of all pictures, each scored by a training on the others; 0 for the set's own split.
        groups: Regular expression whose bracket is a picture's group (its video, say); groups stay together.
        repeat: Train the reference so many times more, with other seeds: the noise floor.
        jobs: Runs at a time, each on one thread.
        bf16: Train in bfloat16 with channels last: twice as fast on CPUs with such instructions, far slower on others.
        layers: Python files that register layers.
        plan: A committed plan (YAML) in place of models, data, seeds and recipe; the report states its verdict.
        ray: Spread the runs over a Ray cluster, one per GPU: host:port, auto, or local to start one.
        scratch: Folder of the trainings' own files.
        resamples: Resamples of the pictures.
        recipe: Arguments of Ultralytics' trainer, for all models alike.

    Returns:
        Exit status: 1 if a run failed.

    Raises:
        ConfigError: If something is wrong with models, data, recipe or plan, which is said before the first run.
    """
    if plan:
        if models or data or seeds or folds or groups or repeat or bf16 or layers or recipe:
            raise ConfigError("plan= states models, data, seeds and recipe: leave them out")
        planned, at = plans.read(plan), plans.committed(plan)
    else:
        planned, at = _unplanned(models, data, seeds, folds, groups, repeat, bf16, layers, recipe), None
    if jobs < 1 or resamples < 100:
        raise ConfigError("jobs= must be 1 or more, and resamples= 100 or more")
    check_recipe(planned)
    if ray:
        runners.check_ray(ray, [planned.recipe, *(stage for arm in planned.arms for stage in (arm.recipe, arm.first))])
    if any(_bf16_on_cpu(planned, arm) for arm in planned.arms) and not fast_bf16():
        LOGGER.warning("bf16=True: this CPU has no bfloat16 instructions, float32 is about ten times as fast on it")
    absolute = import_layers(planned.layers)
    command = records.command()
    _check_models(planned)
    own = scratch / out.resolve().name
    with records.claimed(out, "out="), records.claimed(own, "scratch="):
        yamls = _data(planned, own)
        every = _tasks(planned, yamls, absolute, own)
        _check_kept(out, planned, every)
        if plan:
            _keep_plan(plan, planned, out)
        for look in range(len(planned.looks)):
            due = {arm.name: planned.seeds(arm, look) for arm in planned.arms}
            tasks = [task for task in every if task.seed in due[task.arm]]
            failed = _do(tasks, out, jobs, ray, f"{command} (plan at {at})" if at else command)
            if failed:
                print(
                    f"error: {len(failed)} runs failed: {', '.join(failed)}; mend what their logs say", file=sys.stderr
                )
                return 1
            report = Report(out, planned, look, own, resamples)
            report.write()
            print(report.text())
            if at is None or all(not v.startswith("undecided") for v in report.verdicts().values()):
                break
    return 0


def _unplanned(
    models: Sequence[str],
    data: str | None,
    seeds: list[int] | None,
    folds: int,
    groups: str | None,
    repeat: int,
    bf16: bool,
    layers: list[str] | None,
    recipe: dict[str, Any],
) -> Plan:
    if not models or not data:
        example = "yolo sgdm compare yolov8n.yaml yolov8n-sgdm.yaml data=my.yaml ..."
        raise ConfigError(f"name the models, and the data set with data=: {example}")
    seeds = [0, 1, 2] if seeds is None else seeds
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(f"seeds={','.join(map(str, seeds))} must be different whole numbers of 0 or more")
    if repeat < 0:
        raise ConfigError(f"repeat={repeat} must be 0 or more")
    if groups and not folds:
        raise ConfigError(f"groups={groups} says what stays together in folds: give folds= too")
    arms = [Arm(Path(model).stem, model) for model in models]
    if double := [arm.name for arm in arms if [a.name for a in arms].count(arm.name) > 1]:
        raise ConfigError(f"{double[0]} is named twice; a repetition of the reference is asked for with repeat=")
    plans.check_names(arms)
    if any((seed - other) % APART == 0 and 0 < seed - other <= repeat * APART for seed in seeds for other in seeds):
        raise ConfigError(f"repeat={repeat} takes seeds {APART} further on; choose seeds= that these do not meet")
    arms += [Arm(f"{arms[0].name}#{i}", models[0]) for i in range(1, repeat + 1)]
    return Plan("", tuple(arms), data, recipe, (tuple(seeds),), 0, 0, "", folds, groups, bf16, tuple(layers or ()))


def check_recipe(plan: Plan) -> None:
    """Raise ConfigError unless Ultralytics' trainer takes the recipe of every arm."""
    for arm in plan.arms:
        for key in {**plan.recipe, **arm.recipe, **arm.first}:
            if key in OURS:
                raise ConfigError(f"{key}= is set by each run")
            if key in ELSEWHERE:
                raise ConfigError(f"{key}= {ELSEWHERE[key]}")
        check_settings({**plan.recipe, **arm.recipe})
        check_settings({**plan.recipe, **arm.recipe, **arm.first})


def _check_models(plan: Plan) -> None:
    """Raise ConfigError unless the models can be built, are of one task, and train in bf16 where that is asked for."""
    tasks = {}
    for arm in plan.arms:
        if Path(arm.model).suffix not in (".yaml", ".yml"):
            raise ConfigError(f"{arm.model} is no model YAML (.yaml); weights are named with pretrained=")
        try:
            yolo = YOLO(arm.model)
            tasks[arm.model] = yolo.task
            if _bf16_on_cpu(plan, arm) and (wide := widest_depthwise(yolo.model)) > WIDEST_IN_BF16:
                raise ConfigError(
                    f"{arm.model}: PyTorch does not return from a depthwise convolution {wide} wide in bf16 on a CPU; "
                    f"leave out bf16, or take kernels at most {WIDEST_IN_BF16} wide"
                )
        except ConfigError:
            raise
        except (OSError, AttributeError) as e:
            raise ConfigError(f"{arm.model}: {e}") from e
    for model, task in tasks.items():
        if task != "detect":
            raise ConfigError(f"{model} is a model of the task {task}, this takes detect")


def _bf16_on_cpu(plan: Plan, arm: Arm) -> bool:
    """Return whether a stage of an arm trains in bf16 on the CPU, where Ultralytics trains without a GPU too."""
    stages = ({**plan.recipe, **arm.recipe}, {**plan.recipe, **arm.recipe, **arm.first})
    found = "" if torch.cuda.is_available() else "cpu"
    return plan.bf16 and any("cpu" in str(stage.get("device") or found).lower() for stage in stages)


def widest_depthwise(model: nn.Module) -> int:
    """Return the width of the widest depthwise kernel of a model, or 0."""
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    return max((m.kernel_size[1] for m in convolutions if m.groups == m.in_channels > 1), default=0)


def fast_bf16() -> bool:
    """Return whether the CPU multiplies in bfloat16 itself."""
    return torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "NO AVX", "AVX2")


def _data(plan: Plan, scratch: Path) -> list[str]:
    """Return the YAML of each fold, or that of the set; labels are read once here, so that a mistake is said now."""
    try:
        if plan.folds:
            name = records.digest([str(Path(plan.data).resolve()), data_digest(plan.data), plan.folds, plan.groups])[:8]
            yamls = [str(y) for y in fold_sets.make(plan.data, plan.folds, plan.groups, scratch / f"folds-{name}")]
        else:
            yamls = [plan.data]
        with fold_sets.quiet():
            for file in yamls:
                spec = check_det_dataset(file)
                for split in ("train", "val"):
                    build_yolo_dataset(DEFAULT_CFG, spec[split], 1, spec, mode="val")
    except ConfigError:
        raise
    except (OSError, RuntimeError, SyntaxError, KeyError) as e:
        raise ConfigError(f"data={plan.data}: {' '.join(str(e).split())}") from e
    return yamls


def _tasks(plan: Plan, yamls: Sequence[str], layers: list[str], scratch: Path) -> list[Task]:
    """Return the runs of a plan up to its last look, seeds in turn over all arms."""
    tasks = []
    for arm_number, arm in enumerate(plan.arms):
        for i, data in enumerate(yamls):
            recipe = {**plan.recipe, **arm.recipe, "data": data}
            try:
                binding = bind(arm.model, recipe, plan.bf16, arm.first)
            except OSError as e:
                said = f"{e.filename}: {e.strerror}" if e.filename else " ".join(str(e).split())
                raise ConfigError(said) from e
            for place, seed in enumerate(plan.seeds(arm, len(plan.looks) - 1)):
                fold = i if plan.folds else None
                task = Task(
                    arm.name,
                    arm.model,
                    seed,
                    fold,
                    recipe,
                    plan.bf16,
                    layers,
                    "",
                    binding,
                    arm.first,
                )
                folder = scratch / f"{task.name}-{records.digest(binding)[:10]}"
                tasks.append((place, i, arm_number, replace(task, folder=str(folder.resolve()))))
    return [task for *_, task in sorted(tasks, key=lambda t: t[:3])]


def _keep_plan(file: Path, plan: Plan, out: Path) -> None:
    """Keep a copy of a plan beside its records, and raise ConfigError if they were begun under another."""
    kept = out / PLAN
    if not kept.exists():
        records.write(kept, file.read_bytes())
    elif plans.read(kept) != plan:
        raise ConfigError(f"plan={file} was changed since {out} was begun with {kept}: choose another out=")


def _check_kept(out: Path, plan: Plan, tasks: Sequence[Task]) -> None:
    """Raise ConfigError unless all records in a folder can stand beside what is to be done.

    A record of one of these runs, or of another seed of such an arm, has the same binding; one of another arm, compared
    before, the same but for its model and code. A plan has its own runs alone.
    """
    kept = all_records(out)
    names = {task.name for task in tasks}
    for name, record in kept.items():
        if plan.question and name not in names:
            raise ConfigError(f"{out} holds {name}, which is not in the plan; choose another out=")
        arm, fold = arm_of(record), record.get("fold")
        beside = [task for task in tasks if task.fold == fold]
        if not beside:
            raise ConfigError(f"{out / name}.json was made with another folds=; choose another out=")
        own = [task for task in beside if task.arm == arm]
        for key, value in (own or beside)[0].binding.items():
            if record.get("binding", {}).get(key) != value and (own or key not in ("model", "code")):
                was = f": {record['recipe']}" if key == "recipe" else ""
                raise ConfigError(f"{out / name}.json was made with another {key}{was}; choose another out=")
    coming = {task.name: asdict(task) for task in tasks}
    by_arm({**kept, **coming}, plan.arms[0].name)  # each arm has its partners


def _do(tasks: Sequence[Task], out: Path, jobs: int, ray: str | None, command: str) -> list[str]:
    """Do the runs that have no record yet; return the names of those that failed."""
    left = [(task, file) for task in tasks if not (file := out / f"{task.name}.json").exists()]
    if left and ray:
        return runners.run_over_ray(left, ray, command)
    return runners.run_in_processes(left, jobs, command)
