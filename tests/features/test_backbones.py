"""Backbones see what is there, see the same on every call, and refuse to run without their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nsclc_mtl.features.backbones import feature_key, file_hash
from nsclc_mtl.features.backbones.resnet import Resnet50
from nsclc_mtl.features.backbones.texture import Texture, otsu
from nsclc_mtl.records import DataFault, IntegrityFault, UsageFault

SLIDES = {"dir": None, "tile_um": 128, "min_tissue": 0.3, "workers": 2, "tissue": {"um_per_px": 8.0}}
TEXTURE = {"name": "texture", "tile_px": 256, "batch": 16}


def nuclei(radius: int, count: int, seed: int = 0, spread: int = 0, px: int = 128) -> torch.Tensor:
    """uint8 [1, px, px, 3]: pink ground with round blue nuclei that do not touch."""
    rng = np.random.default_rng(seed)
    image = np.full((px, px, 3), (225, 165, 200), np.uint8)
    y, x = np.ogrid[:px, :px]
    cells = int(np.ceil(np.sqrt(count)))
    step = px / cells
    for k in range(count):
        r = radius + int(rng.integers(-spread, spread + 1))
        inside = (y - (k // cells + 0.5) * step) ** 2 + (x - (k % cells + 0.5) * step) ** 2 <= r * r
        image[inside] = (85, 60, 145)
    return torch.from_numpy(image)[None]


def morphology(tile: torch.Tensor) -> np.ndarray:
    return Texture(um_per_px=0.5)(tile)[0, -14:].numpy()


def test_nuclei_are_counted_and_measured() -> None:
    few, many = morphology(nuclei(6, 9)), morphology(nuclei(6, 25))
    mm2 = (128 * 0.5e-3) ** 2
    assert few[0] * 1000 * mm2 == pytest.approx(9, abs=0.01)
    assert many[0] * 1000 * mm2 == pytest.approx(25, abs=0.01)
    large = morphology(nuclei(9, 9))
    assert np.exp(few[4]) == pytest.approx(np.pi * 3.0**2, rel=0.25)  # um2
    assert np.exp(large[4]) == pytest.approx(np.pi * 4.5**2, rel=0.25)
    assert large[4] > few[4] + 0.5
    uneven = morphology(nuclei(6, 25, spread=3))
    assert uneven[5] > many[5] + 0.2  # pleomorphism
    assert few[8] > 0.9  # round


def test_shapes_dtypes_and_odd_tiles() -> None:
    texture = Texture()
    tiles = torch.cat(
        [
            nuclei(6, 9),
            torch.full((1, 128, 128, 3), 255, dtype=torch.uint8),
            torch.zeros(1, 128, 128, 3, dtype=torch.uint8),
        ]
    )
    found = texture(tiles)
    assert found.shape == (3, texture.dim)
    assert 100 <= texture.dim <= 200
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert found.abs().max() < 100


def test_a_tile_is_seen_alike_alone_and_in_company_and_again() -> None:
    texture = Texture()
    tiles = torch.cat([nuclei(r, 16, seed=r) for r in (4, 5, 7)])
    together = texture(tiles)
    torch.testing.assert_close(together, texture(tiles), rtol=0, atol=0)
    for one, row in zip(tiles, together, strict=True):
        torch.testing.assert_close(texture(one[None])[0], row, rtol=1e-4, atol=1e-4)


def test_turning_a_tile_changes_little() -> None:
    """Statistics ignore orientation: a quarter turn moves a tile less than another tile of the same tissue is away."""
    rng = np.random.default_rng(5)
    noise = torch.from_numpy(
        (nuclei(6, 25).numpy().astype(int) + rng.integers(-20, 20, (1, 128, 128, 1))).clip(0, 255).astype(np.uint8)
    )
    texture = Texture()
    here = texture(noise)
    turned = texture(noise.rot90(1, (1, 2)))
    other = texture(nuclei(8, 16, seed=3))
    assert (here - turned).norm() < 0.1 * (here - other).norm()


def test_otsu_parts_two_populations() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.1, 0.02, 5000), rng.normal(0.6, 0.05, 1000)])
    assert 0.15 < otsu(values) < 0.5
    assert otsu(np.zeros(100)) < 0.51


def test_the_key_follows_what_matters_and_nothing_else(tmp_path: Path) -> None:
    key = feature_key(SLIDES, TEXTURE)
    assert key.startswith("texture-")
    assert len(key) == len("texture-") + 8
    assert feature_key({**SLIDES, "dir": "/elsewhere", "workers": 9}, {**TEXTURE, "batch": 1}) == key
    assert feature_key({**SLIDES, "tile_um": 256}, TEXTURE) != key
    assert feature_key({**SLIDES, "tissue": {"um_per_px": 4.0}}, TEXTURE) != key
    assert feature_key(SLIDES, {**TEXTURE, "tile_px": 128}) != key
    one, same, other = (tmp_path / name for name in ("a.pth", "b.pth", "c.pth"))
    one.write_bytes(b"1")
    same.write_bytes(b"1")
    other.write_bytes(b"2")
    keys = [feature_key(SLIDES, {**TEXTURE, "weights": str(path)}) for path in (one, same, other)]
    assert keys[0] == keys[1] != keys[2]
    with pytest.raises(UsageFault, match=r"no weights at .*absent\.pth"):
        feature_key(SLIDES, {**TEXTURE, "weights": str(tmp_path / "absent.pth")})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict with the usual names (random values: only shapes and normalisation are looked at)."""
    from monai.networks.nets.resnet import resnet50

    torch.manual_seed(0)
    net = resnet50(
        spatial_dims=2, n_input_channels=3, num_classes=1000, shortcut_type="B", bias_downsample=False, conv1_t_stride=2
    )
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(net.state_dict(), path)
    return path


