"""A folder goes from one complete set to another, and what the user has changed in it is kept.

A set changes only in this order: what is to be written is entered in written.sha256, data.yaml and the lists go, the
labels and images change, data.yaml and the lists come back. So at every moment there is the old set, the new, or none.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from ultralytics.utils import TQDM

from ..configs import ConfigError
from .files import PART, has_content, place_file, write_file

RECORD = "conversion.json"
WRITTEN = "written.sha256"
DATASET_YAML = "data.yaml"
SHOWN = 20  # lines of a kind that are printed


def update_set(dest: Path, texts: Mapping[str, bytes], images: Sequence[tuple[Path, Path, str]], begun: bytes) -> None:
    """Bring a folder from one complete set to another, visibly incomplete in between.

    Args:
        dest: The folder.
        texts: Contents by path in the folder, in the order in which they are to appear: labels, record, YAML, lists.
        images: What is to be placed where and how.
        begun: The record of an incomplete set.

    Raises:
        ConfigError: If a file would be overwritten that the user has changed or put there; nothing is changed then.
    """
    known = read_written(dest)
    changed = [path for path, content in texts.items() if not has_content(dest / path, content)]
    foreign = [path for path in changed if _is_foreign(dest / path, known[path])]
    if foreign:
        raise ConfigError(
            f"{dest}: {', '.join(shorten(foreign))} would be overwritten, and was changed since it was written or is "
            "not ours; delete it to have it written anew, or choose another folder"
        )
    final = {path: {_digest(content)} for path, content in texts.items()}
    if changed or images:
        if not (dest / RECORD).is_file():
            write_file(dest / RECORD, begun)
        both = {path: known[path] | final[path] for path in changed} | {RECORD: known[RECORD] | {_digest(begun)}}
        _write_written(dest, known | both)
        if not os.path.lexists(dest / DATASET_YAML):
            for part in dest.rglob(f"*{PART}"):  # of a killed run, perhaps for an image that has left the source
                part.unlink()
        marks = list(texts)[list(texts).index(RECORD) :]
        for path in (DATASET_YAML, *reversed(marks[2:])):
            (dest / path).unlink(missing_ok=True)
        write_file(dest / RECORD, begun)
        for folder in {(dest / path).parent for path in changed} | {target.parent for _, target, _ in images}:
            folder.mkdir(parents=True, exist_ok=True)
        for source, target, how in TQDM(images, desc="Placing images"):
            place_file(source, target, how)
        for path in TQDM([*(p for p in changed if p not in marks), *marks], desc="Writing labels"):
            write_file(dest / path, texts[path])
    _write_written(dest, known | final)


def _is_foreign(file: Path, digests: Set[str]) -> bool:
    """Whether another file than one of these stands there; a record of an earlier version has no checksum."""
    if not os.path.lexists(file) or (file.name == RECORD and not digests):
        return False
    return not file.is_file() or _digest(file.read_bytes()) not in digests


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_written(dest: Path) -> dict[str, Set[str]]:
    """Return the checksums that each text of ours may have by its path; during a change the old and the new one."""
    known: dict[str, Set[str]] = defaultdict(frozenset)
    if (dest / WRITTEN).is_file():
        for line in (dest / WRITTEN).read_text(encoding="utf-8", errors="replace").splitlines():
            digest, _, path = line.partition("  ")
            known[path] |= {digest}
    return known


def _write_written(dest: Path, known: Mapping[str, Set[str]]) -> None:
    lines = (f"{digest}  {path}\n" for path, digests in known.items() for digest in sorted(digests))
    write_file(dest / WRITTEN, "".join(lines).encode())


def shorten(lines: Sequence[str]) -> list[str]:
    """Return as many lines as are printed, and how many more there are."""
    rest = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"and {rest} more"] if rest > 0 else [])]
