"""The balances of TorchJD, where it is installed."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from nsclc_mtl.records import UsageFault
from nsclc_mtl.tasks.jacobian import TorchJD


def test_without_torchjd_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(UsageFault, match=r"install nsclc-mtl\[torchjd\]"):
        TorchJD(["a", "b"])


@pytest.mark.parametrize("name", ["MGDA", "IMTLG", "AlignedMTL", "Mean"])
def test_shared_parameters_get_what_the_aggregator_says_and_heads_the_plain_gradient(name: str) -> None:
    aggregation = pytest.importorskip("torchjd.aggregation", reason="the extra `torchjd` is not installed")
    balance = TorchJD(["a", "b"], name)
    shared, head = nn.Parameter(torch.tensor([1.0, -2.0, 0.5])), nn.Parameter(torch.tensor(2.0))
    goals = torch.tensor([[3.0, 1.0, 0.0], [-9.0, 2.0, 4.0]])
    losses = {"a": ((shared - goals[0]) ** 2).sum(), "b": ((head * shared - goals[1]) ** 2).sum()}
    plain = torch.autograd.grad(sum(losses.values()), head, retain_graph=True)[0]  # type: ignore[arg-type]
    rows = torch.stack([torch.autograd.grad(loss, shared, retain_graph=True)[0] for loss in losses.values()])
    total = balance(losses, [shared])
    total.backward()
    torch.testing.assert_close(shared.grad, getattr(aggregation, name)()(rows))
    assert head.grad == plain
    assert total.item() == sum(losses.values()).item()  # type: ignore[union-attr]


def test_its_pcgrad_is_ours_for_two_tasks() -> None:
    aggregation = pytest.importorskip("torchjd.aggregation", reason="the extra `torchjd` is not installed")
    from nsclc_mtl.tasks.gradients import projections

    rows = torch.randn(2, 7, generator=torch.Generator().manual_seed(3))
    rows[1] -= 2 * rows[0]
    ours = projections(rows @ rows.T).sum(0).float() @ rows
    torch.testing.assert_close(ours, aggregation.PCGrad()(rows))


@pytest.mark.parametrize(
    ("name", "why"), [("Nothing", "no aggregator"), ("UPGradWeighting", "no aggregator"), ("ExcessMTL", "state")]
)
def test_what_does_not_go_is_refused(name: str, why: str) -> None:
    pytest.importorskip("torchjd.aggregation", reason="the extra `torchjd` is not installed")
    with pytest.raises(UsageFault, match=why):
        TorchJD(["a", "b"], name, {"robust_step_size": 0.1} if name == "ExcessMTL" else None)
