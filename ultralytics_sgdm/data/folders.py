"""New folders that appear whole or not at all, and the files that are read and placed.

A folder is written under a name of its own beside its destination (`.NAME.part-XXXXXXXX`) and renamed when it is
complete. A killed process leaves at most such a folder, which no later run reads or needs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER

from ..errors import ConfigError

PLACING = ("hardlink", "copy", "symlink")
CHOICES = {
    "boxes": ("auto", "voc", "zero", "fraction"),
    "difficult": ("drop", "keep"),
    "val_difficult": ("drop", "keep"),
    "images": PLACING,
    "strict": (True, False),
}


def check_arguments(dest: Path, sources: Iterable[Path], **choices: Any) -> None:
    """Raise ConfigError unless `dest` can be written apart from the sources and each option has a value it may have."""
    for name, value in choices.items():
        if value not in CHOICES[name]:
            raise ConfigError(f"{name}={value} must be one of {', '.join(map(str, CHOICES[name]))}")
    for source in sources:
        if dest.is_relative_to(source):
            raise ConfigError(f"{dest} lies in the source {source}, which is only read; choose another folder")
    check_new(dest)


def check_new(dest: Path) -> None:
    """Raise ConfigError unless a folder can be written at `dest`, where nothing is yet, or an empty folder."""
    if os.path.lexists(dest) and not (dest.is_dir() and not any(dest.iterdir())):
        raise ConfigError(f"{dest} exists and is left as it is; name a new folder")
    if dest == Path.cwd() or os.path.ismount(dest):
        raise ConfigError(f"{dest} is the current directory or a mount point; name a new folder in it")
    above = next(folder for folder in dest.parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ConfigError(f"{dest} cannot be made: {above} is not a folder that you may write to")


@contextlib.contextmanager
def create_folder(dest: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `dest` that becomes `dest` if the block ends without an error."""
    check_new(dest)
    part = dest.with_name(f".{dest.name}.part-{secrets.token_hex(4)}")
    for left in dest.parent.glob(f".{dest.name}.part-*"):
        LOGGER.warning(f"{left} was left by a run that was killed, unless it still runs; you may delete it")
    try:
        with name_disk_errors(dest):
            part.mkdir(parents=True)
            yield part
            if dest.is_dir():
                dest.rmdir()  # it was empty, or else this fails
            part.rename(dest)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def name_disk_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the disk into a ConfigError that names the file, or else the folder."""
    try:
        yield
    except OSError as e:
        if e.errno is None:
            raise  # of a connection
        if e.errno in {errno.EEXIST, errno.ENOTEMPTY}:
            raise ConfigError(f"{folder} has appeared since this run began; name a new folder") from e
        raise ConfigError(f"{e.filename or folder}: {e.strerror}") from e


def place_file(source: Path, target: Path, how: str) -> None:
    """Make the new file `target` a hard link to `source`, a copy of it or a symbolic link: one of `PLACING`."""
    try:
        if how == "hardlink":
            os.link(os.path.realpath(source), target)  # link(2) would link to a symbolic link itself
        elif how == "symlink":
            target.symlink_to(source.absolute())
        else:
            shutil.copy2(source, target)
    except OSError as e:
        if how == "copy" or e.errno in {errno.ENOSPC, errno.EDQUOT, errno.ENOENT}:
            raise
        others = " or ".join(f"images={p}" for p in PLACING if p != how)
        raise ConfigError(f"cannot {how} {source} ({e.strerror}); use {others}") from e


def read_text(file: Path) -> str:
    """Read a text in UTF-8, with or without a byte-order mark, or raise ConfigError, which names the line."""
    with name_disk_errors(file):
        content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = content.count(b"\n", 0, e.start) + 1
        raise ConfigError(f"{file}:{line}: not UTF-8; save it as UTF-8") from e
