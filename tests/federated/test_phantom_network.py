"""The phantom trained over Flower on loopback, with TLS and node authentication."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nsclc_mtl.federated import audit
from tests.federated.small import QUICK, settings_of
from tests.federated.test_rounds import served

pytestmark = pytest.mark.federated
ROOT = Path(__file__).resolve().parent.parent.parent


def test_three_rounds_with_a_site_that_sends_nonsense(federation: Any, tmp_path: Path) -> None:
    """NaN, numbers far too long and a wrong shape are rejected by name, and the model stays finite."""
    words = ["federated.rounds=3", "federated.timeout_s=300"]
    settings = settings_of(tmp_path / "out", *words)

    def script(channel: Any) -> Any:
        return served(settings, channel).train(0, 0, lambda n: (1, 1))

    of = {"worker": "tests.federated.phantom_site:Phantom"}
    own = {site: {"out": str(tmp_path / f"out{site}"), "words": words} for site in "ABC"}
    own["C"]["bad"] = ["nan", "long", "shape"]
    made = federation.serve(script, {site: {**of, "settings": said} for site, said in own.items()}, wait_s=240.0)
    assert [made.rounds[number].done for number in range(3)] == [True] * 3
    assert [sorted(of.sites) for of in made.rounds] == [["A", "B"]] * 3
    told = [of.rejected["C"] for of in made.rounds]
    for sentence, word in zip(told, ("not finite", "times the usual", "shape"), strict=True):
        assert word in sentence
    assert all(bool(torch.isfinite(value).all()) for value in made.learner.parameters())
    assert [hospital.end(120.0) for hospital in federation.hospitals] == [0, 0, 0]


def test_the_commands_train_a_fold(tmp_path: Path) -> None:
    """`mtl federate keys`, `server` and two `client`s, as people start them."""
    pytest.importorskip("flwr", reason="the extra `federated` is not installed")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def mtl(*words: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "nsclc_mtl", "federate", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(line, cwd=tmp_path, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    made = mtl("keys", "hosts=[localhost,127.0.0.1]", "sites=[A,B]")
    assert "fingerprint of the key of A" in made.communicate(timeout=60)[0]
    port = free()
    words = ["cohort.level=features", "cohort.n=120", *QUICK, "fold=0", "federated.rounds=3", "federated.secure=true"]
    listen = f"127.0.0.1:{port}"
    server = mtl("server", "name=s", f"server.listen={listen}", "server.keys=keys/server", *words)
    clients = []
    try:
        for seed, site in enumerate("AB"):
            where = [f"client.site={site}", f"client.server={listen}", f"client.keys=keys/{site}", "client.agree=true"]
            own = [f"name={site}", f"paths.out=out{site}", f"cohort.seed={seed}"]
            clients.append(mtl("client", *where, *own, *words))
        said = [each.communicate(timeout=480)[0] for each in (server, *clients)]
    finally:
        for each in (server, *clients):
            if each.poll() is None:
                each.terminate()
                each.wait(60)
    assert [each.returncode for each in (server, *clients)] == [0, 0, 0], said
    assert "sums of values, squares and products" in said[1]
    assert "under masks" in said[1]
    record = json.loads((tmp_path / "runs/federate_server/s/federation/fold0.json").read_text())
    assert [of["done"] for of in record["rounds"]] == [True] * 3
    for path in ("federate_server/s", "federate_client/A", "federate_client/B"):
        number, _ = audit.verify(tmp_path / "runs" / path / "messages.jsonl")
        assert number > 20
    weights = [
        torch.load(tmp_path / f"runs/{run}/fold0/model0.ckpt", weights_only=True)["state_dict"]
        for run in ("federate_server/s", "federate_client/A", "federate_client/B")
    ]
    for other in weights[1:]:
        for name, value in weights[0].items():
            np.testing.assert_array_equal(value.numpy(), other[name].numpy(), err_msg=name)
    patients = (tmp_path / "runs/federate_client/A/splits.csv").read_text().split()[1].split(",")[0]
    assert patients.encode() not in (tmp_path / "runs/federate_server/s/messages.jsonl").read_bytes()
    evaluated = [sys.executable, "-m", "nsclc_mtl", "evaluate", "ckpt=runs/federate_client/A", "name=e", "bootstrap=20"]
    done = subprocess.run(evaluated, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs/evaluate/e/report.html").is_file()


def free() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
