"""Detection data: the synthetic shapes set."""

from .shapes import make_shapes

__all__ = ("make_shapes",)
