"""A user's own model in the ONNX format, opened so that nothing but its own bytes is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nsclc_mtl.records import UsageFault


def content(path: Path, key: str) -> bytes:
    """The bytes of a model's file. Raises UsageFault, naming the configuration's `key`, where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageFault(f"no weights at '{path}': set {key} to a local .onnx file") from error


def session(model: bytes, name: str, of: str) -> Any:
    """An onnxruntime session on one thread of the processor.

    `name` is the file's, `of` the option that needs it. Raises UsageFault where onnxruntime is absent or refuses it.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UsageFault(f"{of} needs onnxruntime: pip install 'nsclc-mtl[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # slides run side by side in processes
    options.log_severity_level = 4  # faults are told by us, in one sentence
    try:
        # From memory: tensors outside the file (at any path that it names) are never looked for.
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base but Exception
        raise UsageFault(f"'{name}' is no ONNX model that onnxruntime can run: {str(error).splitlines()[0]}") from error
