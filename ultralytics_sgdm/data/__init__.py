"""Detection data: drawn shapes, converted VOC folders and COCO files, VOC 07+12 and COCO 2017, and a check of any."""

from .benchmarks import prepare, prepare_coco, prepare_voc
from .check import check_set
from .coco import convert_coco_json
from .shapes import make_shapes
from .voc import convert_voc

__all__ = ("check_set", "convert_coco_json", "convert_voc", "make_shapes", "prepare", "prepare_coco", "prepare_voc")
