"""Stain: brought to the reference, moved by seed, slide and view, and off unless asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

from nsclc_mtl.config.wiring import conf_root
from nsclc_mtl.features.backbones import feature_key
from nsclc_mtl.records import ItemFault, UsageFault
from nsclc_mtl.slides.restain import LAB, LMS, normaliser, views
from nsclc_mtl.slides.stain import combine, estimate, matrix

OTHER = matrix((0.55, 0.75, 0.36), (0.20, 0.90, 0.30))


def options(method: str) -> dict:
    return yaml.safe_load((conf_root() / "stain" / f"{method}.yaml").read_text())


def tissue(stains: np.ndarray, strength: float = 1.0, n: int = 3, px: int = 48) -> np.ndarray:
    """uint8 [n, px, px, 3]: pixels of mostly one dye, mixed ones, and a strip of glass, drawn in these stains."""
    rng = np.random.default_rng(4)
    amount = rng.gamma(2.0, 0.25, (n, px, px, 3)) * np.array([1.0, 0.8, 0.0])
    kind = rng.integers(0, 3, (n, px, px))
    amount[kind == 0, 1] *= 0.02
    amount[kind == 1, 0] *= 0.02
    amount[:, :4] = 0
    return np.stack([combine(strength * one, stains) for one in amount])


def test_macenko_brings_another_stain_to_the_reference() -> None:
    wanted = options("macenko")
    reference = matrix(tuple(wanted["haematoxylin"]), tuple(wanted["eosin"]))
    tiles = tissue(OTHER, 0.7)
    change, found = normaliser(wanted, tiles)
    assert change is not None
    after = change(torch.from_numpy(tiles))
    assert after.dtype == torch.uint8
    assert after.shape == tiles.shape

    def apart(some: np.ndarray) -> float:
        own = estimate(some.reshape(-1, 1, 3))
        return float(np.degrees(np.arccos(np.clip((own[:2] * reference[:2]).sum(1), -1, 1)).max()))

    assert apart(tiles) > 8
    assert apart(after.numpy()) < 4
    assert after[:, :4].float().mean() > 250  # glass stays glass
    again, measured = normaliser(wanted, after.numpy())
    assert again is not None
    assert len(found["stain_vectors"]) == 2
    np.testing.assert_allclose(measured["stain_strength"], wanted["strength"], rtol=0.1)


def test_reinhard_brings_mean_and_spread_to_the_reference() -> None:
    wanted = options("reinhard")
    tiles = tissue(OTHER, 0.7)
    change, _ = normaliser(wanted, tiles)
    assert change is not None
    after = change(torch.from_numpy(tiles)).numpy().reshape(-1, 3)
    stained = np.linalg.norm(np.log10((after + 1.0) / 256), axis=1) > 0.15
    lab = np.log10((after[stained] + 1.0) / 256 @ LMS.T) @ LAB.T
    np.testing.assert_allclose(lab.mean(0), wanted["mean"], atol=0.06)
    same, _ = normaliser(wanted | dict(zip(("mean", "sd"), _moments(tiles), strict=True)), tiles)
    assert same is not None
    assert np.abs(same(torch.from_numpy(tiles)).numpy().astype(int) - tiles).max() <= 2  # its own reference: itself


def _moments(tiles: np.ndarray) -> tuple[list[float], list[float]]:
    light = (tiles.reshape(-1, 3) + 1.0) / 256
    stained = np.linalg.norm(np.log10(light), axis=1) > 0.15
    lab = np.log10(light[stained] @ LMS.T) @ LAB.T
    return lab.mean(0).tolist(), lab.std(0).tolist()


def test_views_depend_on_seed_slide_and_number_alone() -> None:
    tiles = torch.from_numpy(tissue(matrix()))
    made = [change(tiles) for change in views({"views": 3}, "a")]
    again = [change(tiles) for change in views({"views": 3}, "a")]
    assert all(torch.equal(one, other) for one, other in zip(made, again, strict=True))
    others = [views({"views": 1}, "b")[0](tiles), views({"views": 1, "seed": 1}, "a")[0](tiles), made[1]]
    assert not any(torch.equal(made[0], other) for other in others)
    moved = (made[0].float() - tiles.float()).abs().mean()
    assert 0.5 < moved < 30
    assert views({"views": 0}, "a") == []
    still = views({"views": 1, "spread": 0.0}, "a")[0](tiles)
    assert (still.int() - tiles.int()).abs().max() <= 1


def test_off_unless_asked_for_and_told_where_it_cannot() -> None:
    assert normaliser(options("none"), np.empty((0, 1, 1, 3), np.uint8)) == (None, {})
    with pytest.raises(UsageFault, match=r"stain\.method='vahadane' is none of"):
        normaliser({"method": "vahadane"}, tissue(OTHER))
    with pytest.raises(ItemFault, match="0 stained pixels"):
        normaliser(options("macenko"), np.full((2, 8, 8, 3), 250, np.uint8))


def test_the_key_of_features_follows_the_stain() -> None:
    slides, backbone = {"tile_um": 128}, {"name": "texture", "tile_px": 256}
    plain = feature_key(slides, backbone)
    assert feature_key(slides, backbone, options("none")) == plain
    keys = {feature_key(slides, backbone, options(m)) for m in ("none", "macenko", "reinhard")}
    assert len(keys) == 3
    assert feature_key(slides, backbone, options("none") | {"views": 2}) not in keys
