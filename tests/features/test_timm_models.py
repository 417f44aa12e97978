"""Models of timm: by name, with local weights before the hub, told in one sentence where something is missing."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
import yaml

from nsclc_mtl.config.wiring import conf_root
from nsclc_mtl.features.backbones import file_hash
from nsclc_mtl.features.backbones.attention_pool import AttentionPooled
from nsclc_mtl.features.backbones.timm_models import ConvStem, Timm, from_dinov2
from nsclc_mtl.records import DataFault, IntegrityFault, UsageFault

timm = pytest.importorskip("timm", reason="the extra `timm` is not installed")

FOUNDATION = (
    "uni", "uni2_h", "conch", "virchow", "virchow2", "h_optimus_0", "h_optimus_1", "gigapath", "phikon_v2",
    "ctranspath",
)  # fmt: skip
# What the sources in each file say that pixels are normalised by; timm's own values for an architecture are others.
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
OTHERS = {
    "conch": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
    "h_optimus_0": ([0.707223, 0.578729, 0.703617], [0.211883, 0.230117, 0.177517]),
    "h_optimus_1": ([0.707223, 0.578729, 0.703617], [0.211883, 0.230117, 0.177517]),
}
MODEL, PX = "test_vit", 160


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "vit.pth"
    torch.save(timm.create_model(MODEL, num_classes=7).state_dict(), path)
    return str(path)


def eye(weights: str | None, **options: object) -> Timm:
    return Timm(**({"model": MODEL, "weights": weights, "tile_px": PX, "device": "cpu", "precision": 32} | options))  # type: ignore[arg-type]


def tiles() -> torch.Tensor:
    return torch.randint(0, 256, (2, PX, PX, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def test_a_model_by_name_sees_what_timm_sees(weights: str) -> None:
    net = timm.create_model(MODEL, num_classes=7).eval()
    net.load_state_dict(torch.load(weights, weights_only=True))
    net.reset_classifier(0)
    found = eye(weights, mean=[0.5] * 3, spread=[0.25] * 3, hub="nobody/nothing")  # the file wins over the hub
    with torch.inference_mode():
        told = net((tiles().permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)
    torch.testing.assert_close(found(tiles()), told, atol=1e-4, rtol=1e-4)
    assert found.dim == told.shape[1]
    assert found.weights_hash == f"sha256:{file_hash(Path(weights))}"


def test_tokens_are_pooled_as_asked(weights: str) -> None:
    whole = eye(weights, options={"global_pool": ""}, pool="class")
    both = eye(weights, options={"global_pool": ""}, pool="class_mean", skipped=2)
    assert both.dim == 2 * whole.dim
    torch.testing.assert_close(both(tiles())[:, : whole.dim], whole(tiles()))
    tokens = torch.arange(24.0).reshape(1, 6, 4)
    torch.testing.assert_close(both.pooled(tokens)[0, 4:], tokens[0, 3:].mean(0))


def test_what_does_not_fit_is_refused(weights: str, tmp_path: Path) -> None:
    faults = {
        "needs the name of a model": {"model": None},
        "is no model of timm": {"model": "vit_of_nobody"},
        "none of model, class, class_mean, attention": {"pool": "mean"},
        "no layer of timm or torch": {"options": {"act_layer": "eval"}},
        r"was trained at 1 um/px.*slides\.tile_um=160": {"mpp": 1.0},
        "cannot be made of these options": {"options": {"wings": 2}},
    }
    for sentence, options in faults.items():
        with pytest.raises(UsageFault, match=sentence):
            eye(weights, **options)
    with pytest.raises(IntegrityFault, match="features a tile, 99 were promised"):
        eye(weights, dim=99)
    with pytest.raises(IntegrityFault, match="copy them again"):
        eye(weights, weights_sha256="0" * 64)
    with pytest.raises(DataFault, match=r"hold nothing below 'visual\.'"):
        eye(weights, prefix="visual.")
    with pytest.raises(DataFault, match=r"do not fit timm's test_vit"):
        eye(weights, tile_px=64)  # another number of positions


def test_the_hub_that_says_no_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuses(kind: str) -> None:
        def download(*words: str) -> str:
            raise type(kind, (OSError,), {})("many\nlines")

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)

    for kind, told in {
        "GatedRepoError": "it is gated, ask for access there and log in",
        "LocalEntryNotFoundError": "set backbone.weights=PATH",
        "ConnectError": "offline",
        "RepositoryNotFoundError": "no such repository",
    }.items():
        refuses(kind)
        with pytest.raises(UsageFault, match=told) as fault:
            eye(None, hub="some/where", licence="CC-BY-NC-ND-4.0", gate="gated: accept the terms")
        assert "\n" not in str(fault.value)
        assert "licence CC-BY-NC-ND-4.0; gated: accept the terms" in str(fault.value)
    with pytest.raises(UsageFault, match=r"needs weights: set backbone\.weights=PATH"):
        eye(None)


def test_a_hub_that_hands_it_out(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, ...]] = []

    def download(*words: str) -> str:
        asked.append(words)
        if words[1].endswith(".safetensors"):
            raise type("EntryNotFoundError", (Exception,), {})()
        return weights

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert eye(None, hub="some/where").weights_hash == f"sha256:{file_hash(Path(weights))}"
    assert asked == [("some/where", "model.safetensors"), ("some/where", "pytorch_model.bin")]


@pytest.mark.parametrize("name", FOUNDATION)
def test_every_foundation_model_is_what_its_file_says(name: str) -> None:
    """Made on the meta device, without memory: the options are timm's, and the width is the one that is promised."""
    node = yaml.safe_load((conf_root() / "backbone" / f"{name}.yaml").read_text())
    pool, px = node.get("pool", "model"), node["tile_px"]
    make = importlib.import_module("nsclc_mtl.features.backbones.timm_models").make
    with torch.device("meta"):
        net = make(node["model"], px, node["options"], node["dim"] if pool == "attention" else None)
        seen = net(torch.zeros(1, 3, px, px))
    pooled = {"class_mean": 2}.get(pool, 1)
    assert seen.shape[-1] * pooled == node["dim"]
    if pooled == 2:
        assert seen.shape[1] == 1 + node.get("skipped", 0) + (px // 14) ** 2
    assert node["licence"]
    assert node["gate"]
    scales = node["mpp"] if isinstance(node["mpp"], list) else [node["mpp"]]
    assert round(px * scales[0]) in (112, 128, 224, 256)


@pytest.mark.parametrize("name", FOUNDATION)
def test_every_foundation_model_states_its_own_normalisation(name: str) -> None:
    node = yaml.safe_load((conf_root() / "backbone" / f"{name}.yaml").read_text())
    assert (node["mean"], node["spread"]) == OTHERS.get(name, IMAGENET)


def test_conch_is_pooled_by_its_query(tmp_path: Path) -> None:
    """The names of CONCH's checkpoint, a text tower beside; the answer is attention, written out."""
    torch.manual_seed(0)
    trunk = timm.create_model(MODEL, num_classes=0, global_pool="")
    net = AttentionPooled(trunk, 16, heads=8)
    state = {f"visual.{key}": value for key, value in net.state_dict().items()}
    state |= {
        "text.cls_emb": torch.zeros(3),
        "visual.proj_contrast": torch.zeros(16, 16),
        "logit_scale": torch.ones(()),
    }
    torch.save(state, tmp_path / "conch.bin")
    options = {"options": {"global_pool": ""}, "pool": "attention", "prefix": "visual.", "mean": [0.5] * 3}
    found = eye(str(tmp_path / "conch.bin"), dim=16, spread=[0.5] * 3, unused=["proj_contrast"], **options)
    assert found.dim == 16
    with torch.inference_mode():
        tokens = net.eval().trunk((tiles().permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
        pool = net.attn_pool_contrast
        seen, attn = pool.ln_k(tokens), pool.attn
        in_q, in_k, in_v = attn.in_proj_bias.chunk(3)
        q = (pool.ln_q(pool.query) @ attn.q_proj_weight.T + in_q).reshape(8, 1, 2)
        k = (seen @ attn.k_proj_weight.T + in_k).reshape(2, -1, 8, 2).transpose(1, 2)
        v = (seen @ attn.v_proj_weight.T + in_v).reshape(2, -1, 8, 2).transpose(1, 2)
        answer = ((q @ k.transpose(2, 3) / 2**0.5).softmax(-1) @ v).reshape(2, 16)
        told = net.ln_contrast(attn.out_proj(answer))
    torch.testing.assert_close(found(tiles()), told, atol=1e-4, rtol=1e-4)
    with pytest.raises(UsageFault, match=r"needs backbone\.dim"):
        eye(str(tmp_path / "conch.bin"), **options)


def test_names_of_dinov2_and_of_old_swin() -> None:
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, init_values=1e-5)
    state = net.state_dict()
    theirs = {
        "embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
        "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
        "layernorm.weight": "norm.weight", "layernorm.bias": "norm.bias",
    }  # fmt: skip
    inner = {"attention.output.dense": "attn.proj", "norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.fc1"}
    inner |= {"mlp.fc2": "mlp.fc2"}
    for their, own in inner.items():
        theirs |= {f"encoder.layer.0.{their}.{kind}": f"blocks.0.{own}.{kind}" for kind in ("weight", "bias")}
    theirs |= {f"encoder.layer.0.layer_scale{n}.lambda1": f"blocks.0.ls{n}.gamma" for n in (1, 2)}
    given = {their: state[own] for their, own in theirs.items()} | {"embeddings.mask_token": torch.zeros(1)}
    for kind in ("weight", "bias"):
        for part, value in zip(("query", "key", "value"), state[f"blocks.0.attn.qkv.{kind}"].chunk(3), strict=True):
            given[f"encoder.layer.0.attention.attention.{part}.{kind}"] = value
    found = from_dinov2(given)
    assert set(found) == set(state)
    for key, value in state.items():
        torch.testing.assert_close(found[key], value)
    stem = ConvStem(embed_dim=96)
    assert stem(torch.zeros(1, 3, 32, 32)).shape == (1, 8, 8, 96)
    assert [name for name, _ in stem.proj.named_children() if name in "036"] == ["0", "3", "6"]


def test_ctranspath_takes_its_own_checkpoint(tmp_path: Path) -> None:
    """The published file is of an old timm: the downsampling stands one stage earlier, masks among the parameters."""
    node = yaml.safe_load((conf_root() / "backbone" / "ctranspath.yaml").read_text())
    torch.manual_seed(0)
    net = importlib.import_module("nsclc_mtl.features.backbones.timm_models").make(node["model"], 224, node["options"])
    old: dict[str, torch.Tensor] = {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}
    for key, value in net.state_dict().items():
        words = key.split(".")
        if words[:1] == ["layers"] and words[2] == "downsample":
            words[1] = str(int(words[1]) - 1)
        old[".".join(words)] = value
    torch.save({"model": old}, tmp_path / "ctranspath.pth")
    options = {key: node[key] for key in ("model", "options", "mpp", "dim", "mean", "spread", "tile_px")}
    found = eye(str(tmp_path / "ctranspath.pth"), um_per_px=256 / 224, **options)
    light = (torch.zeros(1, 3, 224, 224) - torch.tensor(node["mean"]).view(3, 1, 1)) / torch.tensor(
        node["spread"]
    ).view(3, 1, 1)
    with torch.inference_mode():
        told = net.eval()(light)
    torch.testing.assert_close(found(torch.zeros(1, 224, 224, 3, dtype=torch.uint8)), told, atol=1e-3, rtol=1e-3)
