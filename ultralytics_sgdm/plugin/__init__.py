"""The only place that touches Ultralytics' internals: one patch per module.

Each module's docstring states the Ultralytics behaviour that it relies on. A patch acts only on models that hold a
registered layer and on names of this package; tests/plugin/test_patches.py lists every attribute that differs.
"""

from __future__ import annotations

import importlib

import ultralytics
from ultralytics.utils import LOGGER

from .. import versions

PATCHES = {  # in dependency order; value: what breaks if the patch cannot be applied
    "parser": "models with registered layers (RDConv, SGDM, ...) cannot be built",
    "names": "YAMLs of this package are not found by their names",
    "workers": "multi-GPU training and tuning do not know registered layers",
    "loading": "pretrained weights do not follow inserted rows",
    "freezing": "freeze=stock freezes nothing",
    "export": "half-precision ONNX files are not sorted topologically, and onnx.checker rejects them",
}
_warned: set[str] = set()


def install() -> None:
    """Make Ultralytics parse, find, load and distribute models with registered layers; calling it again is harmless.

    A patch that does not fit the installed version is left out, and one warning names what breaks and the versions that
    were tested; stock models stay usable.
    """
    missing = []
    for name, without in PATCHES.items():
        try:
            importlib.import_module(f"{__name__}.{name}").install()
        except Exception as e:
            missing.append(f"{without} ({type(e).__name__}: {e})")
    version = ultralytics.__version__
    if missing or not versions.is_tested(version):
        what = f": {'; '.join(missing)}" if missing else ""
        text = f"ultralytics_sgdm was tested with {versions.TESTED}, this is {version}{what}"
        if text not in _warned:
            _warned.add(text)
            LOGGER.warning(text)
