"""The membership self-test: it finds a model that has learned by heart, and nothing where there is nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nsclc_mtl.bags.datamodule import FoldData
from nsclc_mtl.commands import assemble
from nsclc_mtl.commands.cohort import open_cohort
from nsclc_mtl.config import compose, plain
from nsclc_mtl.federated import membership
from nsclc_mtl.federated.membership import ALL, Losses, attacks, found_at
from nsclc_mtl.metrics.classification import auc


def toy(seed: int, fresh: bool = False, n: int = 60, wide: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Squared losses of n training and n other patients by a linear model of nearly as many columns, labels are noise.

    With `fresh` both are patients that the model has not seen. Returns losses and who counts as a member.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    x, y = rng.normal(size=(2 * n, wide)), rng.normal(size=2 * n)
    weight = np.linalg.lstsq(x[:n], y[:n])[0]
    if fresh:
        x, y = rng.normal(size=(2 * n, wide)), rng.normal(size=2 * n)
    return np.square(x @ weight - y), np.arange(2 * n) < n


def told(*of: np.ndarray, member: np.ndarray, sites: list[str] | None = None, prefix: str = "p") -> Losses:
    patients = [f"{prefix}{i}" for i in range(len(member))]
    return Losses(patients, member, {f"t{i}": x for i, x in enumerate(of)}, sites or [""] * len(member))


def test_learning_by_heart_is_found() -> None:
    loss, member = toy(0)
    (one,) = attacks([told(loss, member=member)])
    assert one.auc.value > 0.8
    assert one.auc.value == pytest.approx(float(auc(member.astype(float), -loss)))
    assert one.auc.lo > 0.7
    assert one.found.value > 0.3  # chance finds .1
    assert (one.members, one.others) == (60, 60)
    assert "gives away who trained it" in one.reading
    (sure,) = attacks([told(np.where(member, loss / 1e6, loss + 1), member=member)])
    assert "chance 1.00 [all resamples agree: no interval can be told]" in sure.reading
    assert "gives away who trained it" in sure.reading


def test_what_is_independent_is_not_found() -> None:
    """The same model, asked for patients of whom it has seen none: over many cohorts the AUC is .5."""
    values, held = [], []
    for seed in range(20):
        loss, member = toy(seed, fresh=True)
        (one,) = attacks([told(loss, member=member)], draws=300)
        values.append(one.auc.value)
        held.append(one.auc.lo <= 0.5 <= one.auc.hi)
    assert np.mean(values) == pytest.approx(0.5, abs=0.04)
    assert np.mean(held) >= 0.8
    rng = np.random.Generator(np.random.PCG64(1))
    (one,) = attacks([told(rng.normal(size=120), member=np.arange(120) < 60)])
    assert one.auc.lo <= 0.5 <= one.auc.hi
    assert "finds nothing, which is no proof" in one.reading


def test_tasks_together_find_what_each_tells_a_little_of() -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    member = np.arange(400) < 200
    each = [np.exp(rng.normal(size=400) - 0.4 * member) * scale for scale in (1.0, 1000.0, 1e-6)]
    each[0][::3] = np.nan  # labels of some are missing
    *single, both = attacks([told(*each, member=member)], draws=200)
    assert [one.task for one in single] == ["t0", "t1", "t2"]
    assert both.task == ALL
    assert both.auc.value > max(one.auc.value for one in single)
    assert single[0].members + single[0].others == 400 - 134
    assert both.members + both.others == 400


def test_a_more_difficult_site_is_no_sign_of_membership() -> None:
    """Most of the others are from a site where everybody's loss is larger."""
    rng = np.random.Generator(np.random.PCG64(4))
    sites = ["A"] * 100 + ["B"] * 100 + ["C"] * 20
    member = np.r_[np.arange(100) < 80, np.arange(100) < 20, np.ones(20, bool)]
    loss = rng.normal(size=220) + 10.0 * (np.array(sites) == "B")
    (apart,) = attacks([told(loss, member=member, sites=sites)])
    assert apart.auc.lo <= 0.5 <= apart.auc.hi
    assert (apart.members, apart.others) == (100, 100)  # a site of members alone says nothing
    (mixed,) = attacks([told(loss, member=member)])
    assert mixed.auc.value > 0.75


