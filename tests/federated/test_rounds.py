"""The rounds of a federation: what is the same as training at one place, and what a bad or absent site changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from nsclc_mtl.bags.cache import BagCache
from nsclc_mtl.bags.datamodule import Share
from nsclc_mtl.commands import federate, federation
from nsclc_mtl.commands.members import fold_data, quiet
from nsclc_mtl.federated.inside import InProcess
from nsclc_mtl.federated.local import Work, local_update
from nsclc_mtl.federated.messages import Message
from nsclc_mtl.federated.plan import Plan
from nsclc_mtl.federated.rounds import Server, rounds_for
from nsclc_mtl.federated.site import Site
from nsclc_mtl.federated.state import learned, taken
from nsclc_mtl.federated.update import Update, mean
from nsclc_mtl.records import TryAgain, UsageFault
from tests.federated.small import opened, settings_of, sites_of

Answer = Callable[[Message], Message]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("phantom")


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with quiet():
        yield


class Altered(InProcess):
    """Sites of this process, whose answers to `train` somebody changes; None: the site is silent."""

    def __init__(self, sites: Mapping[str, Site], alter: Callable[[str, Message], Message | None]) -> None:
        super().__init__(sites)
        self.alter, self.asked = alter, 0

    def ask(self, questions: Mapping[str, Message], timeout_s: float) -> dict[str, Message]:
        answers = super().ask(questions, timeout_s)
        if next(iter(questions.values())).kind != "train":
            return answers
        self.asked += 1
        made = {site: self.alter(site, message) for site, message in answers.items()}
        return {site: message for site, message in made.items() if message is not None}


def served(settings: Any, channel: InProcess, folder: Path | None = None) -> Server:
    manifest, _, _ = opened(settings)
    declared = federation.declared(settings, manifest)

    def learner(fitted: Any) -> Any:
        pl.seed_everything(7, verbose=False)
        return federation.untrained(settings, declared, fitted)

    plan = Plan.of(settings["federated"])
    return Server(channel, plan, declared, federation.fits(settings), learner, folder)


def trained(settings: Any, alter: Any = lambda site, message: message, folder: Path | None = None) -> Any:
    server = served(settings, Altered(sites_of(settings), alter), folder)
    return server.train(0, 0, federation.steps(settings))


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_one_full_batch_step_over_equal_sites_is_a_step_on_all_patients(out: Path) -> None:
    """Three equal sites, plain SGD, every label known, no draws: the mean of the sites' models is the pooled model."""
    words = ("model=concat_mil", "fusion.dropout=0", "trainer.gradient_clip_val=null", "optim.warmup=0.5")
    words += ("parts.modalities.bag.encoder.dropout=0", "optim.batch_size=64", "trainer.max_epochs=1")
    words += ("optim.optimizer._target_=torch.optim.SGD", "optim.optimizer.lr=0.05", "optim.min_steps=1")
    settings = settings_of(out, *words)
    manifest, splits, sites = opened(settings)
    complete = set.intersection(*(set(labels.dropna().index) for labels in manifest.labels.values()))
    rows = splits[splits["fold"] == 0].copy()
    ids = {site: [p for p in of if p in complete][:12] for site, of in sites.items()}
    rows = rows[rows["patient_id"].isin({p for of in ids.values() for p in of})].assign(part="train")
    assert [len(of) for of in ids.values()] == [12, 12, 12]
    declared = federation.declared(settings, manifest)
    parts = federation.Configured(settings, declared, None)
    data = fold_data(settings, manifest, rows, BagCache(), Share())
    data.fitted.tasks = federate_tasks(settings, manifest, list(rows["patient_id"]))
    pl.seed_everything(3, verbose=False)
    start = undropped(federation.untrained(settings, declared, data.fitted))
    state = taken(start)

    def updated(of: Any) -> dict[str, np.ndarray]:
        pl.seed_everything(3, verbose=False)
        learner = undropped(federation.untrained(settings, declared, data.fitted))
        return local_update(state, of, Work(learner, parts.trainer, epochs=1, round=0))[0]

    pooled = updated(data)
    updates = []
    for site, own in ids.items():
        of = rows[rows["patient_id"].isin(own)]
        local = fold_data(settings, federation.only(manifest, own), of, BagCache(), Share(), data.fitted)
        updates.append(Update(site, updated(local), len(own)))
    over_sites = mean(updates)
    moved = max(float(np.abs(pooled[name] - state[name]).max()) for name in state)
    apart = max(float(np.abs(pooled[name] - over_sites[name]).max()) for name in state)
    assert moved > 1e-3
    assert apart < 1e-6


