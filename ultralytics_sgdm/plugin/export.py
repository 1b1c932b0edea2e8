"""Half-precision ONNX exports of models with our layers are sorted topologically.

Ultralytics behaviour: on the CPU, `Exporter.export_onnx` converts to half precision with ONNX Runtime's converter,
which leaves the Cast of the input behind nodes that use it. ONNX Runtime runs such a file, but it is not valid ONNX,
and onnx.checker and other readers reject it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ultralytics.engine.exporter import Exporter

from ..placing.weights import added_modules
from .patching import wrap


def install() -> None:
    """Sort the nodes of half-precision ONNX exports of models with our layers."""
    wrap(Exporter, "export_onnx", _sort)


def _sort(export_onnx: Callable) -> Callable:
    def export(self: Exporter, *args: Any, **kwargs: Any) -> Any:
        file = export_onnx(self, *args, **kwargs)
        ours = any(added_modules(self.model))
        if (
            ours
            and self.args.format == "onnx"
            and getattr(self.args, "quantize", None) == 16
            and self.device.type == "cpu"
        ):
            import onnx
            from onnxruntime.transformers.onnx_model import OnnxModel

            model = onnx.load(file)
            OnnxModel(model).topological_sort()
            onnx.save(model, file)
        return file

    return export
