"""Predictions stored before the outcomes exist (`mtl predict --lock`), and joined with them later (`mtl evaluate`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, IntegrityFault, Manifest, TaskSpec, UsageFault

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.config import Run

LOCK = "lock.json"
FILES = ("predictions.csv", "patients.csv", "cohort.json")
OUTCOMES = "outcomes.csv"


def refuse(path: Path) -> None:
    """Raises UsageFault where the predictions of this run are locked: they are never written again."""
    if (path / LOCK).exists():
        raise UsageFault(f"the predictions in '{path.name}' are locked: take another name=")


def lock(path: Path, models: Mapping[int, Any], run: Run) -> str:
    """Writes `lock.json` of the predictions at `path`, makes them read-only, and gives the SHA-256 of the lock.

    It holds the SHA-256 of the files and of the weights, the time, the versions, and how many outcomes were known.
    """
    from datetime import UTC, datetime

    from nsclc_mtl.commands import checkpoint
    from nsclc_mtl.commands.sealed import written
    from nsclc_mtl.commands.trained import read_table
    from nsclc_mtl.config.machine import git_commit, versions
    from nsclc_mtl.tables.read import sha256

    weights = {
        f"fold{fold}/model{number}": checkpoint.weights_sha256(member.state_dict())
        for fold, (members, _) in models.items()
        for number, member in enumerate(members)
    }
    table = read_table(path / "predictions.csv")
    content: dict[str, Any] = {
        "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "files": {name: sha256(path / name) for name in FILES},
        "weights": weights,
        "patients": int(table["patient_id"].nunique()),
        "outcomes_known": {str(task): int(known(own).sum()) for task, own in table.groupby("task", sort=False)},
        "versions": versions(),
        "git_commit": git_commit(),
    }
    with written(path / LOCK) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n")
    for name in (*FILES, LOCK):
        (path / name).chmod(0o444)
    told = ", ".join(f"{task} {n}" for task, n in content["outcomes_known"].items() if n)
    if told:
        run.say(f"note: outcomes are known already ({told} patients): these will be left out when outcomes are joined")
    return sha256(path / LOCK)


def known(rows: pd.DataFrame) -> pd.Series:
    """Whether the outcome of each patient is settled in these rows of predictions.csv of one task, by patient_id.

    A class or number is there; of survival the event has happened. Who was alive when last seen may still have it.
    """
    first = rows.drop_duplicates("patient_id").set_index("patient_id")
    return (first["target"].astype(str) != "") | (first["event"].fillna(0) > 0)


@dataclass
class Joined:
    """Locked predictions with the outcomes of today."""

    predictions: pd.DataFrame
    manifest: Manifest
    tasks: dict[str, TaskSpec]
    read: dict[str, Any]  # settings that the cohort was read with
    time: str  # of the lock, UTC
    told: list[str]  # what the page says of it


def joined(settings: Mapping[str, Any], trained: Mapping[str, Any], folder: Path, run: Run) -> Joined:
    """The predictions of `predictions=RUN`, with outcomes from the cohort's tables as they are now.

    trained, folder: the model that `ckpt` names, which must be the one that predicted. Outcomes that were settled when
    the predictions were locked are left out; `outcomes.csv` says who has which. Raises IntegrityFault where a file is
    not the one that was locked, DataFault where no outcome has come since.
    """
    import pandas as pd
    import yaml

    from nsclc_mtl.commands.cohort import open_cohort
    from nsclc_mtl.commands.outputs import truth_of
    from nsclc_mtl.commands.predict import cohort_settings, narrowed
    from nsclc_mtl.commands.trained import read_table, tasks_of

    place, content = unlocked(settings, run)
    own = yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))
    given = settings["cohort"]
    if "modalities" not in given:  # the cohort that was predicted, perhaps elsewhere
        given = {**(own.get("cohort") or {}), **({"root": given["root"]} if given.get("root") else {})}
    read = cohort_settings({**settings, "cohort": given}, trained)
    manifest = open_cohort(read)
    run.inputs += manifest.inputs
    cohort = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
    specs = tasks_of(folder / "cohort.json", manifest)
    manifest = narrowed(manifest, specs, cohort["modalities"])
    table = read_table(place / "predictions.csv")
    ids = list(table["patient_id"].unique())
    gone = [p for p in ids if p not in manifest.patients.index]
    frames, states, told = (
        [],
        [],
        [f"Predictions locked on {content['time']}, before the outcomes that they are judged by."],
    )
    for name, spec in specs.items():
        rows = table[table["task"] == name]
        if rows.empty:
            continue
        before = known(rows)
        truth = truth_of(manifest, spec, before.index)
        there = _news(rows, truth)
        fresh = there & ~before
        state = pd.Series("joined", before.index)
        state[~there] = "none yet"
        state[before] = "known when locked"
        state[before.index.isin(gone)] = "not in the tables"
        states.append(pd.DataFrame({"task": name, "outcome": state}).reset_index())
        counts = state.value_counts()
        told.append(f"{name}: " + ", ".join(f"{counts[word]} {word}" for word in STATES if counts.get(word)) + ".")
        truth = truth.where(fresh, "")
        rows = rows.drop(columns=["target", "event", "time_days"]).join(truth, on="patient_id")
        frames.append(rows)
    whole = pd.concat(states)
    whole.to_csv(run.path / OUTCOMES, index=False, lineterminator="\n")
    predictions = pd.concat(frames)[list(table.columns)]
    for column in ("event", "time_days"):
        predictions[column] = pd.to_numeric(predictions[column].replace("", None))
    predictions.to_csv(run.path / "predictions.csv", index=False, lineterminator="\n", float_format="%.7g")
    for sentence in told:
        run.say(sentence)
    waiting = whole.loc[whole["outcome"].isin(["none yet", "not in the tables"]), "patient_id"].unique()
    if len(waiting):
        named = ", ".join(map(str, waiting[:10])) + (f" and {len(waiting) - 10} more" if len(waiting) > 10 else "")
        run.say(f"patients with an outcome still to come: {named} (see {OUTCOMES})")
    if not (whole["outcome"] == "joined").any():
        raise DataFault("no outcome has come since the predictions were locked: there is nothing to evaluate yet")
    return Joined(predictions, manifest, specs, read, content["time"], told)


def _news(rows: pd.DataFrame, truth: pd.DataFrame) -> pd.Series:
    """Whether more is known of each patient than the locked rows of a task say: a follow-up no longer is no news."""
    import pandas as pd

    first = rows.drop_duplicates("patient_id").set_index("patient_id").reindex(truth.index)
    days, event = (pd.to_numeric(truth[c].replace("", None)) for c in ("time_days", "event"))
    alike = (event == first["event"]) & (days <= first["time_days"])
    return (truth["target"] != "") | ((truth["event"] != "") & ~alike)


STATES = ("joined", "none yet", "known when locked", "not in the tables")
"""What `outcomes.csv` says of a patient's outcome."""


