"""What is measured in a scan's lesion (radiomics, SUV scalars, the same under perturbed masks), and its files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import ItemFault, UsageFault, Volume
from nsclc_mtl.scans import crop, perturb, radiomics, sources, suv
from nsclc_mtl.scans.pool import Measured, Pending

if TYPE_CHECKING:  # the processes of the pool import this file, and need no tables
    import pandas as pd

DRAWN = ""
"""The variant of a lesion that is the mask as drawn; perturbed ones have the names of `perturb`."""
Values = dict[str, dict[str, float]]  # variant -> features


def perturbed_key(cfg: Mapping[str, Any]) -> str:
    """Eight hex digits of everything that changes a measurement under perturbed masks; empty where none are made."""
    options = dict(cfg.get("robustness") or {})
    if not options.pop("perturb", False):
        return ""
    options.pop("lower", None)  # what counts as robust is the training's business
    return radiomics.key8(radiomics.radiomics_key(cfg), options, radiomics.digest(perturb.__file__))


def perturbed_table(out: Path, cfg: Mapping[str, Any]) -> Path:
    """Where the measurements under perturbed masks lie (index patient_id, perturbation)."""
    return Path(out) / "scans" / f"perturbed-{perturbed_key(cfg)}.parquet"


def check(cfg: Mapping[str, Any]) -> None:
    """Raises `UsageFault` where the options cannot be followed, before any scan is read."""
    if perturbed_key(cfg) and (wrong := perturb.refuse(cfg["robustness"])):
        raise UsageFault(wrong)


def many(cfg: Mapping[str, Any]) -> bool:
    """Whether a single scan has images enough to measure that starting further processes pays."""
    wanted = cfg.get("radiomics") or {}
    return bool(wanted) and (len(wanted.get("imageType") or ()) > 1 or bool(perturbed_key(cfg)))


def cached(out: Path, cfg: Mapping[str, Any], scan_id: str, stamp: Mapping[str, str]) -> Values:
    """The variants that were measured before in these very images with these options."""
    found: Values = {}
    if cfg.get("radiomics"):
        values = read_json(_file(radiomics.radiomics_table(out, cfg), scan_id), stamp)
        if values is not None:
            found[DRAWN] = values
        if perturbed_key(cfg):
            for name in perturb.names(cfg["robustness"]):
                values = read_json(_file(perturbed_table(out, cfg), scan_id), stamp, name)
                if values is not None:
                    found[name] = values
    return found


def complete(found: Values, cfg: Mapping[str, Any]) -> bool:
    """Whether nothing is left to measure."""
    if not cfg.get("radiomics"):
        return True
    names = perturb.names(cfg["robustness"]) if perturbed_key(cfg) else []
    return {DRAWN, *names} <= set(found)


def open_scan(scan: Volume, cfg: Mapping[str, Any], found: Values, told: dict[str, Any]) -> Pending:
    """The lesion opened in every variant that `found` lacks. `told` holds scan_id, out, cfg and the stamp.

    A perturbed lesion that cannot be measured is kept with its reason: it counts as not measured, not as a failure of
    the scan.
    """
    pending = Pending({}, {**told, "found": found, "history": scan.history, "also": {}})
    if DRAWN not in found:
        pending.variants[DRAWN] = radiomics.open_volume(scan, cfg["radiomics"])
        pending.told["also"][DRAWN] = _scalars(scan, cfg)
    if perturbed_key(cfg):
        for name, other in perturb.perturbations(scan, str(told["scan_id"]), cfg["robustness"]):
            if name in found:
                continue
            try:
                if other.mask.sum() < int(cfg.get("min_voxels", 1)):
                    raise ItemFault("roi_too_small", f"nothing to measure is left of the lesion ({name})")
                pending.variants[name] = radiomics.open_volume(other, cfg["radiomics"])
                pending.told["also"][name] = _scalars(other, cfg)
            except ItemFault as fault:
                pending.failed[name] = fault
    return pending


def finish(pending: Pending, measured: Measured) -> dict[str, Any]:
    """Writes what was measured, whole or not at all; the result of the scan."""
    told = pending.told
    out, cfg, scan_id = Path(told["out"]), told["cfg"], str(told["scan_id"])
    whole = pending.closed(measured)
    made = {name: {**radiomics.numbers(values), **told["also"][name]} for name, values in whole.items()}
    stamp = {**told["stamp"], "scan_id": scan_id}
    if DRAWN in made:
        kept = {**stamp, "history": told["history"], "features": made[DRAWN], "complete": 1}
        _publish(_file(radiomics.radiomics_table(out, cfg), scan_id), kept, told["stamp"], [None])
    found = {**told["found"], **made, **{name: {} for name in pending.failed}}
    perturbed = {name: values for name, values in found.items() if name != DRAWN}
    if perturbed:
        lost = {name: fault.reason for name, fault in pending.failed.items()}
        kept = {**stamp, "perturbed": perturbed, "lost": lost, "complete": 1}
        _publish(_file(perturbed_table(out, cfg), scan_id), kept, told["stamp"], list(perturbed))
    return {"values": found, "kept": 0}


def write_tables(
    first: pd.DataFrame, values: Mapping[str, Values], origins: Mapping[str, str], cfg: Mapping[str, Any], out: Path
) -> list[str]:
    """The tables of the scans chosen for their patients, and a sentence about each; see `job.extract_scans`.

    `origins` says of each scan how its lesion came to be (`sources.origin`).
    """
    import pandas as pd

    patients = first["patient_id"].astype(str)
    index = pd.Index(patients, name="patient_id")
    table = pd.DataFrame([values[scan][DRAWN] for scan in first["scan_id"]], index=index, dtype=float)
    told = table
    if cfg.get("no_mask", "skip") != "skip":
        told = table.assign(**{sources.ORIGIN: [origins[scan] for scan in first["scan_id"]]})
    path = radiomics.radiomics_table(out, cfg)
    crop.publish(path, lambda part: _parquet(part, told, cfg), lambda part: len(pd.read_parquet(part)) == len(told))
    said = [f"radiomics: {table.shape[1]} features of {len(table)} patients in {path}"]
    if not perturbed_key(cfg):
        return said
    names = perturb.names(cfg["robustness"])
    keys = [(patient, name) for patient in patients for name in names]
    rows = [values[scan][name] for scan in first["scan_id"] for name in names]
    again = pd.DataFrame(rows, index=pd.MultiIndex.from_tuples(keys, names=["patient_id", "perturbation"]), dtype=float)
    again = again.reindex(columns=table.columns)
    path = perturbed_table(out, cfg)
    crop.publish(path, lambda part: _parquet(part, again, cfg), lambda part: len(pd.read_parquet(part)) == len(again))
    lost = sum(not row for row in rows)
    tail = f"; {lost} of {len(rows)} perturbed lesions could not be measured" if lost else ""
    return [*said, f"robustness: {len(names)} perturbed masks a patient in {path}{tail}"]


def settings_in(path: Path) -> dict[str, Any]:
    """The settings that a table was made with, from the file itself."""
    import pyarrow.parquet as parquet

    return dict(json.loads(parquet.read_schema(path).metadata[b"mtl_radiomics"]))


def read_json(path: Path, stamp: Mapping[str, str], variant: str | None = None) -> dict[str, float] | None:
    """The features in a complete file made from these very images; None where there is none."""
    try:
        told = json.loads(path.read_text())
        if told["complete"] != 1 or any(told[name] != value for name, value in stamp.items()):
            return None
        values = told["features"] if variant is None else told["perturbed"][variant]
        return {name: math.nan if value is None else float(value) for name, value in values.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_json(path: Path, told: Mapping[str, Any]) -> None:
    """NaN is written as null, which every JSON reader takes."""
    path.write_text(json.dumps(_finite(told), indent=1))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _publish(path: Path, told: Mapping[str, Any], stamp: Mapping[str, str], variants: Iterable[str | None]) -> None:
    wanted = list(variants)
    crop.publish(
        path,
        lambda part: write_json(part, told),
        lambda part: all(read_json(part, stamp, name) is not None for name in wanted),
    )


def _parquet(path: Path, table: pd.DataFrame, cfg: Mapping[str, Any]) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    told = {
        "key": radiomics.radiomics_key(cfg),
        "reading": {name: cfg.get(name) for name in radiomics.READING},
        "radiomics": cfg.get("radiomics"),
        "suv": cfg.get("suv"),
        "robustness": cfg.get("robustness") if perturbed_key(cfg) else None,
        "pyradiomics": radiomics.version(),
    }
    made = pyarrow.Table.from_pandas(table)
    told_bytes = {b"mtl_radiomics": json.dumps(told, sort_keys=True, default=str).encode()}
    parquet.write_table(made.replace_schema_metadata({**(made.schema.metadata or {}), **told_bytes}), path)


def _scalars(scan: Volume, cfg: Mapping[str, Any]) -> dict[str, float]:
    wanted = cfg.get("suv")
    return suv.scalars(scan, float(wanted["fraction_of_max"])) if wanted and scan.modality == "PT" else {}


def _file(table: Path, scan_id: str) -> Path:
    return table.with_suffix("") / f"{scan_id}.json"
