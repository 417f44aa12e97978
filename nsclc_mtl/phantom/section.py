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

MPP = 0.5
SIDE_PX = (1536, 2048)  # width and height, multiples of 64
TUMOUR_SHARE = (0.10, 0.40)  # of the tissue, independent of histology
COARSE = 8  # edge of a cell of the coarse grid on which regions are laid out, px

# nuclei of the tumour, as functions of z = statistic / SD: what the pathologist grades
TUMOUR_RADIUS_PX = (8.6, 1.5)  # at z = 0, and per unit of z; clipped to RADIUS_LIMITS_PX
RADIUS_LIMITS_PX = (5.0, 14.0)
TUMOUR_SPACING_PX = (25.5, -0.8)  # between neighbours: high grades are crowded
SIZE_SPREAD = (0.17, 0.065, 0.04)  # log-normal SD of the radius: at z = 0, per z, least
IRREGULARITY = (0.12, 0.05, 0.02)  # of the outline
COARSENESS = (0.17, 0.07, 0.04)  # of the chromatin
NUCLEOLI = (0.30, 0.20, 0.0)  # share of the nuclei with one (at most 1)
# nuclei of normal tissue, with the patient's own nuisance (standard normal): reactive tissue looks a little like tumour
NORMAL_RADIUS_PX = (5.6, 0.7)
NORMAL_DENSITY = (1.0, 0.18)

# optical density of one unit of stain in R, G, B (after Ruifrok and Johnston 2001, adapted by eye) and per look
STAINS = {
    "": ((0.62, 0.72, 0.30), (0.10, 0.92, 0.30)),
    "A": ((0.55, 0.78, 0.28), (0.06, 0.95, 0.22)),
    "B": ((0.74, 0.66, 0.22), (0.16, 0.90, 0.36)),
    "C": ((0.62, 0.70, 0.42), (0.12, 0.86, 0.50)),
}
STRENGTH_SD = 0.08  # log-normal, per slide and stain
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


