"""Gene sets: what a GMT file holds, what of it the table has, and the scores of a patient."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables.encode import TableEncoder
from nsclc_mtl.tables.pathways import match, read_gmt

SETS = {"first": ["G0", "G1", "G2"], "second": ["G2", "G3", "G4", "G5"]}


def table(n: int = 40, genes: int = 12, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(rng.normal(5, 2, (n, genes))).rename(columns=lambda i: f"G{i}")


def gmt(folder: Path, text: str) -> Path:
    (folder / "sets.gmt").write_bytes(text.encode())
    return folder / "sets.gmt"


def test_a_gmt_file_and_what_is_left_out_of_it(tmp_path: Path) -> None:
    told, notes = read_gmt(
        gmt(tmp_path, "\ufeffA\thttp://x\tG1\tG2\tG1\r\nB\t\tG3\r\n\r\nEMPTY\tna\r\nB\tagain\tG3\r\nC\tna\tG4\t\r\n")
    )
    assert told == {"A": ["G1", "G2"], "B": ["G3"], "C": ["G4"]}
    assert notes == ["'sets.gmt': 1 empty sets, 1 sets that are there twice, 1 genes repeated within a set left out"]
    assert read_gmt(gmt(tmp_path, "A\tna\tG1\n"))[1] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no gene set"),
        ("A\tna\n", "holds no gene set"),
        ("A,na,G1\n", "line 1 is no gene set"),
        ("A\tna\tG1\n\tna\tG2\n", "line 2 is no gene set"),
        ("A\tna\tG1\nA\tna\tG2\n", "line 2: the set 'A' was there before with other genes"),
    ],
)
def test_what_is_no_gmt_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataFault, match=f"'sets.gmt'.*{said}"):
        read_gmt(gmt(tmp_path, text))
    (tmp_path / "sets.gmt").write_bytes(b"A\tna\t\xe9\n")
    with pytest.raises(DataFault, match="not UTF-8"):
        read_gmt(tmp_path / "sets.gmt")
    with pytest.raises(DataFault, match=r"no gene sets 'absent\.gmt'"):
        read_gmt(tmp_path / "absent.gmt")


def test_sets_are_matched_by_name_and_small_ones_left_out() -> None:
    sets = {"a": ["TP53", "KRAS", "NONE"], "b": ["KRAS"], "c": ["EGFR", "TP53"]}
    kept, notes = match(sets, ["TP53_rnaseq", "KRAS_rnaseq", "EGFR_cnv"], 2, "s.gmt", "_rnaseq")
    assert kept == {"a": ["TP53_rnaseq", "KRAS_rnaseq"]}
    assert notes == [
        "'s.gmt': 2 of 4 genes of 3 sets are in the table, 2 are not",
        "'s.gmt': 2 sets with fewer than 2 genes in the table left out: 'b' (1), 'c' (1)",
    ]
    with pytest.raises(DataFault, match=r"none of 3 gene sets has 2 genes .*sets say 'TP53', columns 'ENSG1'"):
        match(sets, ["ENSG1"], 2, "s.gmt")


def test_mean_z_is_the_mean_of_scaled_genes_and_fitted_on_training_rows() -> None:
    train, new = table(), table(5, seed=1)
    made = TableEncoder.fit(train, sets=SETS)
    assert made.names == ["first", "second"]
    z = (new - train.mean()) / train.std(ddof=0)
    raw = np.stack([z[own].mean(axis=1) for own in SETS.values()], axis=1)
    own = (train - train.mean()) / train.std(ddof=0)
    spread = np.array([own[genes].mean(axis=1).std(ddof=0) for genes in SETS.values()])
    np.testing.assert_allclose(made.transform(new), raw / spread, rtol=1e-5)
    loaded = TableEncoder.load(json.loads(json.dumps(made.state(), allow_nan=False)))
    np.testing.assert_array_equal(loaded.transform(new), made.transform(new))
    with pytest.raises(DataFault, match=r"lacks 1 column.*G3"):
        made.transform(new.drop(columns="G3"))


def test_plage_is_the_first_component_of_the_members() -> None:
    rng = np.random.default_rng(2)
    train = table()
    train[SETS["second"]] += 6 * rng.normal(size=(40, 1)) * [1.0, 1, 1, -0.2]
    told = TableEncoder.fit(train, sets=SETS, scores="plage").transform(train)
    z = ((train - train.mean()) / train.std(ddof=0))[SETS["second"]].to_numpy()
    first = np.linalg.svd(z)[0][:, 0]
    assert abs(np.corrcoef(first, told[:, 1])[0, 1]) == pytest.approx(1, abs=1e-5)
    assert np.corrcoef(train["G3"], told[:, 1])[0, 1] > 0.8  # up where the members go up


def test_singscore_ranks_within_a_patient() -> None:
    """By hand: ranks 1..6; the three lowest genes score -.5, the three highest +.5, the odd ones -1/6."""
    rows = pd.DataFrame([[1.0, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]], columns=list("ABCDEF"))
    sets = {"low": ["A", "B", "C"], "odd": ["A", "C", "E"]}
    made = TableEncoder.fit(rows, sets=sets, scores="singscore", scaling="none")
    np.testing.assert_allclose(made.transform(rows), [[-0.5, -1 / 6], [0.5, 1 / 6]], rtol=1e-6)
    np.testing.assert_allclose(made.transform(np.exp(rows) * 3), made.transform(rows))  # a monotone change is nothing


def test_scores_are_never_nan_and_are_selected_and_reduced_like_columns() -> None:
    train = table()
    train.iloc[3, 2], train["G5"], train["G1"] = np.nan, np.nan, 7.0
    for scores in ("mean_z", "plage", "singscore"):
        made = TableEncoder.fit(train, sets=SETS, scores=scores)
        assert np.isfinite(made.transform(train)).all()
    many = {f"s{i}": [f"G{i}", f"G{i + 1}"] for i in range(9)}
    assert TableEncoder.fit(train, sets=many, select="variance", keep=4).dim == 4
    assert TableEncoder.fit(train, sets=many, components=3).names == ["component 1", "component 2", "component 3"]


def test_tokens_know_the_columns_of_their_genes() -> None:
    train = table()
    train["G5"] = 1.0
    train.iloc[3, 2] = np.nan
    made = TableEncoder.fit(train, sets=SETS, scores="tokens")
    assert made.names == ["G0", "G1", "G2", "G3", "G4", "G2 missing"]
    assert made.groups == {"first": [0, 1, 2, 5], "second": [2, 5, 3, 4]}
    with pytest.raises(UsageFault, match="set components to null"):
        TableEncoder.fit(train, sets=SETS, scores="tokens", components=2)
    with pytest.raises(UsageFault, match="scores='ssgsea' is none of mean_z, singscore, plage, tokens"):
        TableEncoder.fit(train, sets=SETS, scores="ssgsea")
    for scores in ("tokens", "mean_z"):
        with pytest.raises(DataFault, match="no gene set has a gene that varies"):
            TableEncoder.fit(train, sets={"flat": ["G5"]}, scores=scores)
