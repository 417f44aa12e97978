"""What is fitted over sites is what one table of all patients gives, and stands on enough patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.bags.cache import BagCache
from nsclc_mtl.bags.fitted import Fitted, fit
from nsclc_mtl.commands import assemble, federation
from nsclc_mtl.federated import sketch, summaries
from nsclc_mtl.federated.fitting import fit_together
from nsclc_mtl.federated.messages import Message
from nsclc_mtl.records import Manifest
from tests.federated.small import opened, settings_of


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("phantom")


def both(out: Path, *words: str, least: int = 1, change: Any = None) -> tuple[Fitted, Fitted, Manifest, list[str]]:
    """What is fitted on all training patients of fold 0 at one place, and over the sites."""
    settings = settings_of(out, f"federated.least={least}", *words)
    manifest, splits, sites = opened(settings)
    if change is not None:
        change(manifest)
    rows = splits[(splits["fold"] == 0) & (splits["part"] == "train")]
    train = list(rows["patient_id"])
    declared = federation.declared(settings, manifest)
    whole = fit(manifest, train, BagCache(), declared.options)
    whole.tasks = assemble.fit_tasks(settings, manifest, train)
    owns = {
        site: summaries.Own(federation.only(manifest, ids), [p for p in train if p in set(ids)], BagCache(), least)
        for site, ids in sites.items()
    }
    for site, own in owns.items():
        own.manifest.patients = own.manifest.patients.assign(site=site)

    def ask(step: str, words: Any, arrays: Any = None) -> dict[str, Message]:
        return {s: Message("fit", 0, *summaries.answer(step, own, words, arrays or {})) for s, own in owns.items()}

    return whole, fit_together(ask, declared, federation.fits(settings), ask("survey", {})), manifest, train


def close(one: Any, other: Any, rtol: float = 1e-6) -> None:
    np.testing.assert_allclose(np.asarray(one, float), np.asarray(other, float), rtol=rtol, atol=1e-6)


def test_scales_and_components_are_those_of_one_table(out: Path) -> None:
    whole, over_sites, manifest, train = both(out)
    for name in ("radiomics", "rna", "proteomics"):
        one, other = whole.tables[name], over_sites.tables[name]
        assert other.numbers == one.numbers
        assert other.indicated == one.indicated
        close(other.mean, one.mean)
        close(other.sd, one.sd)
        close(other.middle, one.middle)
        have = [p for p in train if p in manifest.tables[name].index]
        close(over_sites.rows(manifest, name, have), whole.rows(manifest, name, have), rtol=1e-4)
    close(over_sites.bags["wsi"]["mean"], whole.bags["wsi"]["mean"])
    close(over_sites.bags["wsi"]["sd"], whole.bags["wsi"]["sd"])
    assert over_sites.patterns == whole.patterns
    assert over_sites.dims() == whole.dims()


def test_labels_and_categories_are_those_of_one_table(out: Path) -> None:
    whole, over_sites, manifest, train = both(out)
    assert over_sites.tables["clinical"].categories == whole.tables["clinical"].categories
    for task in ("grade", "stage", "response"):
        close(over_sites.tasks[task]["shares"], whole.tasks[task]["shares"])
    one, other = (np.array(of.tasks["survival"]["cuts"]) for of in (whole, over_sites))
    assert len(one) == len(other)
    labels = manifest.labels["survival"].loc[train].dropna()
    days = np.sort(labels.loc[labels["event"] == 1, "time_days"].to_numpy(float))
    below = [np.searchsorted(days, cuts[:-1], side="right") / len(days) for cuts in (one, other)]
    assert np.abs(below[0] - below[1]).max() < 2.01 / len(days)  # an event or two lie on the other side of an edge


def with_holes(manifest: Manifest) -> None:
    """A tenth of the RNA cells go missing."""
    table = manifest.tables["rna"]
    holes = np.random.default_rng(3).random(table.shape) < 0.1
    manifest.tables["rna"] = table.mask(pd.DataFrame(holes, table.index, table.columns))


def test_medians_come_from_grids(out: Path) -> None:
    whole, over_sites, _, _ = both(out, change=with_holes)
    one, other = whole.tables["rna"], over_sites.tables["rna"]
    assert other.numbers == one.numbers
    assert other.indicated == one.indicated
    apart = np.abs((np.array(one.median) - np.array(other.median)) / np.array(one.sd))
    assert apart.max() < 0.6  # a site has some 13 values, each spread over the gap to the one before
    assert apart.mean() < 0.15
    assert np.abs((np.array(one.mean) - np.array(other.mean)) / np.array(one.sd)).max() < 0.1
    assert np.abs(np.array(one.sd) / np.array(other.sd) - 1).max() < 0.1


def test_robust_scales_are_near(out: Path) -> None:
    whole, over_sites, _, _ = both(out, "parts.modalities.omics.scaling=robust")
    one, other = whole.tables["rna"], over_sites.tables["rna"]
    apart = np.abs((np.array(one.mean) - np.array(other.mean)) / np.array(one.sd))
    wider = np.abs(np.array(one.sd) / np.array(other.sd) - 1)
    assert apart.max() < 0.6
    assert wider.max() < 0.6
    assert apart.mean() < 0.15
    assert wider.mean() < 0.15


def test_combat_is_that_of_one_table(out: Path) -> None:
    words = ("parts.modalities.omics.harmonize=combat", "parts.modalities.omics.combat.covariates=[age,sex]")
    whole, over_sites, manifest, train = both(out, *words)
    for name in ("rna", "proteomics"):
        one, other = whole.combat[name], over_sites.combat[name]
        assert other.sites == one.sites
        for word in ("mean", "sd", "slope", "shift", "scale"):
            np.testing.assert_allclose(getattr(other, word), getattr(one, word), rtol=1e-5, atol=1e-6)
        have = [p for p in train if p in manifest.tables[name].index]
        close(over_sites.rows(manifest, name, have), whole.rows(manifest, name, have), rtol=1e-3)


def test_combat_with_a_reference(out: Path) -> None:
    words = ("parts.modalities.omics.harmonize=combat", "parts.modalities.omics.combat.reference=B")
    whole, over_sites, _, _ = both(out, *words, change=with_holes)
    for word in ("mean", "sd", "shift", "scale"):
        one, other = getattr(whole.combat["rna"], word), getattr(over_sites.combat["rna"], word)
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


def test_univariate_selection_keeps_what_the_tasks_need(out: Path) -> None:
    words = ("parts.modalities.omics.select=univariate", "parts.modalities.omics.keep=60")
    whole, over_sites, _, _ = both(out, *words)
    one, other = set(whole.tables["rna"].numbers), set(over_sites.tables["rna"].numbers)
    assert len(other) == 60
    assert len(one & other) >= 18  # within sites it is another test than over all patients; by chance 7 were shared


def test_nothing_stands_on_fewer_patients_than_agreed(out: Path) -> None:
    settings = settings_of(out)
    manifest, _, sites = opened(settings)
    few = [p for p in sites["A"] if p in manifest.tables["rna"].index][:4]
    own = summaries.Own(federation.only(manifest, few), few, BagCache(), 5)
    _, said = summaries.survey(own, {}, {})
    assert said["modalities"] == {}
    assert said["patterns"] == []
    assert set(said["known"].values()) == {0}
    arrays, _ = summaries.labels(own, {"days": {"survival": 3652.5}}, {})
    assert all(not values.any() for values in arrays.values())
    draft = fit(manifest, sites["B"], BagCache(), federation.declared(settings, manifest).options).tables["rna"]
    told = summaries.STEPS["moments"](own, {"drafts": {"rna": draft.state()}}, {})[0]
    assert not any(values.any() for values in told.values())


def test_cells_hold_enough_values_and_lose_none() -> None:
    rng = np.random.default_rng(0)
    edges = np.linspace(0, 10, sketch.CELLS + 1)
    for n in (5, 9, 37, 400):
        values = rng.gamma(2.0, 1.5, n)
        told = sketch.joined(values, edges, 5)
        assert told.sum() == pytest.approx(n)
        steps = np.flatnonzero(np.diff(told)) + 1  # cells that were joined have the same number each
        assert all(part.sum() >= 5 - 1e-9 for part in np.split(told, steps))
    assert sketch.quantile(edges, told, 0.5) == pytest.approx(np.median(values), abs=0.15)
    assert not sketch.joined(values[:4], edges, 5).any()
