"""A run's record: a JSON file that is whole or absent and holds what the run's figures were made under."""

from __future__ import annotations

import contextlib
import datetime
import json
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import torch
import ultralytics
from ultralytics.utils.torch_utils import get_cpu_info

from .. import __version__
from ..errors import ConfigError, one_line
from ..files import sha256, write_atomic

METRIC = "mAP50-95"
REQUIRED = ("model", "seed", "recipe", METRIC, "mAP50", "classes", "curve", "parameters", "gflops", "minutes")


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


def write_table(table: Any, file: Path) -> None:
    """Write a table of pandas as CSV."""
    write_atomic(file, table.to_csv(index=False, lineterminator="\n"))


def read(file: Path, required: Sequence[str] = REQUIRED) -> dict[str, Any]:
    """Return a record of this version or an older one; raise ConfigError if the file has not the required keys."""
    with wrap_errors(f"{file} cannot be read as a record; move it away and run again"):
        record = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(record, dict) or any(key not in record for key in required):
        raise ConfigError(f"{file} is not a record of this command; choose another out=, or move it away")
    record.pop("sha256", None)  # versions before 0.3.0 added a checksum of the record itself
    return record


def run_name(model: str, seed: int, fold: int | None = None) -> str:
    """Return the name of a run's record."""
    return f"{model}-{seed}" + ("" if fold is None else f"-fold{fold}")


def model_of(record: Mapping[str, Any]) -> str:
    """Return what the model of a record is called; the key `arm` is that of the first releases."""
    return record.get("arm", Path(record["model"]).stem)


def read_runs(out: Path) -> dict[str, dict[str, Any]]:
    """Return the records of runs in a folder by their names; raise ConfigError if one has the name of another run."""
    found = {file.stem: read(file) for file in sorted(out.glob("*-*.json"))}
    for name, record in found.items():
        if name != (run := run_name(model_of(record), record["seed"], record.get("fold"))):
            raise ConfigError(f"{out / name}.json is the record of {run}; delete it to run {name}")
    return found


@contextlib.contextmanager
def wrap_errors(what: str) -> Iterator[None]:
    """Make one line of what a file, Ultralytics or torch reports about an option, with `what` in front."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as e:
        raise ConfigError(f"{what}: {one_line(e)}") from e


def writable(out: Path, name: str = "out") -> Path:
    """Make a folder for results and return it; raise ConfigError if it cannot be made or written."""
    with wrap_errors(f"{name}={out} cannot be written"):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return out


@contextlib.contextmanager
def claim(folder: Path, name: str = "out") -> Iterator[None]:
    """Hold a folder for this process, so that two commands never mix their results; raise ConfigError if it is held."""
    try:
        held = filelock.FileLock(writable(folder, name) / ".lock").acquire(timeout=0)
    except filelock.Timeout:
        raise ConfigError(f"{name}={folder} is in use by another process; wait for it, or choose another") from None
    with held:
        yield
