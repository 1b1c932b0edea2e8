"""A plan: what a comparison asks, does, and will call superior, equivalent or inferior, committed before its runs."""

from __future__ import annotations

import json
import math
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml

from ..errors import ConfigError, did_you_mean, import_extra, one_line

UNFIT = re.compile(r"^\s*$|[/\\|\x00-\x1f]")  # for the name of a file and a row of a table


@dataclass(frozen=True)
class Variant:
    """One of the models that are compared."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    name: str
    model: str  # YAML
    recipe: dict[str, Any] = field(default_factory=dict)  # what differs from the recipe of all models


@dataclass(frozen=True)
class Plan:
    """A comparison, as the file of a plan states it; one without a question has no verdict."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    question: str
    models: list[Variant]  # the first is the reference
    data: str  # YAML of the dataset
    recipe: dict[str, Any]  # arguments of the trainer
    seeds: list[int]
    better: float  # margin of superiority and inferiority, mAP points
    equal: float  # margin of equivalence, mAP points
    stop: str  # when the comparison ends, in words
    folds: int = 0  # 0 for the dataset's own split
    groups: str | None = None  # regular expression of the groups of images that stay together
    bf16: bool = False
    layers: list[str] = field(default_factory=list)  # Python files that register layers

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.models]
        if unfit := [name for name in names if UNFIT.search(name) or names.count(name) > 1]:
            raise ConfigError(f"each model needs a name of its own without / \\ and |, not {unfit[0]!r}")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds={self.seeds} must be different whole numbers of 0 or more")
        if not all(0 <= value < math.inf for value in (self.better, self.equal, self.folds)):
            raise ConfigError("better, equal and folds must be 0 or more")
        if self.groups and not self.folds:
            raise ConfigError(f"groups={self.groups} says what stays together in folds: state folds too")


def read(file: Path, old: bool = False) -> Plan:
    """Return the plan in a YAML file, whose models may be called `arms` as in 0.2.0.

    Args:
        file: The plan.
        old: Whether to read other keys of 0.2.0 too, for a report of its records: interim looks are one list of seeds,
            and `metric`, `interval`, and `seeds` and `first` of a model are left out.

    Raises:
        ConfigError: If the file is not a plan; the message names the key.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise ConfigError(f"plan={file} cannot be read: {one_line(e)}") from e
    if not isinstance(content, dict):
        raise ConfigError(f"plan={file} is not a mapping of keys such as question, models and seeds")
    content = {"models" if key == "arms" else key: value for key, value in content.items()}
    gone: tuple[str, ...] = ()
    if old:
        gone = ("seeds", "first")
        looks = [seed if isinstance(seed, list) else [seed] for seed in content["seeds"]]
        content["seeds"] = [seed for look in looks for seed in look]
        content = {key: value for key, value in content.items() if key not in ("metric", "interval")}
    models: Any = content.get("models")
    for i, entry in enumerate(models if isinstance(models, list) else []):
        if isinstance(entry, str):
            models[i] = {"name": Path(entry).stem, "model": entry}
        elif isinstance(entry, dict):
            kept = {key: value for key, value in entry.items() if key not in gone}
            models[i] = {"name": Path(str(entry.get("model"))).stem, **kept}
    pydantic = import_extra("pydantic", "compare")
    try:
        plan = pydantic.TypeAdapter(Plan).validate_json(json.dumps(content, default=str))
    except pydantic.ValidationError as e:
        error = e.errors()[0]
        key = ".".join(map(str, error["loc"]))
        hint = did_you_mean(key, Plan.__dataclass_fields__) if "unexpected" in error["type"] else ""
        raise ConfigError(f"plan={file}: {key + ': ' if key else ''}{error['msg']}{hint}") from e
    if not plan.question.strip() or len(plan.models) < 2:
        raise ConfigError(f"plan={file}: it needs a question, and two models or more")
    return plan


def find_commit(file: Path) -> str:
    """Return the last commit of a plan.

    Raises:
        ConfigError: If the plan is not committed as it is.
    """
    folder = str(file.resolve().parent)
    found = []
    for arguments in (["log", "-1", "--format=%H"], ["status", "--porcelain"]):
        command = ["git", "-C", folder, *arguments, "--", file.name]
        found.append(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    if not found[0] or found[1]:
        raise ConfigError(f"plan={file} must be committed before its runs: git add {file} && git commit")
    return found[0]
