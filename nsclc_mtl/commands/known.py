"""Who of some patients the training knew: by what their inputs are, not by what they or their files are called."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import Fault, IntegrityFault, Manifest

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.bags.marks import Marks

FILE = "marks.json"
MOST = 0.5  # share of those who can be told from which on the patients are the training cohort
SAME = 0.5  # share of the common ids that must be known again, so that ids name the same people in both cohorts
CHANCE, STRANGER = 1e-3, 5.0  # most that chance may explain; how much commoner rows of the training may be elsewhere
AMONG = 0.2  # most of those with a short row of the training who may be strangers


@dataclass(frozen=True)
class Known:
    """Whom the training knew among some patients."""

    whom: dict[str, str] = field(default_factory=dict)  # patient -> his id in the training; '' where it is not told
    own: bool = False  # this is the training cohort, or most of them are of it
    plain: bool = False  # its declaration or its table of patients is that of the training
    unsure: tuple[str, ...] = ()  # of whom it cannot be told, where one of them may be expected to be known
    how: tuple[str, ...] = ()  # how that was found out, where it is not plain


def keep(manifest: Manifest, folder: Path) -> None:
    """`marks.json`: what the patients of the run's split are known again by."""
    import pandas as pd

    from nsclc_mtl.bags import marks
    from nsclc_mtl.commands.sealed import written

    splits = pd.read_csv(folder / "splits.csv", dtype={"patient_id": str}, keep_default_na=False)
    ids = [p for p in dict.fromkeys(splits["patient_id"]) if p in manifest.patients.index]
    with written(folder / FILE) as aside:
        aside.write_text(json.dumps(marks.taken(manifest, ids).state()) + "\n", encoding="utf-8")


