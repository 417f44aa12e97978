"""`mtl federate`: what is refused before anything is trained, and what a simulation leaves."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pandas as pd
import pytest

from nsclc_mtl.commands import federation, federation_words
from nsclc_mtl.commands.federate_server import declared
from nsclc_mtl.config import compose, plain
from nsclc_mtl.config.frame import execute
from nsclc_mtl.federated.plan import Plan

SMALL = ("cohort.level=features", "cohort.n=90", "folds.n=2", "logger=none", "audit=0", "trust.outside=0")
QUICK = ("trainer.max_epochs=2", "optim.min_steps=2", "federated.rounds=2", "folds.workers=0")


def run(verb: str, *words: str) -> int:
    return execute(verb, list(words), lambda: importlib.import_module(f"nsclc_mtl.commands.{verb}").body)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("skip=linear",), "skip=none"),
        (("adaptation=dann",), "adaptation=none"),
        (("callbacks=early_stopping",), "callbacks=none"),
        (("members=2",), "members=1"),
        (("federated.aggregation=trimmed_mean",), "federated.min_sites to 3"),
        (("federated.secure=true", "federated.aggregation=trimmed_mean", "federated.min_sites=3"), "protection from"),
        (("federated.against=[pooled]",), "none of centralised, local"),
        (("federated.sites=1",), "two sites or more"),
        (("federated.rounds=0",), "1 or more"),
    ],
)
def test_what_cannot_be_trained_over_sites_ends_with_a_sentence(
    words: tuple[str, ...],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("federate", *SMALL, *words) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/federate/*"))


def test_a_column_of_sites_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("federate", *SMALL, "federated.sites=hospital") == 2
    assert "no such column" in capsys.readouterr().err


def test_nothing_leaves_before_somebody_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("federate_client", *SMALL, "client.site=A", "client.plain=true") == 2
    said = capsys.readouterr()
    assert "client.agree=true" in said.err
    assert "sums of values, squares and products" in said.out
    assert "rna (500 columns)" in said.out
    assert run("federate_client", *SMALL) == 2
    assert "client.site=NAME" in capsys.readouterr().err


def test_a_server_needs_its_sites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("federate_server", *SMALL, "server.plain=true", "server.sites=[A]") == 2
    assert "federated.min_sites=2" in capsys.readouterr().err
    assert run("federate_server", *SMALL, "server.listen=0.0.0.0:9", "server.plain=true", "server.sites=[A,B]") == 2
    assert "loopback" in capsys.readouterr().err


def test_both_sides_must_be_configured_alike() -> None:
    one, same, other = (
        plain(compose("federate_server", [*SMALL, *words]))
        for words in ((), ("paths.out=elsewhere", "device=cpu"), ("optim.dim=9", "federated.least=6"))
    )
    first = federation_words.agreement(one, declared(one))
    assert federation_words.agreement(same, declared(same)) == first
    changed = federation_words.agreement(other, declared(other))
    assert {word for word in first if first[word] != changed[word]} == {"optim", "federated"}


def test_what_leaves_is_said_of_secure_sums_and_privacy() -> None:
    settings = plain(compose("federate_server", list(SMALL)))
    known = declared(settings)
    plainly = "\n".join(federation_words.leaving(known, Plan(), {"rna": 500}, "here:1", [0]))
    assert "nothing limits" in plainly
    words = {"secure": True, "privacy": {"enabled": True, "clip": 1.0, "noise": 2.0, "delta": 1e-5}}
    hidden = "\n".join(federation_words.leaving(known, Plan.of(words), {}, "here:1", [0, 1]))
    assert "under masks" in hidden
    assert "differential privacy per patient" in hidden
    assert "folds 0, 1" in hidden


def test_a_manifest_of_some_patients_holds_nobody_else() -> None:
    from nsclc_mtl.commands.cohort import open_cohort

    manifest = open_cohort(plain(compose("federate", list(SMALL))))
    ids = manifest.ids[:7]
    some = federation.only(manifest, ids)
    assert some.ids == ids
    assert all(set(have) <= set(ids) for have in some.holders().values())
    assert all(list(labels.index) == ids for labels in some.labels.values())
    assert len(manifest.ids) == 90


@pytest.mark.slow
def test_a_simulation_leaves_runs_that_can_be_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("federate", *SMALL, *QUICK, "cohort.site=shift", "name=a") == 0
    here = tmp_path / "runs/federate/a"
    whole = pd.read_csv(here / "predictions.csv", dtype=str, keep_default_na=False)
    test = whole[whole["part"] == "test"]
    assert test["patient_id"].nunique() == 90
    centralised = pd.read_csv(here / "centralised/predictions.csv", dtype=str, keep_default_na=False)
    assert set(centralised["patient_id"]) == set(test["patient_id"])
    own = [pd.read_csv(here / f"sites/{site}/predictions.csv", dtype=str, keep_default_na=False) for site in "ABC"]
    keys = ["patient_id", "task", "fold", "output"]
    joined = pd.concat(own).query("part == 'test'").merge(test, on=keys, suffixes=("", "_whole"))
    assert len(joined) == len(test)
    assert (joined["value"].astype(float) - joined["value_whole"].astype(float)).abs().max() < 1e-5
    record = json.loads((here / "federation/fold0.json").read_text())
    assert len(record["rounds"]) == 2
    assert execute("evaluate", ["ckpt=runs/federate/a/sites/A", "bootstrap=20", "name=e"], _evaluate) == 0
    assert run("federate", *SMALL, *QUICK, "cohort.site=shift", "name=a") == 2  # a run of that name is there


def _evaluate() -> object:
    return importlib.import_module("nsclc_mtl.commands.evaluate").body