def draw(rng: np.random.Generator, z: float, reactive: float, look: str = "") -> Section:
    """One section whose tumour nuclei show `z` and whose normal nuclei show `reactive`, in the stain of a site."""
    w, h = (int(64 * rng.integers(SIDE_PX[0] // 64, SIDE_PX[1] // 64 + 1)) for _ in range(2))
    shape = (h, w)
    tissue_c, tumour_c, share = _regions(rng, shape)
    # soft full-resolution membership, with a ragged edge
    ragged = 0.035 * _noise(rng, shape, 14)
    tissue = _soft(_grow(tissue_c, shape) + ragged, 0.02)
    tumour = _soft(_grow(tumour_c, shape) + 0.5 * ragged, 0.02)

    # normal tissue: collagen, airspaces between septa, and lymphocytes, mixed differently in every slide
    airy = _soft(_noise(rng, shape, 260) + rng.uniform(-0.9, 0.3) - 4 * tumour, 0.03)
    drift, fibre = _fibres(rng, shape)
    septum = _soft(0.075 - _walls(rng, shape, 130) + 0.012 * _noise(rng, shape, 10), 0.012)
    lymph = _soft(_noise(rng, shape, 120) - rng.uniform(1.3, 2.2) - 4 * tumour, 0.12)
    solid = 1 - airy * (1 - septum) * (1 - lymph)
    cleft = _soft(fibre - 1.75, 0.2) * (1 - lymph) * (1 - tumour)
    nest = _soft(_walls(rng, shape, 105, stretch=0.75) + 0.03 * _noise(rng, shape, 20) - 0.085, 0.02) * tumour

    matter = tissue * solid * (1 - 0.85 * cleft)
    mottle, grain = _noise(rng, shape, 40), _noise(rng, shape, 2.2)
    eosin = (0.23 + 0.055 * fibre) * (1 - nest) + (0.17 + 0.012 * mottle) * nest
    eosin = eosin * (1 - 0.45 * lymph) + 0.016 * grain
    blue = 0.035 + 0.012 * mottle + 0.085 * nest + 0.08 * lymph + 0.012 * grain

    nuclei, rough = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for batch in _nuclei(rng, shape, z, reactive, tissue, nest, airy, solid, lymph, cleft, tumour, drift):
        _stamp(nuclei, rough, *batch)
    chromatin = nuclei * (1 + rough * grain)
    covered = np.minimum(nuclei * 2.0, 1)
    blue = np.maximum(matter * blue * (1 - covered) + chromatin, 0)
    eosin = np.maximum(matter * eosin * (1 - 0.55 * covered), 0)
    return Section(_stain(rng, blue, eosin, look), _rings(tumour_c), tumour_c > 0, tissue_c > 0)


# ---------------------------------------------------------------------------------------------------------------------
# Fields
# ---------------------------------------------------------------------------------------------------------------------


def _spline(n: int, cell: float) -> sparse.csr_matrix:
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
    down, across = _spline(shape[0], cell), _spline(shape[1], cell_x or cell)
    knots = rng.standard_normal((down.shape[1], across.shape[1]), dtype=np.float32) / np.float32(_VARIANCE)
    return np.ascontiguousarray((across @ (down @ knots).T).T)


def _grow(coarse: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A field of the coarse grid at full resolution, float32 [h, w]; smooth."""
    padded = np.pad(coarse.astype(np.float32), (1, 2), mode="edge")
    down, across = _spline(shape[0], COARSE), _spline(shape[1], COARSE)
    return (across @ (down @ padded[: down.shape[1], : across.shape[1]]).T).T


def _soft(level: np.ndarray, width: float) -> np.ndarray:
    """0 where the level is well below zero, 1 well above, a smooth step of this half-width between."""
    t = np.clip(level * np.float32(0.5 / width) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def _star(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, rough: float) -> np.ndarray:
    """Distance from the origin over the radius of a smooth random outline (mean radius 1), rounded."""
    angle = np.arctan2(y, x)
    radius = np.ones_like(angle)
    for k in range(2, 8):
        a, b = rng.standard_normal(2) * rough / k
        radius += a * np.cos(k * angle) + b * np.sin(k * angle)
    return np.round(np.sqrt(x * x + y * y) / np.maximum(radius, 0.35), 6)


def _regions(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, float]:
    """Levels of tissue and tumour on the coarse grid (positive inside), and the tumour's share of the tissue."""
    h, w = shape
    y, x = np.mgrid[: h // COARSE, : w // COARSE] * float(COARSE) + COARSE / 2
    tissue = 1 - _star(rng, (x - w / 2) / (0.45 * w), (y - h / 2) / (0.45 * h), 0.16)
    share = float(rng.uniform(*TUMOUR_SHARE))
    inside = np.argwhere(tissue > 0.3)
    cy, cx = inside[rng.integers(len(inside))] * COARSE
    distance = _star(rng, (x - cx) / 400, (y - cy) / 400, 0.35)
    edge = np.quantile(distance[tissue > 0], share)
    return tissue, np.minimum(1 - distance / edge, 2 * tissue), share


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
# Nuclei
# ---------------------------------------------------------------------------------------------------------------------


def _scatter(rng: np.random.Generator, shape: tuple[int, int], spacing: float) -> np.ndarray:
    """Points (y, x) of a jittered hexagonal grid, float [point, 2]."""
    rows, columns = int(shape[0] / (spacing * 0.866)), int(shape[1] / spacing)
    y, x = np.mgrid[:rows, :columns].astype(float)
    x += 0.5 * (y % 2)
    points = np.stack([y.ravel() * spacing * 0.866, x.ravel() * spacing], 1) + spacing * 0.5
    points += rng.uniform(-0.3, 0.3, points.shape) * spacing
    return points[(points[:, 0] < shape[0]) & (points[:, 1] < shape[1])]


def _line(law: tuple[float, float, float], z: float) -> float:
    """Value of a straight law (at zero, slope, least) at z."""
    return max(law[2], law[0] + law[1] * z)


def _nuclei(rng, shape, z, reactive, tissue, nest, airy, solid, lymph, cleft, tumour, drift):  # type: ignore[no-untyped-def]
    """Batches (points, radius, axis ratio, direction, irregularity, darkness, chromatin, nucleoli) for `_stamp`."""
    # the tumour
    points = _scatter(rng, shape, TUMOUR_SPACING_PX[0] + TUMOUR_SPACING_PX[1] * float(np.clip(z, -3, 3)))
    at = tuple(points.astype(int).T)
    points = points[rng.random(len(points)) < 0.93 * (nest[at] > 0.6) * (tissue[at] > 0.5)]
    n = len(points)
    radius = (TUMOUR_RADIUS_PX[0] + TUMOUR_RADIUS_PX[1] * z) * _lognormal(rng, n, _line(SIZE_SPREAD, z))
    ratio = rng.uniform(0.70, 0.98, n)
    direction = _unit(rng.standard_normal((n, 2)))
    dark = np.clip(0.62 + 0.10 * rng.standard_normal(n), 0.4, 0.9)
    nucleolus = rng.random(n) < min(1.0, _line(NUCLEOLI, z))
    yield points, np.clip(radius, *RADIUS_LIMITS_PX), ratio, direction, _line(IRREGULARITY, z), dark, _line(COARSENESS, z), nucleolus

    # fibroblasts along the fibres, cells of the septa, lymphocytes
    points = _scatter(rng, shape, 15.5)
    at = tuple(points.astype(int).T)
    crowd = max(0.3, NORMAL_DENSITY[0] + NORMAL_DENSITY[1] * reactive)
    open_ = (tissue[at] > 0.6) * (nest[at] < 0.2) * (cleft[at] < 0.4) * (solid[at] > 0.6)
    chance = np.where(lymph[at] > 0.5, 0.85, crowd * np.where(airy[at] > 0.5, 0.50, np.where(tumour[at] > 0.5, 0.20, 0.16)))
    chosen = rng.random(len(points)) < chance * open_
    points, at = points[chosen], tuple(a[chosen] for a in at)
    n = len(points)
    round_ = (lymph[at] > 0.5) | (airy[at] > 0.5) | (rng.random(n) < 0.25)
    radius = (NORMAL_RADIUS_PX[0] + NORMAL_RADIUS_PX[1] * reactive) * _lognormal(rng, n, 0.10) * np.where(round_, 0.95, 1.15)
    ratio = np.where(round_, rng.uniform(0.8, 1.0, n), rng.uniform(0.30, 0.5, n))
    y, x = (np.clip(a, 2, s - 3) for a, s in zip(at, shape, strict=True))
    along = np.stack([-(drift[y, x + 2] - drift[y, x - 2]) / 4, 1 + (drift[y + 2, x] - drift[y - 2, x]) / 4], 1)
    direction = _unit(along + 0.25 * rng.standard_normal((n, 2)))
    dark = np.clip(0.80 + 0.08 * rng.standard_normal(n), 0.55, 1.0)
    yield points, np.clip(radius, 3.5, 9.0), ratio, direction, 0.04, dark, 0.10, np.zeros(n, bool)


def _lognormal(rng: np.random.Generator, n: int, spread: float) -> np.ndarray:
    return np.round(np.exp(spread * rng.standard_normal(n)), 6)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The same directions, length one, [n, 2] as (y, x)."""
    return vectors / np.maximum(np.sqrt((vectors * vectors).sum(1, keepdims=True)), 1e-6)


def _stamp(
    canvas: np.ndarray, rough: np.ndarray, points: np.ndarray, radius: np.ndarray, ratio: np.ndarray, direction: np.ndarray,
    irregularity: float, dark: np.ndarray, coarseness: float, nucleolus: np.ndarray, *, rng_free: bool = True,
) -> None:  # fmt: skip
    """Draw nuclei onto the canvas (haematoxylin) and mark how coarse their chromatin is."""
    del rng_free
    h, w = canvas.shape
    for chunk in range(0, len(points), 256):
        rows = slice(chunk, chunk + 256)
        p, r = points[rows], radius[rows, None, None]
        half = int(r.max() * 1.35) + 2
        corner = np.floor(p).astype(int) - half
        dy, dx = np.mgrid[: 2 * half + 1, : 2 * half + 1].astype(np.float32)
        dy, dx = (d - half - (p[:, i] % 1).astype(np.float32)[:, None, None] for i, d in enumerate((dy, dx)))
        sy, sx = (direction[rows, i].astype(np.float32)[:, None, None] for i in range(2))
        long = np.sqrt(ratio[rows, None, None])
        u = (dx * sx + dy * sy) * (long / r).astype(np.float32)
        v = (dy * sx - dx * sy) / (long * r).astype(np.float32)
        uu, vv = u * u, v * v
        square = uu + vv + np.float32(1e-4)
        rho = np.sqrt(square)
        # lobes of the outline: second and third harmonics of the angle, without trigonometry; a phase from the position
        phase = ((p[:, 0] * 0.37 + p[:, 1] * 0.61) % 2 - 1).astype(np.float32)[:, None, None]
        lobes = phase * (uu - vv) / square + (1 - np.abs(phase)) * (u * uu - 3 * u * vv) / (square * rho)
        rho = rho * (1 + np.float32(irregularity) * lobes)
        body = np.clip((1 - rho) * r.astype(np.float32) / np.float32(1.6) + np.float32(0.5), 0, 1)
        # a rim of chromatin, a paler centre where the chromatin is open, and the nucleolus
        vesicle = np.float32(min(0.5, 1.1 * coarseness))
        ink = dark[rows, None, None].astype(np.float32) * (1 - vesicle * np.clip(1 - rho * rho, 0, 1))
        spot = np.clip(np.float32(1.9) - np.sqrt((dx - phase * 2) ** 2 + (dy + phase) ** 2) / np.float32(0.9), 0, 1)
        ink = ink + np.float32(0.45) * spot * nucleolus[rows, None, None]
        ink = body * ink
        size = 2 * half + 1
        for i, (top, left) in enumerate(corner.tolist()):
            t, l, b, e = max(top, 0), max(left, 0), min(top + size, h), min(left + size, w)
            own = (i, slice(t - top, b - top), slice(l - left, e - left))
            np.maximum(canvas[t:b, l:e], ink[own], out=canvas[t:b, l:e])
            np.maximum(rough[t:b, l:e], body[own] * np.float32(coarseness), out=rough[t:b, l:e])


# ---------------------------------------------------------------------------------------------------------------------
# Colour and outline
# ---------------------------------------------------------------------------------------------------------------------


def _stain(rng: np.random.Generator, blue: np.ndarray, eosin: np.ndarray, look: str) -> np.ndarray:
    """Beer-Lambert colours uint8 [h, w, 3] of the two stains; the law itself runs over a table of STEPS x STEPS."""
    strength = _lognormal(rng, 2, STRENGTH_SD)
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
    from skimage.measure import find_contours

    rings = []
    for outline in find_contours(np.pad(level, 1, constant_values=-1.0), 0.0):
        yx = np.rint((outline - 0.5) * COARSE).astype(int)
        ring = [[int(x), int(y)] for y, x in yx[:-1:2]]
        if len(ring) >= 4:
            rings.append([*ring, ring[0]])
    return rings
