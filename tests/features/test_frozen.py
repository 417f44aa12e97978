"""Frozen networks: precision and device as asked, tiles through Lightning, memory that runs out, weights that fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import Tensor, nn

from nsclc_mtl.features.backbones import file_hash
from nsclc_mtl.features.backbones import frozen as room
from nsclc_mtl.features.backbones.frozen import Frozen, folded
from nsclc_mtl.features.backbones.seeing import see
from nsclc_mtl.features.backbones.squeezenet import FIRES, PLACES, Convolutions, Squeezenet
from nsclc_mtl.features.backbones.texture import Texture
from nsclc_mtl.records import DataFault, ItemFault, UsageFault


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)

    def forward(self, light: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(light)).relu())).mean((2, 3))


def network() -> Pooled:
    torch.manual_seed(1)
    net = Pooled()
    for norm in (net.bn1, net.bn2):
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.running_mean)
        nn.init.normal_(norm.bias)
    return net.eval()


def frozen(**options: object) -> Frozen:
    settings = {"name": "toy", "tile_px": 16, "batch": 8, "um_per_px": 0.5, "weights_hash": "sha256:0", "device": "cpu"}
    return Frozen(network(), **(settings | options))  # type: ignore[arg-type]


def tiles(n: int = 5, px: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, px, px, 3), np.uint8)


def batches(*sizes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    everything, start = tiles(sum(sizes)), 0
    for size in sizes:
        yield np.arange(start, start + size), everything[start : start + size]
        start += size


def cosine(one: Tensor, other: Tensor) -> float:
    return float(nn.functional.cosine_similarity(one, other).min())


def test_folding_and_normalising_change_nothing() -> None:
    light = torch.from_numpy(tiles()).permute(0, 3, 1, 2).float() / 255
    plain = network()((light - torch.tensor(room.MEAN)[:, None, None]) / torch.tensor(room.SPREAD)[:, None, None])
    found = frozen(precision="32")
    torch.testing.assert_close(found(torch.from_numpy(tiles())), plain, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in found.modules())
    lone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    assert isinstance(folded(lone)[2], nn.BatchNorm2d)


def test_precision_is_chosen_recorded_and_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    for able in (True, False):
        monkeypatch.setattr(room, "has_bf16", lambda device, able=able: able)
        assert frozen().precision == ("bf16" if able else "32")
        assert frozen(precision=32).precision == "32"
        assert frozen(precision="bf16-mixed").precision == "bf16"
    pixels = torch.from_numpy(tiles())
    half = frozen(precision="bf16")(pixels)
    assert half.dtype == torch.float32
    assert cosine(half, frozen(precision=32)(pixels)) > 0.999
    with pytest.raises(UsageFault, match=r"backbone\.precision=16 is none of auto, 32, bf16"):
        frozen(precision=16)


@pytest.mark.parametrize(
    ("able", "pays", "taken"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, False, True),
        ({"avx512_bf16": True}, True, True),
        ({"avx512_bf16": True}, False, False),
        ({"avx512_f": True}, True, False),
    ],
)
def test_an_instruction_counts_where_it_pays(
    able: dict[str, bool], pays: bool, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With AVX-512 alone some processors multiply bf16 more slowly than float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(room, "_bf16_pays", lambda: pays)
    assert room.has_bf16(torch.device("cpu")) is taken


@pytest.mark.parametrize("half", [0.1, 10.0])
def test_bf16_pays_where_its_products_take_less_time(half: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    class Clocked(torch.Tensor):
        def __matmul__(self, other: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            clock[0] += half if self.dtype == torch.bfloat16 else 1.0
            return self

    monkeypatch.setattr(room.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(room.torch, "ones", lambda *size: torch.zeros(2, 2).as_subclass(Clocked))
    assert room._bf16_pays.__wrapped__() is (half < 1)


def test_a_device_that_is_not_there_and_a_scale_that_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert frozen(device="auto").device.type == "cpu"
    with pytest.raises(UsageFault, match="no usable GPU"):
        frozen(device="cuda")
    with pytest.raises(UsageFault, match="none of auto, cpu, cuda"):
        frozen(device="tpu")
    assert frozen(expected_mpp=0.52)
    with pytest.raises(UsageFault, match=r"trained at 0\.25 um/px.*set slides\.tile_um=4"):
        frozen(expected_mpp=0.25)
    assert frozen(expected_mpp=[0.25, 0.5])
    with pytest.raises(UsageFault, match=r"trained at 0\.25 or 2 um/px.*set slides\.tile_um=4"):
        frozen(expected_mpp=[0.25, 2.0])


@pytest.mark.parametrize("make", [frozen, lambda: Texture(tile_px=64)], ids=["network", "filters"])
def test_a_slide_is_seen_tile_by_tile_in_order(make) -> None:
    backbone = make()
    size = backbone.tile_px
    rows = [np.array([4, 2]), np.array([7])]
    pixels = tiles(3, size)
    seen = see(backbone, [(rows[0], pixels[:2]), (rows[1], pixels[2:])])
    assert seen.places.tolist() == [4, 2, 7]
    for found, tile in zip(seen.features, pixels, strict=True):
        np.testing.assert_allclose(found, backbone(torch.from_numpy(tile[None]))[0].numpy(), atol=2e-2)
    assert seen.attrs["precision"] in ("32", "bf16")
    assert seen.attrs["device"] == "cpu"
    assert "batch" not in seen.attrs
    assert seen.views is None


def test_views_stand_beside_the_plain_features() -> None:
    backbone = frozen(precision=32)
    seen = see(backbone, batches(2, 1), views=[lambda tiles: 255 - tiles, lambda tiles: tiles // 2])
    assert seen.views is not None
    assert seen.views.shape == (2, *seen.features.shape)
    everything = torch.from_numpy(np.concatenate([pixels for _, pixels in batches(2, 1)]))
    np.testing.assert_allclose(seen.views[1], backbone(everything // 2).numpy(), atol=1e-2)


class Narrow(Frozen):
    """A network whose memory holds a few tiles."""

    holds = 2

    def forward(self, tiles: Tensor) -> Tensor:
        if len(tiles) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(tiles)


def test_out_of_memory_halves_the_batch_three_times_at_most() -> None:
    settings = {"name": "toy", "tile_px": 16, "um_per_px": 0.5, "weights_hash": "", "device": "cpu", "precision": 32}
    seen = see(Narrow(network(), batch=16, **settings), batches(16, 5))  # type: ignore[arg-type]
    assert (seen.attrs["batch"], seen.attrs["batch_halved"]) == (2, 3)
    whole = see(Frozen(network(), batch=16, **settings), batches(16, 5))  # type: ignore[arg-type]
    np.testing.assert_allclose(seen.features, whole.features, atol=1e-5)
    with pytest.raises(UsageFault, match=r"a batch of 4 tiles .* after 3 halvings; set backbone\.batch lower"):
        see(Narrow(network(), batch=32, **settings), batches(32))  # type: ignore[arg-type]


def test_faults_of_the_reading_side_come_through() -> None:
    def broken() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield from batches(2)
        raise ItemFault("corrupt", "slide 'a.svs' is corrupt")

    with pytest.raises(ItemFault, match=r"slide 'a\.svs' is corrupt"):
        see(frozen(), broken())


# ---------------------------------------------------------------------------------------------------------------------
# SqueezeNet
# ---------------------------------------------------------------------------------------------------------------------


def layers() -> dict[str, np.ndarray]:
    """Random values under the names of the MATLAB file, as cells of kernel and bias."""
    torch.manual_seed(2)
    found = {}
    for name, part in Convolutions().named_modules():
        if isinstance(part, nn.Conv2d):
            cell = np.empty((1, 2), object)
            kernel = part.weight.detach().numpy().transpose(2, 3, 1, 0)
            cell[0, 0] = kernel[:, :, ::-1] if name == "conv1" else kernel  # the file takes B, G, R
            cell[0, 1] = part.bias.detach().numpy()[None]
            found[name.replace(".squeeze", "/squeeze1x1").replace(".expand", "/expand")] = cell
    return found


def test_squeezenet_reads_matlab_and_torch_alike(tmp_path: Path) -> None:
    savemat(tmp_path / "s.mat", layers())
    torch.manual_seed(2)
    state = Convolutions().state_dict()
    places = {f"fire{number}": f"features.{PLACES[number]}" for number in FIRES} | {"conv1": "features.0"}
    named = {places[key.split(".")[0]] + key[len(key.split(".")[0]) :]: value for key, value in state.items()}
    torch.save(named | {"classifier.1.weight": torch.zeros(1000, 512, 1, 1)}, tmp_path / "s.pth")
    matlab = Squeezenet(str(tmp_path / "s.mat"), precision=32, device="cpu")
    other = Squeezenet(str(tmp_path / "s.pth"), precision=32, device="cpu")
    assert len(matlab.state_dict()) == 2 * 25 + 2
    for key, value in other.net.state_dict().items():
        torch.testing.assert_close(matlab.net.state_dict()[key], value)
    pixels = torch.from_numpy(tiles(2, 64))
    assert matlab(pixels).shape == (2, matlab.dim) == (2, 1280)
    # The MATLAB weights see pixels of 0 to 255 less their mean: a tile of the mean colour is nothing to them.
    torch.testing.assert_close(matlab.mean.flatten(), torch.tensor([122.679, 116.669, 104.006]))
    torch.testing.assert_close(matlab.spread.flatten(), torch.ones(3))
    assert matlab.weights_hash == f"sha256:{file_hash(tmp_path / 's.mat')}"


def test_squeezenet_refuses_other_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match=r"backbone=squeezenet needs weights: set backbone\.weights=PATH"):
        Squeezenet()
    (tmp_path / "text.mat").write_text("text")
    with pytest.raises(DataFault, match=r"'text\.mat' are no MATLAB file"):
        Squeezenet(str(tmp_path / "text.mat"))
    some = layers()
    savemat(tmp_path / "part.mat", {"conv1": some.pop("conv1")})
    savemat(tmp_path / "odd.mat", {"conv1": some["fire2/squeeze1x1"]})
    with pytest.raises(DataFault, match=r"'part\.mat' do not fit SqueezeNet 1\.1: 48 parameters missing"):
        Squeezenet(str(tmp_path / "part.mat"))
    with pytest.raises(DataFault, match=r"'odd\.mat' do not fit SqueezeNet 1\.1: size mismatch for conv1"):
        Squeezenet(str(tmp_path / "odd.mat"))


@pytest.mark.realdata
def test_real_squeezenet_weights_agree_in_both_precisions(real_data: Path) -> None:
    import pandas as pd
    from PIL import Image

    weights = str(real_data / "weights" / "sqz_notop.mat")
    folder = real_data / "tiles" / "lc25000_dev"
    listed = pd.read_csv(folder / "manifest.csv").iloc[::300]
    pixels = torch.from_numpy(
        np.stack([np.asarray(Image.open(folder / row.cls / row.file).convert("RGB")) for row in listed.itertuples()])
    )
    whole, half = (Squeezenet(weights, precision=word, device="cpu")(pixels) for word in (32, "bf16"))
    assert cosine(whole, half) > 0.9999
    assert len(set(whole.argmax(1).tolist())) > 1
