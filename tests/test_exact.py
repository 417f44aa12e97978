"""The exact mode: its gradient is that of all training patients in one batch, by `mtl train` as well."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from test_way import SMALL, Way
from torch import Tensor, nn

from nsclc_mtl.bags.datamodule import FoldData
from nsclc_mtl.commands import train
from nsclc_mtl.config import execute
from nsclc_mtl.config.frame import Terminated
from nsclc_mtl.encoders.mil import ABMIL
from nsclc_mtl.encoders.tabular import MLP
from nsclc_mtl.exact import ExactLearner
from nsclc_mtl.features import store
from nsclc_mtl.fusion.experts import Experts
from nsclc_mtl.keyed import Keyed
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Features, Manifest, ModalitySpec, TaskSpec, UsageFault
from nsclc_mtl.tasks.balance import Sum, Uncertainty
from nsclc_mtl.tasks.classes import Multiclass
from nsclc_mtl.tasks.cox import Cox
from nsclc_mtl.tasks.ordinal import Ordinal
from nsclc_mtl.tasks.survival import DiscreteHazard
from nsclc_mtl.tasks.task import Task

N, TILES, DIM = 30, 12, 5
SPECS = {
    "grade": TaskSpec("grade", "ordinal", ("1", "2", "3")),
    "subtype": TaskSpec("subtype", "multiclass", ("a", "b", "c")),
    "os": TaskSpec("os", "survival"),
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Thirty patients: bags of up to twelve tiles (some none), RNA of most, and labels that are partly missing."""
    rng, folder = np.random.Generator(np.random.PCG64(0)), tmp_path_factory.mktemp("exact")
    ids = [f"p{i:02}" for i in range(N)]
    bags = {}
    for patient in ids[: N - 5]:
        n = int(rng.integers(1, TILES + 1))
        coords = np.stack([np.arange(n), np.zeros(n)], axis=1).astype(np.int64) * 256
        store.write(folder / f"{patient}.h5", Features(rng.normal(size=(n, DIM)).astype(np.float16), coords, {}))
        bags[patient] = [str(folder / f"{patient}.h5")]
    classes = {
        task: pd.DataFrame({"value": rng.integers(0, 3, N).astype(float)}, index=ids) for task in list(SPECS)[:2]
    }
    classes["grade"].iloc[::4] = np.nan
    days = rng.integers(1, 9, N) * 100.0  # many ties
    survival = pd.DataFrame({"event": (rng.random(N) < 0.6).astype(float), "time_days": days}, index=ids)
    survival.iloc[[3, 17]] = np.nan
    have = ids[3:]
    return Manifest(
        name="toy",
        patients=pd.DataFrame({"site": ""}, index=ids),
        tasks=SPECS,
        modalities={"wsi": ModalitySpec("wsi", "bag"), "rna": ModalitySpec("rna", "omics")},
        labels={**classes, "os": survival},
        tables={"rna": pd.DataFrame(rng.normal(size=(len(have), 4)), index=have, columns=list("abcd"))},
        bags={"wsi": bags},
    )


def fold(manifest: Manifest, batch_size: int, exact: bool) -> FoldData:
    """All patients train; of a bag five tiles are drawn."""
    rows = pd.DataFrame({"patient_id": manifest.ids, "fold": 0, "part": "train"})
    return FoldData(manifest, rows, batch_size=batch_size, max_tiles={"wsi": 5}, seed=3, exact=exact)


def learner(data: FoldData, kind: type[Learner], balance: type[nn.Module] = Sum, survival: type[Task] = Cox) -> Learner:
    torch.manual_seed(0)
    dims = data.fitted.dims()
    encoders = {
        "wsi": ABMIL(dims["wsi"], 4, hidden=8, gate=4, dropout=0.25, scale=data.fitted.bags["wsi"]),
        "rna": MLP(dims["rna"], 4, hidden=8, dropout=0.25, input_dropout=0.25),
    }
    fusion = Experts(("wsi", "rna"), list(SPECS), 4, width=8, factors=2, dropout=0.25, modality_dropout=0.25)
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.3)
    labels = data.manifest.labels["os"].dropna()
    state = survival.fit(SPECS["os"], labels["time_days"].to_numpy(), labels["event"].to_numpy())
    tasks: dict[str, Task] = {
        "grade": Ordinal(SPECS["grade"], fusion.view_dim, {}),
        "subtype": Multiclass(SPECS["subtype"], fusion.view_dim, {}),
        "os": survival(SPECS["os"], fusion.view_dim, state, {"subtype": 3}),  # reads the subtype: a cascade
    }
    for task in tasks.values():
        nn.init.normal_(task.linear.weight)  # type: ignore[union-attr, arg-type]
    return kind(encoders, fusion, tasks, balance(list(tasks))).train()


