"""The split that a configuration asks for: dealt, by site, external or given; with its record, and refused in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nsclc_mtl.records import DataFault, Fault, Manifest, UsageFault

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.cohort.twins import Twins

SITES = (None, "preserve", "leave_one_out")
NO_SPLIT = ("workers", "threads", "min_events", "min_validation", "min_test")  # options that deal nobody


@dataclass
class Source:
    """A cohort to deal, and who belongs together in it."""

    manifest: Manifest
    together: list[Twins]


@dataclass
class Split:
    """Who trains, validates and is tested, and how that came about."""

    table: pd.DataFrame  # patient_id, fold, part
    given: bool  # by files, not dealt here
    source: Source  # whom it was dealt over: the whole cohort, of which the table holds those whom the run can use
    names: dict[int, str] = field(default_factory=dict)  # fold -> the site that is tested
    notes: list[str] = field(default_factory=list)


def split(cfg: Mapping[str, Any], manifest: Manifest) -> Split:
    """The split of `cfg["folds"]`; what a reader must know of it is added to the manifest's notes.

    Raises UsageFault on options that exclude each other, DataFault where it cannot be made, and IntegrityFault where
    it is not the one that `folds.sha256` or a record beside `folds.file` promises.
    """
    from nsclc_mtl.cohort import split_record

    made = _made(cfg, manifest)
    manifest.notes += [note for note in made.notes if note not in manifest.notes]
    if cfg["folds"].get("sha256") and not cfg["folds"].get("file"):
        split_record.verify(made.table, cfg["folds"]["sha256"])
    return made


def record(cfg: Mapping[str, Any], manifest: Manifest, made: Split) -> dict[str, Any]:
    """What `splits.json` holds of the split."""
    from nsclc_mtl.cohort import split_record

    options = {key: value for key, value in cfg["folds"].items() if key not in NO_SPLIT}
    options["seed"] = _seed(cfg)
    together = [{"why": t.why, "where": t.where, "patients": list(t.patients)} for t in made.source.together]
    balanced = made.source.manifest.labels
    return split_record.record(made.table, manifest, options, together, made.names, balanced)


def sound(cfg: Mapping[str, Any], manifest: Manifest, made: Split) -> None:
    """Raises NoEvents or OneClass where a part has too little, DataFault where given folds part one slide's owners, and
    DataFault where a series reaches into the time that a survival task counts."""
    from nsclc_mtl.cohort import companions, enough, visits

    visits.before_the_outcome(manifest)
    folds = cfg["folds"]
    if made.given:
        companions.torn(made.source.together, made.table)
    dealt = not made.given and not folds.get("external") and folds.get("sites") != "leave_one_out"

    def deal(n: int) -> pd.DataFrame:
        return _made({**cfg, "folds": {**folds, "n": n}}, manifest, made.source).table

    least = {
        "train": folds["min_events"],
        "validation": folds.get("min_validation") or 0,
        "test": folds.get("min_test") or 0,
    }
    enough.enough(manifest, made.table, least, deal=deal if dealt else None, folds=int(folds["n"]))


def companions_of(cfg: Mapping[str, Any], manifest: Manifest) -> list[Twins]:
    """Patients who belong together, for the reasons that `folds.together` names."""
    from nsclc_mtl.cohort import companions
    from nsclc_mtl.commands.cohort import cohort_root

    words = cfg["folds"].get("together")
    if not words:
        return []
    root = cohort_root(cfg) if cfg["cohort"].get("root") or "level" in cfg["cohort"] else None
    return companions.companions(manifest, list(words), root, cfg["cohort"]["patients"].get("group"))


def _made(cfg: Mapping[str, Any], manifest: Manifest, source: Source | None = None) -> Split:
    """The split of the patients of the run: of the whole cohort, which is dealt, those whom the run can use.

    So a patient's fold does not depend on the tasks and modalities that a run picks. Where the whole cannot be dealt,
    the run's own patients are, with a note. `source`: whom an earlier split was dealt over.
    """
    from nsclc_mtl.commands.cohort import whole_cohort

    folds = cfg["folds"]
    ways = [key for key in ("file", "columns", "external") if folds.get(key)]
    if folds.get("sites") not in SITES:
        raise UsageFault(f"folds.sites={folds['sites']!r} is none of null, preserve, leave_one_out")
    if len(ways) > 1:
        raise UsageFault(f"folds.{ways[0]} and folds.{ways[1]} both give the folds; set one of the two")
    if ways and folds.get("sites"):
        raise UsageFault(f"folds.{ways[0]} and folds.sites both give the folds; set one of the two")
    if source is None:
        whole = manifest if folds.get("file") else whole_cohort(cfg, manifest)
    else:
        whole = source.manifest
    notes = []
    if whole is not manifest:
        try:
            source = source or Source(whole, companions_of(cfg, whole))
            dealt = _over_whole(cfg, source, manifest)
        except Fault as fault:
            notes = [f"the whole cohort cannot be dealt, so the folds are of this run's own tasks and data: {fault}"]
            source = None
        else:
            return _of_run(dealt, manifest)
    own = _of_run(_over(cfg, source or Source(manifest, companions_of(cfg, manifest))), manifest)
    own.notes += notes
    return own


def _over(cfg: Mapping[str, Any], source: Source) -> Split:
    """The split of all patients of a cohort who can be in one."""
    from nsclc_mtl.cohort import twins

    folds, notes = cfg["folds"], list[str]()
    given = bool(folds.get("file") or folds.get("columns"))
    ids = _usable(source.manifest, given)
    unit = twins.components(ids, [same.patients for same in source.together])
    if given:
        return Split(_given(cfg, source.manifest, ids, unit, notes), True, source, notes=notes)
    return _dealt(cfg, source, ids, unit, notes)


def _over_whole(cfg: Mapping[str, Any], source: Source, manifest: Manifest) -> Split:
    """The split of the whole cohort, for a run on a part of it.

    Raises what dealing raises, and DataFault where a site is large enough to be tested in one of the two alone.
    """
    from nsclc_mtl.cohort import twins
    from nsclc_mtl.commands import split_sites

    if cfg["folds"].get("sites") == "leave_one_out":
        everybody = _usable(source.manifest)
        unit = twins.components(everybody, [same.patients for same in source.together])
        split_sites.same_tested(cfg["folds"], (source.manifest, everybody), (manifest, _usable(manifest)), unit)
    return _over(cfg, source)


def _of_run(dealt: Split, manifest: Manifest) -> Split:
    """The same split, of the patients whom a run can use: who has one of its modalities, and one of its labels.

    Raises DataFault where a fold keeps nobody to train or to test.
    """
    ids, whole, notes = _usable(manifest, dealt.given), dealt.source.manifest, []
    if len(ids) < len(manifest.ids):
        lack = "any modality" if dealt.given else "any modality or any label"
        notes.append(f"{len(manifest.ids) - len(ids)} of {len(manifest.ids)} patients lack {lack}: left out")
    table = dealt.table[dealt.table["patient_id"].isin(set(ids))].reset_index(drop=True)
    if whole is not manifest:
        everybody = dealt.table["patient_id"].nunique()
        for fold, part in sorted({(int(fold), part) for fold in dealt.table["fold"] for part in ("train", "test")}):
            if not ((table["fold"] == fold) & (table["part"] == part)).any():
                raise DataFault(
                    f"fold {fold} of the whole cohort ({everybody} patients) has none in part '{part}' with a modality "
                    f"and a label of this run ({len(ids)} patients have them); set folds.n lower, or give folds.file"
                )
        over = ", ".join(whole.labels)
        if not dealt.given:
            notes.append(f"the folds are those of the whole cohort: {everybody} patients, balanced over {over}")
        notes += whole.notes
    if dealt.given:
        without = len(set(ids) - set(table["patient_id"]))
        if without:
            notes.append(f"{without} of {len(ids)} patients stand in no fold of the files given: left out")
        notes += _apart(dealt.source.together, table)
    else:
        notes += _kept_together(dealt.source.together, ids)
    return replace(dealt, table=table, notes=notes + dealt.notes)


def _dealt(cfg: Mapping[str, Any], source: Source, ids: list[str], unit: np.ndarray, notes: list[str]) -> Split:
    from nsclc_mtl.cohort import site_splits, splits
    from nsclc_mtl.commands import split_sites

    manifest = source.manifest
    folds, labels = cfg["folds"], manifest.labels
    shares = {"validation": folds["validation"], "calibration": folds["calibration"]}
    common: dict[str, Any] = {"seed": _seed(cfg), **shares, "repeats": folds.get("repeats", 1)}
    way = folds.get("sites")
    if way == "preserve":
        site = split_sites.linked(split_sites.sites(manifest, ids), unit, notes)
        made = site_splits.preserve(labels, ids, site, folds=folds["n"], **common)
    elif way == "leave_one_out":
        site = split_sites.linked(split_sites.sites(manifest, ids), unit, notes)
        small = {"least": folds["site_patients"], "small": folds["small_sites"], "min_events": folds["min_test"]}
        made = site_splits.leave_one_out(labels, ids, site, unit=unit, **small, **common)
    elif folds.get("external"):
        name, tested = split_sites.external(folds["external"], manifest, ids)
        made = site_splits.external(labels, ids, np.asarray(tested), name=name, unit=unit, **common)
    else:
        table = splits.k_fold(labels, ids, folds=folds["n"], unit=unit, **common)
        return Split(table, False, source, notes=notes)
    return Split(made.splits, False, source, made.names, [*notes, *made.notes])


def _seed(cfg: Mapping[str, Any]) -> int:
    return int(cfg["seed"] if cfg["folds"].get("seed") is None else cfg["folds"]["seed"])


def _given(
    cfg: Mapping[str, Any], manifest: Manifest, ids: list[str], unit: np.ndarray, notes: list[str]
) -> pd.DataFrame:
    from nsclc_mtl.cohort import split_files

    folds = cfg["folds"]
    if folds.get("file"):
        path = _folder(folds["file"], cfg)
        if not path.is_file():
            raise UsageFault(f"folds.file: there is no file '{folds['file']}', here or below cohort.root")
        strange = split_files.listed(path) - set(manifest.ids)
        if strange:
            notes.append(f"'{path.name}' lists {len(strange)} patients who are not in the cohort: left out")
        return split_files.from_csv(path, ids, folds.get("sha256"))
    paths = sorted(_folder(folds["columns"], cfg).parent.glob(Path(folds["columns"]).name), key=_by_number)
    if not paths:
        raise DataFault(f"no split files match folds.columns='{folds['columns']}'")
    words = {"validation": folds["validation"], "calibration": folds["calibration"], "test": folds["test_column"]}
    return split_files.from_columns(paths, ids, manifest.labels, seed=cfg["seed"], unit=unit, **words)


def _kept_together(together: list[Twins], ids: list[str]) -> list[str]:
    """One note a reason: how many patients stand together, and the first of them."""
    notes = []
    for why in dict.fromkeys(same.why for same in together):
        groups = [[p for p in same.patients if p in set(ids)] for same in together if same.why == why]
        groups = [group for group in groups if len(group) > 1]
        if groups:
            first = next(same for same in together if same.why == why)
            people = len({patient for group in groups for patient in group})
            told = f"{', '.join(groups[0][:3])}: they {first.sentence}" if why != "slides" else ", ".join(groups[0][:3])
            notes.append(f"{people} patients stand together in one part, by {why} (such as {told})")
    return notes


def _apart(together: list[Twins], table: pd.DataFrame) -> list[str]:
    """A note where given folds part patients who have the same rows."""
    from nsclc_mtl.cohort import twins

    torn = [same for same in together if same.why == "rows" and twins.apart(same.patients, table)]
    if not torn:
        return []
    return [
        f"the folds given part {len(torn)} groups of patients with the same rows (such as "
        f"{', '.join(torn[0].patients[:3])}: they {torn[0].sentence})"
    ]


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sorts `splits_10` behind `splits_9`."""
    import re

    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", path.name)]


def _folder(path: str, cfg: Mapping[str, Any]) -> Path:
    """A path as given, or below the cohort's root."""
    given = Path(path)
    root = cfg["cohort"].get("root")
    if not given.is_absolute() and not given.exists() and root and not list(Path(".").glob(str(given))):
        return Path(root) / given
    return given


def _usable(manifest: Manifest, given: bool = False) -> list[str]:
    """Patients with at least one modality (a prediction for the others would rest on nothing) and one label.

    Folds that are `given` hold patients without a label too.
    """
    able = {patient for patients in manifest.holders().values() for patient in patients}
    if not given:
        able &= {p for frame in manifest.labels.values() for p in frame.index[frame.notna().all(axis=1)]}
    return [p for p in manifest.ids if p in able]
