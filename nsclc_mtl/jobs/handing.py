"""Handing calls over: to SLURM as an array, to this machine as processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nsclc_mtl import signals
from nsclc_mtl.lease import Holder
from nsclc_mtl.records import UsageFault

from .call import Call, write


@dataclass(frozen=True)
class Ticket:
    """A job that was handed over."""

    key: str
    cluster: str  # local | slurm
    job: str  # its number there
    holder: dict[str, Any] | None = None  # the process, of a local one

    def __str__(self) -> str:
        return f"job {self.job}" if self.cluster == "slurm" else f"process {self.job}"


def sound(engine: Mapping[str, Any]) -> None:
    """Raises UsageFault where jobs cannot be handed over from here."""
    from importlib.util import find_spec

    if find_spec("submitit") is None:
        raise UsageFault("engine=submitit needs submitit, which is not installed: pip install 'nsclc-mtl[cluster]'")
    absent = [tool for tool in ("sbatch", "srun", "squeue") if engine["cluster"] == "slurm" and not shutil.which(tool)]
    if absent:
        raise UsageFault(
            f"engine.cluster=slurm, but {absent[0]} is not here: run it on a login node, or take engine.cluster=local"
        )


def hand_over(calls: Sequence[Call], engine: Mapping[str, Any], name: str) -> list[Ticket]:
    """Hands calls of one folder over; several to SLURM as one array. Raises UsageFault where it refuses them."""
    import submitit

    if not calls:
        return []
    folder, cluster = calls[0].folder, str(engine["cluster"])
    folder.mkdir(parents=True, exist_ok=True)
    keys = {call.key for call in calls}
    for ticket in handed(folder):  # of an earlier start, and dead
        if ticket.key in keys:
            tidy(folder, ticket)
    for call in calls:
        (folder / f"{call.key}.end.json").unlink(missing_ok=True)
        if cluster == "local" and not engine["gpus"]:  # submitit would hide them all
            call.environment = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")}
    try:
        executor = submitit.AutoExecutor(
            folder, cluster=cluster, **{f"{cluster}_max_num_timeout": int(engine["restarts"])}
        )
        executor.update_parameters(**_parameters(engine, name, len(calls)))
        # a Ctrl-C in the terminal, or its end, is for the command, which asks the jobs to keep their state
        with _outside(), signals.unheard(signal.SIGINT, signal.SIGHUP):
            jobs = executor.submit_array(list(calls))
    except RuntimeError as wrong:  # submitit's, with what sbatch said in its last line
        for remnant in (*folder.glob("*.pkl"), *folder.glob(".submission_file_*.sh")):
            if not remnant.name.endswith("_submitted.pkl"):  # which are of jobs that were taken
                remnant.unlink()
        said = next((line for line in reversed(str(wrong).splitlines()) if line.strip()), type(wrong).__name__)
        raise UsageFault(
            f"the jobs were refused ({said.strip()}): mend engine.*, see conf/engine/submitit.yaml"
        ) from None
    tickets = []
    for call, job in zip(calls, jobs, strict=True):
        holder = asdict(Holder.of(int(job.job_id))) if cluster == "local" else None
        tickets.append(Ticket(call.key, cluster, str(job.job_id), holder))
        write(folder / f"{call.key}.job.json", asdict(tickets[-1]))
    return tickets


def _parameters(engine: Mapping[str, Any], name: str, jobs: int) -> dict[str, Any]:
    """The settings in submitit's words."""
    given: dict[str, Any] = {
        "name": name,
        "timeout_min": max(1, round(60 * float(engine["hours"]))),
        "stderr_to_stdout": True,
        "nodes": 1,
        "tasks_per_node": 1,
        "gpus_per_node": int(engine["gpus"]) or None,
    }
    cluster, setup = engine["cluster"], [str(line) for line in engine["setup"] or ()]
    if cluster == "local":
        return {**given, "local_setup": setup}
    memory, cores = engine["memory_gb"], engine["cores"]
    return {
        **given,
        "mem_gb": None if memory is None else float(memory),
        "cpus_per_task": cores,
        # since 22.05 srun does not take it over from sbatch
        "slurm_srun_args": None if cores is None else [f"--cpus-per-task={cores}"],
        "slurm_signal_delay_s": int(engine["grace_s"]),
        "slurm_partition": engine["partition"],
        "slurm_account": engine["account"],
        "slurm_array_parallelism": int(engine["parallel"] or jobs),
        "slurm_setup": setup or None,
        "slurm_additional_parameters": {"requeue": True, **(engine["more"] or {})},
    }


@contextmanager
def _outside() -> Iterator[None]:
    """Within, the variables of a job that this process may itself run in are away: they would speak of the new ones."""
    gone = {k: v for k, v in os.environ.items() if k.startswith("SLURM_") and not k.startswith("SLURM_CONF")}
    for name in gone:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(gone)


def handed(folder: Path) -> list[Ticket]:
    """The jobs that were handed over from this folder and have not been tidied away."""
    found = []
    for path in sorted(folder.glob("*.job.json")):
        with suppress(OSError, ValueError, TypeError):
            found.append(Ticket(**json.loads(path.read_text(encoding="utf-8"))))
    return found


def tidy(folder: Path, ticket: Ticket) -> None:
    """Removes all of a job but its log."""
    for word in ("end.json", "job.json", "again"):
        (folder / f"{ticket.key}.{word}").unlink(missing_ok=True)
    (folder / f"{ticket.job}_submitted.pkl").unlink(missing_ok=True)
    array = ticket.job.split("_")[0]
    if not list(folder.glob(f"{array}_*.pkl")):
        for path in (folder / f"{array}_submission.sh", *folder.glob(".submission_file_*.sh")):
            if not path.exists() or path.name[0] != ".":  # the latter are links to the former
                path.unlink(missing_ok=True)
