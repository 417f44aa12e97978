"""What the trained members of a fold say of patients: outputs, rows of `predictions.csv`, scores of spoiled inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nsclc_mtl.records import Manifest, TaskSpec, event_column

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from nsclc_mtl.learner import Learner


def patient_folder(run: Path, patient: str) -> Path:
    """Where a run keeps what it has of one patient: ids that are no plain file name are percent-encoded.

    >>> patient_folder(Path("run"), "../A 1").as_posix()
    'run/patients/%2E.%2FA%201'
    """
    return run / "patients" / plain_name(patient)


def plain_name(word: str) -> str:
    """The word as the name of one file or folder, whatever stands in it; percent-encoded where it is none.

    >>> plain_name(".."), plain_name("A/B"), plain_name("A-1")
    ('%2E.', 'A%2FB', 'A-1')
    """
    name = quote(word, safe="")
    return f"%2E{name[1:]}" if name.startswith(".") else name


def predict(members: Sequence[Learner], manifest: Manifest, ids: Sequence[str], data: Any) -> dict[str, pd.DataFrame]:
    """Outputs of each task: a frame by patient_id with columns `p:..`, `risk`, `surv:..`, `value`.

    They are the `means`, at the fold's temperature where it has one, and at the prevalence of the population that a
    task states.
    """
    from nsclc_mtl.commands import confidence

    outputs = means(members, manifest, ids, data)
    return confidence.scaled(outputs, manifest, data.fitted.trust, populations(members))


def populations(members: Sequence[Learner]) -> dict[str, Any]:
    """Task -> log ratio of the classes' shares in the stated population to those in training, where one is stated."""
    each = {name: getattr(task, "population", None) for name, task in members[0].each_task()}
    return {name: ratio for name, ratio in each.items() if ratio is not None}


def means(members: Sequence[Learner], manifest: Manifest, ids: Sequence[str], data: Any) -> dict[str, pd.DataFrame]:
    """Mean over the members of each output, a frame a task by patient_id.

    `data` has the `fitted` and the `cache` to read with. It is done where the members are. Survival curves and
    probabilities are averaged as such.
    """
    return apart(members, manifest, ids, data)[0]


