"""Every process that Ultralytics starts has this plugin and the user's own layers.

Ultralytics behaviour: training on several GPUs starts worker processes that unpickle a state, which `utils.dist` writes
with `torch_save`, and build the model from its YAML; `tune` and a list of datasets start the command line
`_YOLO_CLI_COMMAND`; `tune` with Ray pickles the model object for its workers. None of them imports this package by
itself where the model is the name of a YAML or a stock model. So the state and the model carry an object that imports
it where it is unpickled, and the command is that of this package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import ultralytics.cfg
from ultralytics.utils import dist, tuner

from ..nn.registry import Registered, register_layer, registered_layers
from .patching import wrap

_KEY = "ultralytics_sgdm"


def install() -> None:
    """Make workers of multi-GPU training, of tuning and of Ray install this plugin and the user's layers."""
    wrap(dist, "torch_save", _with_setup)
    wrap(tuner, "run_ray_tune", _with_setup_in_model)
    ultralytics.cfg._YOLO_CLI_COMMAND[:] = _command()


class WorkerSetup:
    """Imports this package and registers the user's layers where it is unpickled."""

    def __reduce__(self) -> tuple:
        return set_up_worker, (tuple(entry for _, entry in registered_layers()),)


def set_up_worker(entries: tuple[Registered, ...]) -> WorkerSetup:
    """Register layers in the process that unpickles the state; a public name, because pickles hold it."""
    for cls, like in entries:
        register_layer(cls, like=like)
    return WorkerSetup()


def _with_setup(torch_save: Callable) -> Callable:
    def save(state: Any, *args: Any, **kwargs: Any) -> Any:
        return torch_save({_KEY: WorkerSetup(), **state}, *args, **kwargs)

    return save


def _with_setup_in_model(run_ray_tune: Callable) -> Callable:
    def run(model: Any, *args: Any, **kwargs: Any) -> Any:
        model.__dict__[_KEY] = WorkerSetup()
        try:
            return run_ray_tune(model, *args, **kwargs)
        finally:
            del model.__dict__[_KEY]

    return run


def _command() -> list[str]:
    """Return the start of a `yolo` command line that finds modules where this process does."""
    program = f"import sys; sys.path = {sys.path!r}; from ultralytics_sgdm.cli import main; main()"
    return [sys.executable, "-c", program]
