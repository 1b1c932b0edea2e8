"""The range of Ultralytics versions that the tests were run with.

`setup.py` reads its lower bound, `scripts/check_versions.py` tries both ends.
"""

from __future__ import annotations

import re

OLDEST, NEWEST = "8.4.140", "8.4.190"
TESTED = f"Ultralytics {OLDEST} to {NEWEST}"


def is_tested(version: str) -> bool:
    """Return whether a version of Ultralytics lies in the tested range; its suffix (`.dev0`, `rc1`) does not count."""
    return _numbers(OLDEST) <= _numbers(version) <= _numbers(NEWEST)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])
