"""What each column of a patient's tables moved a prediction by: integrated gradients, all else of the patient as it is.

The straight way from the training patients' mean row to the patient's own is walked, and the gradient of the task's
score met on it is averaged: times what a column differs from its mean, that is the column's attribution (Sundararajan,
Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017). The attributions of a modality add up to the score
minus the score with the mean row in its place (completeness).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nsclc_mtl.records import Batch
from nsclc_mtl.tables.encode import TableEncoder

POINTS = 32  # of Gauss and Legendre's quadrature: exact for polynomials of degree 63 along the way


def gradients(
    learner: Any, batch: Batch, modality: str, baseline: np.ndarray, points: int = POINTS
) -> dict[str, np.ndarray]:
    """Mean gradient of each task's score on the way from `baseline` [column] to the rows of a table modality.

    task -> [patient, column]; rows of patients who lack the modality are zero. Of classes without an order the score is
    the logit of the class that is predicted, against the mean of all.
    """
    rows = batch.inputs[modality].detach().float()
    start = torch.as_tensor(baseline, dtype=torch.float32, device=rows.device)
    where, weight = np.polynomial.legendre.leggauss(points)
    with torch.no_grad():
        seen = learner.embed(batch)
        out, _ = learner.decide(seen, batch.present)
    chosen = {
        name: raw.argmax(1) if task.spec.kind == "multiclass" else None for (name, task), raw in _each(learner, out)
    }
    total = {name: torch.zeros_like(rows) for name in out}
    have = batch.present[modality][:, None]
    with torch.enable_grad():
        for at, share in zip((where + 1) / 2, weight / 2, strict=True):
            here = (start + at * (rows - start)).requires_grad_(True)
            embedding = learner.encoders[modality](here)
            if learner.skip is not None:
                embedding = replace(embedding, linear=learner.skip(modality, here, batch.patients))
            made, _ = learner.decide({**seen, modality: embedding}, batch.present)
            for (name, task), raw in _each(learner, made):
                (gradient,) = torch.autograd.grad(_score(task, raw, chosen[name]).sum(), here, retain_graph=True)
                total[name] += share * gradient
    return {name: torch.where(have, of, 0.0).cpu().numpy().astype(float) for name, of in total.items()}


def _each(learner: Any, out: Mapping[str, Tensor]) -> list[tuple[tuple[str, Any], Tensor]]:
    return [((name, learner.tasks[name]), raw) for name, raw in out.items()]


def _score(task: Any, raw: Tensor, chosen: Tensor | None) -> Tensor:
    if chosen is None:
        return task.score(raw)
    return raw.gather(1, chosen[:, None]).squeeze(1) - raw.mean(1)


def baseline(encoder: TableEncoder) -> np.ndarray:
    """The training patients' mean row as the network takes it, [column]; zeros for runs that did not keep it."""
    return encoder.components_of(_middle(encoder)[None])[0]


def _middle(encoder: TableEncoder) -> np.ndarray:
    return np.array(encoder.middle) if encoder.middle else np.zeros(len(encoder.origins))


def attributions(encoder: TableEncoder, rows: np.ndarray, gradient: np.ndarray) -> pd.DataFrame:
    """Attribution of every named column of the table, a row a patient.

    rows: `encoder.before_components`, [patient, column]; gradient: of what the network takes, [patient, dim], as
    `gradients` gives it. A category's columns, and a number and the indicator that it was missing, are added up. The
    gradient of principal components goes back through their loadings: as they are linear in the columns, that is the
    integrated gradient of the columns themselves.
    """
    back = gradient
    if encoder.loadings is not None and not encoder.wide:
        parts = len(encoder.loadings)
        back = np.concatenate([gradient[:, :parts] @ np.array(encoder.loadings), gradient[:, parts:]], axis=1)
    frame = pd.DataFrame((rows - _middle(encoder)) * back, columns=encoder.origins)
    return frame.T.groupby(level=0, sort=False).sum().T
