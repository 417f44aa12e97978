"""Reading slides: a slide that knows its scale, pixels at any um/px, and tiles decoded ahead of who consumes them."""

from nsclc_mtl.slides.reader.ahead import TileBatches
from nsclc_mtl.slides.reader.dicom import one_a_series
from nsclc_mtl.slides.reader.scale import ANISOTROPY, PLAUSIBLE_MPP
from nsclc_mtl.slides.reader.slide import Slide, open_slide
from nsclc_mtl.slides.reader.soundness import MOST_UNREADABLE, PICTURE_SUFFIXES, SUFFIXES, content_hash

__all__ = [
    "ANISOTROPY",
    "MOST_UNREADABLE",
    "PICTURE_SUFFIXES",
    "PLAUSIBLE_MPP",
    "SUFFIXES",
    "Slide",
    "TileBatches",
    "content_hash",
    "one_a_series",
    "open_slide",
]
