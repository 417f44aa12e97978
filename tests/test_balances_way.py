"""Every balance trains, goes on after an interruption as if nothing had been, and leaves a single task alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_interrupted import stop_at
from test_way import SMALL, Way

from nsclc_mtl.commands import train
from nsclc_mtl.config import execute
from nsclc_mtl.config.frame import Terminated

BALANCES = ["sum", "uncertainty", "dwa", "gradnorm", "pcgrad"]
WORDS = [
    *(word for word in SMALL if not word.startswith(("logger", "trainer.max_epochs", "audit"))),
    "modalities=[clinical]", "audit=0", "optim.batch_size=8", "trainer.max_epochs=4", "checkpoint_s=0", "fold=0",
]  # fmt: skip
BOTH, ONE = "tasks=[grade,survival]", "tasks=[grade]"


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    return Way(tmp_path_factory.mktemp("balances"))


def run(way: Way, name: str, *more: str, resume: bool = False) -> int:
    given = [f"name={name}", *way.paths, f"cohort.root={way.data}", *WORDS, *more]
    return execute("train", given, lambda: train.body, resume=resume)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "fold0" / "model0.ckpt", weights_only=True)["state_dict"]


def log(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "fold0" / "log0" / "version_0" / "metrics.csv")


@pytest.fixture(scope="module")
def trained(way: Way) -> dict[str, Path]:
    """Run folders of both tasks under every balance."""
    for balance in BALANCES:
        assert run(way, balance, BOTH, f"balance={balance}") == 0
    return {balance: way.folder(name=balance) for balance in BALANCES}


@pytest.mark.slow
@pytest.mark.parametrize("balance", ["dwa", "gradnorm", "pcgrad"])
def test_interrupted_in_its_last_epoch_it_ends_with_the_same_weights(
    way: Way, trained: dict[str, Path], balance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(3 * 2 + 1, patch, Terminated)  # two steps an epoch: DWA has weighed by then
        assert run(way, f"{balance}-stopped", BOTH, f"balance={balance}") == 143
    stopped = way.folder(name=f"{balance}-stopped")
    assert list((stopped / "fold0").glob("resume-0-3-*.ckpt"))
    assert run(way, f"{balance}-stopped", BOTH, f"balance={balance}", resume=True) == 0
    one, other = weights(trained[balance]), weights(stopped)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert (trained[balance] / "fold0/log0/version_0/metrics.csv").read_bytes() == (
        stopped / "fold0/log0/version_0/metrics.csv"
    ).read_bytes()
    if balance != "pcgrad":
        assert not torch.equal(other["balance.weight"], torch.ones(2))


def test_balances_differ_and_their_weights_stand_in_the_log(trained: dict[str, Path]) -> None:
    heads = {name: weights(folder)["tasks.grade.linear.weight"] for name, folder in trained.items()}
    for name in BALANCES[1:]:
        assert not torch.equal(heads[name], heads["sum"]), name
        rows = log(trained[name])
        assert rows[["train/weight/grade", "train/weight/survival"]].dropna().shape == (4, 2)
    learned = log(trained["gradnorm"])[["train/weight/grade", "train/weight/survival"]].dropna()
    assert learned.sum(axis=1).tolist() == pytest.approx([2.0] * 4, abs=1e-5)
    assert "train/weight/grade" not in log(trained["sum"])


def test_early_stopping_compares_plain_sums(trained: dict[str, Path]) -> None:
    for folder in trained.values():
        rows = log(folder)[["validation/loss", "validation/grade", "validation/survival"]].dropna()
        assert len(rows) == 4
        parts = rows["validation/grade"] + rows["validation/survival"]
        assert rows["validation/loss"].tolist() == pytest.approx(parts.tolist(), rel=1e-5)


def test_curves_of_the_gradients_are_there_and_change_nothing(way: Way, trained: dict[str, Path]) -> None:
    rows = log(trained["sum"])
    told = rows[["train/gradient/grade", "train/gradient/survival", "train/cosine/grade~survival"]].dropna()
    assert len(told) == 4
    assert (told.iloc[:, :2] > 0).all(axis=None)
    assert told.iloc[:, 2].between(-1.000001, 1.000001).all()
    assert run(way, "quiet", BOTH, "optim.gradient_curves=false") == 0
    quiet = way.folder(name="quiet")
    assert not [column for column in log(quiet) if "gradient" in column or "cosine" in column]
    one, other = weights(trained["sum"]), weights(quiet)
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_a_task_alone_is_the_same_configuration(way: Way) -> None:
    """With one task each balance is the sum; learned noise scales its loss, and trains too."""
    for balance in BALANCES:
        assert run(way, f"one-{balance}", ONE, f"balance={balance}") == 0
    plain = weights(way.folder(name="one-sum"))
    for balance in BALANCES[2:]:
        other = weights(way.folder(name=f"one-{balance}"))
        assert all(torch.equal(plain[key], other[key]) for key in plain), balance


def test_weights_are_given_by_names_of_the_cohort(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(way, "fixed", BOTH, "balance=fixed", "balance.weights={grade: 0.5, stage: 2}") == 0
    rows = log(way.folder(name="fixed"))[["validation/loss", "validation/grade", "validation/survival"]].dropna()
    assert len(rows) == 4
    parts = 0.5 * rows["validation/grade"] + rows["validation/survival"]
    assert rows["validation/loss"].tolist() == pytest.approx(parts.tolist(), rel=1e-5)
    capsys.readouterr()
    assert run(way, "astray", BOTH, "balance=fixed", "balance.weights={graed: 0.5}") == 2
    assert "no task 'graed'; did you mean 'grade'?" in " ".join(capsys.readouterr().err.split())
    shutil.rmtree(way.folder(name="astray"), ignore_errors=True)
    assert run(way, "without", BOTH, "balance=fixed") == 2
    assert "balance.weights" in capsys.readouterr().err