def of_run(folder: Path) -> Marks | None:
    """The marks that a run keeps; None of one of before. Raises IntegrityFault where the file is not ours."""
    from nsclc_mtl.bags.marks import Marks

    if not (folder / FILE).is_file():
        return None
    try:
        return Marks.load(json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityFault(f"'{folder.name}/{FILE}' is not the file that the training wrote; train again") from error


def packed(marks: Marks) -> dict[str, Any]:
    """The marks as a bundle holds them: sorted, so that nothing tells whose they are or which belong together."""
    return {
        "blocks": marks.blocks,
        "chance": marks.chance,
        "telling": marks.telling,
        "content": sorted({m for own in marks.content.values() for m in own}),
        "named": sorted({m for own in marks.named.values() for m in own.values()}),
    }


def unpacked(state: Mapping[str, Any]) -> Marks:
    """`packed` marks as those of one patient without an id."""
    from nsclc_mtl.bags.marks import Marks

    named = {str(i): mark for i, mark in enumerate(state["named"])}
    return Marks.load({**state, "content": {"": state["content"]}, "named": {"": named}})


def among(
    read: Mapping[str, Any], trained: Mapping[str, Any], manifest: Manifest, ids: Sequence[str], folder: Path
) -> Known:
    """Whom of the patients `ids` the run or bundle in `folder` was trained on.

    Everybody with an id of the training where the declaration or the table of patients is that of the training. Else
    inputs are compared (`bags.marks`). Where they say of at least half of the ids in common that they name the same
    people, all of them do, and the others are strangers. Else nothing is known of who has no input that tells: of
    these as many are expected to be of the training as of the others. Where most are of the training, nobody of them
    is believed to be a stranger. A run of before is compared with its training
    cohort as that is now, or, where it is gone, by the outcomes in its predictions.
    """
    from nsclc_mtl.commands.trained import same_patients

    run = (folder / "splits.csv").is_file()
    before = _ids(folder) if run else set()
    if same_patients(read, trained, manifest, folder):
        return Known({p: p if run else "" for p in ids if p in before or not run}, own=True, plain=True)
    kept = of_run(folder) if run else _of_bundle(trained)
    if kept is not None:
        return compared(kept, manifest, ids, before)
    if not run:
        return Known(how=(NO_MARKS,))
    return _of_before(trained, manifest, ids, folder, before)


def told(found: Known, ids: Sequence[str], packed: bool, strangers_only: bool) -> tuple[list[str], list[str]]:
    """Who of the patients `ids` stays, and what is to be said of them. packed: the model is a bundle.

    With `strangers_only` patients of the training are left out, unless most are and it is known which fold held them
    out; so are those of whom it cannot be told.
    """
    of_training = [p for p in ids if p in found.whom]
    unsure = [p for p in ids if p in found.unsure]
    said, out = list(found.how), set(unsure) if strangers_only else set[str]()
    if of_training and not found.plain:
        who = f"{len(of_training)} of {len(ids)} patients are of the training, as their inputs show"
        if strangers_only and not found.own:
            out |= set(of_training)
            said.append(f"{who}; they are left out: who was trained on says nothing about the model")
        elif packed:
            said.append(f"{who}: see patients.csv")
        else:
            said.append(f"{who}; each is predicted by the fold that held the patient out, where there is one")
    if unsure:
        kept = "they are left out too" if strangers_only else "see patients.csv"
        said.append(f"of {len(unsure)} more it cannot be told by their inputs whether they were trained on: {kept}")
    return [p for p in ids if p not in out], said


NO_MARKS = (
    "the bundle holds no marks of its training patients: who of these is one of them cannot be told, but where the "
    "table of patients is the same file"
)
NO_COLUMNS = "columns that patients are known again by are not there, so this table tells of nobody who was trained on"


def _ids(folder: Path) -> set[str]:
    import pandas as pd

    return set(pd.read_csv(folder / "splits.csv", dtype={"patient_id": str}, keep_default_na=False)["patient_id"])


def _of_bundle(content: Mapping[str, Any]) -> Marks | None:
    return unpacked(content["marks"]) if content.get("marks") else None


def _of_before(
    trained: Mapping[str, Any], manifest: Manifest, ids: Sequence[str], folder: Path, before: set[str]
) -> Known:
    """By the training cohort as it is now, or by the outcomes in the predictions of a run that keeps no marks."""
    from nsclc_mtl.bags import marks
    from nsclc_mtl.commands.cohort import open_cohort

    try:
        ours = open_cohort(trained)
        found = compared(marks.taken(ours, [p for p in ours.ids if p in before]), manifest, ids, before)
        how = "so these patients are compared with the training cohort as it is today"
    except (Fault, OSError):
        then, now = _outcomes(folder), _outcomes_now(folder, manifest)
        bare = replace(manifest, tables={}, bags={}, volumes={}, series={})
        kept = marks.taken(replace(bare, tables={"outcomes": then}), list(map(str, then.index)))
        found = compared(kept, replace(bare, tables={"outcomes": now}), ids, before)
        alike = sum(p in before for p in ids)
        how = (
            f"and its training cohort is not at hand, so ids and outcomes alone are compared: {alike} of {len(ids)} "
            f"patients have an id of the training, {len(found.whom)} are taken for the same people"
        )
    return replace(found, how=(f"the run keeps no marks of its patients, {how}", *found.how))


def _outcomes(folder: Path) -> pd.DataFrame:
    """Outcomes that cannot change, task by task, as a run's predictions hold them: classes, numbers, days of events."""
    from nsclc_mtl.commands.trained import read_table

    rows = read_table(folder / "predictions.csv").drop_duplicates(["patient_id", "task"])
    return _settled(rows).pivot_table(index="patient_id", columns="task", values="said", aggfunc="first").fillna("")


def _outcomes_now(folder: Path, manifest: Manifest) -> pd.DataFrame:
    import pandas as pd

    from nsclc_mtl.commands.outputs import truth_of
    from nsclc_mtl.commands.trained import numbers, tasks_of

    made = {}
    for name, spec in tasks_of(folder / "cohort.json", manifest).items():
        if name in manifest.labels:
            made[name] = _settled(numbers(truth_of(manifest, spec, manifest.patients.index).copy(), "labels"))["said"]
    return pd.DataFrame(made)


def _settled(rows: pd.DataFrame) -> pd.DataFrame:
    days = rows["time_days"].map("{:.4g}".format).where(rows["event"] > 0, "")
    return rows.assign(said=rows["target"].astype(str).where(rows["target"].astype(str) != "", days))


# ---------------------------------------------------------------------------------------------------------------------
# Comparing
# ---------------------------------------------------------------------------------------------------------------------


def compared(kept: Marks, manifest: Manifest, ids: Sequence[str], before: set[str]) -> Known:
    """Whom the marks `kept` know. before: ids of the training, where they are told."""
    from nsclc_mtl.bags import marks
    from nsclc_mtl.bags.image_marks import composed

    here, tell = marks.like(manifest, ids, kept)
    owner = {mark: patient for patient, own in kept.content.items() for mark in own}
    whom: dict[str, str] = {}
    for patient in ids:
        votes = Counter(owner[mark] for mark in here.content[patient] if mark in owner)
        if votes:
            whom[patient] = votes.most_common(1)[0][0]
    again = {composed(p): p for p in before}
    with_id = {mark: patient for patient, own in kept.named.items() for mark in own.values()}
    for key, chance in kept.chance.items():
        have = [p for p in ids if key in here.named.get(p, {}) and (composed(p) in again or not before)]
        same = [p for p in have if here.named[p][key] in with_id]
        if same and _by_chance(len(same), len(have), chance) <= CHANCE:
            tell |= {p for p in ids if key in here.named.get(p, {})}
            for patient in same:
                whom.setdefault(patient, with_id[here.named[patient][key]])
    common = {p: again[composed(p)] for p in ids if composed(p) in again}
    agreed = sum(whom.get(p) == before for p, before in common.items())
    if agreed and agreed >= SAME * len(common):
        whom = {**common, **whom}
        tell |= set(ids)
    tell |= set(whom)
    either = _of_all(kept, here, [p for p in ids if p not in tell], whom, tell)
    share = len(whom) / max(1, len(tell))
    rest = tuple(p for p in ids if p not in tell)
    if share >= MOST:  # then a stranger among them is less likely than a row that was changed
        rest = tuple(p for p in ids if p not in whom)
    elif share * len(rest) < 1:
        rest = tuple(p for p in rest if p in either)
    lacking = [name for name in kept.blocks if len(_rows(manifest, name)) and not _made(here, name)]
    how = [f"{name}: {NO_COLUMNS}" for name in lacking]
    return Known(whom, own=share >= MOST, unsure=rest, how=tuple(how))


def _rows(manifest: Manifest, name: str) -> Sized:
    return manifest.tables.get(name, manifest.series.get(name, ()))


def _made(here: Marks, name: str) -> bool:
    return any(key.startswith(f"{name}/") for own in here.named.values() for key in own)


def _of_all(kept: Marks, here: Marks, ids: Sequence[str], whom: dict[str, str], tell: set[str]) -> set[str]:
    """Adds to `whom` who has the short row of one training patient, and to `tell` whose row is no training patient's,
    where more of the patients `ids` have such rows than strangers would. Returns who has the row of several.

    Of strangers as many may have the row of a training patient as of the training patients have one another's, times
    `STRANGER`; where these would be more than `AMONG` of those who have one, nothing is said.
    """
    either = set[str]()
    for key, twins in kept.twins.items():
        owners: dict[str, list[str]] = {}
        for patient, own in kept.short.items():
            owners.setdefault(own.get(key, ""), []).append(patient)
        have = [p for p in ids if key in here.short.get(p, {})]
        same = Counter(here.short[p][key] for p in have if here.short[p][key] in owners)
        strangers = STRANGER * twins
        few = strangers * len(have) <= AMONG * same.total()
        if few and same and _by_chance(same.total(), len(have), strangers) <= CHANCE:
            for patient in have:
                row = here.short[patient][key]
                if row not in owners:
                    tell.add(patient)
                elif len(owners[row]) == same[row] == 1:
                    whom.setdefault(patient, owners[row][0])
                else:
                    either.add(patient)
    either -= set(whom)
    tell |= set(whom)
    tell -= either
    return either


def _by_chance(same: int, of: int, chance: float) -> float:
    """P that so many of some strangers have a row that each has with this chance."""
    from scipy.stats import binom

    return float(binom.sf(same - 1, of, min(1.0, chance)))
