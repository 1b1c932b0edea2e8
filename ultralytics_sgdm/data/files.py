"""Files that appear whole: whoever is killed in the middle leaves at most a `.part` behind."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..configs import ConfigError

PLACING = ("hardlink", "copy", "symlink")


def write_file(path: Path, content: bytes) -> None:
    """Write a file unless it already has this content."""
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def place_file(source: Path, target: Path, how: str = "hardlink") -> None:
    """Make `target` the same file as `source`, which is only read; nothing is done where it is already.

    Args:
        source: An existing file.
        target: Where it shall stand; its folder exists. Another file there is replaced.
        how: One of `PLACING`.

    Raises:
        ConfigError: If the file system has no such links, or none between the two places.
    """
    if _is_placed(source, target, how):
        return
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        if how == "hardlink":
            os.link(os.path.realpath(source), part)  # link(2) would link to a symbolic link itself
        elif how == "symlink":
            part.symlink_to(source.absolute())
        else:
            shutil.copy2(source, part)
    except OSError as e:
        if how == "copy" or e.errno in {errno.ENOSPC, errno.EDQUOT, errno.ENOENT}:
            raise
        others = " or ".join(f"images={p}" for p in PLACING if p != how)
        raise ConfigError(f"cannot {how} {source} to {target.parent} ({e.strerror}); use {others}") from e
    part.replace(target)


def _is_placed(source: Path, target: Path, how: str) -> bool:
    try:
        there = target.lstat()
    except FileNotFoundError:
        return False
    if how == "symlink" and target.is_symlink():
        return target.readlink() == source.absolute()
    here = source.stat()
    if os.path.samestat(here, there):
        return True
    return how == "copy" and (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)


def require_space(folder: Path, needed: int) -> None:
    """Raise ConfigError unless the disk of an existing folder has room for `needed` more bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(f"{folder}: {needed / 1e9:.2f} GB are needed there, {free / 1e9:.2f} GB are free")


@contextlib.contextmanager
def naming_disk_errors(folder: Path) -> Iterator[None]:
    """Turn the error of a disk that is full or not ours to write on into one that says what to do."""
    try:
        yield
    except OSError as e:
        if e.errno in {errno.ENOSPC, errno.EDQUOT}:
            fix = "the disk is full. Make room and run the same command again: it goes on where it stopped"
        elif e.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            fix = f"cannot write there ({e.strerror}: {e.filename}); choose another folder"
        else:
            raise
        raise ConfigError(f"{folder}: {fix}") from e
