"""The only place that touches Ultralytics' internals: a seam a file, each opening with the fact that it rests on."""

from __future__ import annotations

import importlib
from contextlib import suppress

import ultralytics
from ultralytics.utils import LOGGER

from .. import versions

SEAMS = {  # in the order of their need, each with what is so without it
    "parser": "models with registered layers (RDConv, SGDM, ...) are refused",
    "names": "shipped YAMLs are not found by their names, and mistakes in a YAML get no explanation",
    "workers": "multi-GPU training and tuning do not know registered layers",
    "transfer": "pretrained weights do not follow inserted rows",
    "freezing": "freeze=stock is refused",
    "export": "half-precision ONNX files are not put in order, and onnx.checker refuses them",
}
UNSAFE = {"parser": "refuse_models", "freezing": "refuse_freezing"}  # seams whose loss must not pass in silence
_warned: set[str] = set()


def install() -> None:
    """Make Ultralytics parse, find, load and distribute models with registered layers; again is the same as once.

    Stock models stay usable whatever the installed version: a seam that does not fit it is left out, and one warning
    names what is missing and the versions that were tested; what would do another thing than asked is refused.
    """
    missing = []
    for name, without in SEAMS.items():
        try:
            seam = importlib.import_module(f"{__name__}.{name}")
            seam.install()
        except Exception as e:
            why = f"{type(e).__name__}: {e}"
            missing.append(f"{without} ({why})")
            if name in UNSAFE:
                with suppress(ImportError):  # no trainer is there that could do harm
                    getattr(importlib.import_module(f"{__name__}.refusal"), UNSAFE[name])(why)
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