def gradients(model: Learner) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def by_passes(manifest: Manifest, batch_size: int, balance: type[nn.Module] = Sum, epochs: int = 1) -> Any:
    """Gradient and loss of the exact mode, and the pass."""
    data = fold(manifest, batch_size, exact=True)
    made = learner(data, ExactLearner, balance)
    loader = data.train_dataloader()
    for _ in range(epochs):
        (whole,) = loader
    loss = made.training_step(whole, 0)
    made.backward(loss)
    return gradients(made), loss.detach(), whole


def at_once(manifest: Manifest, balance: type[nn.Module] = Sum, epoch: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Gradient and loss of one forward of one batch that holds everybody, under the same keys."""
    data = fold(manifest, N, exact=False)
    data.epoch = epoch
    made = learner(data, Learner, balance)
    (batch,) = data.train_dataloader()
    with Keyed(batch, 3, epoch, dict(made.encoders.items())):
        loss = made._losses(batch, "train")
    loss.backward()
    return gradients(made), loss.detach()


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference, relative to the largest gradient."""
    assert one.keys() == other.keys()
    largest = max(float(g.abs().max()) for g in other.values())
    return max(float((one[name] - other[name]).abs().max()) for name in one) / largest


@pytest.mark.parametrize("balance", [Sum, Uncertainty])
@pytest.mark.parametrize("batch_size", [7, 1, 29])
def test_the_gradient_is_that_of_everybody_in_one_batch(
    manifest: Manifest, batch_size: int, balance: type[nn.Module]
) -> None:
    """In train mode: dropout .25 of tiles, columns, views and whole modalities, and five tiles drawn of every bag."""
    exact, loss, whole = by_passes(manifest, batch_size, balance)
    reference, same = at_once(manifest, balance)
    assert len(list(whole)) == -(-N // batch_size)
    torch.testing.assert_close(loss, same, rtol=1e-5, atol=1e-6)
    assert apart(exact, reference) < 1e-5
    assert {"encoders.wsi.tile.1.weight", "fusion.interactions.factors", "tasks.os.linear.weight"} <= set(exact)
    assert ("balance.log_variance.os" in exact) == (balance is Uncertainty)


def test_batches_give_another_gradient(manifest: Manifest) -> None:
    """The sum over batches of their own losses is not that of the whole: what `batch` is, an approximation."""
    exact, _, _ = by_passes(manifest, 7)
    data = fold(manifest, 7, exact=False)
    made = learner(data, Learner)
    for batch in data.train_dataloader():
        with Keyed(batch, 3, 0, dict(made.encoders.items())):
            (made._losses(batch, "train") * (len(batch) / N)).backward()
    assert apart(gradients(made), exact) > 0.02


def test_another_epoch_has_other_masks_and_tiles(manifest: Manifest) -> None:
    first, second = by_passes(manifest, 7)[0], by_passes(manifest, 7, epochs=2)[0]
    assert apart(first, second) > 0.02
    assert apart(second, at_once(manifest, epoch=1)[0]) < 1e-5


def test_a_pass_gives_the_same_batches_every_time(manifest: Manifest) -> None:
    _, _, whole = by_passes(manifest, 7)
    assert len(whole) == N
    for a, b in zip(whole, whole, strict=True):
        assert a.patients == b.patients
        assert torch.equal(a.inputs["wsi"].features, b.inputs["wsi"].features)
        assert a.inputs["wsi"].offsets.diff().max() <= 5


class Counting(nn.Module):
    """An encoder that says something else every time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.calls = nn.Parameter(torch.ones(4, 4)), 0

    def forward(self, x: Tensor) -> Any:
        from nsclc_mtl.records import Embedding

        self.calls += 1
        return Embedding(self.calls * x[:, :4] @ self.weight)


def test_what_cannot_be_exact_is_refused(manifest: Manifest) -> None:
    data = fold(manifest, 7, exact=True)
    (whole,) = data.train_dataloader()
    made = learner(data, ExactLearner)
    made.encoders["rna"] = Counting()
    with pytest.raises(UsageFault, match="outputs of task 'grade' differ when the same patients are run again"):
        made.backward(made.training_step(whole, 0))
    with pytest.raises(UsageFault, match=r"no survival task is Cox's; set survival=cox"):
        learner(data, ExactLearner, survival=DiscreteHazard)

    class Other(Sum):
        """A balance of another kind."""

    assert isinstance(learner(data, ExactLearner, Other), ExactLearner)

    class Gradients(nn.Module):
        def __init__(self, tasks: list[str]) -> None:
            super().__init__()

    with pytest.raises(UsageFault, match="the balance Gradients looks at more than the losses"):
        learner(data, ExactLearner, Gradients)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning_takes_one_step_a_pass(manifest: Manifest, precision: str) -> None:
    """Clipping, schedule and counters are those of any other fit; the first step is the one made by hand."""
    data = fold(manifest, 7, exact=True)
    made = learner(data, ExactLearner)
    made.optimizer, made.warmup = (
        lambda groups: torch.optim.SGD([{"params": g["params"]} for g in groups], lr=0.1),
        1e-9,
    )
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, deterministic=True, gradient_clip_val=0.5, precision=precision,
    )  # fmt: skip
    trainer.fit(made, datamodule=data)
    assert trainer.global_step == 1
    assert "train/os" in trainer.callback_metrics
    exact = by_passes(manifest, 7)[0]
    norm = float(torch.sqrt(sum((g**2).sum() for g in exact.values())))  # type: ignore[arg-type]
    assert norm > 0.5
    taken = {name: (before[name] - p.detach()) / 0.1 for name, p in made.named_parameters() if name in exact}
    assert apart(taken, {name: g * 0.5 / norm for name, g in exact.items()}) < (1e-4 if precision == "32-true" else 0.1)


# ---------------------------------------------------------------------------------------------------------------------
# By the command
# ---------------------------------------------------------------------------------------------------------------------

COX = "survival=cox"
EXACT = [
    *(word for word in SMALL if not word.startswith(("logger", "audit", "trainer.max_epochs"))), COX, "cox.mode=exact",
    "modalities=[wsi,clinical]", "tasks=[grade,survival]", "audit=0", "optim.batch_size=8", "trainer.max_epochs=4",
    "callbacks=early_stopping", "checkpoint_s=0", "fold=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    """A working folder with `reference`, trained by whole risk sets."""
    made = Way(tmp_path_factory.mktemp("exact-way"))
    assert run(made, "reference") == 0
    return made


def run(way: Way, name: str, *more: str, resume: bool = False) -> int:
    words = [f"name={name}", *way.paths, f"cohort.root={way.data}", *EXACT, *more]
    return execute("train", words, lambda: train.body, resume=resume)


def same(way: Way, name: str) -> bool:
    """Whether the weights are, bit by bit, those of `reference`."""
    paths = [way.folder(name=n) / "fold0" / "model0.ckpt" for n in (name, "reference")]
    ours, theirs = (torch.load(path, weights_only=True)["state_dict"] for path in paths)
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_command_trains_by_whole_risk_sets(way: Way) -> None:
    folder = way.folder(name="reference")
    log = pd.read_csv(folder / "fold0" / "log0" / "version_0" / "metrics.csv")
    assert {"train/loss", "train/survival", "validation/loss", "validation/survival"} <= set(log.columns)
    assert list(log["step"].dropna().unique()) == [0, 1, 2, 3]  # one step a pass
    assert log["train/survival"].notna().sum() == 4
    rows = json.loads((folder / "metrics.json").read_text())
    assert all(0 <= row["value"] <= 1 for row in rows if row["task"] == "survival")
    said = way.table(name="reference")
    curve = said[(said["output"] == "surv:1825") & (said["part"] == "test")]["value"]
    assert curve.between(0, 1).all()
    assert curve.std() > 0


def test_same_seed_same_weights_and_another_seed_others(way: Way) -> None:
    assert run(way, "again") == 0
    assert same(way, "again")
    assert run(way, "other", "seed=1") == 0
    assert not same(way, "other")


def test_a_step_counts_as_one_among_the_least(way: Way) -> None:
    assert run(way, "longer", "optim.min_steps=6", "callbacks=none") == 0
    log = pd.read_csv(way.folder(name="longer") / "fold0" / "log0" / "version_0" / "metrics.csv")
    assert log["step"].max() == 5


def test_an_interrupted_fit_goes_on_as_if_nothing_had_been(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, count = ExactLearner.backward, iter(range(1000))

    def stopped(self: ExactLearner, *given: Any, **named: Any) -> None:
        if next(count) == 2:
            raise Terminated
        plain(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(ExactLearner, "backward", stopped)
        assert run(way, "halted") == 143
    assert run(way, "halted", resume=True) == 0
    assert same(way, "halted")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("survival=hazard", "no survival task is Cox's"),
        ("cox.mode=whole", "cox.mode='whole' is none of batch, exact"),
    ],
)
def test_words_that_do_not_fit_end_with_2(way: Way, word: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(way, "refused", word) == 2
    assert told in capsys.readouterr().err
