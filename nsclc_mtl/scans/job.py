"""All scans of a cohort to radiomics, crops and pictures: one idempotent function a scan, in a pool of processes.

A scan that fails is named with its reason and the others go on; a scan that is complete for the same files and options
is not done again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from nsclc_mtl.records import DataFault, ItemFault
from nsclc_mtl.scans import acquisition, crop, measuring, pool, radiomics, sources, volume
from nsclc_mtl.scans.params import resolved

if TYPE_CHECKING:  # the processes of the pool import this file, and need no tables
    import pandas as pd

T = TypeVar("T")


class Log(Protocol):
    """What the job tells: the run of a verb, or anything with these five."""

    done: list[str]
    skipped: list[dict[str, str]]
    failed: list[dict[str, str]]

    def say(self, text: str) -> None:
        """One line for the user and the log."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """The items one by one, with progress."""


def extract_scans(
    root: Path,
    scans: pd.DataFrame,
    cfg: Mapping[str, Any],
    out: Path,
    run: Log,
    share: Collection[str] | None = None,
) -> None:
    """Radiomics table, crops and pictures of the scans of a cohort, under `out/scans/`.

    `scans` has the columns scan_id, patient_id, modality, image, mask and perhaps timepoint and those of `sources`;
    paths are relative to `root`. `cfg` is the plain `scans` group of the configuration. Scans of another modality than
    `cfg["modality"]`, and those without a mask where none is replaced, are skipped by name. Writes
    `radiomics-<key8>.parquet` (index patient_id, one row a patient: the first scan of the patient's earliest timepoint
    that succeeded; `roi_origin` says how each lesion came to be where not all are drawn),
    `volumes-<key8>/<scan_id>.h5`, `volumes-<key8>.csv` (patient_id, scan_id: the same choice), and beside them
    `...-acquisition.csv` (one row a scan: scanner, kernel, slice thickness, field strength, tube voltage). Raises
    `DataFault` when scan_id is not unique.

    `share` names the scans that are made, where others make the rest; no table is written then, since which scan stands
    for a patient is known only of them all.
    """
    scans = scans.astype({"scan_id": str, "patient_id": str})
    twice = scans["scan_id"][scans["scan_id"].duplicated()].unique()
    if len(twice):
        raise DataFault(f"scan_id is not unique in scans.csv: {', '.join(map(str, twice[:5]))}; give each scan its own")
    rows = _rows(scans)
    sources.check(cfg)
    sources.linked(rows)
    made = [row for row in rows if share is None or row["scan_id"] in share]
    why = {row["scan_id"]: sources.skipped(row, cfg) for row in made}
    for reason in ("other_modality", "no_mask"):
        run.skipped.extend({"id": scan, "reason": reason} for scan, told in why.items() if told == reason)
    of_modality = [row for row in made if why[row["scan_id"]] != "other_modality"]
    todo = [row for row in made if not why[row["scan_id"]]]
    results: dict[str, dict[str, Any]] = {}
    cfg = resolved(cfg)
    measuring.check(cfg)
    start = functools.partial(one_scan, Path(root), cfg=cfg, out=Path(out))
    workers = int(cfg.get("workers", 2)) if len(todo) > 1 or measuring.many(cfg) else 1
    work = pool.work_through([(row["scan_id"], row) for row in todo], start, measuring.finish, workers)
    for scan_id, result in run.track(work, "scans", total=len(todo)):
        results[scan_id] = result
        if "reason" in result:
            run.say(f"scan {scan_id}: {result['reason']}: {result['sentence']}")
    for row in todo:  # in the order of the table, whatever the order of the processes
        scan_id = row["scan_id"]
        if "reason" in results[scan_id]:
            run.failed.append({"id": scan_id, "reason": results.pop(scan_id)["reason"]})
        else:
            run.done.append(scan_id)
    kept = sum(result["kept"] for result in results.values())
    run.say(f"scans: {len(results)} done ({kept} of them complete before), {len(todo) - len(results)} failed")
    if results and share is None:
        import pandas as pd

        _write_tables(pd.DataFrame(of_modality), results, cfg, Path(root), Path(out), run)


def one_scan(root: Path, row: Mapping[str, Any], cfg: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """What became of one scan: {values, kept} when it is complete on disk, {pending} while its lesion is still to be
    measured, {reason, sentence} when it failed."""
    return pool.guarded(lambda: _one_scan(root, row, cfg, out))


def first_scans(scans: pd.DataFrame, usable: Collection[str] | None = None) -> pd.DataFrame:
    """One row a patient: the first usable scan (default: any), in file order, of the patient's earliest timepoint.

    A later timepoint never stands in for an earlier one that failed: it would look into the patient's future.
    """
    keys = _timepoints(scans)
    earliest = {patient: min(keys[i] for i in rows) for patient, rows in scans.groupby("patient_id").indices.items()}
    take = [
        keys[i] == earliest[patient] and (usable is None or scan in usable)
        for i, (patient, scan) in enumerate(zip(scans["patient_id"], scans["scan_id"], strict=True))
    ]
    return scans[take].drop_duplicates("patient_id", keep="first")


def _one_scan(root: Path, row: Mapping[str, Any], cfg: Mapping[str, Any], out: Path) -> dict[str, Any]:
    scan_id, patient_id = str(row["scan_id"]), str(row["patient_id"])
    if not re.fullmatch(r"[^/\\\x00]+", scan_id) or scan_id.startswith("."):
        raise ItemFault("bad_id", f"scan_id {scan_id!r} cannot be a file name; use letters, digits, - and _")
    source = sources.of(row, root, cfg)
    stamp = {"source": source.digest(), "patient_id": patient_id}
    cube = crop.volume_folder(out, cfg) / f"{scan_id}.h5"
    picture = out / "scans" / "qc" / f"{scan_id}-{crop.volume_key(cfg)}.png"
    values = measuring.cached(out, cfg, scan_id, stamp)
    measured = measuring.complete(values, cfg)
    cropped = not cfg.get("crop") or crop.is_complete(cube, **stamp)
    pictured = not cfg.get("qc") or picture.is_file()
    if measured and cropped and pictured:
        return {"values": values, "kept": 1}
    scan = volume.load(source.image, source.mask, str(row["modality"]), **source.options)
    if not cropped:
        made = crop.lesion_volume(scan, **_crop_options(cfg))
        crop.save(cube, made, scan=scan, **stamp)
    if not pictured:
        from nsclc_mtl.scans.picture import quality_picture

        options = _crop_options(cfg) if cfg.get("crop") else {}
        crop.publish(
            picture,
            lambda part: quality_picture(scan, part, scan_id, **options),
            lambda part: part.stat().st_size > 0,
        )
    if measured:
        return {"values": values, "kept": 0}
    told = {"scan_id": scan_id, "stamp": stamp, "out": out, "cfg": cfg}
    return {"pending": measuring.open_scan(scan, cfg, values, told)}


def _crop_options(cfg: Mapping[str, Any]) -> dict[str, Any]:
    options = cfg["crop"]
    window = options.get("window")
    return {
        "size_vox": int(options["size_vox"]),
        "spacing_mm": float(options["spacing_mm"]),
        "window": None if window is None else (float(window[0]), float(window[1])),
    }


def _write_tables(
    scans: pd.DataFrame,
    results: Mapping[str, dict[str, Any]],
    cfg: Mapping[str, Any],
    root: Path,
    out: Path,
    run: Log,
) -> None:
    made = radiomics.radiomics_table(out, cfg) if cfg.get("radiomics") else crop.volume_folder(out, cfg)
    done = scans[scans["scan_id"].isin(list(results))]
    acquisition.write(made.with_name(f"{made.with_suffix('').name}-acquisition.csv"), done, root, cfg)
    first = first_scans(scans, results)
    several = int((scans.groupby("patient_id").size() > 1).sum())
    if several:
        run.say(
            f"{several} patients have several scans: the table holds the first of each patient's earliest timepoint"
        )
    lost = scans["patient_id"].nunique() - len(first)
    if lost:
        run.say(f"{lost} patients have no usable scan at their earliest timepoint and are missing from the table")
    if cfg.get("crop"):
        chosen = first[["patient_id", "scan_id"]]
        path = crop.volume_folder(out, cfg).with_suffix(".csv")
        crop.publish(path, lambda part: chosen.to_csv(part, index=False), lambda part: part.stat().st_size > 0)
    if cfg.get("radiomics"):
        values = {scan: results[scan]["values"] for scan in first["scan_id"]}
        origins = {row["scan_id"]: sources.origin(row, cfg) for row in _rows(first)}
        for sentence in measuring.write_tables(first, values, origins, cfg, out):
            run.say(sentence)


def _rows(scans: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in scans.to_dict("records")]


def _timepoints(scans: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Keys that sort timepoints: numbers as numbers, anything else by its digits and letters; a missing one last."""
    if "timepoint" not in scans:
        return [()] * len(scans)
    text = [sources.text(value) for value in scans["timepoint"]]
    try:
        return [(0, float(word)) if word else (1, 0.0) for word in text]
    except ValueError:
        # T2 before T10; digits and letters alternate, so positions of equal kind are compared
        return [(0, *_natural(word)) if word else (1,) for word in text]


def _natural(word: str) -> list[Any]:
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", word))]
