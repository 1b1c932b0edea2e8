"""The only place that touches Ultralytics' internals: a seam a file, each opening with the fact that it rests on."""

from __future__ import annotations

import ultralytics
from ultralytics.utils import LOGGER

from .. import versions
from . import export, freezing, names, parser, transfer, workers

SEAMS = (parser, names, workers, transfer, freezing, export)
_warned: set[str] = set()


def install() -> None:
    """Make Ultralytics parse, find, load and distribute models with registered layers; again is the same as once.

    Stock models stay usable whatever the installed version: a seam that does not fit it is left out, and one warning
    names what is missing and the versions that were tested.
    """
    missing = []
    for seam in SEAMS:
        try:
            seam.install()
        except Exception as e:
            missing.append(f"{seam.FEATURE} ({type(e).__name__}: {e})")
            if seam is parser:
                parser.refuse()
    _warn(missing)


def _warn(missing: list[str]) -> None:
    version = ultralytics.__version__
    if not missing and versions.is_tested(version):
        return
    what = f": {'; '.join(missing)}" if missing else ""
    text = f"ultralytics_sgdm was tested with {versions.TESTED}, this is {version}{what}"
    if text not in _warned:
        _warned.add(text)
        LOGGER.warning(text)
