"""Training with privacy per patient: who is drawn, how far one of them can move a step, and that it trains at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from nsclc_mtl.commands import assemble
from nsclc_mtl.commands.cohort import open_cohort
from nsclc_mtl.config import compose, plain
from nsclc_mtl.federated.plan import Privacy
from nsclc_mtl.federated.privacy import Drawn, Draws, PrivateData, PrivateLearner, normal, uniform
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Batch, DataFault, UsageFault

N, TRAIN = 40, 30
STILL = ("fusion.modality_dropout=0",)  # and no dropout: nothing is drawn but patients
WORDS = ("cohort.level=features", f"cohort.n={N}", "modalities=[wsi,clinical]", "tasks=[grade]")


class Source:
    """Random bytes of a seed, which counts what it has given."""

    def __init__(self, seed: int = 0) -> None:
        self.rng, self.given = np.random.Generator(np.random.PCG64(seed)), 0

    def __call__(self, n: int) -> bytes:
        self.given += n
        return self.rng.bytes(n)


class Site:
    """A site's data and learners by the parts that a configuration names."""

    def __init__(self, folder: Path, *words: str, batch_size: int = 8) -> None:
        self.cfg = plain(compose("train", [*WORDS, f"paths.out={folder}", *words]))
        manifest = open_cohort(self.cfg)
        self.still = words == STILL
        if self.still:
            manifest.labels["grade"] = manifest.labels["grade"].fillna(
                0.0
            )  # of everybody, as a batch divides by labels
        rows = pd.DataFrame(
            {"patient_id": manifest.ids, "fold": 0, "part": ["train"] * TRAIN + ["validation"] * (N - TRAIN)}
        )
        self.chosen = assemble.options(self.cfg, manifest)
        self.data = PrivateData(manifest, rows, options=self.chosen, batch_size=batch_size, seed=5)
        self.data.fitted.tasks = assemble.fit_tasks(self.cfg, manifest, self.data.parts["train"])

    def learner(self) -> Learner:
        torch.manual_seed(1)
        made = assemble.learner(self.cfg, self.data.manifest.tasks, self.chosen, self.data.fitted).train()
        for module in made.modules() if self.still else ():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if self.still:  # a head that begins at the base rate has next to no gradient
            nn.init.normal_(made.tasks["grade"].linear.weight)  # type: ignore[union-attr, arg-type]
        return made

    def private(self, clip: float = 1.0, noise: float = 1.0, seed: int = 0) -> PrivateLearner:
        return PrivateLearner.of(self.learner(), Privacy(clip, noise), Source(seed)).train()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the phantom lies."""
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def site(out: Path) -> Site:
    return Site(out, *STILL)


def everybody(site: Site) -> list[Batch]:
    """All training patients, each alone."""
    draws = Draws(site.data, Source())
    return list(draws._alone(list(range(TRAIN)), 0))


def step(made: PrivateLearner, patients: list[Batch], expected: float) -> dict[str, Tensor]:
    """The gradient that the optimiser would get of a step with these patients."""
    loss = made.training_step(Drawn(lambda: patients, 5, 0, len(patients), expected), 0)
    made.backward(loss)
    return {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}


def norm(gradient: dict[str, Tensor]) -> float:
    return float(torch.stack([g.double().square().sum() for g in gradient.values()]).sum().sqrt())


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return norm({name: one[name] - other[name] for name in one})


def test_without_noise_and_clipping_a_step_is_the_full_batch(site: Site) -> None:
    made = site.private(clip=1e9, noise=1e-30)
    got = step(made, everybody(site), TRAIN)
    plain_one = site.learner()
    assert plain_one.state_dict().keys() == made.state_dict().keys()
    site.data.batch_size = TRAIN
    (batch,) = site.data._train_batches(0)
    site.data.batch_size = 8
    assert bool(batch.targets["grade"].known.all())
    plain_one._losses(batch, "train").backward()
    want = {name: p.grad for name, p in plain_one.named_parameters() if p.grad is not None}
    assert set(got) == set(want)
    assert norm(want) > 0.05
    assert apart({name: got[name] for name in want}, want) < 1e-5 * norm(want)


@pytest.mark.parametrize("clip", [0.01, 0.5])
def test_one_patient_moves_a_step_by_no_more_than_the_clip(site: Site, clip: float) -> None:
    """An outlier whose gradient is thousands of times as long as the others'."""
    made, patients = site.private(clip, noise=1e-30), everybody(site)
    without = step(made, patients[:-1], 8.0)
    far = 1e4 * torch.ones_like(patients[-1].inputs["clinical"])
    free = site.private(clip=1e9, noise=1e-30)
    outliers = [
        dataclasses.replace(
            patients[-1],
            inputs={**patients[-1].inputs, "clinical": far},
            targets={"grade": dataclasses.replace(patients[-1].targets["grade"], value=torch.tensor([grade]))},
        )
        for grade in (0.0, 2.0)
    ]
    lengths = [norm(step(free, [one], 8.0)) * 8 for one in outliers]
    assert max(lengths) > 100 * clip
    outlier = outliers[int(np.argmax(lengths))]
    with_him = step(made, [*patients[:-1], outlier], 8.0)
    assert apart(with_him, without) == pytest.approx(clip / 8.0, rel=1e-3)
    ordinary = step(made, patients, 8.0)
    assert apart(ordinary, without) <= clip / 8.0 * (1 + 1e-4)


