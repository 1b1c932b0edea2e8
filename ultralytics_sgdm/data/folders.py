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
from collections.abc import Iterator
from pathlib import Path

from ultralytics.utils import LOGGER

from ..errors import ConfigError

PLACING = ("hardlink", "copy", "symlink")


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
def new_folder(dest: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `dest` that becomes `dest` if the block ends without an error.

    Raises:
        ConfigError: If something is at `dest`, also if it appeared there meanwhile, or for an error of the disk.
    """
    check_new(dest)
    part = dest.with_name(f".{dest.name}.part-{secrets.token_hex(4)}")
    for left in dest.parent.glob(f".{dest.name}.part-*"):
        LOGGER.warning(f"{left} was left by a run that was killed, unless it still runs; you may delete it")
    try:
        with naming_disk_errors(dest):
            part.mkdir(parents=True)
            yield part
            if os.name == "nt" and dest.is_dir():
                dest.rmdir()  # elsewhere a rename replaces an empty folder, and only that
            part.rename(dest)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def naming_disk_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the disk into a ConfigError that names the file, or else the folder."""
    try:
        yield
    except OSError as e:
        if e.errno is None:
            raise
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
    with naming_disk_errors(file):
        content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        place = content.find(b"\0")  # as in UTF-16 without a mark
    except UnicodeDecodeError as e:
        place = e.start
    if place >= 0:
        raise ConfigError(f"{file}:{content.count(10, 0, place) + 1}: not UTF-8; save it as UTF-8")
    return text
