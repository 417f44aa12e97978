"""Folds as jobs of their own: `engine=submitit` of `mtl train` and `mtl tune`, in the run folder of the command."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl import jobs
from nsclc_mtl.records import DataFault, Fault, IntegrityFault, TryAgain, UsageFault

if TYPE_CHECKING:
    from nsclc_mtl.config import Run

FOLDER = "jobs"  # of the run

Work = Callable[[Mapping[str, Any], int, Path], None]


def engine(settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The settings of `engine=submitit`, None for processes of this command. Raises UsageFault for other engines, and
    where jobs cannot be handed over from here."""
    asked = settings.get("engine") or {"name": "local"}
    if asked["name"] not in ("local", "submitit"):
        raise UsageFault(f"engine={asked['name']} is for slides: take engine=local or engine=submitit for training")
    if asked["name"] == "local":
        return None
    jobs.sound(asked)
    if settings["device"] == "cuda" and asked["cluster"] == "slurm" and not asked["gpus"]:
        raise UsageFault("device=cuda, but the jobs ask SLURM for no GPU: set engine.gpus=1")
    return asked


def elsewhere(settings: Mapping[str, Any]) -> bool:
    """Whether the folds are trained on other machines, whose devices cannot be looked at from here."""
    asked = engine(settings)
    return asked is not None and asked["cluster"] == "slurm"


def at_work(settings: Mapping[str, Any], path: Path) -> dict[int, jobs.Ticket]:
    """Folds of the run at `path` that an earlier start handed over and whose jobs are queued or running.

    Raises TryAgain where this start trains by itself, or shall not wait.
    """
    found = {int(ticket.key[4:]): ticket for ticket in jobs.at_work(path / FOLDER)}
    asked = engine(settings)
    if found and not (asked and asked["wait"]):
        told = ", ".join(f"fold {fold} ({ticket})" for fold, ticket in sorted(found.items()))
        raise TryAgain(
            f"{told}: queued or in work by an earlier start; repeat the command when they have ended, or wait for them "
            f"with name={path.name} --resume engine=submitit"
        )
    return found


def train(settings: dict[str, Any], folds: Sequence[int], run: Run, work: Work) -> Iterator[tuple[int, float | None]]:
    """Folds as their jobs end, with their seconds where they ran in one go; those at work are waited for.

    A fold that fails leaves the others. Raises the fault that the first of them had, or TryAgain for lost jobs.
    """
    asked = engine(settings)
    assert asked is not None
    before = {fold: ticket for fold, ticket in at_work(settings, run.path).items() if fold in folds}
    calls = _calls(settings, [fold for fold in folds if fold not in before], run, work)
    for ticket in before.values():
        run.say(f"{_words(ticket)} is at work")
    most = int(asked["parallel"] or max(1, int(settings["folds"]["workers"])))
    folder, failed, lost = run.path / FOLDER, dict[int, jobs.End](), list[int]()
    each = jobs.work_through(
        calls, list(before.values()), asked, _name(run), most, folder, lambda ticket: run.say(_handed(ticket, asked))
    )
    try:
        for ticket, end in run.track(each, "folds", total=len(folds)):
            fold = int(ticket.key[4:])
            if end is None:
                lost.append(fold)
                run.say(f"{_words(ticket)} was lost; its log is in {FOLDER}/")
            elif end.exit_code:
                failed[fold] = end
                run.say(f"{_words(ticket)} failed: {end.sentence}; its log is in {FOLDER}/")
            else:
                yield fold, end.seconds
    except BaseException as wrong:
        if asked["cluster"] == "slurm" and not isinstance(wrong, (Exception, GeneratorExit)):
            run.say(f"the jobs go on: squeue shows them, scancel ends them. Gather them with: {gathering(run)}")
        raise
    if failed:
        raise fault(failed[min(failed)])
    if lost:
        raise TryAgain(
            f"a job was killed or lost while it trained (was its memory full? its log is in {FOLDER}/), so that "
            f"{_folds(lost)} did not finish; the others are kept: repeat the command with name={run.path.name} --resume"
        )


def only_handed_over(settings: dict[str, Any], folds: Sequence[int], run: Run, work: Work) -> bool:
    """True where the folds were handed over and are not waited for; says how they are gathered."""
    asked = engine(settings)
    if asked is None or asked["wait"] or not folds:
        return False
    for ticket in jobs.hand_over(_calls(settings, folds, run, work), asked, _name(run)):
        run.say(_handed(ticket, asked))
    run.say(f"the jobs go on by themselves; when they have ended: {gathering(run)}")
    return True


def gathering(run: Run) -> str:
    """The command that waits for the jobs of the run and gathers what they made."""
    words = [word for word in run.argv[2:] if not word.startswith(("name=", "engine.wait="))]
    options = [f"--conf={folder}" for folder in run.conf_dirs]
    return shlex.join(["mtl", run.verb, "--resume", *options, f"name={run.path.name}", *words])


def fault(end: jobs.End) -> Fault:
    """The fault that a job had: its code and its sentence."""
    kinds = {kind.exit_code: kind for kind in (UsageFault, DataFault, IntegrityFault, TryAgain)}
    return kinds.get(end.exit_code, Fault)(end.sentence or f"a job ended with exit code {end.exit_code}")


def _calls(settings: dict[str, Any], folds: Sequence[int], run: Run, work: Work) -> list[jobs.Call]:
    folder = run.path / FOLDER
    return [jobs.Call(f"fold{fold}", folder, functools.partial(work, settings, fold, run.path)) for fold in folds]


def _name(run: Run) -> str:
    return f"mtl-{run.path.name}"


def _handed(ticket: jobs.Ticket, asked: Mapping[str, Any]) -> str:
    return f"{_words(ticket)} of {asked['cluster']}; its log: {FOLDER}/{ticket.job}_0_log.out"


def _words(ticket: jobs.Ticket) -> str:
    return f"fold {ticket.key[4:]}: {ticket}"


def _folds(folds: Sequence[int]) -> str:
    return f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, sorted(folds)))}"
