"""Layers of the project; importing this package registers them."""

import torch

from .csp import C3SGDM, C2fSGDM, with_sgdm
from .dynamic import ChannelBranch, SpatialBranch, mix
from .rdconv import RDConv
from .registry import register_layer, registered_layers
from .sgdm import SGDM

torch.serialization.add_safe_globals([ChannelBranch, SpatialBranch])  # inside the layers, for ULTRALYTICS_SAFE_LOAD

__all__ = (
    "C3SGDM",
    "SGDM",
    "C2fSGDM",
    "ChannelBranch",
    "RDConv",
    "SpatialBranch",
    "mix",
    "register_layer",
    "registered_layers",
    "with_sgdm",
)
