"""Half-precision ONNX files are valid.

The fact: on the CPU, `Exporter.export_onnx` makes half precision by ONNX Runtime's converter, which leaves the Cast of
the input behind nodes that use it. ONNX Runtime runs such a file, but it is not valid ONNX, and onnx.checker and other
readers refuse it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ultralytics.engine.exporter import Exporter

from .patching import wrap


def install() -> None:
    """Put the nodes of a half-precision ONNX export in the order of their use."""
    wrap(Exporter, "export_onnx", _in_order)


def _in_order(export_onnx: Callable) -> Callable:
    def export(self: Exporter, *args: Any, **kwargs: Any) -> Any:
        file = export_onnx(self, *args, **kwargs)
        if self.args.format == "onnx" and getattr(self.args, "quantize", None) == 16 and self.device.type == "cpu":
            import onnx
            from onnxruntime.transformers.onnx_model import OnnxModel

            model = onnx.load(file)
            OnnxModel(model).topological_sort()
            onnx.save(model, file)
        return file

    return export
