"""Weights of the hub: the content of the local copy is part of the key, and what cannot be had is one sentence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from nsclc_mtl.features.backbones import feature_key, hub
from nsclc_mtl.records import UsageFault

SLIDES = {"tile_um": 128, "min_tissue": 0.3}
NET = {"name": "net", "hub": "some/where", "tile_px": 224, "licence": "CC-BY-NC-ND-4.0", "gate": "gated: log in"}
Put = Callable[..., Path]


def test_a_changed_file_on_the_hub_is_another_key(hub_cache: Put, tmp_path: Path) -> None:
    hub_cache(b"one")
    before = feature_key(SLIDES, NET)
    assert feature_key(SLIDES, NET) == before
    hub_cache(b"two")
    assert feature_key(SLIDES, NET) != before
    (tmp_path / "mine.safetensors").write_bytes(b"one")  # the same content by another way is the same backbone
    local = NET | {"weights": str(tmp_path / "mine.safetensors")}
    assert feature_key(SLIDES, local) == before
    promised = NET | {"weights_sha256": hashlib.sha256(b"one").hexdigest()}
    assert feature_key(SLIDES, promised) == before


def test_all_processes_read_the_file_that_was_fetched_first(hub_cache: Put) -> None:
    path = hub_cache(b"one", "pytorch_model.bin")  # the second of the names that are tried
    found = hub.pinned(NET)
    assert found["weights"] == str(path)
    hub_cache(b"two", "pytorch_model.bin")
    assert hub.pinned(found) == found
    assert feature_key(SLIDES, found) != feature_key(SLIDES, NET)
    named = hub_cache(b"three", "tile_encoder.bin")
    assert hub.pinned(NET | {"file": "tile_encoder.bin"}, fetch=False)["weights"] == str(named)
    for untouched in ({"name": "texture"}, NET | {"weights": "here.pth"}):
        assert hub.pinned(untouched) == untouched


def test_weights_that_were_never_fetched_are_told_in_one_sentence(hub_cache: Put) -> None:
    with pytest.raises(UsageFault, match=r"never fetched from the hub 'some/where'.*mtl extract") as fault:
        feature_key(SLIDES, NET)
    assert "\n" not in str(fault.value)
    with pytest.raises(UsageFault, match=r"offline\?; licence CC-BY-NC-ND-4\.0; gated: log in\); download") as fault:
        hub.pinned(NET)
    assert "\n" not in str(fault.value)
    unknown = hub.pinned(NET, fetch=False)  # a dry run goes on: nothing of it is there yet
    assert "weights" not in unknown
    assert feature_key(SLIDES, unknown).startswith("net-")
    hub_cache(b"one")
    assert feature_key(SLIDES, NET) != feature_key(SLIDES, unknown)
