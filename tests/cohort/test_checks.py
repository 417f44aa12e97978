"""The linter of a cohort: what is planted must be found, what is not there must not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.cohort import checks, leaks, splits
from nsclc_mtl.commands import check as command
from nsclc_mtl.config import execute
from nsclc_mtl.phantom import truth
from nsclc_mtl.phantom.cohort import make
from nsclc_mtl.records import Manifest, ModalitySpec, TaskSpec

CLINICAL, OMICS = ModalitySpec("clinical", "clinical"), ModalitySpec("rna", "omics")


def cohort(n: int = 120, seed: int = 0, missing: str = "mcar", site: str = "none") -> Manifest:
    """The phantom's outcomes and absences, with small tables that know nothing."""
    drawn = truth.draw(n, seed, missing, site)
    index = pd.Index(drawn.patients["patient_id"])
    out, rng = drawn.outcomes, np.random.default_rng(seed)
    kinds = {"grade": truth.GRADES, "stage": truth.STAGES, "response": truth.RESPONSES}
    tasks = {
        name: TaskSpec(name, "binary" if name == "response" else "ordinal", tuple(words), (name,))
        for name, words in kinds.items()
    }
    tasks["survival"] = TaskSpec("survival", "survival", columns=("os_status", "os_days"))
    labels = {
        name: pd.DataFrame({"value": np.where(drawn.known[name], out[name], np.nan)}, index=index) for name in kinds
    }
    seen = drawn.known["survival"]
    labels["survival"] = pd.DataFrame(
        {"event": np.where(seen, out["os_event"], np.nan), "time_days": np.where(seen, out["os_days"] * 1.0, np.nan)},
        index=index,
    )
    clinical = pd.DataFrame({"age": rng.integers(40, 85, n) * 1.0, "sex": rng.choice(["f", "m"], n)}, index=index)
    rna = pd.DataFrame(rng.normal(size=(n, 40)), index=index, columns=[f"G{i}" for i in range(40)])
    return Manifest(
        "toy", drawn.patients.set_index("patient_id"), tasks, {"clinical": CLINICAL, "rna": OMICS}, labels,
        tables={"clinical": clinical, "rna": rna[drawn.has["radiomics"]]},
    )  # fmt: skip


def lint(manifest: Manifest, **words: object) -> list[leaks.Finding]:
    dealt = splits.k_fold(manifest.labels, manifest.ids, folds=3, seed=0)
    return checks.check(manifest, dealt, **words)[0]  # type: ignore[arg-type]


def test_a_sound_cohort_has_no_findings() -> None:
    assert lint(cohort()) == []


def copied(manifest: Manifest, kind: str) -> pd.Series:
    survival, grade = manifest.labels["survival"], manifest.labels["grade"]["value"]
    return {
        "classes in other words": grade.map({0: "well", 1: "moderate", 2: "poor"}).fillna(""),
        "classes the other way round": -grade,
        "time in months": survival["time_days"] / 30.4,
        "minus the logarithm of time": -np.log(survival["time_days"] + 1),
        "days to death": survival["time_days"].where(survival["event"] == 1),
        "vital words": survival["event"].map({0: "alive", 1: "dead"}).fillna("NA"),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("classes in other words", "'grade'"),
        ("classes the other way round", "'grade'"),
        ("time in months", "'survival' (time)"),
        ("minus the logarithm of time", "'survival' (time)"),
        ("days to death", "'survival' (time)"),
        ("vital words", "'survival' (event)"),
    ],
)
def test_a_copy_of_an_outcome_is_an_error(kind: str, part: str) -> None:
    manifest = cohort()
    manifest.tables["clinical"]["x"] = copied(manifest, kind)
    if kind == "vital words":
        manifest.tables["clinical"].iloc[:3, 2] = "NA"  # not known here, though the task knows it
    found = lint(manifest)
    assert [(f.level, f.rule, f.where) for f in found if f.level == "error"] == [("error", "copy", "clinical")]
    assert part in found[0].sentence
    assert not [f for f in found if f.rule == "alarm" and "'x'" in f.sentence]  # said once


def test_a_copy_by_name() -> None:
    manifest = cohort()
    manifest.tables["clinical"]["OS_Days "] = 1.0 * np.arange(120)
    assert [f.rule for f in lint(manifest) if f.level == "error"] == ["copy"]


