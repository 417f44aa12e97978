"""Where a slide holds tissue: segmenters, what is cut out of their masks, and the rules that every mask obeys."""

from .classic import Classic
from .light import glass, optical_density
from .model import Onnx
from .record import Segmenter, Tissue, disk, tidy
from .survey import survey

__all__ = ["Classic", "Onnx", "Segmenter", "Tissue", "disk", "glass", "optical_density", "survey", "tidy"]