def federate_tasks(settings: Any, manifest: Any, train: list[str]) -> Any:
    from nsclc_mtl.commands.assemble import fit_tasks

    return fit_tasks(settings, manifest, train)


def undropped(learner: Any) -> Any:
    for module in learner.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    learner.fusion.modality_dropout = 0.0
    return learner


@pytest.mark.slow
def test_a_federation_trains_and_the_same_twice(out: Path) -> None:
    settings = settings_of(out, "federated.rounds=3")
    first, again = trained(settings), trained(settings)
    assert [made.done for made in first.rounds] == [True] * 3
    assert all(made.moved > 0 for made in first.rounds)
    assert same(first.learner, again.learner)
    assert set(first.metrics) == {"A", "B", "C"}


def broken(value: Any) -> Callable[[str, Message], Message | None]:
    """Site C sends something else in every round."""

    def alter(site: str, message: Message) -> Message | None:
        return value(message) if site == "C" else message

    return alter


def every(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Message], Message]:
    return lambda m: replace(m, arrays={name: change(np.array(values)) for name, values in m.arrays.items()})


@pytest.mark.parametrize(
    ("alter", "why"),
    [
        (every(lambda x: x * np.nan), "not finite"),
        (every(lambda x: x + 1000), "times the usual"),
        pytest.param(every(lambda x: x.reshape(-1)[:1]), "shape", marks=pytest.mark.slow),
        pytest.param(lambda m: replace(m, words={**m.words, "n": 10**6}), "patients", marks=pytest.mark.slow),
        pytest.param(lambda m: replace(m, round=m.round - 1), "silent", marks=pytest.mark.slow),
        (lambda m: None, "silent"),
    ],
)
def test_a_bad_site_is_left_out_and_the_model_is_that_of_the_others(out: Path, alter: Any, why: str) -> None:
    settings = settings_of(out, "federated.rounds=2")
    made = trained(settings, broken(alter))
    assert [sorted(of.sites) for of in made.rounds] == [["A", "B"]] * 2
    assert all(bool(torch.isfinite(p).all()) for p in made.learner.parameters())
    told = [of.rejected.get("C", "silent" if "C" in of.silent else "") for of in made.rounds]
    assert all(why in sentence for sentence in told)


@pytest.mark.slow
def test_a_round_that_too_few_answer_leaves_the_model_and_ends_in_try_again(out: Path, tmp_path: Path) -> None:
    settings = settings_of(out, "federated.rounds=3", "federated.retries=1")
    seen: list[int] = []

    def alter(site: str, message: Message) -> Message | None:
        seen.append(1)
        return message if len(seen) <= 3 or site == "A" else None  # after the first round A alone answers

    with pytest.raises(TryAgain, match="round 1 of fold 0: 1 of 2"):
        trained(settings, alter, tmp_path)
    resumed = trained(settings, folder=tmp_path)  # goes on with round 1
    assert len(resumed.rounds) == 3
    assert sorted(resumed.rounds[0].sites) == ["A", "B", "C"]


@pytest.mark.slow
def test_a_question_that_is_asked_again_trains_nobody_twice(out: Path) -> None:
    settings = settings_of(out, "federated.rounds=2")
    asked: list[str] = []

    def alter(site: str, message: Message) -> Message | None:
        asked.append(site)
        return message if len(asked) > 6 else (message if site == "A" else None)  # two tries in vain

    late, plain = trained(settings, alter), trained(settings)
    assert same(late.learner, plain.learner)


@pytest.mark.slow
def test_a_secure_sum_gives_the_model_of_a_plain_one(out: Path) -> None:
    plain = trained(settings_of(out, "federated.rounds=2"))
    numbers: list[np.dtype[Any]] = []

    def alter(site: str, message: Message) -> Message:
        numbers.extend(values.dtype for values in message.arrays.values())
        assert "n" not in message.words
        return message

    secure = trained(settings_of(out, "federated.rounds=2", "federated.secure=true"), alter)
    assert set(numbers) == {np.dtype(np.uint64)}
    for one, other in zip(plain.learner.parameters(), secure.learner.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)  # AdamW divides by small numbers


@pytest.mark.slow
def test_a_secure_sum_without_a_site_is_asked_again_of_the_others(out: Path) -> None:
    settings = settings_of(out, "federated.rounds=1", "federated.secure=true")
    made = trained(settings, broken(lambda m: None))
    assert sorted(made.rounds[0].sites) == ["A", "B"]
    assert made.rounds[0].silent == ["C"]


