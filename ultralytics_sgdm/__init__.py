"""RDConv and SGDM for Ultralytics YOLO. Importing this package makes model YAMLs that name them work."""

from . import compat, plugin, versions

try:
    from .configs import BASELINES
    from .nn import C3SGDM, SGDM, C2fSGDM, RDConv, register_layer, registered_layers, with_sgdm
    from .nn.registry import provide_layers
    from .nn.timm_names import ATTENTION
    from .placing.equip import equip
    from .placing.insert import insert
except ImportError as e:
    raise ImportError(f"{e}; ultralytics_sgdm was tested with {versions.TESTED}") from e

__version__ = "0.3.0"
__all__ = ("C3SGDM", "SGDM", "C2fSGDM", "RDConv", "equip", "insert", "register_layer", "registered_layers", "with_sgdm")

provide_layers(f"{__name__}.evidence.baselines", BASELINES.values())
provide_layers(f"{__name__}.nn.attention", ATTENTION)
compat.install()
plugin.install()
