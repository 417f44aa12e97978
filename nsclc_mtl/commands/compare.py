"""`mtl compare`: several runs on the same test patients, side by side, with paired differences to one of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, TaskSpec, UsageFault

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run
    from nsclc_mtl.report.side_by_side import Beside, Entry


@dataclass(frozen=True)
class Given:
    """A run as it was given: its folder, that of the training behind it, its predictions and the hash of its split."""

    folder: Path
    trained: Path
    predictions: Path
    split: pd.DataFrame | None  # None for patients of another cohort


def body(cfg: DictConfig, run: Run) -> None:
    """Writes `metrics.json`, `compare.html`, `tables/` and `figures/`, and prints the table.

    Raises UsageFault where a folder is no run, DataFault where no task or patient is common to two of them.
    """
    from nsclc_mtl.config import plain
    from nsclc_mtl.report import compare_page, section
    from nsclc_mtl.report.side_by_side import side_by_side

    settings = plain(cfg)
    given = [opened(word) for word in _words(settings["runs"])]
    names = _labels(given, settings["labels"])
    order = _order(given, names, settings["reference"])
    for one in given:
        for file in (one.predictions, one.trained / "cohort.json"):
            run.read(file)
    entries = [_entry(given[k], names[k]) for k in order]
    notes = _notes([given[k] for k in order], [names[k] for k in order])
    made = side_by_side(entries, int(settings["bootstrap"]), int(settings["seed"]))
    if not made:
        told = "; ".join(f"{entry.label}: {', '.join(entry.tasks)}" for entry in entries)
        raise DataFault(f"no task was tested in two of the runs ({told})")
    if apart := [name for name, task in made.items() if not task.same]:
        notes.append(
            f"the runs test the patients of {', '.join(apart)} in different folds: each run is judged within its own"
        )
    for note in notes:
        run.say(f"note: {note}", style="bold yellow")
    looks = _looks([given[k] for k in order], entries, made, settings, run)
    page = compare_page.render(made, entries, notes, [str(given[k].folder) for k in order], looks)
    rows = compare_page.metric_rows(made)
    (run.path / "metrics.json").write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    section.save(page.sections, page.figures, run.path)
    (run.path / "compare.html").write_text(page.html, encoding="utf-8")
    run.show(compare_page.table(made, boxed=run.console.is_terminal))
    for entry, look in zip(entries, looks, strict=True):
        run.say(f"{entry.label}: {look}")
    run.say(f"page: {run.path / 'compare.html'}")
    run.done += list(made)


def opened(word: str) -> Given:
    """The run in a folder of train, tune or evaluate. Raises UsageFault where it is none, IntegrityFault where its
    split is not the one that its record promises."""
    import yaml

    from nsclc_mtl.cohort import split_record
    from nsclc_mtl.commands.trained import read_table, run_folder

    folder = Path(word)
    if not folder.is_dir():
        raise UsageFault(f"'{word}' is no folder: give the run folders that `mtl train`, `tune` or `evaluate` printed")
    trained = folder
    if not (folder / "cohort.json").is_file() and (folder / "config.yaml").is_file():
        said = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        ckpt = said.get("ckpt") if isinstance(said, Mapping) else None
        if ckpt:
            trained = run_folder(ckpt)
    for name in ("cohort.json", "predictions.csv"):
        if not (trained / name).is_file():
            raise UsageFault(f"'{word}' has no {name}: give the folder of a finished `mtl train`, `tune` or `evaluate`")
    if trained != folder and (folder / "predictions.csv").is_file():  # of another cohort, which has no split
        return Given(folder, trained, folder / "predictions.csv", None)
    split, path = None, trained / "splits.csv"
    if path.is_file():
        split = read_table(path)
        split_record.verify(split, None, path)
    return Given(folder, trained, trained / "predictions.csv", split)


def _words(runs: Any) -> list[str]:
    words = [str(word) for word in runs] if isinstance(runs, list) else [] if runs == "???" else [str(runs)]
    if len(words) < 2:
        raise UsageFault("mtl compare needs two runs or more: mtl compare RUN RUN")
    return words


def _labels(given: Sequence[Given], wanted: Any) -> list[str]:
    """What each run is called: as asked for, or by its folder, with the folder above where names are equal."""
    if wanted is not None:
        names = [str(word) for word in wanted] if isinstance(wanted, list) else [str(wanted)]
        if len(names) != len(given):
            raise UsageFault(f"labels: {len(names)} names for {len(given)} runs")
    else:
        names = [one.folder.resolve().name for one in given]
        if len(set(names)) < len(names):
            names = ["/".join(one.folder.resolve().parts[-2:]) for one in given]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageFault(f"two runs are called '{twice}': give each once, or name them with labels=[a,b]")
    return names


def _order(given: Sequence[Given], names: Sequence[str], reference: Any) -> list[int]:
    """Numbers of the runs, the reference first."""
    if reference is None:
        return list(range(len(given)))
    word = str(reference)
    found = [k for k, one in enumerate(given) if word == names[k] or Path(word).resolve() == one.folder.resolve()]
    if not found:
        raise UsageFault(f"reference={word} is none of the runs: {', '.join(names)}")
    return [found[0], *(k for k in range(len(given)) if k != found[0])]


def _entry(one: Given, label: str) -> Entry:
    from nsclc_mtl.commands.trained import read_table
    from nsclc_mtl.report.side_by_side import Entry

    table = read_table(one.predictions)
    absent = {"task", "output", "value", "target", "event", "time_days"} - set(table.columns)
    if absent:
        raise DataFault(f"'{one.predictions}' has no column '{sorted(absent)[0]}': it is no table of predictions")
    return Entry(label, _tasks(one.trained / "cohort.json"), table, one.split)


def _looks(
    given: Sequence[Given], entries: Sequence[Entry], made: Mapping[str, Beside], settings: Mapping[str, Any], run: Run
) -> list[str]:
    """How often the test patients of each run have been looked at, this comparison among them.

    A run that is given twice, as itself and by its evaluation, is looked at once. One none of whose tasks is compared
    is not looked at.
    """
    from nsclc_mtl.commands import evaluations

    found: dict[Path, str] = {}
    words = []
    for one, entry in zip(given, entries, strict=True):
        at = one.predictions.resolve()
        tasks = [name for name, task in made.items() if entry.label in task.results]
        if tasks and at not in found:
            file = evaluations.place(one.trained, settings)
            cohort, content = evaluations.cohort_of(at.parent, at, file.resolve())
            rows = entry.predictions
            patients = rows.loc[rows["part"] == "test", "patient_id"].nunique()
            found[at] = str(evaluations.look(file, cohort, content, patients, tasks, run))
        words.append(found.get(at, "not looked at: no task is compared"))
    return words


def _tasks(path: Path) -> dict[str, TaskSpec]:
    """The tasks of a run as `cohort.json` has them."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))["tasks"]
        return {
            name: TaskSpec(
                name,
                task["kind"],
                tuple(task.get("classes") or ()),
                endpoint=task.get("endpoint") or "",
                causes=tuple(task.get("causes") or ()),
                unit=task.get("unit") or "",
            )
            for name, task in said.items()
        }
    except (ValueError, KeyError, AttributeError) as wrong:
        raise DataFault(f"'{path}' does not describe tasks: it is not what `mtl train` wrote") from wrong