def apart(
    members: Sequence[Learner], manifest: Manifest, ids: Sequence[str], data: Any, passes: int = 0, seed: int = 0
) -> tuple[dict[str, pd.DataFrame], list[dict[str, pd.DataFrame]]]:
    """The `means`, and beside them what each member says: the same frames, one dict a member.

    With `passes` each member says so often, with dropout at work, what it says in that pass; the means stay those
    without dropout. What a patient gets depends on the seed and the patient, not on who else is asked for.
    """
    import numpy as np
    import pandas as pd
    import torch

    from nsclc_mtl.bags.datamodule import loader, moved

    sums: dict[str, dict[str, list[np.ndarray]]] = {}
    each: list[dict[str, dict[str, list[np.ndarray]]]] = [{} for _ in range(len(members) * max(1, passes))]

    def keep(into: dict[str, dict[str, list[np.ndarray]]], said: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        for task, outputs in said.items():
            for output, value in outputs.items():
                into.setdefault(task, {}).setdefault(output, []).append(value.cpu().numpy())

    with torch.no_grad():
        for batch in loader(manifest, ids, data.fitted, data.cache):
            batch = moved(batch, members[0].device)
            made = [member.predict_step(batch, 0) for member in members]
            stacked = {task: {o: torch.stack([m[task][o] for m in made]) for o in made[0][task]} for task in made[0]}
            keep(sums, {task: {o: values.mean(0) for o, values in of.items()} for task, of in stacked.items()})
            for said, into in zip(made, each if not passes else (), strict=False):
                keep(into, said)
        for batch in loader(manifest, ids, data.fitted, data.cache, batch_size=1) if passes else ():
            batch = moved(batch, members[0].device)
            for number, into in enumerate(each):
                keep(into, _dropped(members[number // passes], batch, seed, number))

    def frames(of: Mapping[str, Mapping[str, list[np.ndarray]]]) -> dict[str, pd.DataFrame]:
        index = pd.Index(list(ids), name="patient_id")
        return {t: pd.DataFrame({o: np.concatenate(v) for o, v in said.items()}, index=index) for t, said in of.items()}

    return frames(sums), [frames(of) for of in each]


def _dropped(member: Learner, batch: Any, seed: int, number: int) -> dict[str, dict[str, Any]]:
    """What a member says of the one patient of a batch in a pass with dropout."""
    import hashlib

    import torch

    from nsclc_mtl.trust.ensemble import dropping

    drawn = hashlib.sha256(f"{seed} {number} {batch.patients[0]}".encode()).digest()
    on = [member.device] if member.device.type == "cuda" else []
    with torch.random.fork_rng(devices=on), dropping(member):
        torch.manual_seed(int.from_bytes(drawn[:8], "big") >> 1)
        return member.predict_step(batch, 0)


def spoiled(
    members: Sequence[Learner],
    manifest: Manifest,
    ids: Sequence[str],
    data: Any,
    fold: int,
    settings: Mapping[str, Any],
) -> pd.DataFrame:
    """Scores of the test part with each modality spoiled or only some shown: what the modality audit is made of.

    A row a patient, task, modality, mode, repeat and output, with `value` and `touched`: whether this patient's
    modality was spoiled (a coalition: whether all of his may be shown). Scores are means over the members. `data` is
    that of the fold's training.
    """
    import numpy as np
    import pandas as pd

    from nsclc_mtl.bags.datamodule import batches, loader, moved
    from nsclc_mtl.explain import spoiling
    from nsclc_mtl.explain.audit import COALITION, together

    place = members[0].device
    whole = loader(manifest, ids, data.fitted, data.cache, batch_size=len(ids), most_bytes=math.inf)
    (batch,) = batches(whole)
    batch = moved(batch, place)
    repeats, seed = int(settings["audit"]), int(settings["seed"]) + fold
    made: list[dict[tuple[str, str, int], spoiling.Spoiled]] = []
    for member in members:
        known = loader(manifest, data.parts["train"], data.fitted, data.cache)
        mean = spoiling.typical(member, (moved(part, place) for part in known))
        made.append(spoiling.spoil(member, batch, repeats, seed, mean, data.fitted.patterns))
        if len(batch.present) <= int(settings["shapley"]):
            every = spoiling.shown(member, batch, mean, data.fitted.patterns)
            made[-1] |= {(together(names), COALITION, 0): shown for names, shown in every.items()}
    rows: list[dict[str, Any]] = []
    for (modality, mode, repeat), first in made[0].items():
        for task in first.scores:
            mean_score = np.mean([member[modality, mode, repeat].scores[task] for member in made], axis=0)
            classes = manifest.tasks[task].classes if mean_score.ndim == 2 else ("",)
            for output, value in zip(classes, mean_score.reshape(len(ids), -1).T, strict=True):
                key = {"output": output, "task": task, "modality": modality, "mode": mode, "repeat": repeat}
                rows.append({**key, "value": value, "touched": first.touched})
    # one table at once: hundreds of small ones take longer than their scores
    columns: dict[str, Any] = {"patient_id": list(ids) * len(rows), "fold": fold}
    for name in ("value", "touched"):
        columns[name] = np.concatenate([row[name] for row in rows])
    for name in ("output", "task", "modality", "mode", "repeat"):
        columns[name] = np.repeat([row[name] for row in rows], len(ids))
    return pd.DataFrame(columns)


def long_table(outputs: Mapping[str, pd.DataFrame], manifest: Manifest, fold: int, part: str) -> pd.DataFrame:
    """Rows of `predictions.csv`: patient_id, task, fold, part, output, value, target, event, time_days."""
    import pandas as pd

    tables = []
    for task, wide in outputs.items():
        rows = wide.reset_index().melt("patient_id", var_name="output", value_name="said")
        rows = rows.rename(columns={"said": "value"})  # an output may have that name
        rows.insert(1, "task", task)
        rows.insert(2, "fold", fold)
        rows.insert(3, "part", part)
        tables.append(rows.join(truth_of(manifest, manifest.tasks[task], wide.index), on="patient_id"))
    return pd.concat(tables)


def truth_of(manifest: Manifest, spec: TaskSpec, ids: Any) -> pd.DataFrame:
    """Columns target, event, time_days by patient; blank where the label is not known."""
    import pandas as pd

    known = manifest.labels[spec.name].reindex(ids)
    if spec.kind == "survival":
        event = known[event_column(known)].map(lambda e: "" if pd.isna(e) else str(int(e)))
        days = known["time_days"].map(lambda t: "" if pd.isna(t) else f"{t:g}")
        return pd.DataFrame({"target": "", "event": event, "time_days": days}, index=known.index)
    word = (lambda v: f"{v:.10g}") if spec.kind == "regression" else (lambda v: spec.classes[int(v)])
    target = known["value"].map(lambda v: "" if pd.isna(v) else word(v))
    return pd.DataFrame({"target": target, "event": "", "time_days": ""}, index=known.index)
