"""A model of the user's own finds tissue, and blur is seen on a file, whatever the stain."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx_file import field, port, tensor
from scipy import ndimage

from nsclc_mtl.records import IntegrityFault, ItemFault, UsageFault
from nsclc_mtl.slides.reader import open_slide
from nsclc_mtl.slides.roi import Regions
from nsclc_mtl.slides.tissue import Classic, Onnx, Tissue, focus, survey

RULES = {"min_area_um2": 10_000, "max_hole_um2": 40_000, "least_sharpness": 0.3}


def network(
    weight: np.ndarray, bias: np.ndarray, last: str = "Sigmoid", edge: int | str = "edge", stride: int = 1
) -> bytes:
    """A convolution of one pixel ([class, 3] weights) and an activation, as an .onnx file."""
    strides = field(5, field(1, "strides") + field(8, stride) + field(8, stride) + field(20, 7))
    first = field(1, field(1, "image") + field(1, "w") + field(1, "b") + field(2, "raw") + field(4, "Conv") + strides)
    second = field(1, field(1, "raw") + field(2, "seen") + field(4, last))
    shape = (1, 3, edge, edge)
    graph = first + second + field(2, "small") + tensor("w", weight[:, :, None, None]) + tensor("b", bias)
    graph += port(11, "image", shape) + port(12, "seen", (1, len(bias), "h", "w"))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


GREENLESS = (np.array([[0.0, -40.0, 0.0]]), np.array([32.0]))  # tissue where green is under .8
PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}


@pytest.fixture
def image() -> np.ndarray:
    """uint8 [300, 410, 3]: glass with two pieces of tissue."""
    picture = np.full((300, 410, 3), 242, np.uint8)
    picture[40:120, 30:200] = (225, 150, 190)
    picture[200:290, 250:400] = (120, 70, 150)
    return picture


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., str]:
    def save(*args: object, name: str = "model.onnx", **options: object) -> str:
        (tmp_path / name).write_bytes(network(*(args or GREENLESS), **options))  # type: ignore[arg-type]
        return str(tmp_path / name)

    return save


@pytest.fixture(autouse=True)
def _needs_onnxruntime(request: pytest.FixtureRequest) -> None:
    if "model" in request.fixturenames:
        pytest.importorskip("onnxruntime", reason="onnxruntime is an optional extra")


@pytest.mark.parametrize("input_px", [64, 128, 512])  # windows over the picture, and a window larger than it
@pytest.mark.parametrize("edge", ["edge", None])
def test_a_model_says_what_is_tissue(
    model: Callable[..., str], image: np.ndarray, input_px: int, edge: str | None
) -> None:
    path = model(edge=edge or input_px)
    found = Onnx(path, input_px=input_px, **PLAIN)(image, 8.0)
    np.testing.assert_array_equal(found.mask, image[..., 1] < 200)
    assert found.white == (242.0, 242.0, 242.0)


def test_logits_classes_and_coarse_outputs(model: Callable[..., str], image: np.ndarray) -> None:
    wanted = image[..., 1] < 200
    logits = Onnx(model(*GREENLESS, "Identity"), input_px=128, output="logit", **PLAIN)
    np.testing.assert_array_equal(logits(image, 8.0).mask, wanted)
    three = (np.array([[0, 40.0, 0], [0, -40.0, 0], [0, 0, 0]]), np.array([-32.0, 32.0, -50.0]))
    path = model(*three, "Identity")
    classes = Onnx(path, input_px=128, output="classes", tissue_classes=(1, 2), **PLAIN)
    np.testing.assert_array_equal(classes(image, 8.0).mask, wanted)
    with pytest.raises(UsageFault, match="3 maps"):
        Onnx(path, input_px=128, **PLAIN)(image, 8.0)
    coarse = Onnx(model(*GREENLESS, stride=4), input_px=128, **PLAIN)(image, 8.0)
    assert (coarse.mask != wanted).mean() < 0.03


def test_weights_that_cannot_be_used_are_one_sentence(model: Callable[..., str], tmp_path: Path) -> None:
    path = model(edge=96)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    for stated in (digest, digest.upper(), f"sha256:{digest}"):
        assert Onnx(path, input_px=96, weights_sha256=stated).weights_hash == f"sha256:{digest}"
    with pytest.raises(IntegrityFault, match="expected 0000"):
        Onnx(path, input_px=96, weights_sha256="0" * 64)
    with pytest.raises(UsageFault, match=r"segmenter\.input_px=96"):
        Onnx(path)
    with pytest.raises(UsageFault, match=r"segmenter\.weights=PATH"):
        Onnx()
    with pytest.raises(UsageFault, match="no weights at"):
        Onnx(str(tmp_path / "gone.onnx"))
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(UsageFault, match="no ONNX model"):
        Onnx(str(tmp_path / "text.onnx"))


def texture(sigma_um: float, stain: float = 1.0, mpp: float = 0.5) -> np.ndarray:
    """uint8 [2048, 1536, 3]: tissue with nuclei of 8 um; the lower half is out of focus by a Gaussian of `sigma_um`."""
    rng = np.random.default_rng(1)
    spots = np.zeros((2048, 1536), np.float32)
    spots[rng.integers(0, 2048, 6000), rng.integers(0, 1536, 6000)] = 1.0
    nuclei = ndimage.grey_dilation(spots, footprint=np.hypot(*np.mgrid[-8:9, -8:9]) < 8.5)
    density = 0.15 + 0.45 * nuclei + 0.02 * rng.normal(size=nuclei.shape)
    density[:, :256] = density[:, -256:] = 0.0
    density[1024:] = ndimage.gaussian_filter(density[1024:], sigma_um / mpp)
    colour = np.array([0.8, 1.2, 0.6]) * stain
    light = 245 * 10.0 ** -(density[..., None] * colour) + rng.normal(0, 1.5, (2048, 1536, 1))
    return light.clip(0, 255).astype(np.uint8)


def every_below(found: Tissue, height: int) -> int:
    return int((found.mask | found.cut["blur"])[int(0.7 * height) :, 20:-20].sum())


@pytest.mark.parametrize(("stain", "sigma_um"), [(0.4, 4.0), (1.0, 4.0), (2.0, 4.0), (1.0, 12.0), (1.0, 25.0)])
def test_what_is_out_of_focus_is_cut_out(toy_slide: Callable[..., Path], stain: float, sigma_um: float) -> None:
    with open_slide(toy_slide("half.tif", image=texture(sigma_um, stain))) as slide:
        _, found = survey(slide, Classic(), RULES)
        height = len(found.mask)
        assert 0.3 < found.fractions["blur"] < 0.6
        assert found.cut["blur"][int(0.7 * height) :, 20:-20].sum() > 0.9 * every_below(found, height)
        assert not found.cut["blur"][: int(0.4 * height)].any()
        _, every = survey(slide, Classic(), {**RULES, "least_sharpness": 0})
        assert every.fractions["blur"] == 0.0
        assert every.mask.sum() > 1.4 * found.mask.sum()


def test_a_sharp_slide_loses_nothing_and_sharpness_falls_with_blur(toy_slide: Callable[..., Path]) -> None:
    with open_slide(toy_slide("sharp.tif", image=texture(0.3))) as slide:
        _, found = survey(slide, Classic(), RULES)
        assert found.lost == 0.0
        tile = slide.read(500, 300, 384, 96)
    values = [focus.sharpness(ndimage.gaussian_filter(tile, (s / 2, s / 2, 0)), 2.0) for s in (0.0, 1.5, 3.0, 4.5)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.6
    assert values[-1] < 0.25
    assert np.isnan(focus.sharpness(np.full((96, 96, 3), 200, np.uint8), 2.0))


def test_regions_restrict_or_replace_the_mask(toy_slide: Callable[..., Path]) -> None:
    square = [[[256.0, 256.0], [512.0, 256.0], [512.0, 512.0], [256.0, 512.0]]]
    corner = [[[0.0, 0.0], [128.0, 0.0], [128.0, 128.0], [0.0, 128.0]]]  # glass, which the segmenter never takes
    with open_slide(toy_slide()) as slide:
        _, whole = survey(slide, Classic(), RULES)
        _, part = survey(slide, Classic(), RULES, Regions((), (square,), "s.geojson"))
        assert 0 < part.mask.sum() < whole.mask.sum()
        assert not (part.mask & ~whole.mask).any()
        _, own = survey(slide, Classic(), RULES, Regions((corner,), (), "s.geojson"))
        assert own.mask[:7, :7].all()
        assert own.mask.sum() <= 9 * 9
        far = [[[9e5, 9e5], [9.1e5, 9e5], [9.1e5, 9.1e5]]]
        with pytest.raises(ItemFault, match="level-0 pixels"):
            survey(slide, Classic(), RULES, Regions((), (far,), "s.geojson"))
