"""The linear skip: what a ridge model of the inputs says, added to every head, so that nobody has to relearn a line."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nsclc_mtl.records import Bag, Embedding, UsageFault

BLOCK = 4096  # tiles that are made wide at a time


class LinearSkip(nn.Module):
    """Linear scores of every task from tables and mean tiles, fitted on the training patients, as offsets of the heads.

    The weights are a ridge model's (`baselines.linear`) and stay as fitted; how far a task trusts them is learned, from
    1 on. In training a patient is spoken of by a model that was fitted without him: a line that has seen his label
    would leave the network nothing honest to explain. Which of the `folds` models that is follows from his id alone.
    A modality that is absent adds nothing.

    Args:
        inputs: modality -> columns. outputs: task -> numbers a patient. folds: of the cross-fitting.
        bags: whether slides are among the inputs, by their mean tile. columns: `all` columns of a table, as a floor
            sees them, or those that the encoders have `seen`, principal components where they take some.

    Raises UsageFault for other words.
    """

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        folds: int = 5,
        bags: bool = False,
        columns: str = "seen",
    ) -> None:
        super().__init__()
        if columns not in ("all", "seen"):
            raise UsageFault(f"skip.columns={columns} is neither all nor seen")
        self.inputs, self.outputs, self.folds, self.bags = dict(inputs), dict(outputs), folds, bags
        for task, out in outputs.items():
            for name, dim in inputs.items():
                self.register_buffer(
                    f"weight/{task}/{name}", torch.zeros(folds + 1, dim + 1, out)
                )  # the last row: bias
        self.trust = nn.ParameterDict({task: nn.Parameter(torch.ones(())) for task in outputs})

    def weight(self, task: str, name: str) -> Tensor:
        """[fold + 1, column + 1, output]: model k was fitted without fold k, the last one on all; the last row is the
        bias."""
        return self.get_buffer(f"weight/{task}/{name}")

    def load(self, weights: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes up fitted weights: task -> modality -> [fold + 1, column + 1, output]."""
        for task, of in weights.items():
            for name, values in of.items():
                self.weight(task, name).copy_(torch.as_tensor(values, dtype=torch.float32))

    def fold_of(self, patient: str) -> int:
        """Which model is not to have seen the patient."""
        return zlib.crc32(patient.encode()) % self.folds

    def forward(self, name: str, inputs: Any, patients: Sequence[str]) -> dict[str, Tensor]:
        """What the modality `name` adds to each task, task -> [patient, output]; {} for one it does not know."""
        if name not in self.inputs:
            return {}
        rows = mean_tile(inputs) if isinstance(inputs, Bag) else inputs
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        if not self.training:
            return {task: rows @ self.weight(task, name)[-1].to(rows.dtype) for task in self.outputs}
        fold = torch.tensor([self.fold_of(patient) for patient in patients], device=rows.device)
        return {
            task: torch.einsum("pc,pco->po", rows, self.weight(task, name).to(rows.dtype)[fold])
            for task in self.outputs
        }

    def joined(self, task: str, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]) -> Tensor:
        """Sum over the present modalities, times the learned trust, [patient, output]."""
        parts = [
            torch.where(present[name][:, None], seen[name].linear[task], 0.0) for name in self.inputs if name in seen
        ]
        return self.trust[task] * torch.stack(parts).sum(0)


def mean_tile(bag: Bag) -> Tensor:
    """Mean of the tile features of every patient, [patient, dim], in single precision; 0 where there is no tile."""
    sizes = bag.offsets.diff()
    owner = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    wide = torch.promote_types(bag.features.dtype, torch.float32)
    total = bag.features.new_zeros(len(sizes), bag.features.shape[1], dtype=wide)
    for features, here in zip(
        bag.features.split(BLOCK), owner.split(BLOCK), strict=True
    ):  # bags come in half precision
        total = total.index_add(0, here, features.to(wide))
    return total / sizes.clamp(min=1)[:, None]
