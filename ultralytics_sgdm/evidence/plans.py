"""A plan: what a comparison asks, does and will call better, equal or worse, written and committed before its runs."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..configs import ConfigError, near_names
from .statistics import LOOKS, Estimate

METRICS = ("mAP50-95", "mAP50")
INTERVALS = ("seeds and pictures", "pooled seeds", "seeds")
APART = 1000  # a repetition of the reference, "NAME#1", has its seeds so much further on
UNFIT = re.compile(r"[#/\\|\x00-\x1f]")
KEYS: dict[str, Any] = {
    "question": str,
    "arms": list,
    "data": str,
    "recipe": dict,
    "seeds": list,
    "folds": int,
    "groups": str,
    "bf16": bool,
    "layers": list,
    "metric": str,
    "interval": str,
    "better": (int, float),
    "equal": (int, float),
    "stop": str,
}
ARM = {"model": str, "name": str, "recipe": dict, "seeds": list, "first": dict}
REQUIRED = ("question", "arms", "data", "recipe", "seeds", "better", "equal", "stop")


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Attributes:
        name: What it is called in records and tables.
        model: Model YAML.
        recipe: What differs from the recipe of all arms.
        seeds: Its seeds, if not those of all arms.
        first: What differs from its recipe in a first stage, from whose weights the training then starts.
    """

    name: str
    model: str
    recipe: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] | None = None
    first: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A plan as its file states it.

    Attributes:
        question: What the comparison is to tell.
        arms: What is compared; the first is the reference.
        data: YAML of the set.
        recipe: Arguments of the trainer.
        looks: Seeds that are done before each look at the figures: one look or two.
        better: Least mean difference, in points, at which an arm whose interval is above zero is called better.
        equal: An arm whose whole interval lies within plus or minus so many points is called equal.
        stop: When the comparison ends, in words.
        folds: Number of folds, 0 for the set's own split.
        groups: Regular expression of the groups of pictures that stay together.
        bf16: Whether to train in bfloat16.
        layers: Python files that register layers.
        metric: Primary metric.
        interval: Which interval decides.
    """

    question: str
    arms: tuple[Arm, ...]
    data: str
    recipe: dict[str, Any]
    looks: tuple[tuple[int, ...], ...]
    better: float
    equal: float
    stop: str
    folds: int = 0
    groups: str | None = None
    bf16: bool = False
    layers: tuple[str, ...] = ()
    metric: str = METRICS[0]
    interval: str = INTERVALS[0]

    def seeds(self, arm: Arm, look: int) -> tuple[int, ...]:
        """Return the seeds of an arm up to a look, from 0."""
        done = tuple(seed for seeds in self.looks[: look + 1] for seed in seeds)
        chosen = done if arm.seeds is None else tuple(s for s in arm.seeds if s in done)
        return tuple(seed + APART * repetition(arm.name) for seed in chosen)

    def confidence(self, look: int) -> float:
        """Return the confidence of the intervals of a look; that of two accounts for the other."""
        return 1 - LOOKS[len(self.looks) - 1][look]

    def verdict(self, estimate: Estimate) -> str:
        """Return what the plan's own rule calls a difference in points."""
        if estimate.half is None:
            return "undecided: no interval"
        low, high = estimate.mean - estimate.half, estimate.mean + estimate.half
        if low > 0 and estimate.mean >= self.better:
            return "better"
        if high < 0:
            return "worse"
        if max(abs(low), abs(high)) <= self.equal:
            return "equal"
        return "above zero, by less than was asked" if low > 0 else "undecided"


def repetition(arm: str) -> int:
    """Return which repetition of the reference an arm's name says it is, 0 for none."""
    return int(arm.rpartition("#")[2]) if "#" in arm else 0


def check_names(arms: Sequence[Arm]) -> None:
    """Raise ConfigError unless the names of arms can be those of files, rows of a table, and no repetitions."""
    for arm in arms:
        if not arm.name.strip() or UNFIT.search(arm.name):
            raise ConfigError(f"{arm.name!r} cannot be the name of an arm: it must be some text without # / \\ and |")


