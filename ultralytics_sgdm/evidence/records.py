"""A run's record: a JSON file that is whole or not there, says under what it was made, and shows if it was edited."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
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
from ..configs import ConfigError
from ..data.files import locked, made

DIGEST = "sha256"  # key of a record's own checksum
REQUIRED = ("model", "seed", "recipe", "mAP50-95", "mAP50", "classes", "curve", "parameters", "gflops", "minutes")


def versions() -> dict[str, str]:
    """Return the versions on which figures depend."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ultralytics": ultralytics.__version__,
        "ultralytics_sgdm": __version__,
    }


def machine(device: str | None = None) -> dict[str, Any]:
    """Return what a run's speed depends on: processor, GPU and threads."""
    gpu = torch.cuda.is_available() and device != "cpu"
    return {
        "processor": get_cpu_info(),
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "threads": torch.get_num_threads(),
    }


def circumstances(command: str, device: str | None = None) -> dict[str, Any]:
    """Return the metadata of a record: versions, commit, machine, date and command."""
    return {
        "versions": versions(),
        "commit": commit(Path(__file__).parent),
        "machine": machine(device),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": command,
    }


def command() -> str:
    """Return the command line of this process, without the folder of its program."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


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


def commit(folder: Path) -> str | None:
    """Return the commit of the checkout that a folder is in, with `+` behind it if files differ; None outside one."""
    run = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def digest(content: Any) -> str:
    """Return the checksum of anything that JSON holds."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(file: Path) -> str:
    """Return the checksum of a file."""
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(f)


def _digest(f: Any) -> str:
    state = hashlib.sha256()
    while block := f.read(1 << 20):
        state.update(block)
    return state.hexdigest()


def keep(record: dict[str, Any], file: Path) -> None:
    """Write a record so that the file is whole or not there.

    Raises:
        ConfigError: If it cannot be written.
    """
    write(file, json.dumps({**record, DIGEST: digest(record)}, indent=1) + "\n")


def write(file: Path, content: str | bytes) -> None:
    """Write a file that is whole or as it was.

    Raises:
        ConfigError: If it cannot be written.
    """
    part = file.with_suffix(".part")
    try:
        part.write_bytes(content if isinstance(content, bytes) else content.encode())
        part.replace(file)
    except OSError as e:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise ConfigError(f"{file} cannot be written: {e.strerror or e}") from e


def read(file: Path, required: Sequence[str] = REQUIRED, of: str = "a comparison") -> dict[str, Any]:
    """Return a record.

    Args:
        file: The record.
        required: Keys that it has.
        of: What it is a record of, for messages.

    Raises:
        ConfigError: If the file is no record, is broken, or was edited.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ConfigError(f"{file} cannot be read as a record ({e}); move it away and run again") from e
    if not isinstance(record, dict) or any(key not in record for key in required):
        raise ConfigError(f"{file} is no record of {of}; choose another out=, or move it away")
    bound = DIGEST in record or "binding" in record  # else of 0.1.0, which kept no checksum
    if bound and record.pop(DIGEST, None) != digest(record):
        raise ConfigError(f"{file} was changed after it was written; delete it to run it again")
    return record


@contextlib.contextmanager
def claimed(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for this process; one that was made for it and holds nothing is gone afterwards.

    Raises:
        ConfigError: If another process holds it, or it cannot be written.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(made(folder))
            held.enter_context(locked(folder / ".lock", wait=False))
        except filelock.Timeout:
            raise ConfigError(f"{what}{folder} is in use by another process; wait for it, or choose another") from None
        except OSError as e:
            raise ConfigError(f"{what}{folder} cannot be written: {e.strerror or e}") from e
        yield
