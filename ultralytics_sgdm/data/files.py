"""Locks of `evidence.records`: not used by `data`, and to go with the next version of that module."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from ..errors import ConfigError


@contextlib.contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder if it is not there; one that was made, and holds nothing afterwards, is gone then."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if new:
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()


@contextlib.contextmanager
def locked(file: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of this name; its file is gone afterwards.

    Raises:
        ConfigError: If a file of that name has content, which a lock has not.
        filelock.Timeout: If another process holds it and this one shall not wait.
    """
    while True:
        seen = os.open(file, os.O_RDWR | os.O_CREAT)
        if os.fstat(seen).st_size:
            os.close(seen)
            raise ConfigError(f"{file} is not ours and would be removed; choose another folder")
        lock = FileLock(file)
        try:
            lock.acquire(blocking=wait)
            live = os.path.samestat(os.fstat(seen), file.stat())  # else the holder removed what we waited for
        except FileNotFoundError:
            live = False
        finally:
            os.close(seen)
        if live:
            break
        lock.release()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            file.unlink()
        lock.release()