def test_what_chance_can_do_is_no_copy() -> None:
    """Ten patients with a label: some of ten thousand mutations agree with it by themselves."""
    rng = np.random.default_rng(5)
    index = pd.Index([f"P{i}" for i in range(10)])
    value = np.repeat([0.0, 1.0], 5)
    mutations = pd.DataFrame(rng.integers(0, 2, (10, 10_000)) * 1.0, index=index)
    assert (value == mutations.to_numpy().T).all(axis=1).any()
    manifest = Manifest(
        "toy", pd.DataFrame({"site": ""}, index=index), {"y": TaskSpec("y", "binary", ("a", "b"))}, {"rna": OMICS},
        {"y": pd.DataFrame({"value": value}, index=index)}, tables={"rna": mutations},
    )  # fmt: skip
    assert leaks.copies(manifest, checks.outcome_parts(manifest)) == []


def test_a_column_that_knows_too_much() -> None:
    manifest = cohort()
    survival = manifest.labels["survival"]
    noise = np.random.default_rng(1).normal(0, 200, len(survival))
    manifest.tables["clinical"]["visits"] = survival["time_days"].fillna(500) + noise
    (found,) = [f for f in lint(manifest) if f.rule == "alarm"]
    assert found.level == "warning"
    assert "'visits' alone gives C 0." in found.sentence
    assert not [f for f in lint(manifest, level=0.99) if f.rule == "alarm"]
    assert not [f for f in lint(manifest, patients=500) if f.rule == "alarm"]


def test_many_columns_of_noise_in_few_patients_raise_no_alarm() -> None:
    rng = np.random.default_rng(3)
    index = pd.Index([f"P{i}" for i in range(32)])
    value = np.r_[np.zeros(8), np.ones(24)]
    manifest = Manifest(
        "toy", pd.DataFrame({"site": ""}, index=index), {"y": TaskSpec("y", "binary", ("a", "b"))}, {"rna": OMICS},
        {"y": pd.DataFrame({"value": value}, index=index)},
        tables={"rna": pd.DataFrame(rng.normal(size=(32, 3000)), index=index)},
    )  # fmt: skip
    found, best = leaks.alarms(manifest, list(index), level=0.85, patients=30, alpha=0.01)
    assert best["value"].max() > 0.85
    assert found == []


@pytest.mark.parametrize(
    ("column", "smelt"),
    [
        ("vital_status", True), ("tumor_status", True), ("daysToLastFollowup", True), ("recurrence", True),
        ("days_to_birth", True), ("last_contact", True), ("OS_time", True), ("smoking_status", False),
        ("hpv_status", False), ("lymphocytes", False), ("closest_margin", False), ("position", False),
    ],
)  # fmt: skip
def test_names_that_smell(column: str, smelt: bool) -> None:
    manifest = cohort(40)
    manifest.tables["clinical"][column] = np.random.default_rng(0).normal(size=40)
    assert [f.rule for f in leaks.smells(manifest)] == ["name"] * smelt


def test_twins_and_columns_that_say_nothing() -> None:
    manifest = cohort()
    rna = manifest.tables["rna"]
    rna.iloc[5] = rna.iloc[7]
    rna["zero"], rna["void"] = 0.0, np.nan
    found = {f.rule: f for f in lint(manifest)}
    assert set(found) >= {"duplicate"}
    assert all(patient in found["duplicate"].sentence for patient in (rna.index[5], rna.index[7]))
    told = [f.sentence for f in lint(manifest) if f.rule == "constant"]
    assert told == ["1 of 42 columns without any value: void", "1 of 42 columns with one value only: zero"]
    # equal age and sex are no twins
    assert not [f for f in lint(manifest) if f.where == "clinical"]


@pytest.mark.parametrize(("missing", "warned"), [("mcar", False), ("mnar", True)])
def test_absence_by_outcome(missing: str, warned: bool) -> None:
    for seed in range(3):
        found = checks.missing_by_outcome(cohort(400, seed, missing), alpha=0.01)
        assert bool(found) is warned
        assert all(f.where == "rna" for f in found)


@pytest.mark.slow
def test_absence_by_chance_is_reported_as_often_as_alpha_says() -> None:
    alarms = [bool(checks.missing_by_outcome(cohort(400, seed), alpha=0.05)) for seed in range(300)]
    assert np.mean(alarms) < 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 300)  # Holm keeps it below; 99 % of the time