@pytest.mark.slow
def test_privacy_tells_its_price_and_no_losses(out: Path) -> None:
    words = ("federated.rounds=2", "federated.privacy.enabled=true", "federated.privacy.noise=2")
    settings, said = settings_of(out, *words, "optim.batch_size=8"), []
    channel = InProcess(sites_of(settings, say=said.append))
    made = served(settings, channel).train(0, 0, federation.steps(settings))
    assert len(said) == 6  # three sites, two rounds
    assert all("epsilon=" in sentence and "delta=1e-05" in sentence for sentence in said)
    spent = [of.privacy["A"]["epsilon"] for of in made.rounds]
    assert 0 < spent[0] < spent[1]
    assert all(set(of.sites["A"]) == {"n"} for of in made.rounds)
    with pytest.raises(TryAgain, match="epsilon"):
        trained(settings_of(out, *words, "optim.batch_size=8", f"federated.privacy.epsilon={spent[0] * 1.01:.4f}"))


@pytest.mark.slow
def test_a_strong_pull_keeps_sites_near_the_model(out: Path) -> None:
    words = ("federated.rounds=1", "optim.optimizer._target_=torch.optim.SGD", "optim.optimizer.lr=0.01")
    words += ("trainer.gradient_clip_val=null",)
    pulled = trained(settings_of(out, *words, "federated.proximal=90", "federated.local_epochs=2"))
    again = trained(settings_of(out, *words, "federated.local_epochs=2"))
    assert pulled.rounds[0].moved < 0.8 * again.rounds[0].moved


@pytest.mark.slow
def test_norm_layers_may_stay_at_the_site(out: Path) -> None:
    settings = settings_of(out, "model=concat_mil", "federated.rounds=1", "federated.normalisation=site")
    sites = sites_of(settings)
    made = served(settings, InProcess(sites)).train(0, 0, federation.steps(settings))
    travels, everything = learned(made.learner, "site"), learned(made.learner)
    norms = sorted(everything.keys() - travels.keys())
    assert norms  # the layer norm of the joined embeddings
    own = [learned(site.begun(0).learner) for site in sites.values()]
    assert all(torch.equal(own[0][name], own[1][name]) for name in travels)
    assert any(not torch.equal(own[0][name], own[1][name]) for name in norms)


@pytest.mark.slow
def test_inputs_may_be_scaled_by_the_site(out: Path) -> None:
    settings = settings_of(out, "federated.rounds=1", "federated.scaling=site", "federated.least=5")
    sites = sites_of(settings)
    served(settings, InProcess(sites)).train(0, 0, federation.steps(settings))
    for site in sites.values():
        begun = site.begun(0)
        rows = np.stack(list(begun.data.train_set.rows["rna"].values()))
        assert rows.shape[1] == 16
        encoder = begun.data.fitted.tables["rna"]
        train = [p for p in begun.data.parts["train"] if p in site.manifest.tables["rna"].index]
        values = site.manifest.tables["rna"].loc[train, encoder.numbers]
        np.testing.assert_allclose(encoder.mean, values.mean(), rtol=1e-5, atol=1e-8)


def test_the_plan_refuses_contradictions() -> None:
    with pytest.raises(UsageFault, match="secure=true hides single updates"):
        Plan(secure=True, aggregation="trimmed_mean", min_sites=3)
    with pytest.raises(UsageFault, match="min_sites to 3"):
        Plan(aggregation="trimmed_mean")
    with pytest.raises(UsageFault, match="none of mean, trimmed_mean"):
        Plan(aggregation="median")


def test_rounds_give_a_site_as_many_steps_as_all_patients_take() -> None:
    steps = lambda n: (10, 10 * -(-n // 32))  # noqa: E731
    assert rounds_for({"A": 64, "B": 64}, steps, 1) == 20  # 40 steps on 128 patients, 2 an epoch and site
    assert rounds_for({"A": 64, "B": 64}, steps, 2) == 10


def test_sites_are_named_by_column_or_dealt_by_hash(out: Path) -> None:
    manifest, splits, named = opened(settings_of(out))
    assert list(named) == ["A", "B", "C"]
    settings = settings_of(out, "federated.sites=4")
    dealt = federate.sites_of(settings, manifest, splits, Plan())
    assert list(dealt) == ["site1", "site2", "site3", "site4"]
    assert sorted(p for ids in dealt.values() for p in ids) == sorted(set(splits["patient_id"]))
    assert dealt == federate.sites_of(settings, manifest, splits, Plan())