def unlocked(settings: Mapping[str, Any], run: Run) -> tuple[Path, dict[str, Any]]:
    """The folder of the locked predictions and their lock, once every file is the one that was locked, by this model.

    Raises UsageFault where they were never locked, IntegrityFault where anything changed.
    """
    from nsclc_mtl.commands import bundled
    from nsclc_mtl.tables.read import sha256

    place = Path(str(settings["predictions"]))
    if not place.is_dir():
        raise UsageFault(f"predictions='{place}' is no folder: give the run folder of `mtl predict --lock`")
    if not (place / LOCK).is_file():
        raise UsageFault(
            f"predictions='{place}' holds no {LOCK}: predictions that were not locked before outcomes existed cannot "
            "be told from later ones; evaluate their cohort with ckpt= and cohort="
        )
    run.read(place / LOCK)
    if settings["lock_sha256"] and str(settings["lock_sha256"]).lower() != sha256(place / LOCK):
        raise IntegrityFault(f"'{place.name}/{LOCK}' is not the lock that lock_sha256 promises")
    try:
        content = json.loads((place / LOCK).read_text(encoding="utf-8"))
        files, weights = dict(content["files"]), dict(content["weights"])
        _ = content["time"] + ""
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise IntegrityFault(f"'{place.name}/{LOCK}' is not the file that `mtl predict --lock` wrote") from error
    for name in FILES:
        if not (place / name).is_file() or sha256(place / name) != files.get(name):
            raise IntegrityFault(
                f"'{place.name}/{name}' is not the file that was locked (sha256 differs): these are not the "
                f"predictions of {content['time']}"
            )
    if bundled.weights_sha256(settings["ckpt"]) != weights:
        raise IntegrityFault(f"ckpt='{settings['ckpt']}' is not the model that made the predictions in '{place.name}'")
    return place, content
