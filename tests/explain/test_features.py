"""Integrated gradients of tables: completeness, a line's own parts, and every column back under its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from nsclc_mtl.encoders.tabular import MLP
from nsclc_mtl.explain import features
from nsclc_mtl.fusion.concat import Concat
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Batch, TaskSpec
from nsclc_mtl.tables.encode import TableEncoder
from nsclc_mtl.tasks.balance import Sum
from nsclc_mtl.tasks.classes import Binary, Multiclass
from nsclc_mtl.tasks.ordinal import Ordinal

COLUMNS = {"age": "numeric", "marker": "numeric", "sex": "categorical", "stage": ["I", "II", "III"]}
N = 60


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    made = pd.DataFrame(
        {
            "age": rng.normal(60, 9, N).round(1).astype(str),
            "marker": rng.normal(size=N).round(3).astype(str),
            "sex": rng.choice(["f", "m"], N),
            "stage": rng.choice(["I", "II", "III"], N),
        },
        index=[f"p{i}" for i in range(N)],
    )
    made.loc["p3", "marker"] = ""
    return made


def genes() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(N, 3))
    made = hidden @ rng.normal(size=(3, 12)) + 0.3 * rng.normal(size=(N, 12))
    return pd.DataFrame(made, [f"p{i}" for i in range(N)], [f"G{i}" for i in range(12)]).astype(str)


ENCODERS = {
    "clinical": TableEncoder.fit(table(), COLUMNS),
    "rna": TableEncoder.fit(genes(), components=4, missing_indicators=True),
}
TABLES = {"clinical": table(), "rna": genes()}


def learner(hidden: int = 16) -> Learner:
    torch.manual_seed(0)
    tasks = {
        "response": Binary(TaskSpec("response", "binary", ("no", "yes")), 8, {}),
        "grade": Ordinal(TaskSpec("grade", "ordinal", ("1", "2", "3")), 8, {}),
        "look": Multiclass(TaskSpec("look", "multiclass", ("a", "b", "c")), 8, {}),
    }
    for task in tasks.values():
        nn.init.normal_(task.linear.weight)
    encoders = {name: MLP(encoder.dim, 4, hidden=hidden) for name, encoder in ENCODERS.items()}
    made = Learner(encoders, Concat(tuple(encoders), list(tasks), 4, width=8), tasks, Sum(list(tasks)))
    for encode in encoders.values():
        with torch.no_grad():
            encode.layers[-1].weight.mul_(10)
    return made.eval().requires_grad_(False)


def batch(rows: dict[str, np.ndarray] | None = None) -> Batch:
    rows = rows or {name: encoder.transform(TABLES[name]) for name, encoder in ENCODERS.items()}
    there = {name: torch.ones(N, dtype=torch.bool) for name in rows}
    there["rna"][:5] = False
    return Batch([f"p{i}" for i in range(N)], {n: torch.tensor(r) for n, r in rows.items()}, there, {})


def score(made: Learner, whole: Batch, task: str, chosen: torch.Tensor | None = None) -> np.ndarray:
    raw = made(whole)[0][task]
    of: Any = made.tasks[task]
    return features._score(of, raw, chosen).numpy()


@pytest.mark.parametrize("modality", ["clinical", "rna"])
def test_attributions_add_up_to_what_the_table_moved(modality: str) -> None:
    """Completeness: score minus the score with the training mean in the table's place, for every patient and task."""
    made, whole, encoder = learner(), batch(), ENCODERS[modality]
    base = features.baseline(encoder)
    assert np.abs(encoder.transform(TABLES[modality]).mean(0) - base).max() < 1e-5
    mean = np.tile(base.astype(np.float32), (N, 1))
    without = batch({**{n: x.numpy() for n, x in whole.inputs.items()}, modality: mean})
    found = features.gradients(made, whole, modality, base)
    assert set(found) == {"response", "grade", "look"}
    chosen = made(whole)[0]["look"].argmax(1)
    for task, gradient in found.items():
        told = features.attributions(encoder, encoder.before_components(TABLES[modality]), gradient)
        of = chosen if task == "look" else None
        moved = score(made, whole, task, of) - score(made, without, task, of)
        np.testing.assert_allclose(told.sum(axis=1), moved, atol=2e-5)
        assert (told.to_numpy()[:5] == 0).all() == (modality == "rna")  # who has no table is moved by none
        assert list(told.columns) == (["age", "marker", "stage", "sex"] if modality == "clinical" else list(genes()))


