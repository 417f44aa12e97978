"""Nuclei of the drawn sections: where they lie, how they look for a given statistic, and how they reach the canvas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Nuclei of nests, in tumour and in benign epithelium, as straight laws of z: (value at z = 0, change per unit of z,
# least value). In tumour z is the statistic over its SD; in benign epithelium it is nuisance of the patient, so that
# big crowded nuclei alone tell neither grade nor tumour. Size, crowding and pleomorphism are what a pathologist grades.
RADIUS_PX = (8.6, 1.1, 5.0)  # 0.5 um/px: a nucleus of 8.6 um across
SPACING_PX = (25.0, -0.6, 20.0)  # between neighbours: high grades are crowded
SIZE_SPREAD = (0.17, 0.05, 0.04)  # log-normal SD of the radius
IRREGULARITY = (0.12, 0.04, 0.02)  # of the outline
COARSENESS = (0.17, 0.05, 0.04)  # of the chromatin
NUCLEOLI = (0.30, 0.15, 0.0)  # share of the nuclei that show one
RADIUS_MOST_PX = 14.0

# Nuclei of normal tissue, as laws of the patient's own nuisance (standard normal). Reactive tissue changes in the very
# ways in which tumour does, which blinds whoever averages over the whole slide.
NORMAL_RADIUS_PX = (5.6, 0.85, 3.5)
NORMAL_DENSITY = (1.0, 0.2, 0.3)
NORMAL_SIZE_SPREAD = (0.12, 0.04, 0.04)
NORMAL_IRREGULARITY = (0.07, 0.04, 0.02)
NORMAL_COARSENESS = (0.12, 0.05, 0.03)
NORMAL_NUCLEOLI = (0.08, 0.10, 0.0)
NORMAL_SPACING_PX = 15.5
# share of the places of that grid that are taken, at density 1
LYMPHOCYTES, SEPTAL, STROMAL, BETWEEN_NESTS = 0.85, 0.50, 0.16, 0.20


@dataclass
class Tissue:
    """What grows where: soft memberships, float32 [h, w] in 0..1."""

    tissue: np.ndarray
    tumour: np.ndarray
    benign: np.ndarray  # epithelium that is not tumour
    nest: np.ndarray
    airy: np.ndarray
    lymph: np.ndarray
    ground: np.ndarray  # bool: neither airspace nor cleft
    drift: np.ndarray  # px: y + drift is constant along a collagen fibre


@dataclass
class Nuclei:
    """Nuclei to draw, one row each."""

    points: np.ndarray  # float [nucleus, 2]: y, x
    radius: np.ndarray  # px, of the disc of equal area
    ratio: np.ndarray  # short over long axis
    direction: np.ndarray  # unit vectors [nucleus, 2] along the long axis: y, x
    dark: np.ndarray  # haematoxylin
    nucleolus: np.ndarray  # bool
    irregularity: float
    coarseness: float


def tumour_nuclei(rng: np.random.Generator, where: Tissue, z: float) -> Nuclei:
    """Nuclei of the tumour's nests; the only place where the statistic shows."""
    return _nest_nuclei(rng, where, where.tumour, z)


def benign_nuclei(rng: np.random.Generator, where: Tissue, mimic: float) -> Nuclei:
    """Nuclei of benign epithelium: by the laws of tumour, after the patient's nuisance."""
    return _nest_nuclei(rng, where, where.benign, mimic)


def _nest_nuclei(rng: np.random.Generator, where: Tissue, kind: np.ndarray, z: float) -> Nuclei:
    points = _scatter(rng, where.nest.shape, _line(SPACING_PX, z))
    at = tuple(points.astype(int).T)
    inside = (where.nest[at] > 0.6) & (where.tissue[at] > 0.5) & (kind[at] > 0.5)
    points = points[rng.random(len(points)) < 0.93 * inside]
    n = len(points)
    return Nuclei(
        points=points,
        radius=np.clip(_line(RADIUS_PX, z) * lognormal(rng, n, _line(SIZE_SPREAD, z)), RADIUS_PX[2], RADIUS_MOST_PX),
        ratio=rng.uniform(0.70, 0.98, n),
        direction=_unit(rng.standard_normal((n, 2))),
        dark=np.clip(0.62 + 0.10 * rng.standard_normal(n), 0.4, 0.9),
        nucleolus=rng.random(n) < _line(NUCLEOLI, z),
        irregularity=_line(IRREGULARITY, z),
        coarseness=_line(COARSENESS, z),
    )


def normal_nuclei(rng: np.random.Generator, where: Tissue, reactive: float) -> Nuclei:
    """Fibroblasts along the fibres, cells of the septa, lymphocytes: small and regular, swollen where reactive."""
    points = _scatter(rng, where.nest.shape, NORMAL_SPACING_PX)
    at = tuple(points.astype(int).T)
    nests = np.maximum(where.tumour[at], where.benign[at]) > 0.5
    loose = np.where(where.airy[at] > 0.5, SEPTAL, np.where(nests, BETWEEN_NESTS, STROMAL))
    chance = np.where(where.lymph[at] > 0.5, LYMPHOCYTES, _line(NORMAL_DENSITY, reactive) * loose)
    chance = chance * ((where.tissue[at] > 0.6) & (where.nest[at] < 0.2) & where.ground[at])
    points = points[rng.random(len(points)) < chance]
    at = tuple(points.astype(int).T)
    n = len(points)
    compact = (where.lymph[at] > 0.5) | (where.airy[at] > 0.5) | (rng.random(n) < 0.25)
    radius = _line(NORMAL_RADIUS_PX, reactive) * lognormal(rng, n, _line(NORMAL_SIZE_SPREAD, reactive))
    drift = where.drift
    y, x = (np.clip(a, 2, s - 3) for a, s in zip(at, drift.shape, strict=True))
    along = np.stack([-(drift[y, x + 2] - drift[y, x - 2]) / 4, 1 + (drift[y + 2, x] - drift[y - 2, x]) / 4], 1)
    return Nuclei(
        points=points,
        radius=np.clip(radius * np.where(compact, 0.95, 1.15), NORMAL_RADIUS_PX[2], 10.0),
        ratio=np.where(compact, rng.uniform(0.8, 1.0, n), rng.uniform(0.30, 0.5, n)),
        direction=_unit(along + 0.25 * rng.standard_normal((n, 2))),
        dark=np.clip(0.80 + 0.08 * rng.standard_normal(n), 0.55, 1.0),
        nucleolus=(rng.random(n) < _line(NORMAL_NUCLEOLI, reactive)) & compact,
        irregularity=_line(NORMAL_IRREGULARITY, reactive),
        coarseness=_line(NORMAL_COARSENESS, reactive),
    )


