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
from importlib.metadata import distributions
from pathlib import Path

import ultralytics
from ultralytics import cfg

from . import __version__
from .commands import call
from .deploy.predict_onnx import InputError
from .errors import ConfigError, did_you_mean, one_line
from .nn.registry import identity, registered_layers
from .placing import equip as placing

STOPPED, READER_GONE = 130, 141  # exit status of a command that Ctrl-C or a closed pipe ended, as a shell has it
REPORTED = ("torch", "torchvision", "numpy", "opencv-python", "onnx", "onnxruntime", "timm", "ray")


def equip(
    model: str,
    ratio: list[float] | None = None,
    at: str | None = None,
    module: str = "SGDM",
    budget: str | None = None,
    start: str | None = None,
    out: str | None = None,
) -> None:
    """As `placing.equip.equip`, whose docstring is the help."""
    equipped = placing.equip(model, ratio, at, module, budget, start, out)
    if out is None:
        print(equipped.text(f"{Path(equipped.source).stem}-{module.lower()}.yaml"), end="")
        print(equipped.summary(), file=sys.stderr)
    else:
        print(f"{equipped.summary()}\nwritten to {out}")


equip.__doc__ = placing.equip.__doc__


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
    is_help = not argv or argv[0] in {"help", "-h", "--help"}
    if is_help and len(argv) < 2:
        print(usage())
        return 0
    name, *rest = [argv[1], "--help"] if is_help else argv
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS) or "; yolo sgdm help lists the commands"
        raise ConfigError(f"unknown command 'yolo sgdm {name}'{hint}")
    try:
        status = call(f"yolo sgdm {name}", command(name), rest)
    except BrokenPipeError:
        raise
    except OSError as e:  # of a file of the user's, or of the disk
        raise ConfigError(one_line(e)) from e
    return status if isinstance(status, int) else 0


def checks() -> None:
    """Print what a bug report needs: versions, system, and whose `yolo` command is first on PATH."""
    installed = {package.metadata["Name"]: package.version for package in distributions()}
    versions = ", ".join(f"{name} {installed.get(name, 'not installed')}" for name in REPORTED)
    print(f"\nultralytics_sgdm {__version__}, Ultralytics {ultralytics.__version__}, {versions}")
    print(f"Python {platform.python_version()} on {platform.platform()}")
    script = shutil.which("yolo")
    if script is None:
        print("yolo: none on PATH; use yolo-sgdm or python -m ultralytics_sgdm")
    elif b"ultralytics_sgdm" in Path(script).read_bytes():
        print(f"yolo: {script}, of ultralytics_sgdm")
    else:
        print(f"yolo: {script}, not of ultralytics_sgdm: it does not know our layers; use yolo-sgdm")


def main() -> None:
    """Run the command line of this process.

    A mistake of the user is one line on standard error and exit status 2; Ctrl-C is one line and 130; 141 says that the
    reader of standard output has gone.
    """
    argv = sys.argv[1:]
    sys.argv[0] = "yolo"  # Ultralytics writes predictions to disk only for a command of this name
    try:
        if argv[:1] == ["sgdm"]:
            status = run_command(argv[1:])
            sys.stdout.flush()
            sys.exit(status)
        if argv and argv[0] in COMMANDS.keys() - cfg.MODES - {"check"}:  # `yolo check` is Ultralytics' own
            raise ConfigError(f"'yolo {argv[0]}' is not a command; did you mean 'yolo sgdm {argv[0]}'?")
        cfg.entrypoint()
        if argv[:1] in (["checks"], ["check"]):
            checks()
        elif not argv or argv[0].lstrip("-") in {"help", "h", "version", "v"}:
            print(f"ultralytics_sgdm {__version__}: yolo sgdm help lists its commands")
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(STOPPED)
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(READER_GONE)
    except Exception as e:
        mistake: BaseException | None = e
        while mistake is not None and not isinstance(mistake, (ConfigError, InputError)):
            mistake = mistake.__cause__
        if mistake is None:
            raise
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
