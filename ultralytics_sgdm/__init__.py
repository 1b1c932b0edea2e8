"""RDConv and SGDM for Ultralytics YOLO. Importing this package makes model YAMLs that name them work."""

from . import plugin, versions

try:
    from .equipment import equip
    from .insertion import insert
    from .nn import C3SGDM, SGDM, C2fSGDM, RDConv, register_layer, registered_layers, with_sgdm
except ImportError as e:
    raise ImportError(f"{e}; ultralytics_sgdm was tested with {versions.TESTED}") from e

__version__ = "0.2.0"
__all__ = ("C3SGDM", "SGDM", "C2fSGDM", "RDConv", "equip", "insert", "register_layer", "registered_layers", "with_sgdm")

plugin.install()