def stamp(canvas: np.ndarray, rough: np.ndarray, nuclei: Nuclei) -> None:
    """Draw nuclei onto the canvas (haematoxylin), and mark on `rough` how coarse their chromatin is; both [h, w]."""
    h, w = canvas.shape
    order = np.argsort(_reach(nuclei), kind="stable")  # sprites of a block share the size of the largest
    for start in range(0, len(order), 256):  # a block that stays in the cache
        rows = order[start : start + 256]
        ink, body, corner = _sprites(nuclei, rows)
        size = ink.shape[1]
        for i, (top, left) in enumerate(corner.tolist()):
            y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + size, h), min(left + size, w)
            own = (i, slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
            for field, sprite in ((canvas, ink), (rough, body)):
                np.maximum(field[y0:y1, x0:x1], sprite[own], out=field[y0:y1, x0:x1])


def _reach(nuclei: Nuclei) -> np.ndarray:
    """How far from its middle each nucleus can leave ink, px [nucleus]."""
    return nuclei.radius * np.maximum(1.6, 1.2 / np.sqrt(nuclei.ratio))


def _sprites(nuclei: Nuclei, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Haematoxylin and chromatin coarseness [nucleus, size, size] of some nuclei, and their corners [nucleus, 2]."""

    def each(values: np.ndarray) -> np.ndarray:
        return values[rows].astype(np.float32)[:, None, None]

    p, r, long = nuclei.points[rows], each(nuclei.radius), np.sqrt(each(nuclei.ratio))
    half = int(_reach(nuclei)[rows].max()) + 2
    part = (p % 1).astype(np.float32)[:, :, None, None]
    grid = np.mgrid[: 2 * half + 1, : 2 * half + 1].astype(np.float32) - half
    dy, dx = grid[0] - part[:, 0], grid[1] - part[:, 1]
    sy, sx = each(nuclei.direction[:, 0]), each(nuclei.direction[:, 1])
    u, v = (dx * sx + dy * sy) * (long / r), (dy * sx - dx * sy) / (long * r)
    uu, vv = u * u, v * v
    square = uu + vv + np.float32(1e-4)
    rho = np.sqrt(square)
    # lobes: second and third harmonics of the angle, written without trigonometry; the phase comes from the position
    phase = ((p[:, 0] * 0.37 + p[:, 1] * 0.61) % 2 - 1).astype(np.float32)[:, None, None]
    lobes = phase * (uu - vv) / square + (1 - np.abs(phase)) * u * (uu - 3 * vv) / (square * rho)
    rho = rho * (1 + np.float32(nuclei.irregularity) * lobes)
    body = np.clip((1 - rho) * r / np.float32(1.6) + np.float32(0.5), 0, 1)
    # open chromatin leaves a paler centre and a rim
    vesicle = np.float32(min(0.5, 1.5 * nuclei.coarseness))
    ink = each(nuclei.dark) * (1 - vesicle * np.clip(1 - rho * rho, 0, 1))
    spot = np.clip(np.float32(1.9) - np.sqrt((dx - 2 * phase) ** 2 + (dy + phase) ** 2) / np.float32(0.9), 0, 1)
    ink = body * (ink + np.float32(0.45) * spot * each(nuclei.nucleolus))
    return ink, body * np.float32(nuclei.coarseness), np.floor(p).astype(int) - half


def _scatter(rng: np.random.Generator, shape: tuple[int, ...], spacing: float) -> np.ndarray:
    """Points (y, x) of a jittered hexagonal grid, float [point, 2]."""
    height = spacing * 0.866
    y, x = np.mgrid[: int(shape[0] / height), : int(shape[1] / spacing)].astype(float)
    x += 0.5 * (y % 2)
    points = np.stack([y.ravel() * height, x.ravel() * spacing], 1) + spacing * 0.5
    points += rng.uniform(-0.3, 0.3, points.shape) * spacing
    return points[(points[:, 0] < shape[0]) & (points[:, 1] < shape[1])]


def _line(law: tuple[float, float, float], z: float) -> float:
    """Value of a straight law (at zero, slope, least) at z."""
    return max(law[2], law[0] + law[1] * z)


def lognormal(rng: np.random.Generator, n: int, spread: float) -> np.ndarray:
    """Positive factors around 1, rounded so that they do not depend on the last bit of the exponential."""
    return np.round(np.exp(spread * rng.standard_normal(n)), 6)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The same directions, of length one."""
    return vectors / np.maximum(np.sqrt((vectors * vectors).sum(1, keepdims=True)), 1e-6)
