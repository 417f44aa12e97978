"""Single values of the shipped verbs: each wrong one is named, and the shipped ones hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsclc_mtl.config import compose, execute
from nsclc_mtl.config.values import faults
from nsclc_mtl.config.wiring import conf_root


@pytest.mark.parametrize("verb", sorted(file.stem for file in conf_root().glob("*.yaml")))
def test_the_shipped_values_hold(verb: str) -> None:
    assert faults(compose(verb, [])) == []


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("seed=-1", "seed: a whole number from 0 up is needed, not -1"),
        ("seed=1.5", "seed: a whole number"),
        ("cohort.n=-3", "cohort.n: a whole number from 1 up"),
        ("cohort.n=abc", "not 'abc'"),
        ("cohort.level=foo", "is none of features, images"),
        ("folds.n=1", "folds.n: a whole number from 2 up"),
        ("folds.n=abc", "folds.n: a whole number"),
        ("folds.workers=-1", "folds.workers"),
        ("folds.validation=1", "from 0 to below 1"),
        ("fold=two", "fold: the number of a fold or `all`"),
        ("members=0", "members: a whole number from 1 up"),
        ("audit=abc", "audit"),
        ("checkpoint_s=abc", "checkpoint_s: a number from 0 up"),
        ("trust.miss=5", "trust.miss: a number between 0 and 1"),
        ("trust.crossfit=1", "trust.crossfit=1 leaves nobody to train on"),
        ("trainer.max_epochs=-2", "trainer.max_epochs"),
        ("optim.optimizer.lr=-1", "optim.optimizer.lr: a number above 0"),
        ("precision=foo", "precision='foo' is none of 32-true"),
        ("precision=16-mixed", "precision='16-mixed' is none of 32-true, bf16, bf16-mixed"),
        ("precision=16-true", "precision='16-true' is none of 32-true"),
        ("precision=bf16-true", "precision='bf16-true' is none of 32-true"),
        ("precision=64-true", "precision='64-true' is none of 32-true"),
        ("skip=linear skip.folds=1", "skip.folds: a whole number from 2 up"),
        ("fusion.modality_dropout=1", "fusion.modality_dropout: a number from 0 to below 1"),
        ("parts.modalities.omics.encoder.dropout=1", "omics.encoder.dropout: a number from 0 to below 1"),
        ("fusion.dropout=-.1", "fusion.dropout: a number from 0 to below 1"),
        ("omics_encoder=snn parts.modalities.omics.encoder.depth=-1", "encoder.depth: a whole number from 0 up"),
        ("fusion=ple fusion.own=0", "fusion.own: a whole number from 1 up"),
        ("fusion=low_rank fusion.rank=0", "fusion.rank: a whole number from 1 up"),
        ("parts.tasks.survival.fit.bins=0", "parts.tasks.survival.fit.bins: a whole number from 1 up"),
        ("survival=cox cox.mode=exact +trainer.accumulate_grad_batches=2", "no further batches to accumulate"),
        ("device=foo", "device='foo' is none of auto, cpu, cuda"),
        ("tasks=[]", "tasks=[] leaves nothing"),
        ("callbacks=early_stopping callbacks.early_stopping.watch=f1", "is none of score, loss"),
        ("callbacks=early_stopping callbacks.early_stopping.patience=0", "patience: a whole number from 1 up"),
        ("callbacks=[early_stopping,ema] callbacks.ema.decay=1", "callbacks.ema.decay: a number from 0 to below 1"),
        ("callbacks=swa callbacks.swa.begins=1", "callbacks.swa.begins"),
        ("trainer=ddp optim.batch_size=7", "optim.batch_size=7 cannot be dealt to trainer.devices=2"),
        ("+trainer.strategy=fsdp", "trainer.strategy='fsdp' is none of auto, ddp"),
        ("+trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches: a whole number from 1 up"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(word: str, sentence: str) -> None:
    told = faults(compose("train", word.split()))
    assert len(told) == 1
    assert sentence in told[0]


def test_null_means_something_where_it_does_and_ends_of_ranges_hold() -> None:
    assert faults(compose("train", ["folds.seed=null", "folds.validation=0", "folds.min_events=0", "fold=1"])) == []
    assert len(faults(compose("train", ["seed=null"]))) == 1


def test_all_are_told_at_once_each_once_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["seed=x", "trainer.max_epochs=y", "members=0"]
    assert execute("train", words, lambda: pytest.fail("must not run")) == 2
    told = capsys.readouterr().err.splitlines()
    assert sorted(line.split(":")[1].strip() for line in told) == ["members", "seed", "trainer.max_epochs"]
    assert list(tmp_path.iterdir()) == []


def test_thresholds_are_a_range_or_null() -> None:
    words = {"[0.05,0.5]": 0, "null": 0, "[0.5,0.05]": 1, "[0,0.5]": 1, "0.2": 1, "[a,b]": 1}
    for word, count in words.items():
        assert len(faults(compose("evaluate", ["ckpt=x", f"thresholds={word}"]))) == count, word
