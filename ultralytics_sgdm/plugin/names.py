"""YAMLs of this package are found by their names, and `<model>-sgdm.yaml` means the model with SGDM in it.

Ultralytics behaviour: `check_file` searches the working directory and Ultralytics' own tree, and `yaml_model_load`
drops the first digit and letter of the whole path that look like a scale. A file that `check_file` finds under the
first name it is asked for is never asked for under the second, so finding by the file's stem solves both. Names and
files that are not of this package are left to Ultralytics.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ultralytics.nn import tasks
from ultralytics.utils import ROOT, checks, downloads

from ..configs import (
    MODULES,
    find_our_yaml,
    find_yaml,
    list_shipped,
    scale_of,
    split_suffix,
    with_scale,
    without_scale,
)
from ..errors import ConfigError
from ..placing.equip import equip_by_name
from .patching import wrap


def install() -> None:
    """Let the YAMLs of this package be found by their names, and models be equipped by theirs."""
    wrap(checks, "check_file", _find_yamls, everywhere=True)
    wrap(tasks, "yaml_model_load", _load_equipped, everywhere=True)
    wrap(downloads, "attempt_download_asset", _refuse_weights, everywhere=True)


def _find_yamls(check_file: Callable) -> Callable:
    def find(file: str | Path, *args: Any, **kwargs: Any) -> str | list:
        name = str(file).strip()
        if "://" in name or not name.lower().endswith((".yaml", ".yml")):
            return check_file(file, *args, **kwargs)
        try:
            return check_file(str(find_our_yaml(name) or name), *args, **kwargs)
        except FileNotFoundError as e:
            raise _suggest(name, e) from e.__cause__

    return find


def _load_equipped(yaml_model_load: Callable) -> Callable:
    def load(path: str | Path, *args: Any, **kwargs: Any) -> dict:
        equipped = None if find_yaml(path) else split_suffix(path)
        if equipped is None:
            try:
                return yaml_model_load(path, *args, **kwargs)
            except (FileNotFoundError, ConfigError) as e:  # of the name without its scale letter
                raise _suggest(str(path), e) from e.__cause__
        model, module = equipped
        try:
            return {**equip_by_name(model, module).spec, "yaml_file": str(path)}
        except FileNotFoundError as e:  # which names the stock model
            what = f"{str(path)!r} does not exist, nor does {str(model)!r} to put {module} into"
            raise _suggest(str(path), FileNotFoundError(what)) from e

    return load


def _refuse_weights(attempt_download_asset: Callable) -> Callable:
    def download(file: str | Path, *args: Any, **kwargs: Any) -> str:
        name = str(file).strip().replace("'", "")
        equipped = split_suffix(name) if name.endswith(".pt") and "://" not in name else None
        yaml = f"{equipped[0].stem.removesuffix('u')}.yaml" if equipped else ""  # yolov5nu is yolov5n
        if equipped and not Path(name).exists() and {yaml, without_scale(yaml)} & _stock_yamls():
            raise ConfigError(
                f"{name}: there are no published weights of this model; train it from stock weights, with "
                f"model={Path(name).stem}.yaml pretrained={equipped[0].name}"
            )
        return attempt_download_asset(file, *args, **kwargs)

    return download


def _stock_yamls() -> set[str]:
    return {file.name for file in (ROOT / "cfg/models").rglob("*.yaml")}


def _suggest(name: str, error: Exception) -> Exception:
    """Return the error for a name that is closest to one of this package; for any other name, Ultralytics' own."""
    stock = {file.name for file in (ROOT / "cfg").rglob("*.yaml")}
    ours = {file.name for kind in ("models", "datasets") for file in list_shipped(kind)}
    ours |= {f"{Path(model).stem}-{suffix}.yaml" for model in _stock_yamls() for suffix in MODULES}
    bare = Path(name).name
    near = difflib.get_close_matches(without_scale(bare), [*ours, *stock], 1, cutoff=0.8)
    if not near or near[0] not in ours:
        return error
    return ConfigError(f"{name!r} does not exist; did you mean {with_scale(near[0], scale_of(bare))!r}?")
