"""A plan: what a comparison asks, does, and will call superior, equivalent or inferior, committed before its runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from ..errors import ConfigError, wrap_errors
from .records import run_git

Name = Annotated[str, Field(pattern=r"^[^/\\|\n]+$")]  # of a file, and in a row of a table
Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # mAP points


class Variant(BaseModel, extra="forbid", strict=True, frozen=True):
    """One of the models that are compared; a YAML alone is enough."""

    name: Name
    model: str  # YAML
    recipe: dict[str, Any] = {}  # what differs from the recipe of all models

    @model_validator(mode="before")
    @classmethod
    def _name(cls, given: Any) -> Any:
        given = {"model": given} if isinstance(given, str) else given
        return {"name": Path(str(given.get("model"))).stem, **given} if isinstance(given, dict) else given


class Plan(BaseModel, extra="forbid", strict=True, frozen=True):
    """A comparison, as the file of a plan states it; one without a question has no verdict."""

    question: str
    models: Annotated[list[Variant], Field(min_length=1)]  # the first is the reference
    data: str  # YAML of the dataset
    recipe: dict[str, Any]  # arguments of the trainer
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    better: Margin  # of superiority and inferiority
    equal: Margin  # of equivalence
    stop: str  # when the comparison ends, in words
    folds: Annotated[int, Field(ge=0)] = 0  # 0 for the dataset's own split
    groups: str | None = None  # regular expression of the groups of images that stay together
    bf16: bool = False
    layers: list[str] = []  # Python files that register layers

    @model_validator(mode="after")
    def _check(self) -> Plan:
        for key, values in (("models", [variant.name for variant in self.models]), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{key} must be different: {values}")
        if self.groups and not self.folds:
            raise ValueError(f"groups={self.groups} says what stays together in folds: state folds too")
        return self


def build(content: Mapping[str, Any], prefix: str = "") -> Plan:
    """Return the plan of these keys; raise ConfigError, with `prefix`, for the first that does not fit."""
    try:
        return Plan.model_validate(content)
    except ValidationError as e:
        error = e.errors()[0]
        key, message = ".".join(map(str, error["loc"])), error["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{prefix}{key}: {message}" if key else prefix + message) from e


def read(file: Path, old: bool = False) -> Plan:
    """Return the plan in a YAML file, whose models may be called `arms` as in 0.2.0.

    If `old`, for reports of records of 0.2.0, interim looks are one list of seeds, and keys that have gone are ignored.
    """
    with wrap_errors(f"plan={file} cannot be read"):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        content = {"models" if key == "arms" else key: value for key, value in content.items()}
    if old:
        content = {key: content[key] for key in content.keys() & Plan.model_fields}
        content["seeds"] = [seed for look in content["seeds"] for seed in (look if isinstance(look, list) else [look])]
        for model in content["models"]:
            if isinstance(model, dict):
                model.pop("first", None)
                model.pop("seeds", None)
    plan = build(content, f"plan={file}: ")
    if not plan.question.strip() or len(plan.models) < 2:
        raise ConfigError(f"plan={file}: it needs a question, and two models or more")
    return plan


def find_commit(file: Path) -> str:
    """Return the last commit of a plan; raise ConfigError if it is not committed as it is."""
    folder = file.resolve().parent
    commit = run_git(folder, "log", "-1", "--format=%H", "--", file.name)
    if not commit or run_git(folder, "status", "--porcelain", "--", file.name):
        raise ConfigError(f"plan={file} must be committed before its runs: git add {file} && git commit")
    return commit
