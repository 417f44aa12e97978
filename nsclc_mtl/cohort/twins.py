"""Patients who are there twice: the same slide file, the same row of a table, the same id in another spelling."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from nsclc_mtl.records import Manifest

RARE = math.log(
    1e-3
)  # natural log of the expected pairs of equal rows by chance, from which a table tells patients apart
LIKE = 5.0  # how much oftener than strangers two who have the same row may have the same outcomes by chance
USUAL = 0.02  # share of the patients, more than two, above which outcomes say nothing: the last day of a trial
MISTAKEN = 0.05  # share of the pairs with the same row and the same outcomes that chance may have made


@dataclass(frozen=True)
class Twins:
    """Patients who share what two patients do not share."""

    why: str  # slides, rows, ids
    where: str  # modality, or `slides`
    patients: tuple[str, ...]
    items: tuple[str, ...] = ()  # the slides
    sentence: str = ""  # what they share, without who


def same_rows(manifest: Manifest) -> list[Twins]:
    """Groups of patients with the same row in a table, where chance (columns independent) would not bring it about.

    That does not make them one person: an empty mutation profile, a flat copy number or values that somebody filled
    in are shared by many. `same_in_all` asks for more.
    """
    found = []
    for modality, table in manifest.tables.items():
        rows = _hashed(table)
        again = rows[rows.duplicated(keep=False)]
        if len(again) == 0 or not _telling(table):
            continue
        told = f"have the same row in all {table.shape[1]} columns"
        found += [
            Twins("rows", modality, tuple(map(str, group.index)), sentence=told)
            for _, group in again.groupby(again, sort=False)
        ]
    return found


def _hashed(table: pd.DataFrame) -> pd.Series:
    """A number a row, equal for equal rows; blanks are equal."""
    return pd.util.hash_pandas_object(table, index=False)


def _telling(table: pd.DataFrame) -> bool:
    """Whether chance, with columns independent, would bring about less than a thousandth of a pair of equal rows."""
    pairs = len(table) * (len(table) - 1) / 2
    collide = math.log(pairs) if pairs else 0.0
    for name in table.columns:
        share = table[name].value_counts(normalize=True, dropna=False).to_numpy()
        collide += math.log(float((share**2).sum()))
        if collide < RARE:
            return True
    return False


def same_in_all(manifest: Manifest, rows: Sequence[Twins]) -> list[Twins]:
    """Groups among `rows` (of `same_rows`) of whom any two have equal rows in every table that both have: one person,
    entered several times."""
    digest = {
        name: dict(zip(map(str, table.index), _hashed(table), strict=True)) for name, table in manifest.tables.items()
    }
    pairs: dict[tuple[str, ...], list[str]] = {}  # pair -> the tables that both have
    for twins in rows:
        for pair in combinations(sorted(twins.patients), 2):
            shared = [name for name, of in digest.items() if pair[0] in of and pair[1] in of]
            if all(digest[name][pair[0]] == digest[name][pair[1]] for name in shared):
                pairs[pair] = shared
    ids = sorted({patient for pair in pairs for patient in pair})
    found, number = [], components(ids, pairs)
    for at in range(number.max(initial=-1) + 1):
        group = tuple(patient for patient, k in zip(ids, number, strict=True) if k == at)
        inside = list(combinations(group, 2))
        whole = all(pair in pairs for pair in inside)  # else one of them lacks the table that parts two others
        for one in [group] if whole else [pair for pair in inside if pair in pairs]:
            tables = [name for name in digest if any(name in pairs[pair] for pair in combinations(one, 2))]
            told = f"have the same row in every table of {'both' if len(one) == 2 else 'any two of them'}"
            found.append(Twins("rows", " + ".join(tables), one, sentence=told))
    return found


def same_in_outcomes(manifest: Manifest) -> list[Twins]:
    """Groups of patients with the same row in every table and the same outcomes in every task: a person entered several
    times whose few columns alone would not tell it.

    Many share age, sex and stage, but few of them die on one day. Of the pairs with equal rows so many must have equal
    outcomes that chance explains at most a twentieth, were it five times as likely in them as it is in others. Outcomes
    that many share take no part.
    """
    rows, outcomes = _joined(manifest.tables), _joined(manifest.labels)
    outcomes = outcomes[outcomes.map(outcomes.value_counts()) <= max(2, USUAL * len(outcomes))]
    known = [p for p in manifest.ids if p in rows.index and p in outcomes.index]
    rows, outcomes = rows.loc[known], outcomes.loc[known]
    both = rows + outcomes
    alike, agreed = _pairs(rows), _pairs(both)
    others = len(known) * (len(known) - 1) / 2 - alike
    if not agreed or not others:
        return []
    chance = (_pairs(outcomes) - agreed) / others
    if LIKE * chance * alike > MISTAKEN * agreed:
        return []
    told = "have the same row in every table and the same outcomes"
    again = both[both.duplicated(keep=False)]
    return [
        Twins("rows", "patients", tuple(map(str, group.index)), sentence=told)
        for _, group in again.groupby(again, sort=False)
    ]


def _joined(tables: Mapping[str, pd.DataFrame]) -> pd.Series:
    """Patient -> text that is equal for patients with the same rows in the same tables; who has none is left out."""
    parts = [table.dropna(how="all").pipe(_hashed).map(f"{name} {{}}\n".format) for name, table in tables.items()]
    if not parts:
        return pd.Series(dtype=object)
    joined: pd.Series = pd.concat(parts, axis=1).fillna("").agg("".join, axis=1)
    return joined


def _pairs(said: pd.Series) -> float:
    """How many pairs say the same."""
    counts = said.value_counts().to_numpy(float)
    return float((counts * (counts - 1)).sum() / 2)


def same_slides(manifest: Manifest, root: Path | None) -> list[Twins]:
    """Slides that are one file: the same path; below `root` (None = not looked at) the same content; and feature files
    made of the same slide. Also those of one patient."""
    slides = manifest.slides
    found: list[Twins] = []
    if slides is not None and "path" in slides:
        slides = slides[slides["patient_id"].isin(manifest.ids)]
        for path, rows in slides[slides["path"] != ""].groupby("path", sort=False):
            if len(rows) > 1:
                found.append(_slides(rows["patient_id"], f"are the same file '{Path(str(path)).name}'"))
        if root is not None:
            distinct = slides[slides["path"] != ""].drop_duplicates("path")
            files = {str(slide): root / row["path"] for slide, row in distinct.iterrows()}
            for alike in _same_content(files):
                found.append(_slides(slides.loc[alike, "patient_id"], "hold the same bytes"))
    known = {tuple(sorted(twins.items)) for twins in found}
    for stems, owners in _same_origin(manifest):
        if tuple(sorted(stems)) not in known:
            found.append(Twins("slides", "slides", owners, stems, "were made of the same slide (its content's hash)"))
    return found


def same_ids(ids: Sequence[str]) -> list[Twins]:
    """Ids that differ in case, blanks, signs or leading zeros only, or are samples of one TCGA patient."""
    spelt: dict[str, list[str]] = {}
    for patient in ids:
        plain = re.sub(r"[\W_]+", "-", str(patient).casefold().strip())
        barcode = re.match(r"tcga-\w{2}-\w{4}(?=-|$)", plain)
        key = barcode.group() if barcode else re.sub(r"(?<![\w.])0+(?=\d)", "", plain)
        spelt.setdefault(key, []).append(str(patient))
    told = "are one id in several spellings"
    return [Twins("ids", "patients", tuple(same), sentence=told) for same in spelt.values() if len(same) > 1]


def apart(patients: Iterable[str], splits: pd.DataFrame | None) -> list[int]:
    """Folds in which some of the patients are tested and others are not."""
    if splits is None:
        return []
    rows = splits[splits["patient_id"].isin(set(patients))]
    return [int(str(k)) for k, part in rows.groupby("fold")["part"] if "test" in set(part) and len(set(part)) > 1]


def _slides(owners: pd.Series, told: str) -> Twins:
    return Twins("slides", "slides", tuple(dict.fromkeys(map(str, owners))), tuple(map(str, owners.index)), told)


def _same_content(files: Mapping[str, Path]) -> list[list[str]]:
    """Names of files with equal bytes. Only files of one size and one sampled fingerprint are read to the end."""
    from nsclc_mtl.slides.reader import content_hash
    from nsclc_mtl.tables.read import sha256

    alike = [[name for name, path in files.items() if path.is_file() and path.stat().st_size]]
    steps = (lambda path: path.stat().st_size, content_hash, sha256)
    for step in steps:
        parted = []
        for names in alike:
            kinds: dict[object, list[str]] = {}
            for name in names:
                kinds.setdefault(step(files[name]), []).append(name)
            parted += [same for same in kinds.values() if len(same) > 1]
        alike = parted
    return alike


def _same_origin(manifest: Manifest) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Feature files of one bag modality that say they were made of the same slide: their names and owners."""
    import h5py

    found = []
    for bags in manifest.bags.values():
        made_of: dict[str, dict[str, str]] = {}
        for patient, files in bags.items():
            for file in files:
                if Path(file).suffix not in {".h5", ".hdf5"}:
                    continue
                try:
                    with h5py.File(file, "r") as opened:
                        origin = str(opened.attrs.get("slide_hash", ""))
                except OSError:  # who reads its features tells of a damaged file
                    continue
                if origin:
                    made_of.setdefault(origin, {})[file] = patient
        for same in made_of.values():
            if len(same) > 1:
                slides = tuple(Path(file).stem for file in same)
                found.append((slides, tuple(dict.fromkeys(same.values()))))
    return found


def components(ids: Sequence[str], links: Iterable[Iterable[str]]) -> np.ndarray:
    """Number of the group of each patient, int [patient]: who is linked, directly or over others, shares a number.

    Numbers count from 0 in the order of the first member.

    >>> components(["a", "b", "c", "d"], [["d", "b"], ["x", "a"]]).tolist()
    [0, 1, 2, 1]
    """
    place = {patient: i for i, patient in enumerate(ids)}
    above = list(range(len(ids)))

    def top(i: int) -> int:
        while above[i] != i:
            above[i] = above[above[i]]
            i = above[i]
        return i

    for link in links:
        known = [top(place[patient]) for patient in link if patient in place]
        for other in known[1:]:
            low, high = sorted((top(known[0]), top(other)))
            above[high] = low
    roots = [top(i) for i in range(len(ids))]
    return np.unique(roots, return_inverse=True)[1].astype(int)
