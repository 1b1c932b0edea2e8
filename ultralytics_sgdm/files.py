"""Files that are written whole or not at all, and their checksums."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from .errors import wrap_errors


def write_atomic(file: Path, content: str | bytes) -> None:
    """Write a file beside its destination and rename it, so that readers see the old content or the new.

    Raises:
        ConfigError: If it cannot be written; what was there before is untouched.
    """
    part = file.with_name(f"{file.name}.part")
    with wrap_errors(f"{file} cannot be written"):
        try:
            part.write_bytes(content if isinstance(content, bytes) else content.encode())
            part.replace(file)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def sha256(content: Path | bytes | str) -> str:
    """Return the SHA-256 of a file, or of bytes or text, in hexadecimal."""
    if not isinstance(content, Path):
        return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()
    state = hashlib.sha256()
    with content.open("rb") as f:
        while block := f.read(1 << 20):
            state.update(block)
    return state.hexdigest()
