"""Omics tables as a cohort declares them, read from files: what is refused, what is told, what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.bags.cache import BagCache
from nsclc_mtl.bags.fitted import fit
from nsclc_mtl.cohort import manifest
from nsclc_mtl.config import execute
from nsclc_mtl.records import DataFault, Manifest, UsageFault

IDS = [f"P{i}" for i in range(12)]
Load = Callable[..., Manifest]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [f"{p},{'yes' if i % 2 else 'no'}" for i, p in enumerate(IDS)]
    (tmp_path / "patients.csv").write_text("\n".join(["patient_id,response", *lines]) + "\n")
    return tmp_path


@pytest.fixture
def load(folder: Path) -> Load:
    """The manifest of a cohort whose table of genes has these column names and values [patient, column]."""

    def made(names: list[str], given: Any = None, /, kind: str = "omics", **declared: Any) -> Manifest:
        rng = np.random.default_rng(0)
        cells = rng.normal(size=(len(IDS), len(names))).round(3) if given is None else np.asarray(given)
        rows = [",".join([p, *map(str, row)]) for p, row in zip(IDS, cells, strict=True)]
        (folder / "rna.csv").write_text("\n".join([",".join(["patient_id", *names]), *rows]) + "\n")
        return manifest.load(cohort(folder, kind=kind, **declared), Path("out"))

    return made


def cohort(folder: Path, **declared: Any) -> dict[str, Any]:
    return {
        "name": "toy",
        "root": str(folder),
        "patients": {"file": "patients.csv", "id": "patient_id"},
        "tasks": {"response": {"kind": "binary", "column": "response", "classes": ["no", "yes"]}},
        "modalities": {"rna": {"file": "rna.csv", **declared}},
    }


def test_duplicated_genes_are_refused(load: Load) -> None:
    with pytest.raises(DataFault, match=r"'rna.csv' repeats the column\(s\) 'TP53'"):
        load(["TP53", "KRAS", "TP53"])


def test_duplicated_genes_by_their_mean(load: Load) -> None:
    values = np.arange(36.0).reshape(12, 3)
    made = load(["TP53", "KRAS", "TP53"], values, duplicate_columns="mean")
    assert list(made.tables["rna"].columns) == ["TP53", "KRAS"]
    np.testing.assert_array_equal(made.tables["rna"]["TP53"], values[:, [0, 2]].mean(axis=1))
    assert "rna: 1 names stand there more than once (duplicate_columns: mean)" in made.notes


def test_duplicated_genes_by_variance_among_training_patients(load: Load) -> None:
    """In the first half the first column varies, in the second half the second one, and far more."""
    rng = np.random.default_rng(1)
    values = np.zeros((12, 3))
    values[:6, 0], values[6:, 2], values[:, 1] = rng.normal(size=6), 100 * rng.normal(size=6), rng.normal(size=12)
    made = load(["TP53_rna", "KRAS_rna", "TP53_rna"], values, duplicate_columns="max_variance", match="_rna$")
    for train, kept in ((IDS[:6], ["TP53_rna", "KRAS_rna"]), (IDS, ["KRAS_rna", "TP53_rna #2"])):
        assert fit(made, train, BagCache(), {}).tables["rna"].numbers == kept


def test_a_repeated_outcome_is_no_input_either(load: Load) -> None:
    made = load(["TP53", "response", "response"], duplicate_columns="mean")
    assert list(made.tables["rna"].columns) == ["TP53"]


def test_columns_that_a_reader_has_renamed_are_told(load: Load) -> None:
    made = load(["TP53", "TP53.1", "AC004556.1"])
    assert any("1 columns are named like a second 'TP53' ('TP53.1')" in note for note in made.notes)


def test_unknown_words_are_refused(load: Load) -> None:
    with pytest.raises(UsageFault, match="duplicate_columns='first' is none of refuse, mean, max_variance"):
        load(["A"], duplicate_columns="first")
    with pytest.raises(UsageFault, match="duplicate_columns is for whole tables"):
        load(["A"], duplicate_columns="mean", columns={"A": "numeric"})
    with pytest.raises(UsageFault, match="values='fpkm' is none of counts"):
        load(["A"], values="fpkm")


@pytest.mark.parametrize("names", [["TP53", "2-Sep"], ["TP53", "44806"], ["TP53", "1-Mar"], ["TP53", "2.31E+13"]])
def test_mangled_genes_are_refused_by_name(load: Load, names: list[str]) -> None:
    with pytest.raises(DataFault, match=f"'rna.csv': 1 .*'{names[1].replace('+', '.')}' \\("):
        load(names)
    assert list(load(names, gene_names=False).tables["rna"].columns) == names


def test_a_column_of_the_clinic_may_be_called_like_a_date(load: Load) -> None:
    assert list(load(["TP53", "2-Sep"], kind="clinical").tables["rna"].columns) == ["TP53", "2-Sep"]


def test_gene_sets_come_with_the_table(load: Load, folder: Path) -> None:
    (folder / "sets.gmt").write_text("ALL\tna\tG0\tG1\tG2\tG3\tG4\nFEW\tna\tG0\tX\n")
    names = [f"G{i}" for i in range(6)]
    made = load(names, pathways={"file": "sets.gmt", "min_genes": 2, "scores": "plage"})
    assert made.sets == {"rna": {"ALL": names[:5]}}
    assert {i["path"] for i in made.inputs} == {"patients.csv", "rna.csv", "sets.gmt"}
    assert "rna: 'sets.gmt': 5 of 6 genes of 2 sets are in the table, 1 are not" in made.notes
    assert "rna: 'sets.gmt': 1 sets with fewer than 2 genes in the table left out: 'FEW' (1)" in made.notes
    assert fit(made, IDS, BagCache(), {}).tables["rna"].names == ["ALL"]
    tokens = load(names, kind="pathways", pathways={"file": "sets.gmt"})
    assert fit(tokens, IDS, BagCache(), {"rna": {"scores": "tokens"}}).tables["rna"].groups == {"ALL": [0, 1, 2, 3, 4]}
    with pytest.raises(UsageFault, match="pathways needs `file`"):
        load(names, kind="pathways")
    with pytest.raises(UsageFault, match=r"pathways\.min is none of file, min_genes"):
        load(names, pathways={"file": "sets.gmt", "min": 3})
    with pytest.raises(DataFault, match=r"modalities\.rna: no gene sets 'absent\.gmt'"):
        load(names, pathways={"file": "absent.gmt"})


CONF = """name: toy
root: {root}
patients: {{file: patients.csv, id: patient_id}}
tasks: {{response: {{kind: binary, column: response, classes: ['no', 'yes']}}}}
modalities: {{rna: {{kind: omics, file: rna.csv}}}}
"""


def mtl(verb: str, folder: Path, *words: str) -> int:
    (folder / "conf" / "cohort").mkdir(parents=True, exist_ok=True)
    (folder / "conf" / "cohort" / "toy.yaml").write_text(CONF.format(root=folder))
    body = import_module(f"nsclc_mtl.commands.{verb}").body
    given = [f"paths.runs={folder / 'runs'}", f"paths.out={folder / 'out'}", "name=it", "folds.n=2", *words]
    return execute(verb, ["cohort=toy", *given], lambda: body, conf_dirs=[folder / "conf"])


def test_check_reports_constant_and_empty_columns_and_raw_counts(load: Load, folder: Path) -> None:
    values = np.random.default_rng(0).integers(0, 5000, (12, 4)).astype(object)
    values[:, 1], values[:, 2] = "", 7
    load(["A", "B", "C", "D"], values)
    assert mtl("check", folder) == 0
    told = json.loads((folder / "runs" / "check" / "it" / "check.json").read_text())
    said = [f["sentence"] for f in told["findings"] if f["rule"] == "constant"]
    assert said == ["1 of 4 columns without any value: B", "1 of 4 columns with one value only: C"]
    log = (folder / "runs" / "check" / "it" / "log.txt").read_text()
    assert "rna: values look like raw counts (whole numbers from" in log.replace("\n", " ")


def test_a_mangled_gene_ends_with_exit_3(load: Load, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(["TP53", "KRAS"])
    table = (folder / "rna.csv").read_text()
    (folder / "rna.csv").write_text(table.replace("KRAS", "2-Sep"))
    assert mtl("train", folder) == 3
    assert "'2-Sep' (SEPTIN2)" in capsys.readouterr().err


def test_a_new_cohort_needs_the_genes_but_not_the_sets(load: Load, folder: Path) -> None:
    """What is fitted on the training patients carries the sets with it, and no row of others changes it."""
    (folder / "sets.gmt").write_text("ALL\tna\tG0\tG1\tG2\n")
    names, rng = [f"G{i}" for i in range(6)], np.random.default_rng(4)
    values = rng.integers(0, 900, (12, 6))
    declared = {"values": "counts", "pathways": {"file": "sets.gmt", "min_genes": 2}}
    made = load(names, values, **declared)
    encoder = fit(made, IDS[:8], BagCache(), {}).tables["rna"]
    assert encoder.log == "log2p1"
    values[8:] = rng.integers(0, 9, (4, 6))
    again = load(names, values, **declared)
    assert fit(again, IDS[:8], BagCache(), {}).tables["rna"].state() == encoder.state()
    plain = load(names, values)
    assert encoder.transform(plain.tables["rna"]).shape == (12, 1)
    with pytest.raises(DataFault, match="lacks 1 column"):
        encoder.transform(plain.tables["rna"].drop(columns="G5"))
    assert isinstance(plain.tables["rna"], pd.DataFrame)
