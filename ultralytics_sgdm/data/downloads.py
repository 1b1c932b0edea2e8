"""Archives from the net: fetched in as many runs as it takes, checked, and unpacked whole.

Ultralytics' own `safe_download` resumes only within one process and checks no checksum.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import requests
from ultralytics.utils import LOGGER, TQDM

from ..configs import ConfigError
from .files import locked, naming_disk_errors, require_space, write_file

CHUNK = 1 << 16  # bytes; a connection that breaks loses at most as much
TIMEOUT = (15, 60)  # seconds to connect, seconds without a byte
ATTEMPTS = 5  # in a row that brought nothing
PAUSE = 1.0  # seconds before the second attempt, doubled before each further one


class Archive(NamedTuple):
    """A tar or zip file on the net, with the published size in bytes and SHA-256 if there are such."""

    url: str
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


class _UnreachableError(Exception):
    """The server cannot be reached, or does not give the file."""


def obtain(archives: Sequence[Archive], folder: Path, root: Path | None = None, room: int = 0) -> list[Path]:
    """Return the files of archives, downloading those that are not there yet.

    Args:
        archives: What is needed.
        folder: Where downloads go and are looked for; also where checksums without a published value are recorded.
        root: Another folder to look in first; only read.
        room: Bytes that will be needed there beside the downloads.

    Returns:
        One checked file per archive, in the same order.

    Raises:
        ConfigError: If a file is damaged, if there is no room for the downloads, or if they cannot be had; then the
            message lists the files to fetch by other means.
    """
    found = {archive: file for archive in archives if (file := _find(archive, folder, root))}
    missing = [archive for archive in archives if archive not in found]
    if missing:
        with naming_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            require_space(folder, room + sum((a.size or 0) - _size(_part(a, folder)) for a in missing))
            for archive in missing:
                try:
                    found[archive] = download(archive, folder)
                except _UnreachableError as e:
                    raise ConfigError(_by_hand(e, missing[missing.index(archive) :], folder)) from e
    for archive in archives:
        if archive not in missing:
            try:
                check(archive, found[archive], folder)
            except ConfigError as e:
                raise ConfigError(f"{e}; remove the file and run this again") from e
    return [found[archive] for archive in archives]


def _find(archive: Archive, folder: Path, root: Path | None) -> Path | None:
    candidates = (place / archive.name for place in (root, folder) if place)
    return next((file for file in candidates if file.is_file()), None)


def _by_hand(reason: Exception, missing: Sequence[Archive], folder: Path) -> str:
    lines = [
        f"  {a.url}" + (f"  {a.size:,} bytes" if a.size else "") + (f"  SHA-256 {a.sha256}" if a.sha256 else "")
        for a in missing
    ]
    return "\n".join([f"{reason}. Run this again with a connection, or put these files into {folder}:", *lines])


def download(archive: Archive, folder: Path) -> Path:
    """Download an archive into an existing folder, going on where an earlier process was stopped, and check it.

    Raises:
        ConfigError: If what arrived is not the published file; it is removed then.
    """
    with locked(folder / f".{archive.name}.lock"):
        file = folder / archive.name
        if not file.is_file():
            part = _part(archive, folder)
            _complete(archive, part)
            try:
                check(archive, part, folder)
            except ConfigError as e:
                part.unlink()
                raise ConfigError(
                    f"{archive.url}: what came is not the file: {e}; it is removed, run this again"
                ) from e
            part.replace(file)
            _state(part).unlink(missing_ok=True)
        return file


def check(archive: Archive, file: Path, folder: Path) -> None:
    """Compare a file's size and SHA-256 with the published values, or else with those recorded when first seen.

    Args:
        archive: What the file should be.
        file: The file.
        folder: Where the checksum is recorded, in the format of sha256sum, if none is published.

    Raises:
        ConfigError: If they differ.
    """
    if archive.size is not None and file.stat().st_size != archive.size:
        raise ConfigError(f"{file} has {file.stat().st_size:,} bytes, published are {archive.size:,}")
    record = folder / f"{archive.name}.sha256"
    wanted, source = archive.sha256, "published"
    if wanted is None and record.is_file():
        wanted, source = record.read_text().split()[0], f"recorded in {record}"
    actual = _sha256(file)
    if wanted is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(record, f"{actual}  {archive.name}\n".encode())
    elif actual != wanted:
        raise ConfigError(f"{file} has the SHA-256 {actual}, {source} is {wanted}")


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as f, TQDM(total=_size(file), desc=f"Checking {file.name}", unit="B", unit_scale=True) as bar:
        while chunk := f.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _part(archive: Archive, folder: Path) -> Path:
    return folder / f"{archive.name}.part"


def _state(part: Path) -> Path:
    """Return the file that tells which version of the server's file a part belongs to."""
    return part.with_name(f"{part.name}.json")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _complete(archive: Archive, part: Path) -> None:
    """Download until the part is whole, as long as the attempts bring something."""
    first, fruitless = _size(part), 0
    while True:
        before = _size(part)
        try:
            if _request(archive, part):
                return
            error: Exception = ConnectionError(f"the connection ended after {_size(part):,} bytes")
        except requests.RequestException as e:
            error = e
        fruitless = 0 if _size(part) > before else fruitless + 1
        status = getattr(getattr(error, "response", None), "status_code", 500)
        is_offline = isinstance(error, requests.ConnectionError) and _size(part) == first
        if fruitless == ATTEMPTS or status < 500 or is_offline:
            raise _UnreachableError(f"cannot download {archive.url} ({error})") from error
        LOGGER.warning(f"{archive.name}: {error}; trying again")
        time.sleep(PAUSE * 2**fruitless)