def test_a_patient_of_several_folds_is_drawn_once() -> None:
    rng = np.random.Generator(np.random.PCG64(5))
    member, loss = np.arange(80) < 40, rng.normal(size=80)
    (once,) = attacks([told(loss, member=member)])
    (twice,) = attacks([told(loss, member=member)] * 2)  # the same again is no more evidence
    assert twice.auc.value == once.auc.value
    width = (twice.auc.hi - twice.auc.lo) / (once.auc.hi - once.auc.lo)
    assert 0.85 < width < 1.2
    (others,) = attacks([told(loss, member=member), told(rng.normal(size=80), member=member, prefix="q")])
    assert (others.auc.hi - others.auc.lo) < 0.85 * (once.auc.hi - once.auc.lo)


def test_found_counts_ties_together_and_keeps_to_the_rate() -> None:
    member = np.r_[np.ones(4, bool), np.zeros(20, bool)]
    score = np.r_[9.0, 8.0, 7.0, 1.0, 8.5, 7.0, 7.0, np.zeros(17)]
    even = np.ones((1, 24))
    assert found_at(member, score, even) == pytest.approx([0.5])  # at 7 three of twenty come with the third one
    assert found_at(member, score, even, rate=0.149) == pytest.approx([0.5])
    assert found_at(member, score, even, rate=0.15) == pytest.approx([1.0])  # nobody else is above 1 either
    assert found_at(member, score, even, rate=0.0) == pytest.approx([0.25])
    assert np.isnan(found_at(member, score, np.r_[np.ones(4), np.zeros(20)][None])).all()


def test_nobody_to_compare_with_is_said() -> None:
    (one,) = attacks([told(np.ones(5), member=np.ones(5, bool))])
    assert np.isnan(one.auc.value)
    assert "no site has both" in one.reading


def test_losses_of_a_model_are_each_patients_own(tmp_path: Path) -> None:
    """Their mean over a batch is the batch's loss, unknown labels are left out, and Cox has none."""
    words = ["cohort.level=features", "cohort.n=40", "modalities=[wsi,clinical]", f"paths.out={tmp_path}"]
    for survival in ("hazard", "cox"):
        cfg = plain(compose("train", [*words, "tasks=[grade,survival]", f"survival={survival}"]))
        manifest = open_cohort(cfg)
        rows = pd.DataFrame({"patient_id": manifest.ids, "fold": 0, "part": ["train"] * 28 + ["test"] * 12})
        chosen = assemble.options(cfg, manifest)
        data = FoldData(manifest, rows, options=chosen, batch_size=7)
        data.fitted.tasks = assemble.fit_tasks(cfg, manifest, data.parts["train"])
        model = assemble.learner(cfg, manifest.tasks, chosen, data.fitted).train()
        torch.nn.init.normal_(model.tasks["grade"].linear.weight)  # type: ignore[union-attr, arg-type]
        made = membership.of_fold(model, data, manifest.ids[28:])
        assert model.training
        assert list(made.patients) == manifest.ids
        assert made.member.sum() == 28
        assert set(made.of) == ({"grade", "survival"} if survival == "hazard" else {"grade"})
        labels = manifest.labels["grade"]["value"].loc[manifest.ids].to_numpy()
        assert np.array_equal(np.isnan(labels), np.isnan(made.of["grade"]))
        assert [one.task for one in attacks([made], draws=50)] == [*made.of, *([ALL] if len(made.of) > 1 else [])]
        if survival == "hazard":
            data.batch_size = 28
            (batch,) = data._train_batches(0)
            out, _ = model.eval()(batch)
            for name, task in model.each_task():
                whole = float(task.loss(out[name], batch.targets[name]).detach())
                assert np.nanmean(made.of[name][:28]) == pytest.approx(whole, rel=1e-4)
