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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import torch
import ultralytics
from ultralytics.utils.torch_utils import get_cpu_info

from .. import __version__
from ..errors import ConfigError
from ..files import sha256, write_atomic

REQUIRED = ("model", "seed", "recipe", "mAP50-95", "mAP50", "classes", "curve", "parameters", "gflops", "minutes")


def versions() -> dict[str, str]:
    """Return the versions on which figures depend."""
    ours = {"ultralytics": ultralytics.__version__, "ultralytics_sgdm": __version__}
    return {"python": platform.python_version(), "torch": torch.__version__, **ours}


def describe_run(command: str, device: str | None = None) -> dict[str, Any]:
    """Return the metadata of a record: versions, commit, machine, date and command."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # not a checkout
        commit = None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() and device != "cpu" else None
    return {
        "versions": versions(),
        "commit": commit,
        "machine": {"processor": get_cpu_info(), "gpu": gpu, "threads": torch.get_num_threads()},
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": command,
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


def read(file: Path, required: Sequence[str] = REQUIRED) -> dict[str, Any]:
    """Return a record of this version or an older one that has the required keys.

    Raises:
        ConfigError: If the file is not such a record.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ConfigError(f"{file} cannot be read as a record ({e}); move it away and run again") from e
    if not isinstance(record, dict) or any(key not in record for key in required):
        raise ConfigError(f"{file} is not a record of this command; choose another out=, or move it away")
    record.pop("sha256", None)  # versions before 0.3.0 added a checksum of the record itself
    return record


def writable(out: Path, name: str = "out") -> Path:
    """Make a folder for results and return it.

    Raises:
        ConfigError: If it cannot be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return out
    except OSError as e:
        raise ConfigError(f"{name}={out} cannot be written: {e.strerror or e}") from e


@contextlib.contextmanager
def claim(folder: Path, name: str = "out") -> Iterator[None]:
    """Hold a folder for this process, so that two commands never mix their results.

    Raises:
        ConfigError: If another process holds it, or it cannot be written.
    """
    try:
        held = filelock.FileLock(writable(folder, name) / ".lock").acquire(timeout=0)
    except filelock.Timeout:
        raise ConfigError(f"{name}={folder} is in use by another process; wait for it, or choose another") from None
    with held:
        yield