def _request(archive: Archive, part: Path) -> bool:
    """Ask for what is missing of a part and return whether it is whole now."""
    state = json.loads(_state(part).read_text()) if part.exists() and _state(part).exists() else {}
    have = _size(part) if state.get("version") else 0  # without a version, nothing tells whether the rest fits
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": state["version"]}
    with requests.get(archive.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416 and have == state["size"]:
            return True
        if response.status_code == 416:
            part.unlink()
            return False
        response.raise_for_status()
        if response.status_code != 206:
            have = 0
            tag = response.headers.get("ETag", "")
            version = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
            state = {"version": version, "size": int(response.headers.get("Content-Length", 0)) or archive.size}
            part.unlink(missing_ok=True)
            write_file(_state(part), json.dumps(state).encode())
            require_space(part.parent, state["size"] or 0)
        with (
            part.open("ab") as f,
            TQDM(total=state["size"], initial=have, desc=archive.name, unit="B", unit_scale=True) as bar,
        ):
            for chunk in response.iter_content(CHUNK):
                f.write(chunk)
                f.flush()  # what was received is in the file when the process is killed
                bar.update(len(chunk))
    return state["size"] is None or _size(part) >= state["size"]


def unpack(archive: Path, folder: Path, wanted: str) -> Path:
    """Unpack the members of a tar or zip file that are wanted; the folder appears when all of them are there.

    Args:
        archive: The file; only read.
        folder: Where they go, under their own names.
        wanted: Pattern that their whole names match; what is no plain file or leads out is never written.

    Returns:
        `folder`.

    Raises:
        ConfigError: If the archive is unreadable or has nothing that is wanted, or if there is no room.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with naming_disk_errors(folder), locked(folder.with_name(f".{folder.name}.lock")):
        if folder.is_dir():
            return folder
        partial = folder.with_name(f"{folder.name}.partial")
        partial.mkdir(exist_ok=True)
        try:
            with _members(archive, re.compile(wanted)) as members:
                if not members:
                    raise ConfigError(f"{archive} has no files {wanted}; it is not the archive of that name")
                absent = [m for m in members if _size(partial / m.name) != m.size]
                require_space(partial, sum(m.size for m in absent))
                for member in TQDM(absent, desc=f"Unpacking {archive.name}"):
                    _write_member(partial / member.name, member)
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as e:
            raise ConfigError(
                f"{archive} is unreadable ({str(e).partition(':')[0]}); remove it and run this again"
            ) from e
        partial.rename(folder)
    return folder


class _Member(NamedTuple):
    name: str
    size: int
    open: Callable[[], IO[bytes]]


@contextlib.contextmanager
def _members(archive: Path, wanted: re.Pattern) -> Iterator[list[_Member]]:
    def is_wanted(name: str) -> bool:
        return wanted.fullmatch(name) is not None and ".." not in name.split("/")

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as z:
            infos = [i for i in z.infolist() if is_wanted(i.filename) and not i.is_dir()]
            yield [_Member(i.filename, i.file_size, functools.partial(z.open, i)) for i in infos]
    else:
        with tarfile.open(archive) as t:
            files = [i for i in t if is_wanted(i.name) and i.isfile()]
            yield [_Member(i.name, i.size, functools.partial(_opened, t, i)) for i in files]


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(member)
    if content is None:
        raise OSError(f"{member.name} is no file")
    return content


def _write_member(file: Path, member: _Member) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    with member.open() as source, part.open("wb") as target:
        shutil.copyfileobj(source, target, CHUNK)
    part.replace(file)