def test_resnet50_loads_local_weights_in_both_formats(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(torch.load(checkpoint, weights_only=True), tmp_path / "r.safetensors")
    one = Resnet50(weights=str(checkpoint), weights_sha256=file_hash(checkpoint).upper())  # as some systems print it
    other = Resnet50(weights=str(tmp_path / "r.safetensors"))
    tiles = nuclei(6, 9, px=64)
    found = one(tiles)
    assert found.shape == (1, one.dim) == (1, 2048)
    torch.testing.assert_close(found, other(tiles))
    assert one.weights_hash == "sha256:" + file_hash(checkpoint)
    assert not any(p.requires_grad for p in one.parameters())
    # Normalised as the checkpoints expect: a tile of the mean colour is zero to the network.
    grey = torch.tensor([123.675, 116.28, 103.53])
    torch.testing.assert_close((grey.view(3, 1, 1) - one.mean) / one.spread, torch.zeros(3, 1, 1), atol=1e-4, rtol=0)


def test_resnet50_without_or_with_wrong_weights_is_refused(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UsageFault, match=r"backbone\.weights=PATH"):
        Resnet50()
    with pytest.raises(UsageFault, match="no weights at"):
        Resnet50(weights=str(tmp_path / "absent.pth"))
    with pytest.raises(IntegrityFault, match="expected 0000"):
        Resnet50(weights=str(checkpoint), weights_sha256="0" * 64)
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "part.pth")
    with pytest.raises(DataFault, match="do not fit ResNet-50"):
        Resnet50(weights=str(tmp_path / "part.pth"))
    torch.save({"state_dict": Path("x")}, tmp_path / "pickle.pth")
    (tmp_path / "text.pth").write_text("text")
    (tmp_path / "text.safetensors").write_text("text")
    for name in ("pickle.pth", "text.pth", "text.safetensors"):
        with pytest.raises(DataFault, match=name):
            Resnet50(weights=str(tmp_path / name))
    flipped = bytearray(checkpoint.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "flipped.pth").write_bytes(flipped)
    with pytest.raises(IntegrityFault, match="copy them again"):
        Resnet50(weights=str(tmp_path / "flipped.pth"), weights_sha256=file_hash(checkpoint))


@pytest.mark.realdata
@pytest.mark.slow
def test_texture_beats_colour_on_real_tiles(real_data: Path) -> None:
    """LC25000 lung tiles, whole groups held out (the images of a group are rotations of one photograph)."""
    import pandas as pd
    from PIL import Image
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folder = real_data / "tiles" / "lc25000_dev"
    listed = pd.read_csv(folder / "manifest.csv").drop_duplicates(["cls", "group"])
    tiles = np.stack(
        [np.asarray(Image.open(folder / row.cls / row.file).convert("RGB")) for row in listed.itertuples()]
    )
    texture = Texture(tile_px=224)
    seen = torch.cat([texture(torch.from_numpy(tiles[i : i + 16])) for i in range(0, len(tiles), 16)]).numpy()
    colour = np.concatenate([tiles.mean((1, 2)), tiles.std((1, 2))], axis=1)

    def accuracy(values: np.ndarray) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=3000))
        told = cross_val_predict(
            model, values, listed.cls, groups=listed.cls + listed.group.astype(str), cv=GroupKFold(5)
        )
        return float((told == listed.cls).mean())

    assert accuracy(seen) > 0.91
    assert accuracy(seen) > accuracy(colour) + 0.01