def _notes(given: Sequence[Given], names: Sequence[str]) -> list[str]:
    """What a reader must know before comparing: splits that differ, cohorts that differ."""
    notes = []
    told = _splits([one.split for one in given], names)
    if told:
        notes.append(told)
    cohorts = {json.loads((one.trained / "cohort.json").read_text(encoding="utf-8")).get("name") for one in given}
    if len(cohorts) > 1:
        notes.append(f"the runs name different cohorts: {', '.join(sorted(map(str, cohorts)))}")
    return notes


def _splits(splits: Sequence[pd.DataFrame | None], names: Sequence[str]) -> str:
    """How the splits differ; '' where they are one, or where all runs predict another cohort."""
    from nsclc_mtl.cohort.split_record import digest

    marks = ["" if split is None else digest(split) for split in splits]
    if len(set(marks)) == 1:
        return ""
    apart = ", ".join(f"{name} {mark[:8] or 'another cohort'}" for name, mark in zip(names, marks, strict=True))
    there = [split for split in splits if split is not None]
    if len(there) == len(splits):
        people = [set(split["patient_id"]) for split in there]
        common = set.intersection(*people)
        if len({digest(split[split["patient_id"].isin(common)]) for split in there}) == 1:
            sizes = ", ".join(f"{name} {len(ids)}" for name, ids in zip(names, people, strict=True))
            return (
                f"the runs hold different patients ({sizes}), and the {len(common)} whom all hold stand in the same "
                "folds and parts: only patients whom all runs tested are compared"
            )
    return (
        f"the splits differ ({apart}): the runs were trained on different patients, which is a part of every "
        "difference; only patients whom all runs tested are compared (folds.file=RUN/splits.csv trains on the same "
        "split)"
    )
