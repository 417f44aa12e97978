"""Slide encoders: a model of the user's own gives one vector a slide, and what does not fit is told in one sentence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from onnx_file import FLOAT16, field, model, node, port, slide_encoder

from nsclc_mtl.config import build
from nsclc_mtl.config.wiring import conf_root
from nsclc_mtl.features.slide_encoders import Mean, Onnx, fits, slide_key
from nsclc_mtl.records import IntegrityFault, ItemFault, UsageFault

WEIGHT = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
FEATURES = np.random.default_rng(2).normal(size=(7, 5)).astype(np.float32)
COORDS = np.stack([np.arange(7) % 3, np.arange(7) // 3], axis=1).astype(np.int64) * 256


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    """Writes a slide encoder and returns its path."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is an optional extra")

    def save(content: bytes | None = None, **options: object) -> str:
        path = tmp_path / "encoder.onnx"
        path.write_bytes(content or slide_encoder(WEIGHT, **options))  # type: ignore[arg-type]
        return str(path)

    return save


def node_of(name: str) -> dict:
    return yaml.safe_load((conf_root() / "slide_encoder" / f"{name}.yaml").read_text())


def test_the_mean_is_the_mean() -> None:
    found = Mean()(FEATURES, COORDS, 256)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, FEATURES.mean(axis=0), rtol=1e-6)
    large = np.full((100_000, 1), 1000.1, np.float32)  # a sum in single precision would drift
    assert Mean()(large, np.zeros((100_000, 2), np.int64), 256)[0] == np.float32(1000.1)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("places", [False, True])
def test_a_model_sees_features_places_and_size(saved: Callable[..., str], batch: bool, places: bool) -> None:
    look = Onnx(saved(batch=batch, places=places))
    assert (look.places, look.size, look.input_dim) == (places, places, 5)
    wanted = (FEATURES @ WEIGHT).mean(axis=0)
    if places:
        wanted = np.concatenate([wanted, (COORDS / 256).mean(axis=0)])
    np.testing.assert_allclose(look(FEATURES, COORDS, 256), wanted, rtol=1e-5)
    np.testing.assert_allclose(look(FEATURES[:2], COORDS[:2], 256)[:3], (FEATURES[:2] @ WEIGHT).mean(axis=0), rtol=1e-5)
    assert (
        look.weights_hash
        == "sha256:" + hashlib.sha256(Path(saved(batch=batch, places=places)).read_bytes()).hexdigest()
    )


def test_half_precision_is_what_the_model_asks_for(saved: Callable[..., str]) -> None:
    found = Onnx(saved(kind=FLOAT16))(FEATURES, COORDS, 256)
    np.testing.assert_allclose(found, (FEATURES.astype(np.float16).astype(np.float32) @ WEIGHT).mean(axis=0), rtol=1e-4)


def test_models_that_are_no_slide_encoders_are_refused(saved: Callable[..., str], tmp_path: Path) -> None:
    image = model(
        node("Identity", ("image",), "seen") + field(2, "g") + port(11, "image", (1, 3)) + port(12, "seen", (1, 3))
    )
    tokens = model(
        node("Identity", ("features",), "seen")
        + field(2, "g")
        + port(11, "features", ("n", 5))
        + port(12, "seen", ("n", 5))
    )
    with pytest.raises(UsageFault, match="takes image; a slide encoder takes features"):
        Onnx(saved(image))
    with pytest.raises(UsageFault, match="takes 7 tiles and no other number"):
        Onnx(saved(tiles=7))
    with pytest.raises(UsageFault, match=r"gives \(7, 5\) for a slide"):
        Onnx(saved(tokens))(FEATURES, COORDS, 256)
    with pytest.raises(UsageFault, match="no ONNX model"):
        Onnx(saved(b"not a model"))
    with pytest.raises(UsageFault, match=r"slide_encoder\.weights=PATH"):
        Onnx()
    with pytest.raises(UsageFault, match="no weights at"):
        Onnx(str(tmp_path / "absent.onnx"))
    with pytest.raises(IntegrityFault, match="expected 000000000000"):
        Onnx(saved(), weights_sha256="0" * 64)
    with pytest.raises(IntegrityFault, match=r"reads 9 features a tile.*takes 5"):
        Onnx(saved(), input_dim=9)
    with pytest.raises(IntegrityFault, match="gives 3 numbers a slide, 4 were promised"):
        Onnx(saved(), dim=4)(FEATURES, COORDS, 256)
    with pytest.raises(ItemFault, match="failed on 7 tiles") as fault:
        Onnx(saved())(FEATURES[:, :4], COORDS, 256)
    assert fault.value.reason == "encoder_failed"


def test_a_pickle_is_never_loaded(saved: Callable[..., str], tmp_path: Path) -> None:
    import torch

    torch.save({"w": torch.zeros(2)}, tmp_path / "weights.pth")
    with pytest.raises(UsageFault, match="no ONNX model"):
        Onnx(str(tmp_path / "weights.pth"))


def test_the_key_follows_features_settings_and_weights(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"1")
    (tmp_path / "b.onnx").write_bytes(b"1")
    (tmp_path / "c.onnx").write_bytes(b"2")
    given = {"name": "onnx", "tile_um": 256, "weights": str(tmp_path / "a.onnx")}
    key = slide_key("texture-12345678", given)
    assert key.startswith("onnx-")
    assert len(key) == len("onnx-") + 8
    assert slide_key("texture-12345678", given | {"weights": str(tmp_path / "b.onnx"), "tile_um": None}) == key
    assert slide_key("texture-12345678", given | {"weights": str(tmp_path / "c.onnx")}) != key
    assert slide_key("texture-87654321", given) != key
    promised = given | {"weights": None, "weights_sha256": hashlib.sha256(b"1").hexdigest()}
    assert slide_key("texture-12345678", promised) == key
    with pytest.raises(UsageFault, match="no weights at"):
        slide_key("texture-12345678", given | {"weights": str(tmp_path / "absent.onnx")})


@pytest.mark.parametrize(("name", "backbone"), [("prism", "virchow"), ("chief", "ctranspath")])
def test_published_encoders_read_their_backbone_and_no_other(name: str, backbone: str) -> None:
    given, tile = node_of(name), yaml.safe_load((conf_root() / "backbone" / f"{backbone}.yaml").read_text())
    assert given["backbones"] == [tile["name"]]
    assert given["input_dim"] == tile["dim"]
    scales = tile["mpp"] if isinstance(tile["mpp"], list) else [tile["mpp"]]
    assert any(abs(given["tile_um"] / tile["tile_px"] / scale - 1) < 0.1 for scale in scales)
    fits(given, backbone, given["tile_um"])
    with pytest.raises(UsageFault, match=f"reads features of {backbone}, not of texture; take that backbone"):
        fits(given, "texture", given["tile_um"])
    with pytest.raises(UsageFault, match=rf"tiles of {given['tile_um']} um, these have 512; set slides\.tile_um="):
        fits(given, backbone, 512.0)
    fits(given | {"tile_um": None}, backbone, 512.0)


@pytest.mark.parametrize("name", ["titan", "prism", "chief"])
def test_published_encoders_say_what_to_bring(name: str) -> None:
    given = node_of(name)
    with pytest.raises(
        UsageFault, match=r"runs no code of others: export it to ONNX.*slide_encoder\.weights=PATH"
    ) as fault:
        build(given)
    assert "\n" not in str(fault.value)
    for fact in ("hub", "licence", "gate"):
        assert given[fact] in str(fault.value)