def read(file: Path) -> Plan:
    """Return the plan in a YAML file.

    Raises:
        ConfigError: If the file is no plan; the message names the key.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise ConfigError(f"plan={file} cannot be read: {' '.join(str(e).split())}") from e
    if not isinstance(content, dict):
        raise ConfigError(f"plan={file} must be a mapping with the keys {', '.join(KEYS)}")
    for key, value in content.items():
        if key not in KEYS:
            raise ConfigError(f"plan={file}: unknown key {key!r}{near_names(str(key), list(KEYS))}")
        _check_type(file, key, value, KEYS[key])
    if missing := [key for key in REQUIRED if key not in content]:
        raise ConfigError(f"plan={file}: {missing[0]} is missing")
    for key in ("better", "equal", "folds"):
        if not 0 <= content.get(key, 0) < math.inf:
            raise ConfigError(f"plan={file}: {key}: {content[key]} must be 0 or more")
    if "groups" in content and not content.get("folds"):
        raise ConfigError(f"plan={file}: groups says what stays together in folds: state folds too")
    for key, allowed in (("metric", METRICS), ("interval", INTERVALS)):
        if content.get(key, allowed[0]) not in allowed:
            raise ConfigError(f"plan={file}: {key}: {content[key]!r} must be one of {', '.join(allowed)}")
    arms = tuple(_arm(file, arm) for arm in content.pop("arms"))
    check_names(arms)
    names = [arm.name for arm in arms]
    if len(arms) < 2 or len(set(names)) < len(names):
        raise ConfigError(f"plan={file}: arms must be two or more, each of a name of its own")
    seeds = content.pop("seeds")
    looks = seeds if all(isinstance(s, list) for s in seeds) else [seeds]
    flat = [seed for look in looks for seed in look]
    if not 1 <= len(looks) <= 2 or not all(looks) or not _are_seeds(flat):
        raise ConfigError(
            f"plan={file}: seeds must be different whole numbers of 0 or more, or two lists of them, one for each look"
        )
    layers = tuple(content.pop("layers", ()))
    plan = Plan(arms=arms, looks=tuple(map(tuple, looks)), layers=layers, **content)
    for arm in arms:
        if arm.seeds is not None and not (_are_seeds(arm.seeds) and set(arm.seeds) <= set(flat)):
            raise ConfigError(f"plan={file}: seeds of {arm.name} must be different ones of the plan's seeds")
        if not plan.seeds(arm, 0):
            raise ConfigError(f"plan={file}: {arm.name} has no seed of the first look")
        if lacking := set(plan.seeds(arm, 1)) - set(plan.seeds(arms[0], 1)):
            raise ConfigError(f"plan={file}: {arm.name} has seeds {sorted(lacking)} that {arms[0].name} lacks")
    return plan


def _check_type(file: Path, key: str, value: Any, kind: Any, of: str = "") -> None:
    """Raise ConfigError unless a value of a plan, and what is in it, is of its type; a truth value is no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"plan={file}: {key}: {value!r}{of} is no {getattr(kind, '__name__', 'number')}")
    if kind is str and not value.strip():
        raise ConfigError(f"plan={file}: {key}{of} is empty")
    if kind is dict or key == "layers":
        for inner in value:
            if not isinstance(inner, str):
                raise ConfigError(f"plan={file}: {key}: {inner!r}{of} is no str")


def _are_seeds(seeds: Sequence[Any]) -> bool:
    return bool(seeds) and all(type(s) is int and s >= 0 for s in seeds) and len(set(seeds)) == len(seeds)


def _arm(file: Path, arm: Any) -> Arm:
    if isinstance(arm, str):
        return Arm(Path(arm).stem, arm)
    if not isinstance(arm, dict) or "model" not in arm or arm.keys() - set(ARM):
        raise ConfigError(f"plan={file}: arm {arm!r} must be a model, or have the keys {', '.join(ARM)}")
    for key, value in arm.items():
        _check_type(file, key, value, ARM[key], " of an arm")
    values: Any = {"name": Path(arm["model"]).stem, **arm}
    return Arm(**{**values, "seeds": tuple(arm["seeds"]) if "seeds" in arm else None})


def committed(file: Path) -> str:
    """Return the last commit of a plan.

    Raises:
        ConfigError: If the plan is not committed as it is.
    """
    git = ["git", "-C", str(file.resolve().parent)]
    try:
        at = _output([*git, "log", "-1", "--format=%H", "--", file.name])
        changed = _output([*git, "status", "--porcelain", "--", file.name])
    except (OSError, subprocess.CalledProcessError):
        at, changed = "", ""
    if not at or changed:
        raise ConfigError(f"plan={file} must be committed before its runs: git add {file} && git commit")
    return at


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
