"""Archives from the web: downloaded in as many runs as it takes, checked, and unpacked whole.

Ultralytics' own `safe_download` resumes only within one process and checks no checksum.
"""

from __future__ import annotations

import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import requests
from ultralytics.utils import LOGGER, TQDM

from ..errors import ConfigError
from ..files import sha256
from .folders import create_folder

CHUNK = 1 << 16  # bytes; a connection that breaks loses at most as much
TIMEOUT = (15, 60)  # seconds to connect, seconds without a byte
ATTEMPTS = 5  # in a row that brought nothing
PAUSE = 1.0  # seconds before the second attempt, doubled before each further one


def download(url: str, size: int, digest: str, file: Path) -> Path:
    """Download a file from where an earlier run was stopped, and return it once it is whole and has this SHA-256."""
    part = file.with_name(f"{file.name}.part")
    failures = 0
    while (have := part.stat().st_size if part.exists() else 0) < size:
        try:
            _append(url, size, part, have)
        except requests.RequestException as e:
            failures = 0 if part.exists() and part.stat().st_size > have else failures + 1
            is_offline = isinstance(e, requests.ConnectionError) and not part.exists()
            if failures == ATTEMPTS or is_offline or getattr(e.response, "status_code", 500) < 500:
                raise
            LOGGER.warning(f"{file.name}: {e}; trying again")
            time.sleep(PAUSE * 2**failures)
    try:
        check_file(part, size, digest)
    except ConfigError:
        part.unlink()
        raise
    return part.replace(file)


def _append(url: str, size: int, part: Path, have: int) -> None:
    """Append what a file lacks after `have` bytes; what was received is in it when the process is killed."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        have *= response.status_code == 206  # else the server sends everything
        bar = TQDM(total=size, initial=have, desc=part.stem, unit="B", unit_scale=True)
        with part.open("ab" if have else "wb", buffering=0) as file, bar:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))


def check_file(file: Path, size: int, digest: str) -> None:
    """Raise ConfigError unless a file has the published size and SHA-256."""
    LOGGER.info(f"Checking {file}")
    if file.stat().st_size != size or sha256(file) != digest:
        published = f"the published file of {size:,} bytes and SHA-256 {digest}"
        raise ConfigError(f"{file} is not {published}; run this again without it")


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a tar or zip file into a folder that appears when all is in it, unless it is there, and return it."""
    if not folder.is_dir():
        LOGGER.info(f"Unpacking {archive}")
        safe: Any = {"filter": "data"} if archive.suffix == ".tar" and hasattr(tarfile, "data_filter") else {}
        with create_folder(folder) as part:
            try:
                shutil.unpack_archive(archive, part, **safe)
            except (tarfile.TarError, shutil.ReadError, ValueError, EOFError) as e:
                raise ConfigError(f"{archive} cannot be unpacked ({e}); run this again without it") from e
    return folder
