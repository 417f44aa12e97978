"""The split that a configuration asks for: dealt, by site, external or given; with its record, and refused in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, Manifest, UsageFault

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from nsclc_mtl.cohort.twins import Twins

SITES = (None, "preserve", "leave_one_out")
NO_SPLIT = ("workers", "threads", "min_events", "min_validation", "min_test")  # options that deal nobody


@dataclass
class Split:
    """Who trains, validates and is tested, and how that came about."""

    table: pd.DataFrame  # patient_id, fold, part
    given: bool  # by files, not dealt here
    together: list[Twins] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)  # fold -> the site that is tested
    notes: list[str] = field(default_factory=list)


def split(cfg: Mapping[str, Any], manifest: Manifest) -> Split:
    """The split of `cfg["folds"]`; what a reader must know of it is added to the manifest's notes.

    Raises UsageFault on options that exclude each other, DataFault where it cannot be made, and IntegrityFault where
    it is not the one that `folds.sha256` or a record beside `folds.file` promises.
    """
    from nsclc_mtl.cohort import split_record

    made = _made(cfg, manifest, companions_of(cfg, manifest))
    manifest.notes += [note for note in made.notes if note not in manifest.notes]
    if cfg["folds"].get("sha256") and not cfg["folds"].get("file"):
        split_record.verify(made.table, cfg["folds"]["sha256"])
    return made


def record(cfg: Mapping[str, Any], manifest: Manifest, made: Split) -> dict[str, Any]:
    """What `splits.json` holds of the split."""
    from nsclc_mtl.cohort import split_record

    options = {key: value for key, value in cfg["folds"].items() if key not in NO_SPLIT}
    options["seed"] = _seed(cfg)
    together = [{"why": t.why, "where": t.where, "patients": list(t.patients)} for t in made.together]
    return split_record.record(made.table, manifest, options, together, made.names)


def sound(cfg: Mapping[str, Any], manifest: Manifest, made: Split) -> None:
    """Raises NoEvents or OneClass where a part has too little, DataFault where given folds part one slide's owners, and
    DataFault where a series reaches into the time that a survival task counts."""
    from nsclc_mtl.cohort import companions, enough, visits

    visits.before_the_outcome(manifest)
    folds = cfg["folds"]
    if made.given:
        companions.torn(made.together, made.table)
    dealt = not made.given and not folds.get("external") and folds.get("sites") != "leave_one_out"

    def deal(n: int) -> pd.DataFrame:
        return _made({**cfg, "folds": {**folds, "n": n}}, manifest, made.together).table

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


def _made(cfg: Mapping[str, Any], manifest: Manifest, together: list[Twins]) -> Split:
    from nsclc_mtl.cohort import twins

    folds = cfg["folds"]
    ways = [key for key in ("file", "columns", "external") if folds.get(key)]
    if folds.get("sites") not in SITES:
        raise UsageFault(f"folds.sites={folds['sites']!r} is none of null, preserve, leave_one_out")
    if len(ways) > 1:
        raise UsageFault(f"folds.{ways[0]} and folds.{ways[1]} both give the folds; set one of the two")
    if ways and folds.get("sites"):
        raise UsageFault(f"folds.{ways[0]} and folds.sites both give the folds; set one of the two")
    notes: list[str] = []
    given = bool(folds.get("file") or folds.get("columns"))
    ids = _with_data(manifest, notes) if given else _usable(manifest, notes)
    unit = twins.components(ids, [same.patients for same in together])
    if ways and ways[0] != "external":
        table = _given(cfg, manifest, ids, unit, notes)
        without = len(set(ids) - set(table["patient_id"]))
        if without:
            notes.append(f"{without} of {len(ids)} patients stand in no fold of the files given: left out")
        notes += _apart(together, table)
        return Split(table, True, together, notes=notes)
    notes += _kept_together(together, ids)
    return _dealt(cfg, manifest, ids, unit, together, notes)


def _dealt(
    cfg: Mapping[str, Any],
    manifest: Manifest,
    ids: list[str],
    unit: np.ndarray,
    together: list[Twins],
    notes: list[str],
) -> Split:
    import numpy as np

    from nsclc_mtl.cohort import site_splits, splits

    folds, labels = cfg["folds"], manifest.labels
    shares = {"validation": folds["validation"], "calibration": folds["calibration"]}
    common: dict[str, Any] = {"seed": _seed(cfg), **shares, "repeats": folds.get("repeats", 1)}
    way = folds.get("sites")
    if way == "preserve":
        site = _linked(_sites(manifest, ids), unit, notes)
        made = site_splits.preserve(labels, ids, site, folds=folds["n"], **common)
    elif way == "leave_one_out":
        site = _linked(_sites(manifest, ids), unit, notes)
        small = {"least": folds["site_patients"], "small": folds["small_sites"], "min_events": folds["min_test"]}
        made = site_splits.leave_one_out(labels, ids, site, unit=unit, **small, **common)
    elif folds.get("external"):
        name, tested = _external(folds["external"], manifest, ids)
        made = site_splits.external(labels, ids, np.asarray(tested), name=name, unit=unit, **common)
    else:
        table = splits.k_fold(labels, ids, folds=folds["n"], unit=unit, **common)
        return Split(table, False, together, notes=notes)
    return Split(made.splits, False, together, made.names, [*notes, *made.notes])


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


def _sites(manifest: Manifest, ids: list[str]) -> np.ndarray:
    """Site of each patient, text. Raises UsageFault without such a column and DataFault where it is blank."""
    site = manifest.patients["site"].astype(str).str.strip().loc[ids]
    if (site == "").all():
        raise UsageFault("folds.sites needs the column of the sites: set cohort.patients.site=COLUMN")
    blank = list(site.index[site == ""])
    if blank:
        raise DataFault(
            f"folds.sites: {len(blank)} patients have no site ({', '.join(map(str, blank[:3]))}); fill in the column "
            "cohort.patients.site"
        )
    return site.to_numpy(str)


def _linked(site: np.ndarray, unit: np.ndarray, notes: list[str]) -> np.ndarray:
    """Sites, those that share patients who belong together as one (`A + B`)."""
    import numpy as np

    from nsclc_mtl.cohort import twins

    names = sorted(set(site))
    of_unit: dict[int, set[str]] = {}
    for name, number in zip(site, unit, strict=True):
        of_unit.setdefault(int(number), set()).add(str(name))
    group = twins.components(names, [sorted(sites) for sites in of_unit.values()])
    joined = {g: " + ".join(n for n, at in zip(names, group, strict=True) if at == g) for g in set(group)}
    several = [name for name in joined.values() if " + " in name]
    if several:
        notes.append(f"sites that share patients who belong together stand in one part: {'; '.join(several)}")
    word = {name: joined[at] for name, at in zip(names, group, strict=True)}
    return np.array([word[str(name)] for name in site])


def _external(given: Mapping[str, Any], manifest: Manifest, ids: list[str]) -> tuple[str, pd.Series]:
    """Name of the external part, and who is in it (bool by patient). Raises UsageFault and DataFault on wrong words."""
    if not isinstance(given, Mapping) or set(given) != {"column", "values"} or not given["values"]:
        raise UsageFault("folds.external needs a column and its values: folds.external={column: site, values: [C]}")
    column, values = str(given["column"]), [str(value) for value in given["values"]]
    if column not in manifest.patients:
        raise UsageFault(f"folds.external.column: the patients table has no column '{column}'")
    cell = manifest.patients[column].astype(str).str.strip()
    absent = [value for value in values if value not in set(cell)]
    if absent:
        held = ", ".join(sorted(set(cell) - {""})[:8])
        raise UsageFault(f"folds.external.values: no patient has '{absent[0]}' in column '{column}'; it holds {held}")
    return f"{column}={'+'.join(values)}", cell.loc[ids].isin(values)


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


def _with_data(manifest: Manifest, notes: list[str]) -> list[str]:
    """Patients with at least one modality; a prediction for the others, who are noted, would rest on nothing."""
    have = {patient for patients in manifest.holders().values() for patient in patients}
    keep = [p for p in manifest.ids if p in have]
    if len(keep) < len(manifest.ids):
        notes.append(f"{len(manifest.ids) - len(keep)} of {len(manifest.ids)} patients lack any modality: left out")
    return keep


def _usable(manifest: Manifest, notes: list[str]) -> list[str]:
    """Patients with at least one modality and one label; the others are noted."""
    have = {patient for patients in manifest.holders().values() for patient in patients}
    known: set[str] = set()
    for frame in manifest.labels.values():
        known |= set(frame.index[frame.notna().all(axis=1)])
    keep = [p for p in manifest.ids if p in have and p in known]
    if len(keep) < len(manifest.ids):
        notes.append(
            f"{len(manifest.ids) - len(keep)} of {len(manifest.ids)} patients lack any modality or any label: left out"
        )
    return keep
