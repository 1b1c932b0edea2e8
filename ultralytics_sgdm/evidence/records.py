"""A run's record: a JSON file that is whole or absent and holds what the run's figures were made under."""

from __future__ import annotations

import contextlib
import datetime
import json
import operator
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import ultralytics
from ultralytics.utils.torch_utils import get_cpu_info

from .. import __version__
from ..errors import wrap_errors
from ..files import sha256, write_atomic

METRIC = "mAP50-95"
REQUIRED = ("model", "seed", METRIC, "mAP50", "parameters")  # of a record, for a report

VERSIONS = {  # on which figures depend
    "python": platform.python_version(),
    "torch": torch.__version__,
    "ultralytics": ultralytics.__version__,
    "ultralytics_sgdm": __version__,
}


def run_git(folder: Path, *arguments: str) -> str:
    """Return what git prints about a folder, or an empty string."""
    with contextlib.suppress(OSError):
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
        return done.stdout.strip()
    return ""


def describe_run(device: str | None = None, command: str = "") -> dict[str, Any]:
    """Return the metadata of a record: versions, commit, machine, date and command (default: of this process)."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() and device != "cpu" else None
    describe = ("describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*")
    return {
        "versions": VERSIONS,
        "commit": run_git(Path(__file__).parent, *describe) or None,
        "machine": {"processor": get_cpu_info(), "gpu": gpu, "threads": torch.get_num_threads()},
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": command or command_line(),
    }


def command_line() -> str:
    """Return the command line of this process, without the folder of its program."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def digest(content: Any) -> str:
    """Return the checksum of anything that JSON holds."""
    return sha256(json.dumps(content, sort_keys=True, default=str))


def write(record: dict[str, Any], file: Path) -> None:
    """Write a record."""
    write_atomic(file, json.dumps(record, indent=1) + "\n")


def read(file: Path) -> Any:
    """Return what a JSON file holds, {} if it is not there."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def run_name(model: str, seed: int, fold: int | None = None) -> str:
    """Return the name of a run's record."""
    return f"{model}-{seed}" + ("" if fold is None else f"-fold{fold}")


def model_of(record: Mapping[str, Any]) -> str:
    """Return what the model of a record is called; the key `arm` is that of the first releases."""
    return record.get("arm", Path(record["model"]).stem)


def read_runs(out: Path) -> dict[str, dict[str, Any]]:
    """Return the records in a folder by their names, also of older versions; raise ConfigError for other files."""
    found = {}
    for file in sorted(out.glob("*-*.json")):
        with wrap_errors(f"{file} is not a record of this command; move it away, or choose another out="):
            found[file.stem] = read(file)
            operator.itemgetter(*REQUIRED)(found[file.stem])
            found[file.stem].pop("sha256", None)  # versions before 0.3.0 added a checksum of the record itself
    return found


def make_folder(out: Path) -> None:
    """Make a folder of results; raise ConfigError if it cannot be made."""
    with wrap_errors(f"out={out} cannot be written"):
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError("Permission denied")