def test_a_line_gives_each_column_its_part() -> None:
    """Where the score is linear in the table, a column's attribution is its weight times its distance from the mean."""
    made, encoder = learner(hidden=0), ENCODERS["rna"]
    made.fusion = Concat(("clinical", "rna"), list(made.tasks), 4, width=8)
    linear = nn.Linear(8, 8).requires_grad_(False)
    made.fusion.forward = lambda seen, present: (  # type: ignore[method-assign]
        dict.fromkeys(made.tasks, linear(torch.cat([seen["clinical"].vector, seen["rna"].vector], 1))), {}
    )  # fmt: skip
    whole = batch()
    whole.present["rna"][:] = True
    gradient = features.gradients(made, whole, "rna", features.baseline(encoder), points=1)["response"]
    columns = encoder.before_components(TABLES["rna"])
    told = features.attributions(encoder, columns, gradient)
    by_hand = np.zeros((N, 12))
    for gene in range(12):
        moved = columns.copy()
        moved[:, gene] = encoder.middle[gene]
        rows = {"clinical": whole.inputs["clinical"].numpy(), "rna": encoder.components_of(moved).astype(np.float32)}
        changed = batch(rows)
        by_hand[:, gene] = score(made, whole, "response") - score(made, changed, "response")
    np.testing.assert_allclose(told, by_hand, atol=1e-4)


def test_a_missing_number_and_its_indicator_are_one_column() -> None:
    encoder = ENCODERS["clinical"]
    assert encoder.origins == ["age", "marker", "stage", "marker", "sex", "sex"]
    assert list(encoder.names) == ["age", "marker", "stage", "marker missing", "sex=f", "sex=m"]
    told = features.attributions(encoder, encoder.before_components(table()), np.ones((N, 6)))
    np.testing.assert_allclose(told["sex"], 0, atol=1e-6)  # two columns that say the same, against each other
    assert told.loc[3, "marker"] == pytest.approx(1 - 1 / N - encoder.middle[1] + encoder.scaled(
        np.array([[60, np.nan, 1]]))[0, 1], abs=1e-5)  # fmt: skip


def test_an_encoder_of_an_earlier_run_begins_at_zero() -> None:
    state = {k: v for k, v in ENCODERS["rna"].state().items() if k != "middle"}
    np.testing.assert_array_equal(features.baseline(TableEncoder.load(state)), np.zeros(4))


def test_captum_finds_the_same() -> None:
    attr = pytest.importorskip("captum.attr", reason="captum, the oracle of this test alone, is not installed")
    made, whole, encoder = learner(), batch(), ENCODERS["rna"]
    base = features.baseline(encoder)
    ours = features.gradients(made, whole, "rna", base)["grade"] * (whole.inputs["rna"].numpy() - base)

    def forward(rows: torch.Tensor) -> torch.Tensor:
        changed = Batch(whole.patients, {**whole.inputs, "rna": rows}, whole.present, {})
        task: Any = made.tasks["grade"]
        return task.score(made(changed)[0]["grade"])

    method = attr.IntegratedGradients(forward, multiply_by_inputs=True)
    start = torch.tensor(base[None], dtype=torch.float32).expand(N, -1)
    theirs = method.attribute(whole.inputs["rna"], start, n_steps=64, internal_batch_size=N, method="gausslegendre")
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=2e-5)