def test_site_by_label() -> None:
    found = checks.label_by_site(cohort(400, site="confounded"), alpha=0.01)
    assert "grade" in {f.where for f in found}
    assert checks.label_by_site(cohort(400), alpha=0.01) == []


@pytest.mark.parametrize(("factor", "told"), [(1 / 30.4, True), (1, False), (30.4, True)])
def test_a_wrong_unit_shows_in_the_follow_up(factor: float, told: bool) -> None:
    manifest = cohort()
    manifest.labels["survival"]["time_days"] *= factor
    assert [f.rule for f in checks.follow_up(manifest)] == ["follow_up"] * told


def test_median_follow_up_by_hand() -> None:
    # censored at 2, 4, 6; events at 1, 3, 5, 7: G falls to 5/6, then 5/6*3/4, then 5/6*3/4*1/2 = .31 at 6
    frame = pd.DataFrame({"event": [1, 0, 1, 0, 1, 0, 1.0], "time_days": [1, 2, 3, 4, 5, 6, 7.0]})
    assert checks.median_follow_up(frame) == 6


def test_counts_add_up() -> None:
    manifest = cohort()
    table = checks.per_site(manifest)
    assert (table.drop(columns="all").sum(axis=1) == table["all"]).all()
    assert table.loc["patients", "all"] == 120
    assert table.loc["has rna", "all"] == len(manifest.tables["rna"])
    dealt = splits.k_fold(manifest.labels, manifest.ids, folds=3, seed=0)
    parts = checks.per_part(manifest, dealt)
    assert (parts.groupby("fold")["patients"].sum() == 120).all()
    assert (parts.groupby("fold")["survival events"].sum() == table.loc["survival events", "all"]).all()


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make(tmp_path / "data", level="features", n=60)


def run(data: Path, *words: str) -> tuple[int, dict]:
    base = [f"cohort.root={data}", "cohort.level=features", "cohort.n=60", "folds.n=3", "name=it"]
    code = execute("check", [*base, *words], lambda: command.body)
    file = Path("runs/check/it/check.json")
    return code, json.loads(file.read_text()) if file.is_file() else {}


def test_check_tells_and_writes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run(data)
    assert code == 0
    assert found["errors"] == 0
    assert found["per_site"]["all"]["patients"] == 60
    assert {row["fold"] for row in found["per_part"]} == {0, 1, 2}
    told = capsys.readouterr().out
    assert "phantom: who has what" in told
    assert "0 errors" in told
    assert "\x1b" not in told  # plain where it is no terminal
    account = json.loads(Path("runs/check/it/run.json").read_text())
    assert {entry["path"] for entry in account["inputs"]} >= {"patients.csv", "rna.csv"}


def test_a_planted_leak_ends_with_exit_3(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(data / "patients.csv", dtype=str, keep_default_na=False)
    table["ki67"] = table["os_days"]
    table.to_csv(data / "patients.csv", index=False)
    code, found = run(data, "+cohort.modalities.clinical.columns.ki67=numeric")
    assert code == 3
    assert [(f["rule"], f["where"]) for f in found["findings"] if f["level"] == "error"] == [("copy", "clinical")]
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "'ki67' is a copy of the task 'survival' (time)" in told


def test_one_slide_of_two_patients_ends_with_exit_3(data: Path) -> None:
    table = pd.read_csv(data / "slides.csv", dtype=str)
    other = table["patient_id"].ne(table["patient_id"][0]).idxmax()
    (data / table["path"][other]).write_bytes((data / table["path"][0]).read_bytes())
    code, found = run(data)
    assert code == 3
    assert [f["rule"] for f in found["findings"] if f["level"] == "error"] == ["duplicate"]
    assert run(data, "hash_slides=false", "name=quick")[0] == 0


def test_tables_that_cannot_be_read_end_with_exit_3_and_are_told(data: Path) -> None:
    text = (data / "patients.csv").read_text().replace("deceased", "deceazed", 1)
    (data / "patients.csv").write_text(text)
    code, found = run(data)
    assert code == 3
    assert "'deceazed' (1 rows)" in found["findings"][0]["sentence"]


def test_a_split_that_train_would_refuse(data: Path) -> None:
    code, found = run(data, "folds.min_events=1000")
    assert code == 3
    assert found["findings"][0]["rule"] == "split"
