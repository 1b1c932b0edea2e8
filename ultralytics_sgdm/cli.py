"""The `yolo` command: install the plugin, then hand over to Ultralytics' own entry point.

`yolo sgdm COMMAND key=value ...` are the commands of this package. Ours and Ultralytics' share one style of arguments.
"""

from __future__ import annotations

import importlib
import inspect
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import ultralytics
from ultralytics import cfg

from . import __version__
from .commands import call
from .deploy.predict_onnx import InputError
from .errors import ConfigError, did_you_mean
from .nn.registry import identity, registered_layers
from .placing import equip as placing
from .plugin.names import our_names

STOPPED = 130  # exit status of a command that Ctrl-C ended, as a shell has it
REPORTED = ("torchvision", "numpy", "opencv-python", "onnx", "onnxruntime", "timm", "ray")


def equip(
    model: str,
    ratio: list[float] | None = None,
    at: str | None = None,
    module: str = "SGDM",
    budget: str | None = None,
    start: str | None = None,
    out: str | None = None,
) -> None:
    """Put SGDM, or another registered layer, into a model YAML.

    Args:
        model: YAML of a model, of Ultralytics or your own; a scale letter in its name is the scale that counts.
        ratio: Razor ratio, larger means fewer parameters; one, or one for each place (default for SGDM: 2.25; on
            YOLOv5: 1.5,1.6).
        at: Where, separated by commas: sections (backbone, neck), stages (P2, P3, ..., deepest), numbers of layers
            (default: deepest; for RDConv, the strided 3x3 Conv rows from P4 on).
        module: Registered layer (`yolo sgdm layers` lists them), or one of timm (se, eca, gc, ...). RDConv replaces
            Conv rows, others go behind blocks.
        budget: Parameters to add, such as 190000 or 0.19M, in place of a ratio.
        start: "identity" to let timm's attention layers (se, eca, gc, ...) start as the identity.
        out: YAML file to write (default: print it).
    """
    equipped = placing.equip(model, ratio, at, module, budget, start, out)
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


COMMANDS = {
    "models": "placing.zoo.models",
    "equip": "cli.equip",
    "layers": "cli.layers",
    "voc": "data.convert_voc",
    "coco": "data.convert_coco_json",
    "check": "data.check_set",
    "prepare": "data.prepare",
    "compare": "evidence.compare.compare",
    "benchmark": "evidence.benchmark.benchmark",
    "noise": "evidence.noise.noise",
    "visualize": "evidence.visualize.visualize",
    "baselines": "placing.zoo.baselines",
    "predict": "deploy.predict_onnx.predict",
}


def command(name: str) -> Callable[..., object]:
    """Return the function of a command; its module is imported only now."""
    module, _, function = COMMANDS[name].rpartition(".")
    return getattr(importlib.import_module(f"{__package__}.{module}"), function)


def summary(function: Callable[..., object]) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(function) or "").partition("\n")[0]


def usage() -> str:
    """Return the help text of `yolo sgdm`."""
    lines = [f"  {name:<11}{summary(command(name))}" for name in COMMANDS]
    return "\n".join(
        ["usage: yolo sgdm COMMAND [key=value ...]", "", *lines, "", "yolo sgdm COMMAND --help says what each takes."]
    )


def run_command(argv: Sequence[str]) -> int:
    """Run `yolo sgdm` with the arguments after it; return the exit status.

    Raises:
        ConfigError: If the command is unknown, or `commands.call` refuses its arguments.
    """
    if not argv or (argv[0] in {"help", "-h", "--help"} and len(argv) == 1):
        print(usage())
        return 0
    if argv[0] == "help":
        argv = [argv[1], "--help"]
    name, *rest = argv
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS) or "; yolo sgdm help lists the commands"
        raise ConfigError(f"unknown command 'yolo sgdm {name}'{hint}")
    status = call(f"yolo sgdm {name}", command(name), rest)
    return status if isinstance(status, int) else 0


def checks() -> None:
    """Print what a bug report needs: versions, system, and whose `yolo` command is first on PATH."""
    print(f"\nultralytics_sgdm {__version__}, Ultralytics {ultralytics.__version__}, torch {torch.__version__}")
    print(f"Python {platform.python_version()} on {platform.platform()}, {_others()}")
    script = shutil.which("yolo")
    if script is None:
        print("yolo: none on PATH; use yolo-sgdm or python -m ultralytics_sgdm")
    elif b"ultralytics_sgdm" in Path(script).read_bytes():
        print(f"yolo: {script}, of ultralytics_sgdm")
    else:
        print(f"yolo: {script}, not of ultralytics_sgdm: it does not know our layers; use yolo-sgdm")


def _others() -> str:
    found = []
    for package in REPORTED:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command line, that of sys.argv unless given.

    A mistake of the user is one line on standard error and exit status 2; Ctrl-C is one line and 130.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    sys.argv[0] = "yolo"  # Ultralytics writes predictions to disk only for a command of this name
    try:
        if argv[:1] == ["sgdm"]:
            sys.exit(run_command(argv[1:]))
        cfg.entrypoint()
        if argv[:1] in (["checks"], ["check"]):
            checks()
        elif not argv or argv[0].lstrip("-") in {"help", "h", "version", "v"}:
            print(f"ultralytics_sgdm {__version__}: yolo sgdm help lists its commands")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(STOPPED)
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as e:
        mistake = _mistake(e) or _missing_file(e, argv)
        if mistake is None:
            raise
        hint = _ours(argv) if isinstance(mistake, SyntaxError) else ""
        print(f"error: {str(mistake).partition(chr(10))[0].rstrip() + hint if hint else mistake}", file=sys.stderr)
        sys.exit(2)


def _mistake(error: BaseException | None) -> BaseException | None:
    """Return a mistake of the user: the error of ours that `error` is or was raised from, or an argument's syntax."""
    if isinstance(error, SyntaxError) and error.filename is None:
        return error
    while error is not None and not isinstance(error, (ConfigError, InputError)):
        error = error.__cause__
    return error


def _ours(argv: Sequence[str]) -> str:
    """Return a hint at `yolo sgdm` if a command line that Ultralytics refuses begins like one of ours."""
    name = argv[0].casefold() if argv else ""
    return (
        f"; did you mean 'yolo sgdm {name}'?" if name in COMMANDS.keys() - cfg.MODES else did_you_mean(name, ["sgdm"])
    )


def _missing_file(error: Exception, argv: Sequence[str]) -> ConfigError | None:
    """Return the argument whose file Ultralytics did not find, as a line."""
    if isinstance(error, FileNotFoundError):
        for argument in argv:
            name, _, value = argument.partition("=")
            meant = value == error.filename or str(error).startswith((f"{value} ", f"'{value}' "))
            if value and meant and not Path(value).exists():
                near = did_you_mean(value, our_names()) if name == "model" and not Path(value).suffix else ""
                return ConfigError(f"{name}={value}: no such file{near}")
    return None
