"""Names of genes that a spreadsheet changed, and names that stand in a table twice."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.records import DataFault
from nsclc_mtl.tables import genes

MANGLED = {
    "2-Sep": "SEPTIN2", "02-Sep": "SEPTIN2", "Sep-02": "SEPTIN2", "2-Sep-22": "SEPTIN2", "2022-09-02": "SEPTIN2",
    "2022-09-02 00:00:00": "SEPTIN2", "44806": "SEPTIN2", "44806.0": "SEPTIN2", "2.Sep": "SEPTIN2", "15-Sep": "SELENOF",
    "1-Mar": "MARCHF1 or MTARC1", "Mar-10": "MARCHF10", "3.Mär": "MARCHF3", "1-Dec": "DELEC1", "1-DEC": "DELEC1",
    "4-Oct": "POU5F1, once OCT4", "2.31E+13": "a RIKEN clone as 2310009E13", "2,31E+13": "a RIKEN clone as 2310009E13",
    "2-Sep_rnaseq": "SEPTIN2", "7157": "a number", "12345": "a number", "3-Apr": "a gene whose name reads as a date",
}  # fmt: skip
GENES = [
    "TP53", "SEPT2", "SEPTIN2", "SEP15", "MARCH1", "MARCHF1", "DEC1", "OCT4", "HLA-A", "HLA-DRB1", "NKX2-1",
    "ENSG00000141510.17", "TP53_rnaseq", "7157_rnaseq", "TP53|7157", "chr1:100-200", "p53_pS15", "2310009E13Rik",
    "1e5A", "AC004556.1", "miR-21-5p", "CD8A", "NOV", "MAR", "JUN", "SEP_score", "T790M", "E2F1", "3-Phosphoglycerate",
    "MT-ND1",
]  # fmt: skip


@pytest.mark.parametrize(("name", "gene"), MANGLED.items())
def test_what_a_spreadsheet_makes_of_genes(name: str, gene: str) -> None:
    assert genes.mangled([name]) == {name: gene}


def test_genes_are_left_alone() -> None:
    assert genes.mangled(GENES) == {}


def test_each_is_refused_with_the_gene_that_it_likely_was() -> None:
    with pytest.raises(DataFault) as told:
        genes.refuse(["TP53", "2-Sep", "44621"], "'rna.csv'", "cohort.modalities.rna")
    assert str(told.value) == (
        "'rna.csv': 2 column(s) have names that a spreadsheet made of genes: '2-Sep' (SEPTIN2), '44621' (MARCHF1 or "
        "MTARC1); take the names from the original file, or set cohort.modalities.rna.gene_names to false where the "
        "columns are no genes"
    )


def test_one_column_of_each_name() -> None:
    table = pd.DataFrame(
        {"A": [1.0, 2, 3], "B": [1.0, np.nan, 5], "A #2": [1.0, 8, 3], "B #2": [3.0, 4, np.nan], "C": 0.0, "D #x": 1.0}
    )
    same = genes.groups(table.columns)
    assert same == {"A": ["A", "A #2"], "B": ["B", "B #2"]}
    mean = genes.mean_of_each(table, same)
    assert list(mean.columns) == ["A", "B", "C", "D #x"]
    assert mean["A"].tolist() == [1, 5, 3]
    assert mean["B"].tolist() == [2, 4, 5]  # of those that are known
    assert list(genes.widest_of_each(table, same).columns) == ["B", "A #2", "C", "D #x"]
    assert list(genes.widest_of_each(table.iloc[[0, 2]], same).columns) == ["A", "B", "C", "D #x"]