def test_the_noise_is_that_of_the_plan_on_every_trained_number(site: Site) -> None:
    """Also where nobody was drawn, and where nobody has a gradient."""
    made = site.private(clip=0.5, noise=3.0)
    empty = step(made, [], 8.0)
    assert set(empty) == {name for name, p in made.named_parameters() if p.requires_grad}
    assert all(bool((g != 0).all()) for g in empty.values())
    drawn = torch.cat([g.flatten() for g in empty.values()])
    assert len(drawn) > 1000
    assert float(drawn.std()) == pytest.approx(3.0 * 0.5 / 8.0, rel=5 / np.sqrt(2 * len(drawn)))
    assert abs(float(drawn.mean())) < 5 * 3.0 * 0.5 / 8.0 / np.sqrt(len(drawn))
    assert apart(step(made, [], 8.0), empty) > 1  # and it is drawn anew
    one, other = (step(site.private(0.5, 3.0, seed=seed), everybody(site)[:3], 8.0) for seed in (1, 1))
    assert apart(one, other) == 0  # the generator of a test gives the same again


def test_the_public_seed_has_no_part_in_it(site: Site) -> None:
    made = PrivateLearner.of(site.learner(), Privacy())
    told = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        told.append(step(made, [], 8.0))
        torch.manual_seed(0)
        told[-1]["drawn"] = torch.tensor([len(drawn) for _ in range(3) for drawn in Draws(site.data)]).float()
    assert all(not torch.equal(told[0][name], told[1][name]) for name in told[0] if told[0][name].numel() > 3)


def test_samples_are_poisson(site: Site) -> None:
    draws = Draws(site.data, Source(3))
    assert (draws.q, draws.expected, len(draws)) == (8 / TRAIN, 8.0, 4)
    seen = []
    for _ in range(150):
        for drawn in draws:
            chosen = drawn.batches.args[0]  # type: ignore[attr-defined]
            assert len(drawn) == len(chosen) == len(set(chosen))
            seen.append(np.bincount(chosen, minlength=TRAIN))
    took = np.array(seen)
    steps = len(took)
    assert steps == 600
    slack = 5 * np.sqrt(draws.q * (1 - draws.q) / steps)
    assert np.abs(took.mean(0) - draws.q).max() < slack  # everybody alike
    assert took.sum(1).var() == pytest.approx(TRAIN * draws.q * (1 - draws.q), rel=0.35)  # each by himself
    assert draws.epoch == 150


def test_a_site_smaller_than_a_batch_takes_everybody(site: Site) -> None:
    site.data.batch_size = 64
    draws = Draws(site.data, Source())
    site.data.batch_size = 8
    assert (draws.q, draws.expected, len(draws)) == (1.0, float(TRAIN), 1)
    (drawn,) = draws
    assert [one.patients for one in drawn] == [[patient] for patient in site.data.parts["train"]]
    assert [one.patients for one in drawn] == [one.patients for one in drawn]  # a second walk is the same


