"""The scans of a cohort as a table: from its own file, or found in a tree of files that a pattern describes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from nsclc_mtl.cohort.folder import Absent
from nsclc_mtl.records import DataFault, ModalitySpec, UsageFault
from nsclc_mtl.tables.read import read_indexed

FILE = "scans.csv"


def table(root: Path, cohort: Mapping[str, Any], patients: Iterable[str], file: str = FILE) -> pd.DataFrame:
    """One row a scan: scan_id, patient_id, modality, image, mask (and what else the file has), all text.

    `cohort["scans"]`, where it is declared, describes a tree of files instead of a table: `image` and `mask` are paths
    below the root in which {patient} and {scan} stand for the patient's id and for one word of `modality`, a mapping
    from that word to what the scan is ({PET: PT, MR_T1: MR}). A scan whose image does not exist is one that the patient
    does not have; a mask that does not exist is blank. Raises `Absent` where there is neither file nor image.
    """
    declared = cohort.get("scans")
    if not declared:
        if not (root / file).is_file():
            raise Absent(f"no table '{file}' under cohort.root; correct the cohort's `table`, or declare cohort.scans")
        return read_indexed(root / file, "scan_id").reset_index()
    image, mask, words = declared.get("image"), declared.get("mask"), declared.get("modality") or {}
    if not image or not mask or not words:
        raise UsageFault("cohort.scans needs image, mask and modality, for example {PET: PT}")
    strange = sorted(set(re.findall(r"{(\w*)}", image + mask)) - {"patient", "scan"})
    if strange or "{patient}" not in image or ("{scan}" not in image and len(words) > 1):
        raise UsageFault(f"cohort.scans.image='{image}' must hold {{patient}} and {{scan}}, and no other word")
    rows = []
    for patient in patients:
        if Path(patient).name != patient:
            raise DataFault(f"patient '{patient}' cannot be a part of a path (cohort.scans); ids without / are needed")
        for word, modality in words.items():
            seen, drawn = (path.replace("{patient}", patient).replace("{scan}", str(word)) for path in (image, mask))
            if (root / seen).exists():
                told = {"image": seen, "mask": drawn if (root / drawn).exists() else ""}
                rows.append({"scan_id": f"{patient}-{word}", "patient_id": patient, "modality": str(modality), **told})
    if not rows:
        raise Absent(f"no scan of any patient lies at '{image}' under cohort.root; correct cohort.scans")
    return pd.DataFrame(rows)


def made(spec: ModalitySpec, what: str, keys: Mapping[str, str]) -> str:
    """Name of what `mtl extract` makes for this modality (`radiomics`, `perturbed`, `volumes`, `deep`), by the group
    `scans` or by the preset that the modality names; empty where it makes nothing.

    `keys` has them as `radiomics` and `radiomics@PRESET`. Raises `Absent` where no network for deep features is chosen
    and UsageFault on a preset that is not among the keys.
    """
    preset = spec.options.get("scans")
    if what == "deep" and keys and not any(key.startswith("deep") for key in keys):
        raise Absent(
            f"modality '{spec.name}' needs a frozen network: set deep=resnet50_25d, squeezenet_25d or resnet_3d"
        )
    if preset and keys and f"{what}@{preset}" not in keys:
        raise UsageFault(
            f"cohort.modalities.{spec.name} names the preset '{preset}' of scans, but the model was trained "
            "with others: name one of those, for its features are the ones that the model knows"
        )
    return keys.get(f"{what}@{preset}" if preset else what, "")


def perturbed(out: Path, name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The measurements of a radiomics table under perturbed masks; empty where there are none, which only a training
    minds."""
    path = out / "scans" / f"{name}.parquet"
    if path.is_file():
        return pd.read_parquet(path)
    none = pd.MultiIndex.from_arrays([[], []], names=["patient_id", "perturbation"])
    return pd.DataFrame(columns=table.columns, index=none, dtype=float)
