"""Tissue by a trained model in the ONNX format: the user's own file, run by onnxruntime on the processor."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from nsclc_mtl import onnx_model
from nsclc_mtl.records import IntegrityFault, UsageFault

from .light import glass
from .record import Tissue


class Onnx:
    """A segmentation network: one image in, one map out, slid over the thumbnail in windows that overlap by half.

    The model takes float32 [1, 3, px, px] (or [1, px, px, 3], told by its own input) and gives [1, c, h, w] or
    [1, h, w, c], at the input's size or coarser. `output` says what its numbers are: `probability` or `logit` of
    tissue (c = 1), or `classes` (scores of c classes; `tissue_classes` are summed after a softmax).
    Raises UsageFault where the file or onnxruntime is absent or the model has another shape, IntegrityFault where the
    file is not the expected one.
    """

    def __init__(
        self,
        weights: str | None = None,
        um_per_px: float = 8.0,
        input_px: int = 512,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        output: Literal["probability", "logit", "classes"] = "probability",
        tissue_classes: tuple[int, ...] = (1,),
        threshold: float = 0.5,
        weights_sha256: str | None = None,
    ) -> None:
        if not weights:
            raise UsageFault("segmenter=onnx needs a model of yours: set segmenter.weights=PATH to an .onnx file")
        if output not in ("probability", "logit", "classes"):
            raise UsageFault(f"segmenter.output={output!r}: there are probability, logit, classes")
        self.um_per_px, self.input_px, self.threshold = float(um_per_px), int(input_px), float(threshold)
        self.mean, self.std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        self.output, self.tissue_classes = output, list(tissue_classes)
        self.name = Path(weights).name
        content = onnx_model.content(Path(weights), "segmenter.weights")
        self.weights_hash = "sha256:" + hashlib.sha256(content).hexdigest()
        if weights_sha256 and self.weights_hash[7:] != weights_sha256.lower().removeprefix("sha256:"):
            raise IntegrityFault(
                f"segmenter weights '{self.name}' have digest {self.weights_hash[7:19]}..., expected "
                f"{weights_sha256[:12]}...; get the file again"
            )
        self._session = onnx_model.session(content, self.name, "segmenter=onnx")
        self._input, shape = self._session.get_inputs()[0].name, self._session.get_inputs()[0].shape
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise UsageFault(f"'{self.name}' takes {shape}; a model of [1, 3, h, w] or [1, h, w, 3] is needed")
        self._channels_first = shape[1] == 3
        edges = [edge for edge in (shape[2:] if self._channels_first else shape[1:3]) if isinstance(edge, int)]
        if any(edge != self.input_px for edge in edges):
            raise UsageFault(f"'{self.name}' takes images of {edges} px: set segmenter.input_px={edges[0]}")

    def __call__(self, thumbnail: np.ndarray, um_per_px: float) -> Tissue:
        """Where the model sees tissue; what it takes for an artefact it leaves out by itself."""
        return Tissue(self.probability(thumbnail) > self.threshold, self.threshold, glass(thumbnail))

    def probability(self, thumbnail: np.ndarray) -> np.ndarray:
        """float32 [h, w]: mean over the windows, weighted towards their middles."""
        height, width = thumbnail.shape[:2]
        px = self.input_px
        ys, xs = _places(height, px), _places(width, px)
        wide = np.full((max(height, px), max(width, px), 3), 255, np.uint8)
        wide[:height, :width] = thumbnail
        ramp = np.minimum(np.arange(px), np.arange(px)[::-1]) + 1.0
        weight = np.outer(ramp, ramp).astype(np.float32)
        total, weights = np.zeros(wide.shape[:2], np.float32), np.zeros(wide.shape[:2], np.float32)
        for y in ys:
            for x in xs:
                window = np.s_[y : y + px, x : x + px]
                total[window] += weight * self._window(wide[window])
                weights[window] += weight
        return (total / weights)[:height, :width]

    def _window(self, pixels: np.ndarray) -> np.ndarray:
        image = (pixels.astype(np.float32) / 255.0 - self.mean) / self.std
        image = image.transpose(2, 0, 1) if self._channels_first else image
        seen = np.asarray(self._session.run(None, {self._input: np.ascontiguousarray(image[None])})[0], np.float32)
        return _resized(self._tissue(seen), self.input_px)

    def _tissue(self, seen: np.ndarray) -> np.ndarray:
        """float32 [h, w]: the probability of tissue in a model's output."""
        scores = seen[0] if seen.ndim == 4 else seen
        if scores.ndim == 2:
            scores = scores[None]
        if scores.ndim != 3 or (seen.ndim == 4 and len(seen) != 1):
            raise UsageFault(f"'{self.name}' gives {seen.shape}; one map [1, c, h, w] or [1, h, w, c] is needed")
        if scores.shape[2] < scores.shape[0]:  # the few are the classes
            scores = scores.transpose(2, 0, 1)
        if self.output == "classes":
            if max(self.tissue_classes) >= len(scores):
                raise UsageFault(f"'{self.name}' knows {len(scores)} classes, not {self.tissue_classes}")
            powers = np.exp(scores - scores.max(axis=0))
            return powers[self.tissue_classes].sum(axis=0) / powers.sum(axis=0)
        if len(scores) != 1:
            raise UsageFault(f"'{self.name}' gives {len(scores)} maps: set segmenter.output=classes and tissue_classes")
        return 1.0 / (1.0 + np.exp(-scores[0])) if self.output == "logit" else scores[0]


def _places(length: int, px: int) -> list[int]:
    """Offsets of windows that overlap by half and end with the picture."""
    if length <= px:
        return [0]
    return sorted({*range(0, length - px, max(1, px // 2)), length - px})


def _resized(values: np.ndarray, px: int) -> np.ndarray:
    if values.shape == (px, px):
        return values
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(picture.resize((px, px), Image.Resampling.BILINEAR))
