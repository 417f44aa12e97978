"""What each modality shows of its sufficient statistic: tile features, radiomics, genes, proteins.

Everything here depends on the patient only through its statistic, its look and nuisance of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from nsclc_mtl.phantom.truth import NOISE_SD, SITES, STRUCTURE_SEED, Truth

STATISTIC_SD = float(np.sqrt(1 + NOISE_SD**2))

TILE_DIM = 48
TILE_LEVEL0 = 256  # edge of a tile, level-0 pixels
TILE_MPP = 0.5
TILES = (80, 160)  # tiles a slide, drawn uniformly
TUMOUR_SHARE = (0.10, 0.40)  # of the tiles, independent of histology
SIGNAL = 1.0  # shift of a tumour tile along the histology direction, per SD of the statistic
REACTIVE = 0.6  # SD, per patient, of the shift of its NORMAL tiles along the same direction: what blinds the mean
TUMOUR_SHIFT = 2.6  # distance of tumour from normal tissue along a direction of its own
TISSUES = 3  # kinds of normal tissue, mixed differently in every slide
TISSUE_SHIFT = 2.5
SLIDE_SD = 0.5  # shift of a whole slide (stain, thickness) along three directions
LOOK_SHIFT = 1.0  # shift of a site's slides along the same three directions

RADIOMICS, RADIOMICS_SIGNAL, RADIOMICS_VOLUME = 100, 8, 20
GENES, GENES_SIGNAL, GENE_MODULES, MODULE_SIZE = 500, 20, 5, 40
PROTEINS = 100
RADIOMICS_LOADING, GENE_LOADING, MODULE_LOADING, VOLUME_LOADING = 0.85, 0.70, 0.75, 0.90


@dataclass
class SlideFeatures:
    """One slide of the phantom at the level of features."""

    slide_id: str
    patient_id: str
    features: np.ndarray  # float32 [tile, TILE_DIM]
    coords: np.ndarray  # int64 [tile, 2], level-0 pixels, canonical (y, x) order
    tumour: np.ndarray  # bool [tile]


def structure() -> dict[str, np.ndarray]:
    """The fixed directions, loadings and offsets of the phantom (one population, whatever the cohort's seed)."""
    rng = np.random.Generator(np.random.PCG64(STRUCTURE_SEED))
    basis = np.linalg.qr(rng.standard_normal((TILE_DIM, TILE_DIM)))[0]
    # spread within a tissue: a few wide directions, the rest narrow; the histology direction is among the narrow ones
    spread = np.concatenate(
        [[0.7, 0.7], np.full(3, 0.7), [3.0, 2.5, 2.0, 1.7, 1.5], np.linspace(1.2, 0.6, TILE_DIM - 10)]
    )
    tissues = np.zeros((TISSUES, TILE_DIM))
    tissues[:, 10 : 10 + TISSUES] = TISSUE_SHIFT * np.eye(TISSUES)
    return {
        "basis": basis,
        "spread": spread,
        "tissues": tissues,
        "slide_looks": LOOK_SHIFT * rng.standard_normal((len(SITES), 3)),
        "radiomics": rng.permutation(RADIOMICS),
        "radiomics_sign": rng.choice([-1.0, 1.0], RADIOMICS),
        "radiomics_looks": 0.7 * rng.standard_normal((len(SITES), RADIOMICS)),
        "radiomics_scale": rng.uniform(0.5, 40.0, RADIOMICS),
        "genes": rng.permutation(GENES),
        "gene_sign": rng.choice([-1.0, 1.0], GENES),
        "gene_looks": 0.7 * rng.standard_normal((len(SITES), GENES)),
        "protein_modules": rng.integers(0, 4, PROTEINS),
    }


def _looks(truth: Truth, offsets: np.ndarray) -> np.ndarray:
    """Offset of each patient's look, [patient, dim]; zero where the cohort has no site effect."""
    table = np.vstack([offsets, np.zeros(offsets.shape[1])])
    number = {site: i for i, site in enumerate(SITES)}
    return table[[number.get(look, len(SITES)) for look in truth.patients["look"]]]


def slides(truth: Truth, seed: int) -> list[SlideFeatures]:
    """Every slide's tiles: 10-40 % tumour in one region; the statistic of histology shows in tumour tiles alone."""
    fixed = structure()
    looks = _looks(truth, fixed["slide_looks"])
    reactive_of = np.random.Generator(np.random.PCG64([seed, 11])).standard_normal(len(truth.patients)) * REACTIVE
    out = []
    for i, patient in enumerate(truth.patients["patient_id"]):
        for number in range(int(truth.slides[i])):
            rng = np.random.Generator(np.random.PCG64([seed, 12, i, number]))
            coords, tumour = _layout(rng)
            x = rng.standard_normal((len(coords), TILE_DIM)) * fixed["spread"]
            kinds = rng.choice(TISSUES, size=len(coords), p=rng.dirichlet(np.ones(TISSUES)))
            x[~tumour] += fixed["tissues"][kinds[~tumour]]
            x[~tumour, 0] += reactive_of[i]
            x[tumour, 0] += SIGNAL * truth.statistics[i, 0] / STATISTIC_SD
            x[tumour, 1] += TUMOUR_SHIFT
            x[:, 2:5] += looks[i] + SLIDE_SD * rng.standard_normal(3)
            slide_id = f"{patient}-S{number + 1}"
            out.append(SlideFeatures(slide_id, patient, (x @ fixed["basis"].T).astype(np.float32), coords, tumour))
    return out


def _layout(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates [tile, 2] of a round section on a grid, and the tumour region within it, bool [tile]."""
    n = int(rng.integers(TILES[0], TILES[1] + 1))
    side = int(np.ceil(np.sqrt(n * 1.6)))
    y, x = np.divmod(np.arange(side * side), side)
    far = (x - side / 2) ** 2 + (y - side / 2) ** 2 + rng.random(side * side)
    keep = np.sort(np.argsort(far, kind="stable")[:n])
    x, y = x[keep], y[keep]
    centre = rng.integers(n)
    from_centre = (x - x[centre]) ** 2 + (y - y[centre]) ** 2 + rng.random(n)
    tumour = np.zeros(n, bool)
    tumour[np.argsort(from_centre, kind="stable")[: max(2, round(n * rng.uniform(*TUMOUR_SHARE)))]] = True
    return np.stack([x, y], axis=1).astype(np.int64) * TILE_LEVEL0, tumour


def radiomics(truth: Truth, seed: int) -> pd.DataFrame:
    """Radiomic features of the patients with a scan: 8 carry the statistic of radiology, 20 only a volume, 72 noise."""
    fixed, n = structure(), len(truth.patients)
    rng = np.random.Generator(np.random.PCG64([seed, 21]))
    x = rng.standard_normal((n, RADIOMICS))
    volume = rng.standard_normal((n, 1))
    signal, volumes = np.arange(RADIOMICS_SIGNAL), np.arange(RADIOMICS_SIGNAL, RADIOMICS_SIGNAL + RADIOMICS_VOLUME)
    x[:, signal] = _load(x[:, signal], truth.statistics[:, [1]] / STATISTIC_SD, RADIOMICS_LOADING)
    x[:, volumes] = _load(x[:, volumes], volume, VOLUME_LOADING)
    x = (x * fixed["radiomics_sign"])[:, fixed["radiomics"]] + _looks(truth, fixed["radiomics_looks"])
    x = 10 + x * fixed["radiomics_scale"]
    columns = [f"original_phantom_F{i:03d}" for i in range(RADIOMICS)]
    return _table(truth, x, columns, "radiomics")


def rna(truth: Truth, seed: int) -> pd.DataFrame:
    """Expression z-scores: 20 of 500 genes carry the molecular statistic, 200 belong to five modules of no meaning."""
    fixed, n = structure(), len(truth.patients)
    rng = np.random.Generator(np.random.PCG64([seed, 31]))
    x = rng.standard_normal((n, GENES))
    x[:, :GENES_SIGNAL] = _load(x[:, :GENES_SIGNAL], truth.statistics[:, [2]] / STATISTIC_SD, GENE_LOADING)
    for module in range(GENE_MODULES):
        at = GENES_SIGNAL + module * MODULE_SIZE + np.arange(MODULE_SIZE)
        x[:, at] = _load(x[:, at], rng.standard_normal((n, 1)), MODULE_LOADING)
    x = (x * fixed["gene_sign"])[:, fixed["genes"]] + _looks(truth, fixed["gene_looks"])
    return _table(truth, x, [f"GENE{i:03d}" for i in range(GENES)], "rna")


def proteomics(truth: Truth, seed: int) -> pd.DataFrame:
    """Protein abundances with four modules and no meaning at all: the null modality."""
    fixed, n = structure(), len(truth.patients)
    rng = np.random.Generator(np.random.PCG64([seed, 41]))
    module = rng.standard_normal((n, 4))[:, fixed["protein_modules"]]
    return _table(
        truth,
        _load(rng.standard_normal((n, PROTEINS)), module, 0.5),
        [f"PROT{i:03d}" for i in range(PROTEINS)],
        "proteomics",
    )


def redundant(truth: Truth, seed: int) -> pd.DataFrame:
    """A table whose ten columns repeat the evidence of the slides: adding it must not help."""
    rng = np.random.Generator(np.random.PCG64([seed, 51]))
    x = _load(rng.standard_normal((len(truth.patients), 10)), truth.statistics[:, [0]] / STATISTIC_SD, 0.95)
    return _table(truth, x, [f"COPY{i:02d}" for i in range(10)], "wsi")


def site_coded(truth: Truth, seed: int) -> pd.DataFrame:
    """A table whose ten columns tell the site and nothing of the disease."""
    rng = np.random.Generator(np.random.PCG64([seed, 61]))
    centre = 2.0 * np.random.Generator(np.random.PCG64(STRUCTURE_SEED + 1)).standard_normal((len(SITES), 10))
    x = centre[[SITES.index(site) for site in truth.patients["site"]]] + rng.standard_normal((len(truth.patients), 10))
    return _table(truth, x, [f"BATCH{i:02d}" for i in range(10)], "wsi")


def _load(noise: np.ndarray, factor: np.ndarray, loading: float) -> np.ndarray:
    """Unit-variance columns that share a factor [patient, 1 or column] with this loading."""
    return loading * factor + np.sqrt(1 - loading**2) * noise


def _table(truth: Truth, x: np.ndarray, columns: list[str], modality: str) -> pd.DataFrame:
    has = truth.has[modality]
    frame = pd.DataFrame(np.round(x[has], 5), columns=columns)
    frame.insert(0, "patient_id", truth.patients["patient_id"].to_numpy()[has])
    return frame
