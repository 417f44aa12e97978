"""A slide encoder in the ONNX format: the user's own file, run by onnxruntime on the processor.

ONNX, because such a file is a graph of known operators and nothing else: a pickle runs any code when it is loaded, and
TorchScript has operators that read and write files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nsclc_mtl import onnx_model
from nsclc_mtl.records import IntegrityFault, ItemFault, UsageFault

KINDS = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32,
}  # fmt: skip
INPUTS = ("features", "coords", "tile_size_level0")


class Onnx:
    """One vector a slide from a model that takes `features` and, where it names them, `coords` and `tile_size_level0`.

    `features` is [tile, dim] or [1, tile, dim], `coords` (x, y) [tile, 2] or [1, tile, 2], `tile_size_level0` a number
    or [1]; both in level-0 pixels; floats or integers, as the model declares them. The number of tiles must be free.
    The first output is the vector, [dim] or [1, dim]. `backbones`, `input_dim`, `tile_um` and `dim` say what the model
    expects and gives; `hub`, `licence` and `gate` where it comes from.

    Raises UsageFault where there is no such file or onnxruntime, or where the model asks for something else;
    IntegrityFault where the file is not the expected one, or its dimensions are not the promised ones.
    """

    def __init__(
        self,
        weights: str | None = None,
        weights_sha256: str | None = None,
        name: str = "onnx",
        backbones: Sequence[str] = (),
        input_dim: int | None = None,
        dim: int | None = None,
        tile_um: float | None = None,
        hub: str | None = None,
        licence: str | None = None,
        gate: str | None = None,
    ) -> None:
        self.name, self.backbones, self.tile_um = name, tuple(backbones or ()), tile_um
        if not weights:
            raise UsageFault(_how(name, hub, licence, gate))
        self.file = Path(weights).name
        content = onnx_model.content(Path(weights), "slide_encoder.weights")
        digest = hashlib.sha256(content).hexdigest()
        self.weights_hash = f"sha256:{digest}"
        if weights_sha256 and digest != weights_sha256.lower().removeprefix("sha256:"):
            raise IntegrityFault(
                f"weights '{self.file}' have digest {digest[:12]}..., expected "
                f"{weights_sha256.removeprefix('sha256:')[:12]}...; get the file again"
            )
        self._session = onnx_model.session(content, self.file, "this slide encoder")
        self._inputs = {port.name: port for port in self._session.get_inputs()}
        self.places, self.size = "coords" in self._inputs, "tile_size_level0" in self._inputs
        self.dim = dim
        self.input_dim = self._agreed(input_dim)

    def __call__(self, features: np.ndarray, coords: np.ndarray, size_level0: int) -> np.ndarray:
        """float32 [dim] of float32 [tile, input_dim] and int64 [tile, 2].

        Raises ItemFault `encoder_failed` where the model ends in an error, IntegrityFault where its vector has another
        length than was promised.
        """
        given = {"features": features, "coords": coords, "tile_size_level0": np.asarray(size_level0)}
        try:
            out = self._session.run(None, {name: self._shaped(name, given[name]) for name in self._inputs})[0]
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            told = str(error).splitlines()[0]
            raise ItemFault("encoder_failed", f"'{self.file}' failed on {len(features)} tiles: {told}") from error
        vector = np.asarray(out, np.float32)
        if vector.ndim == 2 and len(vector) == 1:
            vector = vector[0]
        if vector.ndim != 1:
            raise UsageFault(f"'{self.file}' gives {vector.shape} for a slide; [dim] or [1, dim] is needed")
        if self.dim is not None and len(vector) != self.dim:
            raise IntegrityFault(
                f"slide_encoder={self.name} gives {len(vector)} numbers a slide, {self.dim} were promised "
                "(slide_encoder.dim); this is another model's file"
            )
        return vector

    def _shaped(self, name: str, value: np.ndarray) -> np.ndarray:
        """An input in the type and with the axes that the model declares."""
        port = self._inputs[name]
        rank = len(port.shape)
        value = value.astype(KINDS[port.type])
        return np.ascontiguousarray(value.reshape((1,) * (rank - value.ndim) + value.shape))

    def _agreed(self, promised: int | None) -> int | None:
        """Length of a tile's features; raises where the model's inputs are not those of a slide encoder."""
        strange = [name for name in self._inputs if name not in INPUTS]
        if strange or "features" not in self._inputs:
            raise UsageFault(
                f"'{self.file}' takes {', '.join(self._inputs)}; a slide encoder takes features, and may take "
                "coords and tile_size_level0: name its inputs so when you export it"
            )
        for name, ranks in (("features", (2, 3)), ("coords", (2, 3)), ("tile_size_level0", (0, 1))):
            port = self._inputs.get(name)
            if port is not None and (len(port.shape) not in ranks or port.type not in KINDS):
                raise UsageFault(
                    f"'{self.file}': its input {name} is {port.type} {port.shape}, which is not understood"
                )
        *_, tiles, width = self._inputs["features"].shape
        if isinstance(tiles, int):
            raise UsageFault(
                f"'{self.file}' takes {tiles} tiles and no other number; export it with a dynamic axis for the tiles"
            )
        own = width if isinstance(width, int) else None
        if own and promised and own != promised:
            raise IntegrityFault(
                f"slide_encoder={self.name} reads {promised} features a tile (slide_encoder.input_dim), '{self.file}' "
                f"takes {own}; this is another model's file"
            )
        return own or promised


def _how(name: str, hub: str | None, licence: str | None, gate: str | None) -> str:
    inputs = "inputs features [1, tile, dim], coords, tile_size_level0"
    if not hub:
        return (
            f"slide_encoder={name} needs a model of yours: set slide_encoder.weights=PATH to an .onnx file ({inputs})"
        )
    about = "; ".join(filter(None, (f"licence {licence}" if licence else "", gate)))
    return (
        f"slide_encoder={name} is code and weights at {hub} ({about}), and this package runs no code of others: export "
        f"it to ONNX there ({inputs}) and set slide_encoder.weights=PATH, or write its vectors into an .npz of "
        "patient_id -> vector and name that as a modality of kind vector"
    )
