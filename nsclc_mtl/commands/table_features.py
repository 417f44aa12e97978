"""Which columns of the tables moved the predictions: `features.csv`, and that of each patient with a figure a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands.outputs import patient_folder

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from nsclc_mtl.commands.predict import Predicted
    from nsclc_mtl.config import Run
    from nsclc_mtl.records import Manifest

FILE = "features.csv"


def explain(made: Predicted, options: Mapping[str, Any], run: Run) -> None:
    """Writes `features.csv` of the first patients (`options["features"]`) and `patients/<id>/features.csv` of those who
    get pictures, with `features-<task>.svg`: the strongest ten columns.

    The fold that explains a patient is the first of those that predicted him.
    """
    import pandas as pd

    pictured, meant = (set(_first(made.ids, options[word])) for word in ("patients", "features"))
    sums: list[pd.DataFrame] = []
    for fold, (members, data) in made.models.items():
        # the tasks say themselves what their score is: the first line of its description
        units = {
            task: (part.score.__doc__ or "score").splitlines()[0].rstrip(".") for task, part in members[0].each_task()
        }
        ids = [p for p in made.ids if p in pictured | meant and made.by[p][0] == fold]
        for table in attributed(members, made.manifest, ids, data, list(options["tasks"] or members[0].tasks)):
            # nothing but sums is kept: a cohort has a hundred million attributions of genes
            own = table[table["patient_id"].isin(meant)]
            by = own.groupby(["task", "modality", "feature"], sort=False)["attribution"]
            sums.append(pd.DataFrame({"mean": by.sum(), "mean_abs": by.agg(lambda a: a.abs().sum()), "n": by.size()}))
            for patient, mine in table[table["patient_id"].isin(pictured)].groupby("patient_id"):
                of_patient(str(patient), mine, run, units if options["pictures"] else {})
    if any(len(part) for part in sums):
        of_cohort(pd.concat(sums), run)


def of_patient(patient: str, table: pd.DataFrame, run: Run, units: Mapping[str, str]) -> None:
    """`patients/<id>/features.csv`, and a figure of each task whose score has a unit in `units`."""
    from nsclc_mtl.report import feature_bars
    from nsclc_mtl.report.words import slug

    folder = patient_folder(run.path, patient)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / FILE, index=False, lineterminator="\n", float_format="%.6g")
    for task, unit in units.items():
        if len(mine := table[table["task"] == task]):
            figure = feature_bars.figure(f"features-{slug(task)}", mine, f"{patient}: {task}", unit)
            (folder / f"{figure.name}.svg").write_text(figure.svg + "\n", encoding="utf-8")


def of_cohort(sums: pd.DataFrame, run: Run) -> None:
    """The table of the cohort: task, modality, feature, mean_abs, mean, n; the strongest first."""
    whole = sums.groupby(level=[0, 1, 2], sort=False).sum()
    for column in ("mean", "mean_abs"):
        whole[column] /= whole["n"]
    whole = whole.reset_index().astype({"n": int})
    order = {task: k for k, task in enumerate(dict.fromkeys(whole["task"]))}
    whole = whole.sort_values("mean_abs", ascending=False, kind="stable").sort_values(
        "task", key=lambda of: of.map(order), kind="stable"
    )
    columns = ["task", "modality", "feature", "mean_abs", "mean", "n"]
    whole[columns].to_csv(run.path / FILE, index=False, lineterminator="\n", float_format="%.6g")


def _first(ids: Sequence[str], wanted: Any) -> list[str]:
    return list(ids) if wanted == "all" else list(ids)[: int(wanted)]


def attributed(
    members: Sequence[Any], manifest: Manifest, ids: Sequence[str], data: Any, tasks: Sequence[str]
) -> Iterator[pd.DataFrame]:
    """Tables patient_id, task, modality, feature, value, attribution of these patients, a batch of them at a time.

    `value` is the cell of the cohort's table, or of a gene set its score. Attributions are means over the members.
    """
    import numpy as np
    import pandas as pd

    from nsclc_mtl.bags.datamodule import loader, moved
    from nsclc_mtl.explain import features

    if not ids or not data.fitted.tables:
        return
    for batch in loader(manifest, ids, data.fitted, data.cache):
        batch = moved(batch, members[0].device)
        found: dict[str, list[pd.DataFrame]] = {task: [] for task in tasks}
        for name, encoder in data.fitted.tables.items():
            at = batch.present[name].cpu().numpy()
            here = [p for p, has in zip(batch.patients, at, strict=True) if has]
            if not here:
                continue
            each = [features.gradients(member, batch, name, features.baseline(encoder)) for member in members]
            rows = data.fitted.rows(manifest, name, here, columns=True)
            cells = _cells(manifest.tables[name], encoder, here, rows)
            for task in tasks:
                told = features.attributions(encoder, rows, np.mean([of[task] for of in each], axis=0)[at])
                columns = {"patient_id": np.repeat(np.array(here, object), told.shape[1]), "task": task}
                columns |= {"modality": name, "feature": np.tile(np.array(told.columns, object), len(here))}
                columns |= {"value": cells[list(told.columns)].to_numpy(dtype=object).ravel()}
                found[task].append(pd.DataFrame({**columns, "attribution": told.to_numpy().ravel()}))
        every = [table for of in found.values() for table in of]
        if every:
            yield pd.concat(every)


def _cells(table: pd.DataFrame, encoder: Any, ids: Sequence[str], rows: np.ndarray) -> pd.DataFrame:
    """What stands in the cohort's table, text [patient, origin]; scores of gene sets as the network takes them."""
    import pandas as pd

    columns = {name: k for k, name in reversed(list(enumerate(encoder.origins)))}  # of a name the first row
    out: dict[str, Any] = {}
    # the patients' rows are taken once: a lookup a gene would be most of the work
    own = table.loc[list(ids), table.columns.isin(columns)]
    for name in dict.fromkeys(encoder.origins):
        out[name] = own[name].astype(str).to_numpy() if name in own else rows[:, columns[name]].round(4)
    return pd.DataFrame(out, index=list(ids))
