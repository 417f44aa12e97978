"""Training takes no operation that CUDA refuses while `trainer.deterministic` is true, each part on a processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nsclc_mtl.encoders.clam import CLAM
from nsclc_mtl.encoders.dsmil import DSMIL
from nsclc_mtl.encoders.mil import ABMIL, MeanPool
from nsclc_mtl.encoders.pooling import MaxPool
from nsclc_mtl.encoders.recurrent import VisitGRU, VisitTransformer
from nsclc_mtl.encoders.series import TimeAttention
from nsclc_mtl.encoders.supervised import SupervisedEncoder
from nsclc_mtl.encoders.transmil import TransMIL
from nsclc_mtl.encoders.volumetric import SliceEncoder, VolumeEncoder
from nsclc_mtl.records import Bag, Embedding, Series, Target, TaskSpec
from nsclc_mtl.tasks.classes import Binary, Multiclass
from nsclc_mtl.tasks.cox import TIES, Cox
from nsclc_mtl.tasks.deephit import DeepHit
from nsclc_mtl.tasks.ordinal import Coral, Corn, Ordinal
from nsclc_mtl.tasks.pc_hazard import PCHazard
from nsclc_mtl.tasks.pmf import MTLR, PMF
from nsclc_mtl.tasks.regression import Regression
from nsclc_mtl.tasks.running import InOneOrder, running_logsumexp, running_sum
from nsclc_mtl.tasks.survival import DiscreteHazard
from nsclc_mtl.tasks.task import Task

# of the docstring of torch.use_deterministic_algorithms (2.13), by the names of the elementary operations; adaptive
# pooling to one cell is a mean, and the loss of classes [patient, class] no 2-D one: neither reaches what is named
REFUSED = {
    "cumsum", "cumsum_", "avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward", "fractional_max_pool2d_backward", "fractional_max_pool3d_backward", "max_unpool2d",
    "max_unpool3d", "upsample_linear1d_backward", "upsample_bilinear2d_backward", "_upsample_bilinear2d_aa_backward",
    "upsample_bicubic2d_backward", "upsample_trilinear3d_backward", "reflection_pad1d_backward",
    "reflection_pad2d_backward", "reflection_pad3d_backward", "nll_loss2d_forward", "_ctc_loss_backward",
    "_embedding_bag_backward", "put", "put_", "histc", "bincount", "median", "nanmedian", "kthvalue",
    "grid_sampler_2d_backward", "grid_sampler_3d_backward",
}  # fmt: skip
SCANS = {"cumprod", "logcumsumexp", "_logcumsumexp"}  # not refused, but of the kind; the gradient of the first is


class LikeCuda(TorchDispatchMode):
    """Raises where CUDA would, forwards and backwards, on numbers that are not whole."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name.removeprefix("aten::"), kwargs or {}
        if name in REFUSED | SCANS and args[0].is_floating_point():
            raise RuntimeError(f"{name} does not have a deterministic implementation")
        if name.startswith("scatter_reduce") and "prod" in args:
            raise RuntimeError("scatter_reduce of products does not have a deterministic implementation")
        return func(*args, **kwargs)


