"""`mtl tune`: the best settings of every fold, found among its non-test patients; a run like that of `mtl train`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands.sealed import written
from nsclc_mtl.commands.space import Parameter
from nsclc_mtl.records import Manifest, UsageFault

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run

BEST = "best.yaml"  # of a fold
TRIALS = "trials.csv"


@dataclass(frozen=True)
class Plan:
    """What is tried in every fold; plain, so that it travels between processes."""

    words: tuple[str, ...]  # overrides of `mtl train` that every trial has
    conf_dirs: tuple[Path, ...]
    space: tuple[Parameter, ...]
    trials: int
    startup: int
    inner: int
    objective: str


def body(cfg: DictConfig, run: Run) -> None:
    """Tunes and trains every fold; writes what `mtl train` writes, and `trials.csv`, `best.yaml` and `tuning.json`."""
    from nsclc_mtl.commands import fold_jobs, space, train
    from nsclc_mtl.config import plain

    asked = plain(cfg)
    _installed()
    _known(str(asked["objective"]), asked["tasks"] or list(asked["cohort"]["tasks"]))
    inner = _inner(int(asked["inner"]))
    ranges = space.parameters(asked["space"])
    words = space.given(run.argv[2:], ranges)
    space.sound(words, ranges, run.conf_dirs)
    settings = space.settings(words, run.conf_dirs)
    plan = Plan(
        tuple(words),
        tuple(run.conf_dirs),
        tuple(ranges),
        int(asked["trials"]),
        int(asked["startup"]),
        inner,
        str(asked["objective"]),
    )
    manifest, splits, folds = train.opened(settings, run)
    run.say(
        f"{len(ranges)} parameters ({', '.join(p.key for p in ranges)}), {plan.trials} trials a fold on "
        + (f"{plan.inner} inner folds" if plan.inner else "its validation part")
        + f", judged by {_judge(plan.objective)}"
    )
    _left(settings, manifest, splits, folds, run)
    work = partial(tune_fold, plan)
    if fold_jobs.only_handed_over(settings, folds, run, work):
        return
    for fold, seconds in train.train_folds(settings, folds, run, work):
        run.done.append(f"fold{fold}")
        took = f" in {seconds:.0f} s" if seconds is not None else ""
        run.say(f"fold {fold} tuned and trained{took}: {_told(run.path, fold)}")
    train.closed(settings, manifest, run)
    for line in optimism(run.path, [int(name[4:]) for name in run.done], plan):
        run.say(line)
    run.say(train.NEXT.format(os.path.relpath(run.path)))


def _installed() -> None:
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise UsageFault("mtl tune needs Optuna, which is not installed: pip install 'nsclc-mtl[tune]'")


def _inner(inner: int) -> int:
    """The number of inner folds, where it can be one."""
    if inner == 1:
        raise UsageFault("inner=1 leaves nobody to train: take 0 (the validation part) or two folds and more")
    return inner


def _known(objective: str, tasks: Sequence[str]) -> None:
    from nsclc_mtl.config.allow import nearest

    if objective != "mean" and objective not in tasks:
        near = nearest(objective, ["mean", *tasks]) or f"; there are mean, {', '.join(tasks)}"
        raise UsageFault(f"objective={objective!r} is no task of this run{near}")


def _judge(objective: str) -> str:
    return "the mean of the tasks' main metrics" if objective == "mean" else f"the main metric of {objective}"


def _left(
    settings: Mapping[str, Any], manifest: Manifest, splits: pd.DataFrame, folds: Sequence[int], run: Run
) -> None:
    """Keeps the finished folds that are not asked for this time; what else is left of folds is removed, and said."""
    from nsclc_mtl.commands import fold_files, fold_jobs, resume
    from nsclc_mtl.commands.train import _remove

    at_work = fold_jobs.at_work(settings, run.path)
    for folder in sorted(run.path.glob("fold*"), key=lambda path: int(path.name[4:])):
        fold = int(folder.name[4:])
        if fold in folds or fold in at_work:
            continue
        mine = fold_files.settings_of(settings, folder)
        if why := resume.unfinished(folder, resume.account(mine, manifest, splits[splits["fold"] == fold])):
            run.say(f"fold {fold} is removed: {why}")
            _remove(folder)
        else:
            run.say(f"fold {fold} is finished and kept")
            run.done.append(folder.name)


def tune_fold(plan: Plan, settings: Mapping[str, Any], fold: int, path: Path) -> None:
    """The trials of one fold of the run at `path`, then the fold with the best of them; goes on where it was left.

    Trials see the fold's training and validation patients alone: the others are taken out of the cohort before the
    first one.
    """
    import pandas as pd

    from nsclc_mtl.commands import resume, space, trials
    from nsclc_mtl.commands.cohort import open_cohort
    from nsclc_mtl.commands.fold import threads, train_fold

    splits = pd.read_csv(path / "splits.csv", dtype={"patient_id": str}, keep_default_na=False)
    rows, manifest = splits[splits["fold"] == fold], open_cohort(settings)
    parts = trials.inner_splits(settings, manifest, rows, plan.inner)
    mine = trials.of_patients(manifest, list(dict.fromkeys(parts["patient_id"])))
    ensemble = any(parameter.key.lstrip("+") == "members" for parameter in plan.space)

    def score(params: Mapping[str, Any], folder: Path) -> Mapping[str, float]:
        tried = space.settings([*plan.words, *space.words(params)], plan.conf_dirs)
        tried["members"] = tried["members"] if ensemble else 1  # the mean of several costs several trials
        return trials.scored(tried, mine, parts, folder)

    made_from = resume.account(settings, manifest, rows)
    made_from["the study"] = repr((plan.space, plan.startup, plan.inner, plan.objective))
    with threads(settings["folds"]["threads"], splits["fold"].nunique()):
        done = trials.run_trials(
            path / trials.FOLDER / f"fold{fold}.jsonl",
            plan.space,
            plan.trials,
            score,
            objective=plan.objective,
            seed=(int(settings["seed"]), fold),
            startup=plan.startup,
            made_from=made_from,
        )
    best = trials.best_of([trials.row_of(trial) for trial in done], fold)
    chosen = space.words(best["params"])
    final = space.settings([*plan.words, *chosen], plan.conf_dirs)
    own = {key: value for key, value in final.items() if value != settings.get(key)}
    if resume.unfinished(path / f"fold{fold}", resume.account(final, manifest, rows)):
        train_fold(final, fold, path, own)
    save_best(path / f"fold{fold}", best, chosen, plan.objective)


def save_best(folder: Path, best: Mapping[str, Any], chosen: Sequence[str], objective: str) -> None:
    """`best.yaml` of a fold: the trial, its score on the inner folds, and the overrides that give it again."""
    import yaml

    told = {
        "trial": best["trial"],
        "objective": objective,
        "inner": best["value"],
        "tasks": dict(best["scores"]),
        "params": dict(best["params"]),
        "overrides": list(chosen),
    }
    with written(folder / BEST) as aside:
        aside.write_text(yaml.safe_dump(told, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _best(path: Path, fold: int) -> dict[str, Any]:
    import yaml

    told: dict[str, Any] = yaml.safe_load((path / f"fold{fold}" / BEST).read_text(encoding="utf-8"))
    return told


def _told(path: Path, fold: int) -> str:
    best = _best(path, fold)
    return f"trial {best['trial']}, {' '.join(best['overrides'])}, inner score {best['inner']:.3f}"


def optimism(path: Path, folds: Sequence[int], plan: Plan) -> list[str]:
    """Lines on how much the best inner score promises above the test part; writes `trials.csv` and `tuning.json`.

    The inner score is the best of many, so that it lies above what the setting is worth; the test part was seen by no
    trial. Both are of the tasks that have a metric in both.
    """
    import pandas as pd

    from nsclc_mtl.commands.trials import FOLDER, goal, journal

    measured = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
    rows, table, lines = [], [], []
    for fold in folds:
        best, tried = _best(path, fold), journal(path / FOLDER / f"fold{fold}.jsonl")[: plan.trials]
        test = {row["task"]: row["value"] for row in measured if row["fold"] == str(fold) and row["value"] is not None}
        both = [task for task in best["tasks"] if task in test and plan.objective in ("mean", task)]
        failed = [row for row in tried if row["value"] is None]
        row: dict[str, Any] = {"fold": fold, "trials": len(tried), "failed": len(failed), "best": best["trial"]}
        row["params"] = best["params"]
        if both:
            inner, outer = (goal({t: of[t] for t in both}, "mean") for of in (best["tasks"], test))
            row |= {"tasks": both, "inner": inner, "test": outer, "optimism": inner - outer}
            lines.append(f"fold {fold}: inner {inner:.3f}, test {outer:.3f}, optimism {inner - outer:+.3f}")
        if failed:
            lines.append(f"note: fold {fold}: {len(failed)} of {len(tried)} trials failed, see {TRIALS}")
        rows.append(row)
        table += [_flat(fold, one) for one in tried]
    known = [row["optimism"] for row in rows if "optimism" in row]
    if len(known) > 1:
        lines.append(f"optimism of the inner score: {sum(known) / len(known):+.3f}, mean of {len(known)} folds")
    with written(path / "tuning.json") as aside:
        aside.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    with written(path / TRIALS) as aside:
        pd.DataFrame(table).to_csv(aside, index=False, lineterminator="\n")
    return lines


def _flat(fold: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of trials.csv; `as` is the earlier trial with the same setting, whose score it has."""
    out = {"fold": fold, **{key: row[key] for key in ("trial", "state", "value", "seconds", "as", "reason")}}
    out |= {f"score:{task}": value for task, value in row["scores"].items()}
    return {**out, **row["params"]}
