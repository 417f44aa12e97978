"""ComBat against the authors' own Python code, and the laws that it keeps."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsclc_mtl.records import DataFault, Manifest, ModalitySpec, TaskSpec, UsageFault
from nsclc_mtl.tables.harmonize import Combat
from nsclc_mtl.tables.kept_covariates import CovariateDesign, kept_covariates, refuse_outcomes
from nsclc_mtl.tables.transform import Transform

KINDS = {"age": "numeric", "sex": "categorical"}


def cohort(seed: int, n: int = 90, columns: int = 30, sites: str = "ABC") -> tuple[pd.DataFrame, ...]:
    """A table whose sites shift and stretch every column, sites, and covariates that matter."""
    rng = np.random.default_rng(seed)
    site, age, sex = rng.choice(list(sites), n), rng.integers(40, 80, n).astype(float), rng.choice(["m", "f"], n)
    x = rng.normal(size=(n, columns)) * rng.uniform(0.5, 5, columns) + 0.05 * age[:, None] * rng.normal(size=columns)
    x += 2.0 * (sex == "m")[:, None]
    for name in sites:
        rows = site == name
        x[rows] = x[rows] * np.exp(rng.normal(0, 0.3, columns)) + rng.normal(0, 1, columns)
    ids = [f"P{i:03d}" for i in range(n)]
    return pd.DataFrame(x, ids).add_prefix("f"), pd.Series(site, ids), pd.DataFrame({"age": age, "sex": sex}, ids)


def theirs(table: pd.DataFrame, site: pd.Series, covariates: pd.DataFrame | None, reference: str | None) -> np.ndarray:
    module = pytest.importorskip("neuroCombat", reason="the extra `dev` is not installed")
    frame = (covariates if covariates is not None else pd.DataFrame(index=table.index)).assign(site=site)
    words = {} if covariates is None else {"categorical_cols": ["sex"], "continuous_cols": ["age"]}
    return module.neuroCombat(table.to_numpy().T, frame, "site", ref_batch=reference, **words)["data"].T


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("reference", [None, "B"])
def test_it_is_the_combat_of_its_authors(
    seed: int, kept: bool, reference: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "int", int, raising=False)  # the word was taken out of NumPy; their reference needs it
    table, site, covariates = cohort(seed, n=[90, 30, 160, 60][seed], sites="ABCD"[: 2 + seed % 3])
    if not kept:
        covariates = None
    made = Combat.fit(table, site, covariates, KINDS if kept else None, reference=reference, least=2)
    ours = made.transform(table, site, covariates)
    np.testing.assert_allclose(ours, theirs(table, site, covariates, reference), rtol=0, atol=1e-6)
    again = Combat.load(json.loads(json.dumps(made.state()))).transform(table, site, covariates)
    np.testing.assert_array_equal(ours, again)


def test_new_patients_are_moved_by_what_training_taught() -> None:
    table, site, covariates = cohort(1, n=120)
    train, new = table.index[:80], table.index[80:]
    made = Combat.fit(table.loc[train], site, covariates, KINDS)
    spoiled = table.copy()
    spoiled.loc[new] += 1000.0
    assert made.state() == Combat.fit(spoiled.loc[train], site, covariates, KINDS).state()
    whole = made.transform(table, site, covariates)
    pd.testing.assert_frame_equal(whole.loc[new], made.transform(table.loc[new], site, covariates))
    pd.testing.assert_frame_equal(whole.loc[train], made.transform(table.loc[train], site, covariates))


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(-1e3, 1e3))
def test_laws(seed: int, constant: float) -> None:
    """The order of patients is nothing; a constant added to a site is taken out again; units are nothing."""
    table, site, covariates = cohort(seed, n=60, columns=8)
    made = Combat.fit(table, site, covariates, KINDS)
    ours = made.transform(table, site, covariates)
    order = np.random.default_rng(seed).permutation(table.index)
    other = Combat.fit(table.loc[order], site, covariates, KINDS).transform(table, site, covariates)
    np.testing.assert_allclose(other, ours, atol=1e-8)
    # the same constant for all columns in their own spread: the shrinkage is not asked to look away
    moved = table + np.outer(site == "B", constant * np.array(made.sd))
    back = Combat.fit(moved, site, covariates, KINDS).transform(moved, site, covariates)
    kept = ours + constant * np.mean(site == "B") * np.array(made.sd)  # the grand mean moves by the share of the site
    np.testing.assert_allclose(back, kept, rtol=1e-6, atol=2e-4 * np.array(made.sd).max())
    scaled = Combat.fit(table * 7 + 3, site, covariates, KINDS).transform(table * 7 + 3, site, covariates)
    np.testing.assert_allclose(scaled, ours * 7 + 3, rtol=1e-6, atol=1e-6)


def test_without_a_site_effect_next_to_nothing_moves() -> None:
    rng = np.random.default_rng(0)
    ids = [f"P{i}" for i in range(600)]
    table = pd.DataFrame(rng.normal(size=(600, 50)), ids).add_prefix("f")
    site = pd.Series(rng.choice(list("ABC"), 600), ids)
    moved = Combat.fit(table, site).transform(table, site) - table
    assert moved.abs().to_numpy().mean() < 0.03
    raw = table - table.groupby(site).transform("mean")  # what unshrunken centring would do
    assert moved.abs().to_numpy().mean() < (raw - table).abs().to_numpy().mean()


def test_what_is_kept_is_not_taken_out() -> None:
    """Sites that differ in age: with age kept, its slope survives; without, a part of it goes with the site."""
    rng = np.random.default_rng(1)
    ids = [f"P{i}" for i in range(400)]
    site = pd.Series(np.repeat(["A", "B"], 200), ids)
    age = pd.DataFrame({"age": rng.normal(np.where(site == "A", 50, 70), 6)}, ids)
    x = age.to_numpy() * 0.3 + rng.normal(size=(400, 20)) + 5.0 * (site == "B").to_numpy()[:, None]
    table = pd.DataFrame(x, ids).add_prefix("f")
    slope = {}
    for name, cov in {"kept": age, "lost": None}.items():
        made = Combat.fit(table, site, cov, {"age": "numeric"} if cov is not None else None)
        out = made.transform(table, site, cov)
        slope[name] = np.mean([np.polyfit(age["age"], out[c], 1)[0] for c in out])
    assert slope["kept"] == pytest.approx(0.3, abs=0.02)
    assert slope["lost"] < 0.15


def test_one_site_or_none_changes_nothing() -> None:
    table, _, covariates = cohort(2)
    for site in (pd.Series("A", table.index), pd.Series("", table.index)):
        made = Combat.fit(table, site, covariates, KINDS)
        assert made.transform(table, site, covariates) is table
    lone = pd.Series(["B"] * 4 + ["A"] * (len(table) - 4), table.index)
    assert not Combat.fit(table, lone, least=5).columns


def test_an_unseen_site_in_the_stated_way() -> None:
    table, site, _ = cohort(3, n=200, sites="ABCD")
    train = site[site != "D"].index
    new = site.index[site == "D"]
    left = Combat.fit(table.loc[train], site).transform(table, site)
    pd.testing.assert_frame_equal(left.loc[new], table.loc[new])
    assert Combat.fit(table.loc[train], site).strangers(site) == {"D": len(new)}
    with pytest.raises(DataFault, match=r"'D' \(\d+ patients\): combat.unseen=refuse; set it to pooled"):
        Combat.fit(table.loc[train], site, unseen="refuse").transform(table, site)
    own = Combat.fit(table.loc[train], site, unseen="own").transform(table, site)
    pd.testing.assert_frame_equal(own.loc[train], left.loc[train])

    def far(frame: pd.DataFrame) -> float:
        gap = frame.loc[new].mean() - left.loc[train].mean()
        return float((gap / left.loc[train].std()).abs().mean())

    assert far(own) < 0.3 * far(table)
    few = Combat.fit(table.loc[train], site, unseen="own").transform(table.loc[[*train, *new[:3]]], site)
    pd.testing.assert_frame_equal(few.loc[new[:3]], table.loc[new[:3]])
    nowhere = site.mask(site == "D", "NA")
    pd.testing.assert_frame_equal(Combat.fit(table.loc[train], site).transform(table, nowhere).loc[new], table.loc[new])


def test_missing_cells_stay_missing_and_enter_nothing() -> None:
    table, site, covariates = cohort(4)
    rng = np.random.default_rng(4)
    holes = table.mask(rng.random(table.shape) < 0.2)
    holes["f3"] = holes["f3"].mask(site == "B")  # not measured at B
    holes["f4"] = np.nan
    made = Combat.fit(holes, site, covariates, KINDS)
    out = made.transform(holes, site, covariates)
    pd.testing.assert_frame_equal(out.isna(), holes.isna())
    whole = made.transform(table, site, covariates)
    pd.testing.assert_frame_equal(whole.where(holes.notna()), out)
    at_b = site.index[site == "B"]
    pd.testing.assert_series_equal(whole.loc[at_b, "f3"], table.loc[at_b, "f3"])
    infinite = holes.fillna(np.inf)
    assert Combat.fit(infinite, site, covariates, KINDS).state() == made.state()


def test_constant_columns() -> None:
    table, site, _ = cohort(5)
    table["same"] = 4.0
    table["of_site"] = site.map({"A": 1.0, "B": 2.0, "C": 5.0})
    made = Combat.fit(table, site)
    assert set(made.flat) == {"same", "of_site"}
    out = made.transform(table, site)
    np.testing.assert_allclose(out["same"], 4.0)
    assert out["of_site"].std() < 1e-9
    alone = made.transform(table.drop(columns=["same", "of_site"]).assign(same=4.0, of_site=1.0), site)
    np.testing.assert_allclose(alone.iloc[:, :30], out.iloc[:, :30])
    rest = table.drop(columns=["same", "of_site"])
    np.testing.assert_allclose(Combat.fit(rest, site).transform(rest, site), out[rest.columns])
    one = table[["f1"]]
    centred = Combat.fit(one, site).transform(one, site).groupby(site).mean()
    assert float(centred.std().iloc[0]) < 1e-9


def test_faults_are_one_sentence() -> None:
    table, site, covariates = cohort(6)
    confounded = covariates.assign(sex=site.map({"A": "m", "B": "f", "C": "f"}))
    with pytest.raises(DataFault, match="age, sex cannot be told from the site"):
        Combat.fit(table, site, confounded, KINDS)
    with pytest.raises(DataFault, match=r"combat\.reference='Z' has 0 training patients"):
        Combat.fit(table, site, reference="Z")
    with pytest.raises(UsageFault, match="none of refuse, pooled, own"):
        Combat.fit(table, site, unseen="guess")
    with pytest.raises(UsageFault, match="at least 2"):
        Combat.fit(table, site, least=1)
    with pytest.raises(DataFault, match="lacks 1 column"):
        Combat.fit(table, site).transform(table.drop(columns="f0"), site)


def test_covariates_as_numbers() -> None:
    frame = pd.DataFrame(
        {"age": [50.0, np.nan, 70.0], "sex": ["m", "f", "m"], "smoking": ["never", "current", "NA"]}, list("abc")
    )
    design = CovariateDesign.fit(frame, {**KINDS, "smoking": ["never", "former", "current"]})
    np.testing.assert_allclose(design(frame), [[-10, 1 / 3, -1], [0, -2 / 3, 1], [10, 1 / 3, 0]])
    strange = frame.assign(sex="other", smoking="pipe", age=60.0)
    np.testing.assert_allclose(design(strange)[:, [0, 2]], 0)
    with pytest.raises(DataFault, match="no column 'age'"):
        design(frame.drop(columns="age"))
    with pytest.raises(UsageFault, match="declared as 'number'"):
        CovariateDesign.fit(frame, {"age": "number"})


def test_an_outcome_is_never_kept() -> None:
    ids = ["a", "b"]
    clinical = pd.DataFrame({"age": [50.0, 60.0], "sex": ["m", "f"]}, ids)
    who = Manifest(
        "toy",
        pd.DataFrame({"site": ["A", "B"], "dead": ["1", "0"], "ecog": ["0", "1"]}, ids),
        {"survival": TaskSpec("survival", "survival", (), ("days", "dead"))},
        {"clinical": ModalitySpec("clinical", "clinical", {"columns": KINDS})},
        {},
        tables={"clinical": clinical},
    )
    frame, kinds = kept_covariates(who, ["age", "sex"])
    assert kinds == KINDS
    pd.testing.assert_frame_equal(frame, clinical)
    frame, kinds = kept_covariates(who, {"ecog": "numeric", "age": None})
    assert kinds == {"ecog": "numeric", "age": "numeric"}
    for name in ("dead", "Dead", "survival", "days"):
        with pytest.raises(DataFault, match=f"names '{name}', which is an outcome"):
            kept_covariates(who, {name: "numeric"})
    with pytest.raises(UsageFault, match="has a column 'ecog'"):
        kept_covariates(who, ["ecog"])
    with pytest.raises(DataFault, match="an outcome would leak"):
        refuse_outcomes(["grade"], ["grade"])


def test_counts_come_to_their_logarithm_before_sites_are_compared() -> None:
    rng = np.random.default_rng(5)
    site = pd.Series(np.repeat(["A", "B"], 30), index=[f"p{i}" for i in range(60)])
    depth = np.where(site == "A", 1e6, 3e6)[:, None] * rng.uniform(0.8, 1.2, (60, 1))
    counts = pd.DataFrame(rng.poisson(depth * rng.dirichlet(np.ones(6), 60)), site.index, list("abcdef"), dtype=float)
    change = Transform.of("counts", "auto", list(counts.columns))
    made = Combat.fit(counts, site, change=change)
    logged = change(counts)
    pd.testing.assert_frame_equal(made.transform(counts, site), Combat.fit(logged, site).transform(logged, site))
    again = Combat.load(made.state())
    pd.testing.assert_frame_equal(again.transform(counts, site), made.transform(counts, site))
