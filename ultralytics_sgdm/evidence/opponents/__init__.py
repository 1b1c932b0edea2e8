"""What SGDM is compared with: five published modules and the ablations of SGDM itself, as registered layers.

`yolov8n-cbam.yaml` and the like are equipped when they are loaded, as `yolov8n-sgdm.yaml` is, and a row of a YAML, or
a `module=`, that names one of these layers registers it. They need the extra `compare`.
"""

from __future__ import annotations

from torch import nn

from ...errors import import_extra as extra

NAMES = {
    "cbam": "cbam.TimmCBAM",
    "ca": "coord_attention.CoordAttention",
    "condconv": "condconv.ResidualCondConv",
    "odconv": "odconv.ResidualODConv",
    "rfaconv": "rfaconv.ResidualRFAConv",
    "sgdm-static": "ablations.SGDMStatic",
    "sgdm-no-spatial": "ablations.SGDMNoSpatial",
    "sgdm-no-channel": "ablations.SGDMNoChannel",
    "sgdm-free": "ablations.SGDMFree",
    "sgdm-short": "ablations.SGDMShort",
}


def register(cls: str) -> bool:
    """Register an opponent or ablation by the name of its class, and return whether there is one of that name.

    Raises:
        ConfigError: As `layer` does.
    """
    found = next((name for name, path in NAMES.items() if path.rpartition(".")[2] == cls), None)
    return found is not None and bool(layer(found))


def layer(name: str) -> type[nn.Module]:
    """Return the layer of an opponent or ablation, and register it.

    Args:
        name: One of `NAMES`.

    Raises:
        ConfigError: If the extra `compare` is not installed.
    """
    module, _, cls = NAMES[name].rpartition(".")
    return getattr(extra(f"{__name__}.{module}", "compare"), cls)
