"""Files that appear whole: whoever is killed in the middle leaves at most a file of a name that only we give."""

from __future__ import annotations

import codecs
import contextlib
import errno
import filecmp
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from ..configs import ConfigError

PLACING = ("hardlink", "copy", "symlink")
PART = ".sgdm-part"  # ends the name of a file that is being written; what is called so is ours, and may be removed


def read_text(file: Path) -> str:
    """Read a text that the user wrote, in UTF-8 with or without a byte-order mark.

    Raises:
        ConfigError: If there is no such file, or if it is in another encoding; the message names the line.
    """
    try:
        content = file.read_bytes()
    except OSError as e:
        raise ConfigError(f"{file}: {e.strerror}") from e
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{file} is in UTF-16; save it as UTF-8")
    nul = content.find(b"\0")
    if nul >= 0:
        raise ConfigError(f"{file}:{content.count(10, 0, nul) + 1}: a NUL byte; save it as text in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ConfigError(f"{file}:{e.object.count(10, 0, e.start) + 1}: not UTF-8; save it as UTF-8") from e


def has_content(path: Path, content: bytes) -> bool:
    """Whether a file is there with this content."""
    return path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content


def write_file(path: Path, content: bytes) -> None:
    """Write a file unless it already has this content."""
    if has_content(path, content):
        return
    part = path.with_name(f"{path.name}{PART}")
    part.unlink(missing_ok=True)  # perhaps a link, which a killed process left
    part.write_bytes(content)
    part.replace(path)


def place_file(source: Path, target: Path, how: str = "hardlink") -> None:
    """Make `target` the same file as `source`, which is only read; nothing is done where it is already.

    Args:
        source: An existing file.
        target: Where it shall stand; its folder exists.
        how: One of `PLACING`.

    Raises:
        ConfigError: If the file system has no such links, or none between the two places; or as `needs_placing`.
    """
    if not needs_placing(source, target, how):
        return
    part = target.with_name(f"{target.name}{PART}")
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


def needs_placing(source: Path, target: Path, how: str) -> bool:
    """Whether `place_file` has something to do.

    Raises:
        ConfigError: If a file with another content stands there, which may be the only one of its kind.
    """
    try:
        there = target.lstat()
    except FileNotFoundError:
        return True
    if target.is_symlink():
        return how != "symlink" or target.readlink() != source.absolute()
    here = source.stat()
    same = os.path.samestat(here, there)
    if how == "hardlink" and same:
        return False
    if how == "copy" and not same and (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns):
        return False
    if not same and not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
        raise ConfigError(
            f"{target} is not what {source} is: one of them was changed; delete the first and run this again"
        )
    return True


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


def require_space(folder: Path, needed: int) -> None:
    """Raise ConfigError unless the disk of an existing folder has room for `needed` more bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(f"{folder}: {_amount(needed)} are needed there, {_amount(free)} are free")


def _amount(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@contextlib.contextmanager
def naming_disk_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the disk into one that says what to do; what lies elsewhere than in `folder` is a source."""
    try:
        yield
    except OSError as e:
        again = "run the same command again: it goes on where it stopped"
        names = [Path(os.fsdecode(name)) for name in (e.filename, e.filename2) if isinstance(name, (str, bytes))]
        source = next((n for n in names if not n.is_relative_to(folder) and not folder.is_relative_to(n.parent)), None)
        if e.errno is None:
            raise
        if e.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise ConfigError(f"{folder}: the disk is full. Make room and {again}") from e
        if source is not None and len(names) > 1:  # while one was copied to the other
            raise ConfigError(
                f"{source}: not copied to {folder} ({e.strerror}). Look at both disks, and {again}"
            ) from e
        if source is not None:
            raise ConfigError(f"{source}: cannot be read ({e.strerror}). Make it readable and {again}") from e
        reason = f"{e.strerror}: {e.filename}" if names else str(e.strerror)
        if e.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            reason = f"cannot write there ({reason})"
        raise ConfigError(f"{folder}: {reason}; choose another folder") from e
