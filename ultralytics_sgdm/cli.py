"""The `yolo` command: install the plugin, then hand over to Ultralytics' own entry point.

`yolo sgdm COMMAND key=value ...` are the commands of this package. Ours and Ultralytics' share one style of arguments.
"""

from __future__ import annotations

import inspect
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import ultralytics
from ultralytics import cfg

from . import __version__, equipment, zoo
from .configs import ConfigError, near_names
from .data import check_set, convert_coco_json, convert_voc, prepare
from .nn.registry import identity, registered_layers


def models(scale: str = "") -> None:
    """Print a Markdown table of models beside stock: the smallest of each family, or scale=nsmlx, or scale=all."""
    rows = zoo.table(str(scale))
    print("| family | scale | model | stock parameters | parameters | added | stock GFLOPs | GFLOPs | added |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|")
    for r in rows:
        names = f"| {zoo.family_of(r.stock)} | {zoo.scale_of(r.stock)} | {r.name} "
        parameters = f"| {r.stock_parameters:,} | {r.parameters:,} | {r.parameters - r.stock_parameters:+,} "
        print(f"{names}{parameters}| {r.stock_gflops:.2f} | {r.gflops:.2f} | {r.gflops - r.stock_gflops:+.2f} |")


def equip(
    model: str,
    ratio: float | None = None,
    at: str = equipment.AT,
    module: str = "SGDM",
    budget: str | None = None,
    out: str | None = None,
) -> None:
    """Put SGDM behind the blocks of a model YAML: model= [ratio= | budget=0.19M] [at=backbone,neck,P3,4] [out=]."""
    equipped = equipment.equip(model, ratio, at, module, budget, out)
    if out is None:
        print(equipped.text(f"{Path(equipped.source).stem}-{module.lower()}.yaml"), end="")
        print(equipped.summary(), file=sys.stderr)
    else:
        print(f"{equipped.summary()}\nwritten to {out}")


def layers() -> None:
    """List the registered layers: the stock layer that a row of each is parsed like, and where the class lives."""
    print(f"{'layer':<20}{'parsed like':<16}class")
    for name, (cls, like) in registered_layers():
        print(f"{name:<20}{like.__name__:<16}{'.'.join(identity(cls))}")


COMMANDS: dict[str, Callable[..., object]] = {
    "models": models,
    "equip": equip,
    "layers": layers,
    "voc": convert_voc,
    "coco": convert_coco_json,
    "check": check_set,
    "prepare": prepare,
}


def usage() -> str:
    """Return the help text of `yolo sgdm`."""
    lines = ["usage: yolo sgdm COMMAND [key=value ...]", ""]
    return "\n".join(lines + [f"  {name:<9}{inspect.getdoc(f).splitlines()[0]}" for name, f in COMMANDS.items()])


def run_command(argv: list[str]) -> None:
    """Run `yolo sgdm` with the arguments after it; those without default may be given by position.

    Raises:
        ConfigError: If the command or an argument is unknown, missing or not of the form key=value.
    """
    if not argv or argv[0] in {"help", "-h", "--help"}:
        print(usage())
        return
    name, *rest = argv
    if name not in COMMANDS:
        raise ConfigError(f"unknown command 'yolo sgdm {name}'{near_names(name, list(COMMANDS))}\n\n{usage()}")
    parameters = inspect.signature(COMMANDS[name]).parameters
    required = [k for k, p in parameters.items() if p.default is p.empty]
    given: dict[str, Any] = {}
    for argument in cfg.merge_equals_args(rest):
        key, equals, value = argument.partition("=")
        free = next((k for k in required if k not in given), None)
        if not equals and free:
            given[free] = argument
        elif equals and key in parameters and value:
            given.update([(key, value) if key in required else cfg.parse_key_value_pair(argument)])
        else:
            allowed = ", ".join(f"{k}=" for k in parameters) or "none"
            hint = near_names(key, list(parameters))
            raise ConfigError(f"'yolo sgdm {name}' has no argument {argument!r}, its arguments are: {allowed}{hint}")
    missing = [k.upper() for k in required if k not in given]
    if missing:
        places = " ".join([*map(str.upper, required), *(f"[{k}=]" for k in parameters if k not in required)])
        raise ConfigError(f"{' and '.join(missing)} missing; usage: yolo sgdm {name} {places}")
    COMMANDS[name](**given)


def checks() -> None:
    """Print the versions, and whose `yolo` command is first on PATH."""
    print(f"\nultralytics_sgdm {__version__}, Ultralytics {ultralytics.__version__}, torch {torch.__version__}")
    script = shutil.which("yolo")
    if script is None:
        print("yolo: none on PATH; use yolo-sgdm or python -m ultralytics_sgdm")
    elif b"ultralytics_sgdm" in Path(script).read_bytes():
        print(f"yolo: {script}, of ultralytics_sgdm")
    else:
        print(f"yolo: {script}, not of ultralytics_sgdm: it does not know our layers; use yolo-sgdm")


def main() -> None:
    """Run the command line in sys.argv; what the user must mend is one line on standard error and exit status 2."""
    argv = sys.argv[1:]
    sys.argv[0] = "yolo"  # Ultralytics writes predictions to disk only for a command of this name
    try:
        if argv[:1] == ["sgdm"]:
            run_command(argv[1:])
        else:
            cfg.entrypoint()
            if argv[:1] in (["checks"], ["check"]):
                checks()
    except Exception as e:
        mistake = _config_error(e)
        if mistake is None:
            raise
        sys.exit(f"error: {mistake}")


def _config_error(error: BaseException | None) -> ConfigError | None:
    """Return the ConfigError that `error` is or was raised from."""
    while error is not None and not isinstance(error, ConfigError):
        error = error.__cause__
    return error