def test_numbers_of_the_source_are_even_and_normal() -> None:
    from scipy import stats

    source = Source(7)
    assert stats.kstest(uniform(20_000, source), "uniform").pvalue > 1e-4
    made = normal(torch.empty(101, 99), source)
    assert made.shape == (101, 99)
    assert stats.kstest(made.double().flatten().numpy(), "norm").pvalue > 1e-4
    assert torch.isfinite(normal(torch.empty(3), lambda n: bytes(n))).all()
    assert torch.isfinite(normal(torch.empty(3), lambda n: b"\xff" * n)).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.slow)])
def test_the_phantom_trains_a_few_steps(out: Path, precision: str) -> None:
    """Dropout and all, by Lightning, with several tasks of which labels are missing."""
    site = Site(out, "tasks=[grade,response,survival]")
    site.data.source = Source(2)
    made = site.private(clip=1.0, noise=0.5)
    before = {name: values.clone() for name, values in made.state_dict().items()}
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, gradient_clip_val=1.0, precision=precision, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(made, datamodule=site.data)
    assert trainer.global_step == 4
    told = trainer.callback_metrics
    assert {"train/loss", "train/survival", "validation/loss", "validation/score"} <= set(told)
    assert all(np.isfinite(float(value)) for value in told.values())
    after = made.state_dict()
    assert all(torch.isfinite(values).all() for values in after.values())
    moved = [name for name, p in made.named_parameters() if not torch.equal(after[name], before[name])]
    assert moved == [name for name, _ in made.named_parameters()]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("balance=uncertainty",), r"balance Uncertainty .* set balance=sum or balance=fixed"),
        (("tasks=[survival]", "survival=cox"), r"Cox's likelihood compares patients; set survival=hazard"),
        (("tasks=[survival]", "survival=deephit"), "ranking loss compares patients"),
        (("skip=linear",), "set skip=none"),
        (("cohort.site=shift", "adaptation=coral"), "set adaptation=none"),
        (("fusion.load_balance=0.1",), "fusion.load_balance=0"),
    ],
)
def test_what_looks_at_several_patients_is_refused(out: Path, words: tuple[str, ...], told: str) -> None:
    site = Site(out, *words)
    with pytest.raises(UsageFault, match=told):
        site.private()


def test_parts_that_remember_patients_are_refused(site: Site) -> None:
    made = site.learner()
    made.fusion.add_module("norm", nn.BatchNorm1d(3))
    with pytest.raises(UsageFault, match=r"'fusion.norm' normalises over patients"):
        PrivateLearner.of(made, Privacy())
    made = site.learner()
    made.fusion.add_module("norm", nn.InstanceNorm1d(3))
    PrivateLearner.of(made, Privacy())

    class Counts(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Any) -> Any:
            self.seen += 1
            return self.inner(x)

    made = site.learner()
    made.encoders["clinical"] = Counts(made.encoders["clinical"])
    private = PrivateLearner.of(made, Privacy(), Source())
    with pytest.raises(UsageFault, match="keeps what it has seen of patients in a buffer"):
        step(private, everybody(site)[:1], 8.0)


def test_a_lost_model_is_no_patients_name(site: Site) -> None:
    made = site.private()
    lost = everybody(site)[0]
    lost.inputs["clinical"] = torch.full_like(lost.inputs["clinical"], torch.nan)
    with pytest.raises(DataFault) as caught:
        step(made, [lost], 8.0)
    assert lost.patients[0] not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_loaders_and_trainers_that_do_not_fit_are_refused(site: Site) -> None:
    site.data.exact = True
    with pytest.raises(UsageFault, match=r"cox.mode=batch"):
        site.data.train_dataloader()
    site.data.exact, site.data.groups = False, np.zeros(TRAIN, int)
    with pytest.raises(UsageFault, match=r"optim.sampler=shuffled"):
        site.data.train_dataloader()
    site.data.groups = None
    assert isinstance(site.data.train_dataloader(), Draws)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accumulate_grad_batches=2, num_sanity_val_steps=0,
    )  # fmt: skip
    with pytest.raises(UsageFault, match=r"accumulate_grad_batches=1"):
        trainer.fit(site.private(), datamodule=site.data)
