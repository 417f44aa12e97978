"""Omics tables as a cohort declares them: names of genes, kind of values, repeated columns, gene sets."""

from __future__ import annotations

from typing import Any

import pandas as pd

from nsclc_mtl.cohort.folder import Folder
from nsclc_mtl.records import DataFault, Manifest, ModalitySpec, UsageFault
from nsclc_mtl.tables import genes, pathways, read, transform

KINDS = ("omics", "pathways")
REPEATED = ("refuse", "mean", "max_variance")
"""What becomes of columns of one name: refused; their mean; the one that varies most among training patients."""


def repeats(spec: ModalitySpec) -> bool:
    """Whether the table's columns may be repeated. Raises UsageFault on an unknown word."""
    policy = spec.options.get("duplicate_columns", "refuse")
    if policy not in REPEATED:
        raise UsageFault(f"cohort.modalities.{spec.name}.duplicate_columns={policy!r} is none of {', '.join(REPEATED)}")
    if policy != "refuse" and (spec.kind not in KINDS or spec.options.get("columns")):
        raise UsageFault(
            f"cohort.modalities.{spec.name}: duplicate_columns is for whole tables of the kinds {', '.join(KINDS)}; "
            "take it or `columns` out"
        )
    return bool(policy != "refuse")


def prepared(folder: Folder, manifest: Manifest, spec: ModalitySpec, table: pd.DataFrame) -> pd.DataFrame:
    """The table (numbers as float64) that an encoder may be fitted on; `folder.notes` says what was found in it.

    Raises DataFault on names that a spreadsheet changed and values that are not what is declared.
    """
    options, name = spec.options, spec.name
    if options.get("values") not in (None, *transform.VALUES):
        raise UsageFault(
            f"cohort.modalities.{name}.values={options['values']!r} is none of {', '.join(transform.VALUES)}"
        )
    if options.get("gene_names", True):
        genes.refuse(table.columns, f"'{options.get('file')}'", f"cohort.modalities.{name}")
        if again := genes.renamed(table.columns):
            folder.notes.append(
                f"{name}: {len(again)} columns are named like a second '{again[0][:-2]}' ('{again[0]}'), as readers of "
                "tables rename repeated columns: are they one gene?"
            )
    if same := genes.groups(table.columns):
        policy = options.get("duplicate_columns")
        folder.notes.append(f"{name}: {len(same)} names stand there more than once (duplicate_columns: {policy})")
        if policy == "mean":
            table = genes.mean_of_each(table, same)
    numbers = table.select_dtypes("number")
    folder.notes += transform.doubts(numbers, options.get("values"), name)
    if options.get("pathways") or spec.kind == "pathways":
        manifest.sets[name] = _sets(folder, name, options.get("pathways"), numbers)
    return table


def _sets(folder: Folder, name: str, declared: Any, table: pd.DataFrame) -> dict[str, list[str]]:
    words = ("file", "min_genes", "scores", "suffix")
    if not isinstance(declared, dict) or not declared.get("file"):
        raise UsageFault(f"cohort.modalities.{name}.pathways needs `file`, the GMT file of its gene sets")
    if strange := [word for word in declared if word not in words]:
        raise UsageFault(f"cohort.modalities.{name}.pathways.{strange[0]} is none of {', '.join(words)}")
    file = str(declared["file"])
    try:
        sets, notes = pathways.read_gmt(folder.root / file)
        least = int(declared.get("min_genes", 5))
        matched, more = pathways.match(sets, list(table.columns), least, file, str(declared.get("suffix") or ""))
    except DataFault as fault:
        raise DataFault(f"cohort.modalities.{name}: {fault}") from fault
    folder.notes += [f"{name}: {note}" for note in (*notes, *more)]
    folder.inputs[file] = {"path": file, "sha256": read.sha256(folder.root / file)}
    return matched
