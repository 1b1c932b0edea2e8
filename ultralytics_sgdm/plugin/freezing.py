"""`freeze=stock` trains the added modules alone, and no other `freeze` keeps an added module untrained.

Ultralytics behaviour: `_setup_train` calls `setup_model`, then freezes each parameter whose name holds `model.<x>.` for
an x of the list `args.freeze`, and keeps the BatchNorm layers of these names in evaluation mode. So once the model is
there, `freeze` becomes the list of what is to be frozen. Models without added modules are frozen as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import get_num_params, unwrap_model

from ..errors import ConfigError, pluralize
from ..placing.weights import UNTRAINED, added_modules, is_idle, is_untrained, stock_norms
from .patching import wrap


def install() -> None:
    """Add the value `stock` to the argument `freeze` of training, and keep untrained added modules trainable."""
    wrap(BaseTrainer, "setup_model", _name_frozen)
    wrap(BaseTrainer, "_setup_train", _freeze_parameters)


def _name_frozen(setup_model: Callable) -> Callable:
    def setup(self: BaseTrainer, *args: Any, **kwargs: Any) -> Any:
        checkpoint = setup_model(self, *args, **kwargs)
        model = _student(self)
        if isinstance(model, nn.Module):  # a trainer of another kind may hold anything
            self.args.freeze = frozen_names(model, self.args.freeze)
            vars(model).pop(UNTRAINED, None)  # from here on all that is not frozen is trained
        return checkpoint

    return setup


def _freeze_parameters(setup_train: Callable) -> Callable:
    def setup(self: BaseTrainer, *args: Any, **kwargs: Any) -> Any:
        result = setup_train(self, *args, **kwargs)
        model, freeze = _student(self), self.args.freeze
        names = {f"model.{x}" for x in freeze} if any(added_modules(model)) and isinstance(freeze, list) else set()
        for name, parameter in model.named_parameters():
            if name in names:  # a parameter of a block itself, which has no dot behind its name
                parameter.requires_grad_(False)
        return result

    return setup


def frozen_names(model: nn.Module, freeze: Any) -> Any:
    """Return what `freeze` means for a model as Ultralytics takes it: names behind `model.`, and numbers of rows.

    Args:
        model: The model to train.
        freeze: Argument of the trainer: None, "stock", a number of rows, or a list of row numbers and names.

    Raises:
        ConfigError: If the model has added modules and `freeze` is another text, or there is nothing to train.
    """
    added = dict(added_modules(model))
    if freeze == "stock":
        return _freeze_stock(model, added)
    if not added or not freeze or isinstance(freeze, bool):
        return freeze
    if not isinstance(freeze, (int, list)):
        raise ConfigError(f"freeze={freeze!r} must be 'stock', a number of rows, or a list of rows such as [0, 1, 2]")
    rows = range(freeze) if isinstance(freeze, int) else freeze
    fresh = getattr(model, UNTRAINED, ())
    idle = [
        name
        for name, module in added.items()
        if (name in fresh or is_idle(module)) and any(_overlap(name, f"model.{x}") for x in rows)
    ]
    if not idle:
        return freeze
    LOGGER.warning(
        f"freeze={freeze}: the added modules {', '.join(idle)} are untrained and stay trainable; freeze={freeze} holds "
        "for the stock layers around them"
    )
    return [name for x in rows for name in _names_without(model, f"model.{x}", idle)]


def _overlap(a: str, b: str) -> bool:
    """Return whether one of two modules is, or holds, the other."""
    return f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")


def _freeze_stock(model: nn.Module, added: dict[str, nn.Module]) -> list[str]:
    if not added:
        raise ConfigError("freeze='stock' leaves nothing to train: the model has no SGDM nor other registered layer")
    if is_untrained(m for _, m in stock_norms(model)):
        LOGGER.warning(
            "freeze=stock: the stock layers have random weights and keep them; load weights with pretrained="
        )
    trained = sum(p.numel() for p in {id(p): p for m in added.values() for p in m.parameters()}.values())
    LOGGER.info(
        f"freeze=stock trains {pluralize(len(added), 'module')}, {trained:,} of {get_num_params(model):,} parameters"
    )
    return list(_names_without(model, "model", [*added]))


def _names_without(model: nn.Module, prefix: str, kept: list[str]) -> Iterator[str]:
    """Yield the names behind `model.` of the largest parts of a module that hold none of `kept`."""
    if any(f"{prefix}.".startswith(f"{name}.") for name in kept):
        return
    module = model.get_submodule(prefix) if prefix in dict(model.named_modules()) else None
    if module is None or not any(name.startswith(f"{prefix}.") for name in kept):
        yield prefix.removeprefix("model.")
        return
    for name, _ in module.named_parameters(prefix, recurse=False):
        yield name.removeprefix("model.")
    for name, _ in module.named_children():
        yield from _names_without(model, f"{prefix}.{name}", kept)


def _student(trainer: BaseTrainer) -> nn.Module:
    """Return the model that learns, also where training with a teacher wraps it."""
    model = unwrap_model(trainer.model)
    return getattr(model, "student_model", model)
