"""A torchvision built for CUDA, which timm brings along, made importable beside a torch for the CPU."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any


class Operators:
    """Sees to it that a torchvision built for CUDA can be imported beside a torch for the CPU.

    Its own library does not load there, and its import ends at two operators that nobody needs for tiles. Whoever
    imports it first (Lightning, torchmetrics and timm do) finds them declared.
    """

    library: Any = None

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Nothing: the import goes on as ever, after the operators are declared."""
        if name != "torchvision" or self.library is not None:
            return None
        import torch  # whoever imports torchvision has it, or waits for it now

        if torch.version.cuda is None and _built_for_cuda():
            self.library = torch.library.Library("torchvision", "FRAGMENT")
            self.library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            self.library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None


def _built_for_cuda() -> bool:
    from importlib.metadata import PackageNotFoundError, files

    try:
        version = next(file for file in files("torchvision") or [] if str(file) == "torchvision/version.py")
        return "cuda" in (text := Path(str(version.locate())).read_text()) and "+cpu" not in text
    except (PackageNotFoundError, StopIteration, OSError):
        return False


def beside_cpu_torch() -> None:
    """Installs the remedy once a process; costs nothing where torchvision is not imported."""
    if not any(isinstance(finder, Operators) for finder in sys.meta_path):
        sys.meta_path.insert(0, Operators())
