"""Stock blocks with an SGDM behind them, one row of the YAML: `C2fSGDM, [256, True, {ratio: 3}]`.

The inner names of the stock block stay (`cv1`, `cv2`, `m`, ...), so stock weights transfer to the last tensor, and
SGDM starts as the identity, so the first forward gives the stock outputs.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from ultralytics.nn.modules import (
    C2,
    C2PSA,
    C3,
    A2C2f,
    C2f,
    C2fCIB,
    C3Ghost,
    C3k2,
    HGBlock,
    RepC3,
    RepNCSPELAN4,
)

from ..errors import did_you_mean
from .registry import register_layer
from .sgdm import SGDM

OPTIONS = tuple(inspect.signature(SGDM).parameters)[2:]  # SGDM's arguments except c1, c2


def with_sgdm(block: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass of `block` that runs an SGDM behind it, named as the block with `SGDM` appended.

    A mapping among the positional arguments holds SGDM's own options: `C2fSGDM(64, 64, 1, True, {"ratio": 3})`. It
    may stand anywhere, because the parser inserts or appends arguments for some blocks and scales. Bind the class to
    its own name (`C2fSGDM = with_sgdm(C2f)`) at the top of a module, so that checkpoints can find it.

    Args:
        block: A layer with an argument `c2`, its output channels.

    Raises:
        TypeError: If `block` has no argument `c2`.
    """
    name = f"{block.__name__}SGDM"
    signature = inspect.signature(block)
    if "c2" not in signature.parameters:
        raise TypeError(f"with_sgdm needs a block with an argument c2 (its output channels), not {block.__name__}")

    class Block(block):
        __doc__ = f"""{block.__name__} with an SGDM behind it, which takes its options {OPTIONS} from a mapping.

        Raises:
            ValueError: If the mapping holds an unknown option or one that SGDM refuses.
        """

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            options = {k: v for a in args if isinstance(a, Mapping) for k, v in a.items()}
            args = tuple(a for a in args if not isinstance(a, Mapping))
            for key in options.keys() - OPTIONS:
                hint = did_you_mean(key, OPTIONS)
                raise ValueError(f"{name} has no option {key!r}, its options are {', '.join(OPTIONS)}{hint}")
            super().__init__(*args, **kwargs)
            c2 = signature.bind(*args, **kwargs).arguments["c2"]
            self.sgdm = SGDM(c2, c2, **options)

        def forward(self, x: Tensor) -> Tensor:
            """Map (B, c1, H, W) to (B, c2, H', W') as the stock block does, then through the SGDM."""
            return self.sgdm(super().forward(x))

        if hasattr(block, "forward_split"):  # what Ultralytics' exporter runs in place of forward

            def forward_split(self, x: Tensor) -> Tensor:
                """As `forward`, with `split` in place of `chunk` inside the stock block."""
                return self.sgdm(super().forward_split(x))

    Block.row_options = f"{{{', '.join(f'{option}: ...' for option in OPTIONS)}}}"
    Block.__name__ = Block.__qualname__ = name
    Block.__module__ = sys._getframe(1).f_globals["__name__"]
    options = inspect.Parameter("options", inspect.Parameter.VAR_POSITIONAL)
    Block.__signature__ = signature.replace(parameters=[*signature.parameters.values(), options])
    return Block


C2fSGDM = register_layer(with_sgdm(C2f), like=C2f)
C2SGDM = register_layer(with_sgdm(C2), like=C2)
C3SGDM = register_layer(with_sgdm(C3), like=C3)
C3k2SGDM = register_layer(with_sgdm(C3k2), like=C3k2)
C3GhostSGDM = register_layer(with_sgdm(C3Ghost), like=C3Ghost)
C2fCIBSGDM = register_layer(with_sgdm(C2fCIB), like=C2fCIB)
C2PSASGDM = register_layer(with_sgdm(C2PSA), like=C2PSA)
A2C2fSGDM = register_layer(with_sgdm(A2C2f), like=A2C2f)
RepC3SGDM = register_layer(with_sgdm(RepC3), like=RepC3)
RepNCSPELAN4SGDM = register_layer(with_sgdm(RepNCSPELAN4), like=RepNCSPELAN4)
HGBlockSGDM = register_layer(with_sgdm(HGBlock), like=HGBlock)
