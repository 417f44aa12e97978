"""Encoders that learn from the labels themselves, beside what the tasks' losses teach them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nsclc_mtl.records import Embedding, Target


class SupervisedEncoder(nn.Module, ABC):
    """An encoder with losses of its own that need labels; in training alone.

    Its constructor may ask for `classes` (class task -> number of classes), which the assembly hands to it.
    """

    @abstractmethod
    def supervise(
        self, inputs: Any, said: Embedding, targets: Mapping[str, Target], present: Tensor
    ) -> dict[str, Tensor]:
        """Losses by name, from what came in and what `forward` said of it; absent patients (bool [patient]) take no
        part, and neither do unknown labels."""
