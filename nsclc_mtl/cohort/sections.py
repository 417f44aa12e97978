"""Sections of spatial transcriptomics of the cohort's patients, each as a feature file below `paths.out`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nsclc_mtl.cohort import owners
from nsclc_mtl.cohort.folder import Absent
from nsclc_mtl.features import spots as files
from nsclc_mtl.records import DataFault, Manifest, ModalitySpec, UsageFault

if TYPE_CHECKING:
    from nsclc_mtl.cohort.sources import Sources


def spots(sources: Sources, manifest: Manifest, spec: ModalitySpec) -> dict[str, list[str]]:
    """Feature files of every patient who has a section with spots; those not yet made are made now.

    The table `table` has the columns section_id, patient_id and path: a Visium output folder, an `.h5ad` or an HDF5
    file in the layout of tiles with `genes`. Raises `Absent` without any section, DataFault where one cannot be read
    and IntegrityFault where sections hold other genes.
    """
    file, options = str(spec.options.get("table", "spots.csv")), spec.options
    values, layer = str(options.get("values", "counts")), options.get("layer")
    if values not in files.VALUES:
        raise UsageFault(f"cohort.modalities.{spec.name}.values={values!r} is none of {', '.join(files.VALUES)}")
    table, notes = sources.folder.table(file, "section_id", ids="text"), sources.folder.notes
    table = owners.rows(sources, manifest, spec, table, file)
    if "path" not in table:
        raise DataFault(f"'{file}' has no column 'path'")
    folder = sources.out / "spots" / files.section_key(values, layer)
    found: dict[str, list[str]] = {}
    made: dict[str, Path] = {}
    waiting = empty = 0
    ours = table[table["patient_id"].isin(manifest.patients.index)]
    for section_id, row in ours.iterrows():
        source = sources.folder.root / row["path"]
        if not row["path"] or not source.exists():
            waiting += 1
            continue
        if Path(str(section_id)).name != str(section_id):
            raise DataFault(f"'{file}': section '{section_id}' cannot be the name of a file; ids without / are needed")
        path = folder / f"{section_id}.h5"
        files.convert(source, path, values, layer)
        if files.spots(path) == 0:
            empty += 1
            continue
        made[str(section_id)] = path
        found.setdefault(row["patient_id"], []).append(str(path))
    for count, told in ((waiting, "are not there"), (empty, "hold no spot")):
        if count:
            notes.append(f"{spec.name}: {count} of {len(ours)} sections {told}: taken as absent")
    if not found:
        raise Absent(f"no section of '{spec.name}' is there; correct the column `path` of '{file}'")
    files.same_genes(made)
    return found
