"""An H&E section drawn from numbers: tissue, its stain through optical density, and where the tumour truly lies.

What a pixel looks like depends on the patient only through the histology statistic (inside the tumour), the site's
look and nuisance. Only exact arithmetic (+ - * / sqrt) runs over pixels; exponentials, sines and angles pass through
small rounded tables, so that the same seed gives the same bytes whatever vector unit the processor has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree
from skimage.measure import find_contours

from nsclc_mtl.phantom.nuclei import Tissue, benign_nuclei, lognormal, normal_nuclei, stamp, tumour_nuclei

MPP = 0.5
SIDE_PX = (1536, 1920)  # width and height, multiples of 64
TUMOUR_SHARE = (0.10, 0.40)  # of the tissue, independent of histology
# the lower the level, the more of it: benign epithelium covers a twelfth to a half of the rest
BENIGN_LEVEL, MUCOID_LEVEL, LYMPH_LEVEL = (-0.1, 1.4), (0.2, 1.6), (0.8, 2.2)
TUMOUR_BLUE, BENIGN_BLUE, MUCOID_BLUE, PINK = 0.085, 0.02, 0.08, 0.05
COARSE = 8  # edge of a cell of the coarse grid on which regions are laid out, px

# optical density of one unit of stain in R, G, B (after Ruifrok and Johnston 2001, adapted by eye) and per look
STAINS = {
    "": ((0.62, 0.72, 0.30), (0.10, 0.92, 0.30)),
    "A": ((0.55, 0.78, 0.28), (0.06, 0.95, 0.22)),
    "B": ((0.74, 0.66, 0.22), (0.16, 0.90, 0.36)),
    "C": ((0.62, 0.70, 0.42), (0.12, 0.86, 0.50)),
}
STRENGTH_SD = 0.12  # log-normal, per slide and stain
GLASS = (0.93, 0.98)  # transmission of the empty glass, per slide
STEPS = 384  # levels of each stain in the colour table
UNIT = 1.6  # stain concentration at the last level

_VARIANCE = 151 / 315  # mean over positions of the sum of squared cubic B-spline weights


@dataclass
class Section:
    """A drawn slide and the outline of its tumour."""

    image: np.ndarray  # uint8 [h, w, 3]
    rings: list[list[list[int]]]  # closed outlines of the tumour, (x, y) in level-0 pixels
    tumour: np.ndarray  # bool [h / COARSE, w / COARSE]
    tissue: np.ndarray  # bool [h / COARSE, w / COARSE]


def draw(rng: np.random.Generator, z: float, reactive: float, mimic: float, look: str = "") -> Section:
    """One section in the stain of a site. Its tumour nuclei show `z`, its normal ones `reactive`, and those of its
    benign epithelium show `mimic` as tumour would.
    """
    w, h = (int(64 * rng.integers(SIDE_PX[0] // 64, SIDE_PX[1] // 64 + 1)) for _ in range(2))
    shape = (h, w)
    tissue_c, tumour_c = _regions(rng, shape)
    # soft full-resolution membership, with a ragged edge
    ragged = 0.035 * _noise(rng, shape, 14)
    tissue = soft(_grow(tissue_c, shape) + ragged, 0.02)
    tumour = soft(_grow(tumour_c, shape) + 0.5 * ragged, 0.02)

    # normal tissue: benign epithelium, mucoid ground, collagen, airspaces between septa, and lymphocytes, mixed
    # differently in every slide. Epithelium has the nuclei of tumour and mucoid ground its colour, but neither has both
    terrain = _noise(rng, shape, 150)
    benign = soft(terrain - rng.uniform(*BENIGN_LEVEL) - 4 * tumour, 0.04)
    mucoid = soft(-terrain - rng.uniform(*MUCOID_LEVEL) - 4 * tumour, 0.25)
    cells = np.maximum(tumour, benign)
    airy = soft(_noise(rng, shape, 260) + rng.uniform(-0.9, 0.3) - 4 * cells, 0.03)
    drift, fibre = _fibres(rng, shape)
    septum = soft(0.075 - _walls(rng, shape, 130) + 0.012 * _noise(rng, shape, 10), 0.012)
    lymph = soft(_noise(rng, shape, 120) - rng.uniform(*LYMPH_LEVEL) - 4 * cells, 0.12)
    solid = 1 - airy * (1 - septum) * (1 - lymph)
    cleft = soft(fibre - 1.75, 0.2) * (1 - lymph) * (1 - cells)
    nest = soft(_walls(rng, shape, 130, stretch=0.75) + 0.03 * _noise(rng, shape, 20) - 0.06, 0.02) * cells

    matter = tissue * solid * (1 - 0.85 * cleft)
    mottle, grain = _noise(rng, shape, 40), _noise(rng, shape, 2.2)
    bluish = nest * (TUMOUR_BLUE * tumour + BENIGN_BLUE * benign)  # cytoplasm
    eosin = (0.23 + 0.055 * fibre) * (1 - nest) + (0.17 + 0.012 * mottle + PINK * benign) * nest
    eosin = eosin * (1 - 0.45 * lymph) * (1 - 0.25 * mucoid) + 0.016 * grain
    blue = 0.035 + 0.012 * mottle + bluish + 0.08 * lymph + MUCOID_BLUE * mucoid * (1 - nest) + 0.012 * grain

    nuclei, rough = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    where = Tissue(tissue, tumour, benign, nest, airy, lymph, (solid > 0.6) & (cleft < 0.4), drift)
    for batch in (tumour_nuclei(rng, where, z), benign_nuclei(rng, where, mimic), normal_nuclei(rng, where, reactive)):
        stamp(nuclei, rough, batch)
    chromatin = nuclei * (1 + rough * grain)
    covered = np.minimum(nuclei * 2.0, 1)
    blue = np.maximum(matter * blue * (1 - covered) + chromatin, 0)
    eosin = np.maximum(matter * eosin * (1 - 0.55 * covered), 0)
    return Section(_stain(rng, blue, eosin, look), _rings(tumour_c), tumour_c > 0, tissue_c > 0)


# ---------------------------------------------------------------------------------------------------------------------
# Fields
# ---------------------------------------------------------------------------------------------------------------------


def spline(n: int, cell: float) -> sparse.csr_matrix:
    """Cubic B-spline weights [n, control points] for control points every `cell` pixels."""
    at = np.arange(n) / cell
    base = np.floor(at).astype(int)
    t = at - base
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    columns = base + np.arange(4)[:, None]
    rows = np.broadcast_to(np.arange(n), columns.shape)
    values = (weights.ravel().astype(np.float32), (rows.ravel(), columns.ravel()))
    return sparse.csr_matrix(values, shape=(n, base[-1] + 4))


def _noise(rng: np.random.Generator, shape: tuple[int, int], cell: float, cell_x: float | None = None) -> np.ndarray:
    """Smooth noise of unit variance, float32 [h, w], correlated over about `cell` pixels (`cell_x` across)."""
    down, across = spline(shape[0], cell), spline(shape[1], cell_x or cell)
    knots = rng.standard_normal((down.shape[1], across.shape[1]), dtype=np.float32) / np.float32(_VARIANCE)
    return down @ np.ascontiguousarray((across @ knots.T).T)


def _grow(coarse: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A field of the coarse grid at full resolution, float32 [h, w]; smooth."""
    padded = np.pad(coarse.astype(np.float32), (1, 2), mode="edge")
    down, across = spline(shape[0], COARSE), spline(shape[1], COARSE)
    return down @ np.ascontiguousarray((across @ padded[: down.shape[1], : across.shape[1]].T).T)


