"""The command line: `mtl VERB [key=value ...]`. Importing this file costs Typer and nothing else."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__

app = typer.Typer(
    name="mtl",
    help="One multimodal, multitask model from slides, scans, omics and clinical tables.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="changes to the configuration: group=option, key=value"),
]
Show = Annotated[bool, typer.Option("--show", help="print the composed configuration and stop")]
Check = Annotated[bool, typer.Option("--check", help="check the configuration, list all faults at once and stop")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="list what would be done, kept or refused, and write nothing")]
Conf = Annotated[list[Path] | None, typer.Option("--conf", metavar="DIR", help="a folder of your own configurations")]
Sweep = Annotated[bool, typer.Option("--sweep", "-m", help="one run a combination: model=abmil,moe_mil seed=0,1")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with the run called name=...")]
Lock = Annotated[
    bool, typer.Option("--lock", help="hash the predictions and make them read-only, before outcomes exist")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="print tracebacks")]

VERBS = {
    "tile": "Find the tissue of slides and lay tiles over it: mtl tile DIR.",
    "extract": "Turn tiles and scans into feature files.",
    "train": "Train one model for all tasks, cross-validated by patient.",
    "tune": "Look for the best settings within the training part of every fold, and train with them.",
    "evaluate": "Metrics with intervals, the floor of linear baselines, and a report.",
    "compare": "Several runs on the same test patients, side by side: mtl compare RUN RUN.",
    "predict": "Predictions for patients, with confidence and explanations.",
    "bundle": "Export a trained run for others: weights and JSON, no pickle, no patient's data.",
    "check": "Look for what is wrong with a cohort before anything is trained on it.",
    "probe": "Whether features, or a run's embeddings (ckpt=RUN), tell the site, and what that does to the tasks.",
}


def _body(verb: str, part: str = "body") -> Any:
    return getattr(importlib.import_module(f"nsclc_mtl.commands.{verb.replace('-', '_')}"), part)


def _execute(
    verb: str,
    overrides: list[str] | None,
    show: bool,
    check: bool,
    conf: list[Path] | None,
    many: bool,
    resume: bool,
    verbose: bool,
    flags: dict[str, Any] | None = None,
    no_run: str = "",
) -> None:
    """Exits with the code of the verb. `no_run`: the part of its command that works without a run folder."""
    words = overrides or []
    if many:
        from .config.sweep import sweep

        options = [
            name
            for name, given in (
                ("--check", check),
                ("--dry-run", bool(no_run)),
                ("--resume", resume),
                ("--verbose", verbose),
            )
            if given
        ]
        raise typer.Exit(sweep(verb, words, conf_dirs=conf or (), options=options, show=show))
    from .config.frame import execute

    code = execute(
        verb,
        words,
        lambda: _body(verb),
        flags=flags,
        conf_dirs=conf or (),
        show=show,
        check_only=check,
        no_run=(lambda: _body(verb, no_run)) if no_run else None,
        resume=resume,
        verbose=verbose,
    )
    raise typer.Exit(code)


# Options that only some verbs have.
OWN = {"dry_run": ("tile", "extract"), "lock": ("predict",), "many": tuple(VERBS)}


def _verb(verb: str) -> Callable[..., None]:
    def command(
        overrides: Overrides = None,
        show: Show = False,
        check: Check = False,
        dry_run: DryRun = False,
        lock: Lock = False,
        conf: Conf = None,
        many: Sweep = False,
        resume: Resume = False,
        verbose: Verbose = False,
    ) -> None:
        words = [*(overrides or []), "lock=true"] if lock else overrides
        _execute(verb, words, show, check, conf, many, resume, verbose, no_run="dry_run" if dry_run else "")

    # Typer offers what the signature names
    whole = inspect.signature(command, eval_str=True)
    offered = [option for name, option in whole.parameters.items() if verb in OWN.get(name, (verb,))]
    command.__signature__ = whole.replace(parameters=offered)  # type: ignore[attr-defined]
    return command


for _name, _says in VERBS.items():
    app.command(_name, help=_says)(_verb(_name))


@app.command(help="Make the phantom cohort and take it the whole way: tile, extract, train, evaluate, predict.")
def demo(
    overrides: Overrides = None,
    data_only: Annotated[bool, typer.Option("--data-only", help="make the cohort and stop")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="where the cohort goes")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="compare the cohort in DIR with a fresh one")] = False,
    show: Show = False,
    check: Check = False,
    conf: Conf = None,
    verbose: Verbose = False,
) -> None:
    """Run the demo."""
    given = {"data_only": data_only or None, "out": None if out is None else str(out), "verify": verify or None}
    flags = {key: value for key, value in given.items() if value is not None}
    _execute("demo", overrides, show, check, conf, False, False, verbose, flags)


@app.command(help="Show a run in the browser, beside its slides and scans: mtl serve run=RUN.")
def serve(
    overrides: Overrides = None,
    show: Show = False,
    check: Check = False,
    conf: Conf = None,
    verbose: Verbose = False,
) -> None:
    """Serve the pages of a run."""
    _execute("serve", overrides, show, check, conf, False, False, verbose, no_run="body")


federated = typer.Typer(
    name="federate",
    help="Train one model over hospitals that keep their patients.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(federated)

FEDERATED = {
    "simulate": ("federate", "The sites of a cohort in this process, beside all patients pooled and each site alone."),
    "server": ("federate_server", "Ask hospitals over the network; holds no patient."),
    "client": ("federate_client", "Take part as a hospital: shows what will leave, and asks once."),
}


for _name, (_whole, _says) in FEDERATED.items():
    federated.command(_name, help=_says)(_verb(_whole))


@federated.command("keys", help="Make certificates and keys for a federation: hosts=[NAME], or site=NAME.")
def federate_keys(
    overrides: Overrides = None, show: Show = False, check: Check = False, conf: Conf = None, verbose: Verbose = False
) -> None:
    """Make keys."""
    _execute("federate_keys", overrides, show, check, conf, False, False, verbose, no_run="show")


@app.command(
    "plan-cost",
    help="Time, disk and network of many slides, from measured runs: mtl plan-cost slides=10000 sample=RUN.",
)
def plan_cost(
    overrides: Overrides = None,
    show: Show = False,
    check: Check = False,
    conf: Conf = None,
    verbose: Verbose = False,
) -> None:
    """Plan the cost of a cohort."""
    _execute("plan-cost", overrides, show, check, conf, False, False, verbose)


@app.command(
    help="Begin a study: template tables and a cohort YAML in DIR, or a draft from tables: --from A.csv B.csv."
)
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder of the study")],
    more: Annotated[list[Path] | None, typer.Argument(metavar="[TABLE]...", help="further tables", hidden=True)] = None,
    tables: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="TABLE...", help="tables that are there: draft the YAML from them"),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="of the study; else that of DIR")] = None,
) -> None:
    """Begin a study."""
    if more and not tables:
        raise typer.BadParameter("name tables after --from: mtl init DIR --from A.csv B.csv")
    begin = importlib.import_module("nsclc_mtl.commands.init").init
    raise typer.Exit(begin(folder, [*(tables or ()), *(more or ())], name))


@app.command(help="Look at this machine: packages, accelerator, disk, and what to do about what is missing.")
def doctor() -> None:
    """Run the doctor."""
    raise typer.Exit(importlib.import_module("nsclc_mtl.commands.doctor").doctor())


@app.command(help="Print the version.")
def version() -> None:
    """Print the version."""
    print(__version__)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and stop")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    try:
        app()
    except BrokenPipeError:  # the reader of `mtl train --show | head` has left
        sys.stderr.close()
        raise SystemExit(0) from None
