"""The scans of a cohort, preset by preset: radiomics, crops and pictures, and what a frozen network sees there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import UsageFault

if TYPE_CHECKING:
    from nsclc_mtl.config import Run

KINDS = ("radiomics", "volume", "deep")  # of modalities that are made from scans


def wanted(settings: Mapping[str, Any]) -> dict[str | None, set[str]]:
    """Which presets the cohort's modalities name (None: the group `scans`), with the kinds that each has to serve."""
    found: dict[str | None, set[str]] = {}
    for spec in (settings["cohort"].get("modalities") or {}).values():
        if spec["kind"] in KINDS:
            found.setdefault(spec.get("scans"), set()).add(spec["kind"])
    return found


def extract(settings: Mapping[str, Any], root: Path, file: str, run: Run) -> None:
    """Radiomics, crops, pictures and deep features of all presets under `out/scans/`; other scans are skipped.

    Of several shares (`engine=shard`) each makes its scans. Tables, and deep features, which are of the scan chosen for
    each patient, come with a run of the whole, which finds the scans made.
    """
    from nsclc_mtl.cohort import manifest, scan_files
    from nsclc_mtl.commands import shards
    from nsclc_mtl.scans import sources
    from nsclc_mtl.scans.job import extract_scans

    cohort, out = settings["cohort"], Path(settings["paths"]["out"])
    patients = manifest.text_only({**cohort, "root": str(root)}).index if cohort.get("scans") else ()
    scans = scan_files.table(root, cohort, patients, file)
    share, shard = set(scans["scan_id"]), shards.of(settings)
    if shard is not None:
        sizes = shards.scan_bytes(root, dict(zip(scans["scan_id"], scans["image"], strict=True)))
        share &= shard.of(sizes)
        run.say(f"{shard.told(sorted(share), sizes, 'scans')}; {shards.LATER}")
    network = _network(settings, run) if shard is None else None
    taken: set[str] = set()
    presets = wanted(settings)
    for preset, kinds in presets.items():
        options = dict(settings["scans"] if preset is None else settings["scan_presets"][preset])
        words = zip(scans["scan_id"], scans["modality"], strict=True)
        mine = {scan_id for scan_id, word in words if sources.of_modality({"modality": word}, options)}
        if preset is not None:
            # what no modality asks of this preset is not made
            options |= {} if "radiomics" in kinds else {"radiomics": None, "params": None, "suv": None}
            options |= {} if kinds & {"volume", "deep"} else {"crop": None}
            run.say(f"preset {preset}: {len(mine & share)} scans, for {', '.join(sorted(kinds))}")
        taken, before = taken | mine, len(run.skipped)
        only = None if shard is None else share
        extract_scans(
            root, scans, options, out, run, only
        )  # all rows: a mask may be drawn on the scan of another preset
        run.skipped[before:] = [told for told in run.skipped[before:] if told["id"] in mine]
        if network is not None and "deep" in kinds:
            if not options.get("crop"):
                raise UsageFault(f"deep features need crops: set {_words(preset)}.crop")
            deep_features(settings, network, options, run)
    for scan_id in scans.loc[scans["scan_id"].isin(share - taken), "scan_id"]:
        run.skipped.append({"id": scan_id, "reason": "other_modality"})


def deep_features(settings: Mapping[str, Any], network: Any, options: Mapping[str, Any], run: Run) -> None:
    """`deep-<network>-<key8>.parquet`: a row a patient, of the crop that `volumes-<key8>.csv` names.

    Rows of crops that were seen before, made from the same files, are kept.
    """
    import numpy as np
    import pandas as pd

    from nsclc_mtl.features.deep import deep_key
    from nsclc_mtl.scans import crop
    from nsclc_mtl.tables.read import read_text

    out = Path(settings["paths"]["out"])
    folder = crop.volume_folder(out, options)
    if not folder.with_suffix(".csv").is_file():
        return  # no scan succeeded, and that was told
    chosen = read_text(folder.with_suffix(".csv"), "patient_id")
    path = out / "scans" / f"{deep_key(settings['deep'], folder.name)}.parquet"
    before = pd.read_parquet(path) if path.is_file() else pd.DataFrame()
    seen = before.attrs.get("crops", {}) if len(before) else {}
    rows, crops, kept = {}, {}, 0
    for patient, scan in run.track(list(chosen[["patient_id", "scan_id"]].itertuples(index=False)), "deep features"):
        file = folder / f"{scan}.h5"
        crops[patient] = f"{scan} {crop.source(file)}"
        if seen.get(patient) == crops[patient]:
            rows[patient], kept = before.loc[patient].to_numpy(), kept + 1
        else:
            rows[patient] = network(crop.load(file))
    index = pd.Index(list(rows), name="patient_id")
    table = pd.DataFrame(np.stack(list(rows.values())), index, dtype=np.float32)
    table.columns = [f"d{i}" for i in range(table.shape[1])]
    table.attrs = {"crops": crops, "weights": network.weights_hash}
    crop.publish(path, table.to_parquet, lambda part: len(pd.read_parquet(part)) == len(table))
    run.say(f"deep features: {table.shape[1]} of {len(table)} patients ({kept} kept) in {path}")


def keys(settings: Mapping[str, Any]) -> dict[str, str]:
    """Names of what these settings make in `out/scans/`: `radiomics`, `volumes`, `perturbed`, `deep`, `...@PRESET`."""
    from nsclc_mtl.features.deep import deep_key
    from nsclc_mtl.scans.crop import volume_key
    from nsclc_mtl.scans.measuring import perturbed_key
    from nsclc_mtl.scans.radiomics import radiomics_key

    found: dict[str, str] = {}
    deep = any(spec["kind"] == "deep" for spec in (settings["cohort"].get("modalities") or {}).values())
    presets = {"": settings["scans"]} | {f"@{n}": given for n, given in (settings.get("scan_presets") or {}).items()}
    for name, options in presets.items():
        volumes = f"volumes-{volume_key(options)}"
        found |= {f"radiomics{name}": f"radiomics-{radiomics_key(options)}", f"volumes{name}": volumes}
        again = perturbed_key(options)
        found[f"perturbed{name}"] = f"perturbed-{again}" if again else ""
        if deep and (key := deep_key(settings.get("deep") or {}, volumes)):
            found[f"deep{name}"] = key
    return found


def _network(settings: Mapping[str, Any], run: Run) -> Any:
    """The frozen network that the cohort's deep modalities are made by; None where there are none, or no network."""
    from nsclc_mtl.config import build

    if not any("deep" in kinds for kinds in wanted(settings).values()):
        return None
    if "_target_" not in settings["deep"]:
        run.say("note: no deep features, as no network was chosen: set deep=resnet50_25d and deep.weights=PATH")
        return None
    return build(settings["deep"], device=settings["device"])


def _words(preset: str | None) -> str:
    return "scans" if preset is None else f"scan_presets.{preset}"
