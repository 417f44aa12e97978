"""The section on maps: every number again from the tables of `mtl predict`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.explain.deletion import areas
from nsclc_mtl.records import UsageFault
from nsclc_mtl.report.section import Evidence
from nsclc_mtl.report.sections import maps as section_of

MANY = 12


def explained(folder: Path) -> pd.DataFrame:
    """Twelve patients whose curves by influence lie above those by attention and these above random ones."""
    rng, rows, spread = np.random.default_rng(0), [], []
    for i in range(MANY):
        who = {"patient_id": f"{i:03d}", "fold": i % 2, "part": "train" if i == 0 else "test", "modality": "wsi"}
        for by, lift in (("influence", 2.0), ("attention", 1.0), ("random", 0.5)):
            for mode in ("removed", "kept"):
                for share in (0.25, 0.5, 0.75):
                    change = lift * share * (1 + 0.1 * rng.random())
                    rows.append({**who, "task": "grade", "by": by, "mode": mode, "share": share, "tiles": 4,
                                 "score": change, "change": change})  # fmt: skip
        for kind, task in (("attention", ""), ("influence", "grade")):
            moran = "" if i == 1 else 0.1 * i
            spread.append({**who, "slide_id": f"NA{i}", "map": kind, "task": task, "tiles": 9, "share_of_patient": 1,
                           "entropy": 0.9, "effective_tiles": 8, "moran_i": moran, "moran_expected": -0.125,
                           "moran_p": "" if i == 1 else 0.01 * i, "reason": ""})  # fmt: skip
    # patient 2 has nine slides more, of which none has a pattern: he counts once
    more = [{**row, "slide_id": f"more{k}", "moran_i": 9.0, "moran_p": 0.9}
            for row in spread if row["patient_id"] == "002" for k in range(9)]  # fmt: skip
    whole = [{k: v for k, v in row.items() if k not in ("slide_id", "share_of_patient")} for row in spread]
    whole = [{**row, "slides": 10 if row["patient_id"] == "002" else 1} for row in whole]
    (folder / "explanations").mkdir(parents=True)
    told = pd.DataFrame(rows)
    told.to_csv(folder / "explanations" / "deletion.csv", index=False)
    pd.DataFrame(spread + more).to_csv(folder / "explanations" / "heterogeneity.csv", index=False)
    pd.DataFrame(whole).to_csv(folder / "explanations" / "heterogeneity-patients.csv", index=False)
    return told


def evidence(folder: Path | None, patients: list[str]) -> Evidence:
    predictions = pd.DataFrame({"patient_id": patients, "task": "grade", "part": "test"})
    settings = {"explained": folder and str(folder), "bootstrap": 200, "seed": 0}
    return Evidence({"grade": None}, predictions, settings=settings)  # type: ignore[dict-item]


def test_the_gaps_are_means_over_test_patients(tmp_path: Path) -> None:
    told = explained(tmp_path)
    (section,) = section_of(evidence(tmp_path, sorted(set(told["patient_id"]))))
    table = section.tables["maps-gaps"].set_index(["map", "mode"])
    each = areas(told[told["part"] == "test"], ["patient_id"])
    for by in ("influence", "attention"):
        own = each[(each["by"] == by) & (each["mode"] == "removed")]
        row = table.loc[by, "removed"]
        assert row["gap"] == pytest.approx(own["gap"].mean())
        assert row["times"] == pytest.approx(own["area"].mean() / own["random"].mean())
        assert row["lo"] < row["gap"] < row["hi"]
        assert row["n"] == MANY - 1  # who was trained on says nothing
    difference = table.loc["influence", "removed"]["gap"] - table.loc["attention", "removed"]["gap"]
    assert table.loc["influence − attention", "removed"]["gap"] == pytest.approx(difference)
    (figure,) = section.figures
    line = figure.data[(figure.data["by"] == "influence") & (figure.data["mode"] == "removed")]
    own = told[(told["by"] == "influence") & (told["mode"] == "removed") & (told["part"] == "test")]
    np.testing.assert_allclose(line["change"], [0, *own.groupby("share")["change"].mean()])
    row = section.tables["maps-heterogeneity"].set_index("map").loc["influence"]
    assert row["moran_i"] == pytest.approx(np.median([0.1 * i for i in range(MANY) if i != 1]))
    assert row["clustered"] == pytest.approx(4 / 11)  # P below .05: patients 0, 2, 3 and 4
    assert (row["patients"], row["slides"]) == (MANY, MANY + 9)
    assert f"Slides of {MANY} patients were explained ({MANY + 9} slides" in section.html
    assert {r["metric"] for r in section.rows} >= {"deletion_gap:wsi:influence:removed"}
    assert "influence − attention" in section.html


def test_gaps_of_few_patients_have_no_interval(tmp_path: Path) -> None:
    told = explained(tmp_path)
    assert "No interval is given" not in section_of(evidence(tmp_path, sorted(set(told["patient_id"]))))[0].html
    (section,) = section_of(evidence(tmp_path, ["001", "002"]))
    table = section.tables["maps-gaps"]
    assert table["gap"].notna().all()
    assert table[["lo", "hi"]].isna().all(axis=None)
    assert set(table["reason"]) == {"no interval: 2 patients, at least 10 are needed"}
    assert {(r["lo"], r["n"], r["reason"]) for r in section.rows} == {(None, 2, table["reason"].iloc[0])}
    assert "fewer than 10 patients were explained (here 2)" in section.html
    assert "explain.patients=all" in section.html
    assert " to " not in section.html[section.html.index("<tbody>") : section.html.index("</tbody>")]


def test_a_run_that_told_of_slides_alone_has_its_gaps_and_a_sentence(tmp_path: Path) -> None:
    told = explained(tmp_path)
    (tmp_path / "explanations" / "heterogeneity-patients.csv").unlink()
    (section,) = section_of(evidence(tmp_path, sorted(set(told["patient_id"]))))
    assert set(section.tables) == {"maps-gaps"}
    assert "an older version explained these patients" in section.html


def test_no_section_without_explained_slides_and_none_of_strangers(tmp_path: Path) -> None:
    assert section_of(evidence(None, ["000"])) == []
    explained(tmp_path)
    with pytest.raises(UsageFault, match="none of the patients"):
        section_of(evidence(tmp_path, ["x"]))
