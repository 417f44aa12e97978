"""What a finished training left: its folder, configuration, folds, tasks, tables, and who was in which part."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, Manifest, TaskSpec, UsageFault

if TYPE_CHECKING:
    import pandas as pd

NEEDED = ("predictions.csv", "config.yaml", "cohort.json")


def run_folder(ckpt: Any) -> Path:
    """The run folder that `ckpt` names, itself or by one of its checkpoints. Raises UsageFault where it is none."""
    from nsclc_mtl.commands import bundled

    path = Path(str(ckpt))
    if bundled.at(path):
        raise UsageFault(
            f"ckpt='{ckpt}' is a bundle, which holds no predictions of the patients that it was trained on: name "
            "others with cohort=NAME, or give the run folder of the training"
        )
    above = next((p for p in path.parents if (p / "splits.csv").is_file()), path)
    folder = path if path.is_dir() and not is_fold(path) else above
    if not path.exists():
        raise UsageFault(f"ckpt='{ckpt}' does not exist: give the run folder that `mtl train` printed")
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise UsageFault(f"ckpt='{ckpt}' has no {missing[0]}: give the folder of a finished `mtl train`")
    return folder


def is_fold(path: Path) -> bool:
    """Whether a path is called as the folder of a fold."""
    return re.fullmatch(r"fold\d+", path.name) is not None


def named_fold(ckpt: Any) -> int | None:
    """The fold that `ckpt` names, itself or by one of its checkpoints; None where it names a run or a bundle."""
    path = Path(str(ckpt))
    fold = path.parent if path.is_file() else path
    whole = any((fold / name).is_file() for name in ("splits.csv", "model.json"))  # a run or bundle of such a name
    return int(fold.name[4:]) if is_fold(fold) and not whole else None


def predictors(ckpt: Any, members: Mapping[int, int]) -> str:
    """Who predicts a patient of no fold: the mean of so many folds, or one alone. members: fold -> its models."""
    if len(members) != 1:
        return f"mean of {len(members)} folds"
    (fold, count), single = next(iter(members.items())), Path(str(ckpt)).suffix == ".ckpt"
    together = f", all {count} members of it" if count > 1 and single else ""
    return f"fold {fold} alone{together}"


def trained_run(settings: Mapping[str, Any]) -> tuple[dict[str, Any], Path, list[str]]:
    """Configuration and folder of the run or bundle that `ckpt` names, and its folds (one, where ckpt names a
    checkpoint). Raises IntegrityFault where a bundle is not what was written."""
    import yaml

    from nsclc_mtl.commands import bundled

    ckpt = Path(str(settings["ckpt"]))
    if packed := bundled.at(ckpt):
        content = bundled.opened(packed)
        every = [f"fold{k}" for k in sorted(map(int, content["folds"]))]
        trained = {**content["config"], **{k: content.get(k) for k in ("derived", "patients_sha256", "marks")}}
        return trained, packed, [ckpt.name] if ckpt.name in every else every
    folder = next(
        (p for p in (ckpt, *ckpt.parents) if (p / "config.yaml").is_file() and (p / "splits.csv").is_file()), None
    )
    if not ckpt.exists() or folder is None:
        raise UsageFault(
            f"ckpt='{ckpt}' is no run of `mtl train`: give the folder that it printed, or one of its checkpoints"
        )
    named = ckpt if ckpt.is_dir() else ckpt.parent
    folds = (
        [named.name] if named != folder else sorted((p.name for p in folder.glob("fold*")), key=lambda n: int(n[4:]))
    )
    if not folds:
        raise UsageFault(f"ckpt='{ckpt}' holds no trained fold: the training did not finish")
    return yaml.safe_load((folder / "config.yaml").read_text()), folder, folds


def read_table(path: Path) -> pd.DataFrame:
    """predictions.csv, floors.csv or splits.csv, ids and folds as text. Raises DataFault where it is none of them."""
    import pandas as pd

    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    absent = {"patient_id", "fold", "part"} - set(frame.columns)
    if absent:
        raise DataFault(f"'{path.name}' has no column '{sorted(absent)[0]}': it is not a table of this program")
    return numbers(frame, path.name)


def numbers(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """A table of predictions with its numbers as numbers. Raises DataFault with the table's name."""
    import pandas as pd

    for column in ("value", "event", "time_days"):
        if column in frame:
            try:
                frame[column] = pd.to_numeric(frame[column].replace("", None))
            except ValueError as error:
                raise DataFault(f"'{name}', column '{column}': {error}; write the predictions again") from error
    return frame


def as_written(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Writes a table of predictions with seven digits and gives back what stands there: what is judged can be judged
    again from the file, to the last tie."""
    table.to_csv(path, index=False, lineterminator="\n", float_format="%.7g")
    return read_table(path) if len(table) else table


def tasks_of(path: Path, manifest: Manifest) -> dict[str, TaskSpec]:
    """The tasks that were trained: kind and class order from `cohort.json`, columns from the cohort."""
    trained = json.loads(path.read_text(encoding="utf-8"))["tasks"]
    return {
        name: TaskSpec(
            name,
            said["kind"],
            tuple(said.get("classes") or ()),
            manifest.tasks[name].columns if name in manifest.tasks else (),
            said.get("endpoint") or "",
            float(said.get("landmark_days") or 0.0),
            tuple(said.get("causes") or ()),
            said.get("unit") or "",
        )
        for name, said in trained.items()
    }


def same_patients(read: Mapping[str, Any], trained: Mapping[str, Any], manifest: Manifest, folder: Path) -> bool:
    """Whether this is the training cohort: the same declaration, or the same patients table in another place.

    A patient id alone says nothing: two cohorts may count their patients alike.
    """
    if read["cohort"] == trained["cohort"]:
        return True
    file = read["cohort"]["patients"]["file"]
    account = folder / "run.json"
    told = json.loads(account.read_text())["inputs"] if account.is_file() else []
    before = {i["sha256"] for i in told if Path(i["path"]).name == Path(trained["cohort"]["patients"]["file"]).name}
    before |= set(trained.get("patients_sha256") or ())  # of a bundle
    return any(i["sha256"] in before for i in manifest.inputs if i["path"] == file)


def parts_of(
    folder: Path, whom: Mapping[str, str], models: Mapping[int, Any]
) -> tuple[dict[str, int], dict[str, set[int]]]:
    """The fold that held each of these patients of the training out, and the folds that used him otherwise.

    whom: patient -> his id in the training. Who was tested by several folds is given to one that is at hand. A bundle
    does not know who was held out: all its folds count as if they had used the patient.
    """
    import pandas as pd

    if not (folder / "splits.csv").is_file():
        return {}, {p: set(models) for p in whom}
    if not whom:
        return {}, {}
    splits = pd.read_csv(folder / "splits.csv", dtype={"patient_id": str}, keep_default_na=False)
    splits = splits[splits["patient_id"].isin(whom.values())]
    tests = splits[splits["part"] == "test"]
    tests = tests.assign(away=~tests["fold"].isin(list(models))).sort_values("away", kind="stable")
    held = {str(p): int(fold) for p, fold in tests.drop_duplicates("patient_id")[["patient_id", "fold"]].to_numpy()}
    used = splits[splits["part"] != "test"].groupby("patient_id")["fold"]
    seen = {str(p): {int(f) for f in folds} for p, folds in used}
    return (
        {p: held[before] for p, before in whom.items() if before in held},
        {p: seen[before] for p, before in whom.items() if before in seen},
    )
