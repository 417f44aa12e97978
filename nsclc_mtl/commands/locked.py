"""Predictions stored before the outcomes exist (`mtl predict --lock`), and joined with them later (`mtl evaluate`)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import known, late_entry, training_parts
from nsclc_mtl.records import DataFault, IntegrityFault, Manifest, TaskSpec, UsageFault

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.config import Run

LOCK = "lock.json"
FILES = ("predictions.csv", "patients.csv", "cohort.json")
TOLD = ("trust.csv", "drift.csv", "outside.csv")  # what predictions rest on: locked where they are (earlier locks: not)
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
    names = [*FILES, *(name for name in TOLD if (path / name).is_file())]
    content: dict[str, Any] = {
        "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "files": {name: sha256(path / name) for name in names},
        "weights": weights,
        "patients": int(table["patient_id"].nunique()),
        "outcomes_known": {str(t): int(late_entry.known(own).sum()) for t, own in table.groupby("task", sort=False)},
        "versions": versions(),
        "git_commit": git_commit(),
    }
    with written(path / LOCK) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n")
    for name in (*names, LOCK):
        (path / name).chmod(0o444)
    told = ", ".join(f"{task} {n}" for task, n in content["outcomes_known"].items() if n)
    if told:
        run.say(f"note: outcomes are known already ({told} patients): these will be left out when outcomes are joined")
    return sha256(path / LOCK)


@dataclass
class Joined:
    """Locked predictions with the outcomes of today."""

    predictions: pd.DataFrame  # as they were locked, outcomes counted from day 0
    manifest: Manifest
    tasks: dict[str, TaskSpec]
    read: dict[str, Any]  # settings that the cohort was read with
    time: str  # of the lock, UTC
    told: list[str]  # what the page says of it
    late: dict[str, late_entry.Met]  # survival task -> its patients, where some were followed when locked

    def since(self, table: pd.DataFrame) -> pd.DataFrame:
        """Test rows of predictions.csv or floors.csv, where it has to be counted as `late_entry.since` does."""
        import pandas as pd

        if table.empty or not self.late:
            return table
        tasks = table.groupby("task", sort=False)
        parts = [late_entry.since(own, self.late[str(t)]) if t in self.late else own for t, own in tasks]
        return pd.concat(parts, ignore_index=True)


def joined(settings: Mapping[str, Any], trained: Mapping[str, Any], folder: Path, run: Run) -> Joined:
    """The predictions of `predictions=RUN`, with outcomes from the cohort's tables as they are now.

    trained, folder: the model that `ckpt` names, which must be the one that predicted. Outcomes that were settled when
    the predictions were locked are left out; `outcomes.csv` says who has which. What was locked of how far to rely on
    the predictions, and of their inputs, is copied beside it. Raises IntegrityFault where a file is
    not the one that was locked, DataFault where no outcome has come since.
    """
    import pandas as pd
    import yaml

    from nsclc_mtl.commands.cohort import open_cohort
    from nsclc_mtl.commands.outputs import truth_of
    from nsclc_mtl.commands.trained import read_table, tasks_of
    from nsclc_mtl.commands.wanted import cohort_settings, narrowed

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
    said = training_parts.told(pd.read_csv(place / "patients.csv", dtype=str, keep_default_na=False))
    told = [f"Predictions locked on {content['time']}."]
    if said is None:
        ids = [p for p in manifest.ids if p in set(table["patient_id"])]
        whose = known.among(read, trained, manifest, ids, folder)
        folds = sorted({int(name.split("/")[0].removeprefix("fold")) for name in content["weights"]})
        said = training_parts.of(whose, ids, folder, folds).word
        told += ["The lock does not say who was trained on: that is told by the inputs of today.", *whose.how]
    frames, states, each = [], [], dict[str, late_entry.Met]()
    for name, spec in specs.items():
        rows = table[table["task"] == name]
        if rows.empty:
            continue
        truth = truth_of(manifest, spec, pd.Index(rows["patient_id"].unique(), name="patient_id"))
        each[name] = found = late_entry.met(rows, truth, manifest.patients.index, said)
        states.append(pd.DataFrame({"task": name, "outcome": found.state, "entry_days": found.entry}).reset_index())
        told.append(_counted(spec, found))
        frames.append(rows.drop(columns=["target", "event", "time_days"]).join(found.truth, on="patient_id"))
    whole = pd.concat(states)
    whole["entry_days"] = whole["entry_days"].where(whole["entry_days"] > 0)
    whole.to_csv(run.path / OUTCOMES, index=False, lineterminator="\n", float_format="%.7g")
    news = bool((whole["outcome"] == late_entry.JOINED).any())
    if news:
        told[0] = f"Predictions locked on {content['time']}, before the outcomes that they are judged by."
    for sentence in told:
        run.say(sentence)
    to_come = whole["outcome"].isin([late_entry.NONE, late_entry.STILL, late_entry.GONE])
    if len(waiting := whole.loc[to_come, "patient_id"].unique()):
        named = ", ".join(map(str, waiting[:10])) + (f" and {len(waiting) - 10} more" if len(waiting) > 10 else "")
        run.say(f"patients with an outcome still to come: {named} (see {OUTCOMES})")
    if not news:
        raise DataFault("no outcome has come since the predictions were locked: there is nothing to evaluate yet")
    predictions = pd.concat(frames, ignore_index=True)[list(table.columns)]
    for column in ("event", "time_days"):
        predictions[column] = pd.to_numeric(predictions[column].replace("", None))
    late = {name: found for name, found in each.items() if found.late}
    for name, found in late.items():
        run.say(f"note: {name}: {late_entry.sentence(found)}")
    for name in TOLD:
        if name in content["files"]:
            shutil.copyfile(place / name, run.path / name)
    if "trust.csv" not in content["files"]:
        told.append("The lock holds no trust.csv, so nothing is told of how far to rely on these predictions.")
        run.say(f"note: {told[-1]}")
    return Joined(predictions, manifest, specs, read, content["time"], told, late)


def _counted(spec: TaskSpec, found: late_entry.Met) -> str:
    """How many patients of the task are in which state, and what that means."""
    counts = found.state.value_counts()
    told = f"{spec.name}: " + ", ".join(f"{counts[w]} {w}" for w in late_entry.STATES if counts.get(w)) + "."
    unheard = counts.get(late_entry.STILL, 0) + counts.get(late_entry.NONE, 0)
    if spec.kind == "survival" and counts.get(late_entry.JOINED) and unheard:
        told += f" {unheard} have no news: if events are reported sooner than visits without one, too many are counted."
    return told


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
    for name in (*FILES, *(name for name in TOLD if name in files)):
        if not (place / name).is_file() or sha256(place / name) != files.get(name):
            raise IntegrityFault(
                f"'{place.name}/{name}' is not the file that was locked (sha256 differs): these are not the "
                f"predictions of {content['time']}"
            )
    if bundled.weights_sha256(settings["ckpt"]) != weights:
        raise IntegrityFault(f"ckpt='{settings['ckpt']}' is not the model that made the predictions in '{place.name}'")
    return place, content
