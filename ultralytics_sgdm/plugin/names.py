"""YAMLs are found by their names, and read strictly.

The facts: `check_file` searches the working directory and Ultralytics' own tree, and `yaml_model_load` drops the first
digit+letter of the whole path that looks like a scale. A file that `check_file` finds under the first name it is asked
for is never asked for under the second, so finding by the file's stem there mends both. `yaml_model_load` reads the
file it found with `YAML.load`, which takes what is no model too. What task a model is for, `guess_model_task` reads in
the name of its last layer, and gives None for what is no head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ultralytics.data.utils
import ultralytics.engine.model
from ultralytics.nn import tasks
from ultralytics.utils import ROOT, YAML, checks

from .. import plugin, validation
from ..configs import (
    EQUIPPED,
    ConfigError,
    ConfigKeyError,
    ConfigNotFoundError,
    equipped_from,
    find_yaml,
    layer_place,
    near_names,
    shipped,
    with_scale,
)
from ..equipment import equip_by_name
from .patching import wrap


def install() -> None:
    """Let YAMLs be found by their shipped names, and a model's by its scaled name in any folder."""
    wrap(checks, "check_file", _finding_yamls, everywhere=True)
    wrap(ultralytics.data.utils, "check_file", _naming_data)
    wrap(ultralytics.data.utils, "check_det_dataset", _asking_for_data, everywhere=True)
    wrap(tasks, "yaml_model_load", _loading_models, everywhere=True)
    wrap(tasks, "guess_model_task", _asking_for_head, everywhere=True)
    if tasks.YAML is not _ModelYAML:  # an AttributeError where models are read in another way
        tasks.YAML = _ModelYAML


def _finding_yamls(check_file: Callable) -> Callable:
    def find(file: str | Path, *args: Any, **kwargs: Any) -> str | list:
        name = str(file).strip()
        if "://" in name or not name.lower().endswith((".yaml", ".yml")):
            return check_file(file, *args, **kwargs)
        try:
            return check_file(str(find_yaml(name) or name), *args, **kwargs)
        except FileNotFoundError as e:
            raise _not_found(name, "", [*models(), *_data_sets()]) from e

    return find


def _naming_data(check_file: Callable) -> Callable:
    def find(file: str | Path, *args: Any, **kwargs: Any) -> str | list:
        try:
            return check_file(file, *args, **kwargs)
        except ConfigNotFoundError as e:
            raise _not_found(str(file), "data=", _data_sets()) from e

    return find


def _asking_for_data(check_det_dataset: Callable) -> Callable:
    def check(dataset: str | Path, *args: Any, **kwargs: Any) -> dict:
        try:
            return check_det_dataset(dataset, *args, **kwargs)
        except AssertionError as e:  # a file that is no YAML, or a folder without one
            raise ConfigError(
                f"data={dataset}: {' '.join(str(e).split())}; name the YAML itself, data=FOLDER/NAME.yaml"
            ) from e
        except SyntaxError as e:  # no train or val in it
            if "backbone" in YAML.load(checks.check_file(dataset)):
                raise ConfigError(f"data={dataset} is a model; name the YAML of a data set, such as coco8.yaml") from e
            raise

    return check


def _loading_models(yaml_model_load: Callable) -> Callable:
    def load(path: str | Path, *args: Any, **kwargs: Any) -> dict:
        plugin.install()  # again, for what was loaded anew since
        equipped = equipped_from(path)
        try:
            if equipped:
                return {**equip_by_name(*equipped).spec, "yaml_file": str(path)}
            spec = yaml_model_load(path, *args, **kwargs)
        except ConfigNotFoundError as e:  # of the name without its scale letter
            raise _not_found(str(path), "model=", models()) from e
        validation.check_model(spec)
        return spec

    return load


def _asking_for_head(guess_model_task: Callable) -> Callable:
    def guess(model: Any) -> str | None:
        task = guess_model_task(model)
        if task is None and isinstance(model, dict):
            place = layer_place(model, len([*model["backbone"], *model["head"]]) - 1)
            heads = (
                "such as Detect, Segment, Pose, OBB or Classify; for another layer give task=, for RT-DETR use RTDETR()"
            )
            raise ConfigKeyError(f"{place}: a model ends in the head of a task, {heads}")
        return task

    return guess


class _ModelYAML(YAML):
    """What `nn.tasks` reads model YAMLs with: refuses what is no mapping, by file and line."""

    @classmethod
    def load(cls, file: str | Path = "data.yaml", *args: Any, **kwargs: Any) -> dict:
        validation.read_yaml(file)
        return super().load(file, *args, **kwargs)


def _not_found(name: str, argument: str, known: Iterable[str]) -> ConfigNotFoundError:
    return ConfigNotFoundError(f"{argument}'{name}' does not exist{near_names(Path(name).name, sorted(known))}")


def models() -> set[str]:
    """Return the names of the model YAMLs that are found without a file of the user's."""
    stock = [f.stem for f in (ROOT / "cfg/models").rglob("*.yaml")]
    names = {
        *(f"{stem}{suffix}.yaml" for stem in stock for suffix in ("", *(f"-{module}" for module in EQUIPPED))),
        *(f.name for f in shipped("models")),
    }
    return {with_scale(model, scale) for model in names for scale in ("", *"nsmlx")}


def _data_sets() -> set[str]:
    return {f.name for f in (*shipped("datasets"), *(ROOT / "cfg/datasets").glob("*.yaml"))}