def trained(module: nn.Module, loss: Callable[[], Tensor]) -> None:
    """One step of the module with that loss, as on CUDA."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    with LikeCuda():
        loss().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in module.parameters())


def test_the_refusals_are_seen_forwards_and_backwards() -> None:
    x = torch.rand(2, 3, requires_grad=True)
    with LikeCuda():
        assert torch.ones(3, dtype=torch.int64).cumsum(0).tolist() == [1, 2, 3]
        for refused in (lambda: x.cumsum(1), lambda: torch.logcumsumexp(x, 1), lambda: x.median(1).values):
            with pytest.raises(RuntimeError, match="deterministic"):
                refused()
        fine = nn.functional.interpolate(x[:, None], size=5, mode="linear").sum()
        with pytest.raises(RuntimeError, match="upsample_linear1d_backward"):
            fine.backward()


# ---------------------------------------------------------------------------------------------------------------------
# Running sums
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 64, 1000])
def test_running_sums_are_those_of_torch_and_so_are_their_gradients(n: int, dtype: torch.dtype) -> None:
    made = torch.Generator().manual_seed(n)
    x = (3 * torch.randn(4, n, 2, generator=made)).to(dtype).requires_grad_(True)
    weight = torch.randn(4, n, 2, generator=made).to(dtype)
    for ours, theirs in ((running_sum, torch.cumsum), (running_logsumexp, torch.logcumsumexp)):
        said, expected = ours(x, 1), theirs(x.double(), 1).to(dtype)  # in single, torch's own gradient has 4 digits
        assert said.dtype == dtype
        torch.testing.assert_close(said, expected, rtol=1e-6, atol=1e-6)
        pairs = [torch.autograd.grad((told * weight).sum(), x)[0] for told in (said, expected)]
        torch.testing.assert_close(*pairs, rtol=1e-6, atol=1e-6)


def test_running_sums_of_what_is_infinite_and_of_what_is_far_apart() -> None:
    endless = torch.tensor([1.0, torch.inf, 2.0])
    assert running_sum(endless, 0).tolist() == [1.0, torch.inf, torch.inf]  # a hazard of infinity ends nothing before
    apart = torch.tensor([-1e4, 1e4, 0.0], requires_grad=True)
    said = running_logsumexp(apart, 0)
    assert said.tolist() == [-1e4, 1e4, 1e4]
    said.sum().backward()
    assert apart.grad is not None
    assert apart.grad.tolist() == [1.0, 2.0, 0.0]


def test_what_others_sum_is_summed_in_one_order_while_it_lasts() -> None:
    x = torch.rand(3, 4)
    with LikeCuda():
        with InOneOrder():
            first, second = x.cumsum(1), torch.cumsum(x, dim=0)
            assert torch.arange(3).cumsum(0).tolist() == [0, 1, 3]
        with pytest.raises(RuntimeError, match="cumsum"):
            x.cumsum(1)
    torch.testing.assert_close(first, x.cumsum(1))
    torch.testing.assert_close(second, x.cumsum(0))


# ---------------------------------------------------------------------------------------------------------------------
# Tasks
# ---------------------------------------------------------------------------------------------------------------------

WIDTH, N = 8, 40
GRADES = ("G1", "G2", "G3", "G4")
ONE, TWO = TaskSpec("os", "survival"), TaskSpec("os", "survival", causes=("cancer", "other"))
SORTS: dict[str, tuple[Any, TaskSpec, dict[str, Any]]] = {
    "binary": (Binary, TaskSpec("r", "binary", ("no", "yes")), {}),
    "multiclass": (Multiclass, TaskSpec("s", "multiclass", GRADES), {}),
    "ordinal": (Ordinal, TaskSpec("g", "ordinal", GRADES), {}),
    "coral": (Coral, TaskSpec("g", "ordinal", GRADES), {}),
    "corn": (Corn, TaskSpec("g", "ordinal", GRADES), {}),
    "regression": (Regression, TaskSpec("x", "regression"), {}),
    **{f"cox, {ties}": (Cox, ONE, {"ties": ties}) for ties in TIES},
    "hazard": (DiscreteHazard, ONE, {}), "pc_hazard": (PCHazard, ONE, {}), "pmf": (PMF, ONE, {}),
    "mtlr": (MTLR, ONE, {}), "deephit": (DeepHit, ONE, {}), "deephit, two causes": (DeepHit, TWO, {}),
}  # fmt: skip


def labels(spec: TaskSpec) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.PCG64(2))
    if spec.kind == "survival":
        days = rng.exponential(900, N).round(-1) + 1  # some die on the same day
        return days, rng.integers(0, 1 + max(1, len(spec.causes)), N).astype(float)
    value = rng.integers(0, len(spec.classes), N).astype(float) if spec.classes else rng.normal(size=N)
    return value, np.zeros(N)


@pytest.mark.parametrize("name", SORTS)
def test_a_step_of_every_task_and_what_it_predicts(name: str) -> None:
    """Predictions with a gradient too: a cascade reads them in training."""
    kind, spec, options = SORTS[name]
    value, event = labels(spec)
    task: Task = kind(spec, WIDTH, kind.fit(spec, value, event), **options)
    target = Target(torch.ones(N, dtype=torch.bool), torch.tensor(value).float(), torch.tensor(event).float())
    view = torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(0))

    def loss() -> Tensor:
        raw = task.head(view, {})
        moved = task.moved(raw, torch.full((N, 1), 0.1))
        told = torch.stack(list(task.predict(raw).values())).sum() + task.score(raw).sum()
        return task.loss(raw, target) + task.loss(moved, target) + 1e-3 * told

    trained(task, loss)


# ---------------------------------------------------------------------------------------------------------------------
# Encoders
# ---------------------------------------------------------------------------------------------------------------------

IN, DIM, CLASSES = 5, 4, {"grade": 3}
SLIDES: dict[str, Callable[[], nn.Module]] = {
    "abmil": lambda: ABMIL(IN, DIM, 8, 4, coordinates=8),
    "mean": lambda: MeanPool(IN, DIM),
    "max": lambda: MaxPool(IN, DIM, 8, coordinates=True),
    "clam_sb": lambda: CLAM(IN, DIM, 8, 4, k=2, classes=CLASSES),
    "clam_mb": lambda: CLAM(IN, DIM, 8, 4, branches="class", k=2, classes=CLASSES),
    "dsmil": lambda: DSMIL(IN, DIM, 8, 4, classes=CLASSES),
    "transmil": lambda: TransMIL(IN, DIM, 8, 2),
}


@pytest.mark.parametrize("name", SLIDES)
def test_a_step_of_every_slide_encoder(name: str) -> None:
    torch.manual_seed(0)
    encode, sizes = SLIDES[name](), torch.tensor([0, 9, 0, 30])
    bag = Bag(torch.randn(39, IN).half(), sizes.cumsum(0), torch.randint(0, 9000, (39, 2)))
    target = Target(torch.ones(3, dtype=torch.bool), torch.tensor([0.0, 1.0, 2.0]))

    def loss() -> Tensor:
        said: Embedding = encode(bag)
        own = said.vector.square().sum()
        if isinstance(encode, SupervisedEncoder):
            own = own + sum(encode.supervise(bag, said, {"grade": target}, sizes[1:] > 0).values())
        return own

    trained(encode, loss)


@pytest.mark.parametrize("kind", [TimeAttention, VisitGRU, VisitTransformer])
def test_a_step_of_every_encoder_of_visits(kind: Any) -> None:
    torch.manual_seed(0)
    encode = kind(3, DIM)
    measured = (torch.rand(7, 3) < 0.7).float()
    visits = Series(torch.randn(7, 3) * measured, measured, torch.randn(7), torch.tensor([0, 3, 3, 7]))
    trained(encode, lambda: encode(visits).vector.square().sum())


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("kind", [VolumeEncoder, SliceEncoder])
def test_a_step_of_the_networks_of_volumes(kind: Any, pool: bool) -> None:
    torch.manual_seed(0)
    encode = kind(DIM, widths=(8, 8, 8), max_pool=pool)
    trained(encode, lambda: encode(torch.rand(2, 1, 16, 16, 16)).vector.square().sum())