def soft(level: np.ndarray, width: float) -> np.ndarray:
    """0 where the level is well below zero, 1 well above, a smooth step of this half-width between."""
    t = level * np.float32(0.5 / width)
    t += np.float32(0.5)
    np.clip(t, 0, 1, out=t)
    steep = -2 * t
    steep += 3
    t *= t
    t *= steep
    return t


def _star(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, rough: float) -> np.ndarray:
    """Distance from the origin over the radius of a smooth random outline (mean radius 1), rounded."""
    angle = np.arctan2(y, x)
    radius = np.ones_like(angle)
    for k in range(2, 8):
        a, b = rng.standard_normal(2) * rough / k
        radius += a * np.cos(k * angle) + b * np.sin(k * angle)
    return np.round(np.sqrt(x * x + y * y) / np.maximum(radius, 0.35), 6)


def _regions(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Levels of tissue and tumour on the coarse grid, positive inside."""
    h, w = shape
    y, x = np.mgrid[: h // COARSE, : w // COARSE] * float(COARSE) + COARSE / 2
    tissue = 1 - _star(rng, (x - w / 2) / (0.42 * w), (y - h / 2) / (0.42 * h), 0.16)
    share = float(rng.uniform(*TUMOUR_SHARE))
    inside = np.argwhere(tissue > 0.3)
    cy, cx = inside[rng.integers(len(inside))] * COARSE
    distance = _star(rng, (x - cx) / 400, (y - cy) / 400, 0.35)
    edge = np.quantile(distance[tissue > 0], share)
    return tissue, np.minimum(1 - distance / edge, 2 * tissue)


def _walls(rng: np.random.Generator, shape: tuple[int, int], cell: float, stretch: float = 1.0) -> np.ndarray:
    """Distance to the nearest wall of a foam of cells about `cell` pixels wide, in cell widths, float32 [h, w]."""
    h, w = shape
    gy, gx = np.mgrid[-1 : h // cell + 2, -1 : w // cell + 2]
    points = np.stack([gy.ravel(), gx.ravel()], 1) + rng.uniform(-0.45, 0.45, (gy.size, 2))
    points = points[rng.random(len(points)) < 0.8]
    y, x = np.mgrid[: h // COARSE, : w // COARSE] * (COARSE / cell)
    near = cKDTree(points * [stretch, 1]).query(np.stack([y.ravel() * stretch, x.ravel()], 1), k=2)[0]
    return _grow((near[:, 1] - near[:, 0]).reshape(y.shape) / 2, shape)


def _fibres(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Drift of the collagen lines (y + drift is constant along one), and the fibre pattern, float32 [h, w]."""
    h, w = shape
    x = np.arange(w, dtype=np.float32)
    drift = 55 * _noise(rng, shape, 170) + 12 * _noise(rng, shape, 45) + np.float32(rng.uniform(-0.8, 0.8)) * x
    top = int(-drift.min()) + 1
    stretched = _noise(rng, (h + top + int(drift.max()) + 2, w), 3.2, 38)
    rows = (drift + (np.arange(h, dtype=np.float32)[:, None] + top)).astype(np.int64)
    fine = stretched[rows, np.arange(w)]
    return drift, 0.8 * fine + 0.6 * _noise(rng, shape, 24)


# ---------------------------------------------------------------------------------------------------------------------
# Colour and outline
# ---------------------------------------------------------------------------------------------------------------------


def _stain(rng: np.random.Generator, blue: np.ndarray, eosin: np.ndarray, look: str) -> np.ndarray:
    """Beer-Lambert colours uint8 [h, w, 3] of the two stains; the law itself runs over a table of STEPS x STEPS."""
    strength = lognormal(rng, 2, STRENGTH_SD)
    glass = rng.uniform(*GLASS)
    density = np.array(STAINS[look]) * strength[:, None]
    amount = np.arange(STEPS) * (UNIT / (STEPS - 1))
    optical = amount[:, None, None] * density[0] + amount[None, :, None] * density[1]
    table = np.rint(255 * glass * 10.0 ** (-optical)).astype(np.uint8).reshape(-1, 3)
    scale = np.float32((STEPS - 1) / UNIT)
    h, e = (np.minimum((c * scale + np.float32(0.5)).astype(np.int32), STEPS - 1) for c in (blue, eosin))
    return np.take(table, h * STEPS + e, axis=0)


def _rings(level: np.ndarray) -> list[list[list[int]]]:
    """Closed outlines of the region where the coarse level is positive, (x, y) in level-0 pixels."""
    rings = []
    for outline in find_contours(np.pad(level, 1, constant_values=-1.0), 0.0):
        yx = np.rint((outline - 0.5) * COARSE).astype(int)
        ring = [[int(x), int(y)] for y, x in yx[:-1:2]]
        if len(ring) >= 4:
            rings.append([*ring, ring[0]])
    return rings
