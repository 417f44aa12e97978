"""ONNX files made by hand, byte by byte: models of a test's own, without a package that writes them.

ONNX is protocol buffers: a field is its number and kind, then its content. This is enough for a small network.
"""

from __future__ import annotations

import numpy as np

FLOAT, INT64, FLOAT16 = 1, 7, 10  # types of elements


def field(number: int, content: bytes | str | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(field(1, size) for size in values.shape)
    return field(5, dims + field(2, FLOAT) + field(8, name) + field(9, values.astype("<f4").tobytes()))


def port(number: int, name: str, shape: tuple[int | str, ...], kind: int = FLOAT) -> bytes:
    dims = b"".join(field(1, field(1, size) if isinstance(size, int) else field(2, size)) for size in shape)
    return field(number, field(1, name) + field(2, field(1, field(1, kind) + field(2, dims))))


def node(kind: str, inputs: tuple[str, ...], output: str, **numbers: int | list[int]) -> bytes:
    """One operator; its attributes are whole numbers or lists of them."""
    names = b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind)
    for name, value in numbers.items():
        if isinstance(value, list):
            names += field(5, field(1, name) + b"".join(field(8, one) for one in value) + field(20, 7))
        else:
            names += field(5, field(1, name) + field(3, value) + field(20, 2))
    return field(1, names)


def model(graph: bytes) -> bytes:
    """The file of a graph, opset 13."""
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def slide_encoder(
    weight: np.ndarray, *, batch: bool = False, places: bool = False, kind: int = FLOAT, tiles: int | str = "tile"
) -> bytes:
    """Mean of `features @ weight`; with `places`, the mean place of the tiles behind it, in edges of a tile.

    `batch` puts an axis of one before the others, `kind` is the type of the features.
    """
    ahead, axis = ((1,), 1) if batch else ((), 0)
    graph = node("Cast", ("features",), "as_float", to=FLOAT) + node("MatMul", ("as_float", "w"), "seen")
    graph += node("ReduceMean", ("seen",), "mean", axes=[axis], keepdims=0)
    inputs = port(11, "features", (*ahead, tiles, weight.shape[0]), kind)
    if places:
        graph += node("Cast", ("coords",), "at", to=FLOAT) + node("Cast", ("tile_size_level0",), "edge", to=FLOAT)
        graph += node("Div", ("at", "edge"), "in_edges")
        graph += node("ReduceMean", ("in_edges",), "middle", axes=[axis], keepdims=0)
        inputs += port(11, "coords", (*ahead, tiles, 2), INT64) + port(11, "tile_size_level0", (), INT64)
    last = ("mean", "middle") if places else ("mean",)
    graph += node("Concat", last, "vector", axis=axis)
    width = weight.shape[1] + 2 * places
    return model(graph + field(2, "small") + tensor("w", weight) + inputs + port(12, "vector", (*ahead, width)))
