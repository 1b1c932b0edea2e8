"""`freeze=stock` trains the added modules alone, and a `freeze` without effect is refused.

The facts: a trainer takes any value for `freeze` and acts on integers and lists only. In `_setup_train` it puts the
list of names to freeze into its attribute `freeze_layer_names` right before it freezes every parameter whose name holds
one of them, and later keeps the BatchNorm layers whose names do in evaluation mode. So that attribute is the place
where names are added: before the optimizer, the wrapper for several GPUs and the estimate of a batch are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any, Literal

from torch import nn
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import unwrap_model

from ..configs import ConfigError, ConfigVersionError
from ..skeleton import count
from ..transfer import added_modules, is_untrained, stock_norms, stock_parameters
from .patching import wrap
from .refusal import version_error

_NAMES = "freeze_layer_names"


def install() -> None:
    """Add the value `stock` to the argument `freeze` of training: only SGDM and other added modules learn."""
    wrap(BaseTrainer, "check_resume", _checking_freeze)
    wrap(BaseTrainer, "_setup_train", _proving_freeze)
    setattr(BaseTrainer, _NAMES, property(_get_names, _set_names))


def _checking_freeze(check_resume: Callable) -> Callable:
    def check(self: BaseTrainer, *args: Any, **kwargs: Any) -> None:
        check_resume(self, *args, **kwargs)
        self.args.freeze = freeze_value(self.args.freeze)

    return check


def freeze_value(freeze: Any) -> int | list[int | str] | Literal["stock"] | None:
    """Return what a value of `freeze` means in a form that the trainer acts on.

    Args:
        freeze: None, "stock", a number of layers, or layers: a list, tuple, set or range of numbers, or of the
            beginnings of names behind `model.`, such as "4.cv1".

    Raises:
        ConfigError: If it is anything else.
    """
    if freeze is None or freeze is False or freeze == "stock":
        return freeze or None
    if isinstance(freeze, Iterable) and not isinstance(freeze, (str, bytes, dict)):
        return [_layer(freeze, x) for x in freeze]
    number = _whole(freeze)
    if number is None or number < 0:
        raise _refused(freeze)
    return number


def _layer(freeze: Any, x: Any) -> int | str:
    number = _whole(x)
    if (number is None and not isinstance(x, str)) or (number is not None and number < 0):
        raise _refused(freeze)
    return x if number is None else number


def _whole(x: Any) -> int | None:
    if isinstance(x, bool) or not isinstance(x, Real) or not (isinstance(x, Integral) or float(x).is_integer()):
        return None
    return int(float(x))


def _refused(freeze: Any) -> ConfigError:
    return ConfigError(f"freeze={freeze!r} must be 'stock', a number of layers, or a list of layers such as [0, 1, 2]")


def _get_names(self: BaseTrainer) -> list[str]:
    return vars(self)[_NAMES]


def _set_names(self: BaseTrainer, names: list[str]) -> None:
    model, freeze = _student(self), freeze_value(self.args.freeze)  # a checkpoint may have imported us only now
    if freeze == "stock":
        names += _stock(model)
    else:
        layers = freeze if isinstance(freeze, list) else range(freeze or 0)
        _check_layers(self.args.freeze, layers, model)
        names += [f"model.{x}." for x in layers]
    vars(self)[_NAMES] = names


def _student(trainer: BaseTrainer) -> nn.Module:
    """Return the model that learns, where training with a teacher wraps it too."""
    model = unwrap_model(trainer.model)
    return getattr(model, "student_model", model)


def _stock(model: nn.Module) -> list[str]:
    added = [module for _, module in added_modules(model)]
    if not added:
        raise ConfigError("freeze='stock' leaves nothing to train: the model has no SGDM nor other registered layer")
    if is_untrained(model):
        LOGGER.warning(
            "freeze=stock: the stock layers are as they were initialised and stay so; give weights with pretrained="
        )
    trained = sum(p.numel() for p in {id(p): p for module in added for p in module.parameters()}.values())
    LOGGER.info(f"freeze=stock: {len(added)} modules train, {trained:,} of {count(model):,} parameters")
    return [name for name, _ in (*stock_parameters(model), *stock_norms(model))]


def _check_layers(given: Any, layers: Iterable[int | str], model: nn.Module) -> None:
    names = [name for name, _ in model.named_parameters()]
    for x in layers:
        if isinstance(x, str) and not any(f"model.{x}." in name for name in names):
            raise ConfigError(f"freeze={given!r}: no parameter has a name with 'model.{x}.'")
        if isinstance(x, int) and x >= len(model.model):
            raise ConfigError(f"freeze={given!r}: there is no layer {x}, the layers are 0 to {len(model.model) - 1}")


def _proving_freeze(setup_train: Callable) -> Callable:
    def setup(self: BaseTrainer, *args: Any, **kwargs: Any) -> Any:
        result = setup_train(self, *args, **kwargs)
        if self.args.freeze == "stock" and _NAMES not in vars(self):
            raise version_error("freeze=stock", f"the trainer has no {_NAMES}")
        if self.args.freeze == "stock" and any(p.requires_grad for _, p in stock_parameters(_student(self))):
            raise ConfigVersionError("freeze=stock: this trainer sets stock layers free after they were frozen")
        return result

    return setup
