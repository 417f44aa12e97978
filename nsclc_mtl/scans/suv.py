"""Uptake of a PET lesion in single numbers: SUVmax, SUVmean, SUVpeak, metabolic volume and total lesion glycolysis."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from nsclc_mtl.records import Volume

PEAK_RADIUS_MM = (3 / (4 * math.pi)) ** (1 / 3) * 10
"""Radius of the sphere of 1 ml that SUVpeak is the mean of: 6.2 mm."""


def scalars(volume: Volume, fraction_of_max: float = 0.41) -> dict[str, float]:
    """SUV scalars of the lesion, prefix `suv_`; SUV without unit (g/ml), volumes in ml, glycolysis in SUV x ml.

    `suv_max`, `suv_mean` and `suv_peak` are of the mask as drawn; `suv_mtv_ml` is the volume of that mask (the tumour
    volume) and `suv_tlg` = SUVmean x volume (Larson et al., Clin Positron Imaging 2 (1999) 159). `suv_mean_NN`,
    `suv_mtv_NN_ml` and `suv_tlg_NN` count only its voxels of at least NN % of SUVmax (41 %: Boellaard et al., EANM
    guideline 2.0, Eur J Nucl Med Mol Imaging 42 (2015) 328). Nothing grows beyond the mask.

    >>> volume = Volume(np.full((1, 1, 2), [4.0, 1.0]), np.ones((1, 1, 2)), (10.0,) * 3, np.eye(4), "PT")
    >>> told = scalars(volume)
    >>> told["suv_max"], told["suv_mtv_ml"], told["suv_tlg"], told["suv_mtv_41_ml"], told["suv_tlg_41"]
    (4.0, 2.0, 5.0, 1.0, 4.0)
    """
    inside = volume.array[volume.mask > 0].astype(np.float64)
    ml = float(np.prod(volume.spacing_mm)) / 1000
    hottest = float(inside.max())
    hot = inside[inside >= fraction_of_max * hottest]
    name = f"{100 * fraction_of_max:g}"
    return {
        "suv_max": hottest,
        "suv_mean": float(inside.mean()),
        "suv_peak": peak(volume),
        "suv_mtv_ml": len(inside) * ml,
        "suv_tlg": float(inside.sum()) * ml,
        f"suv_mean_{name}": float(hot.mean()) if len(hot) else math.nan,
        f"suv_mtv_{name}_ml": len(hot) * ml,
        f"suv_tlg_{name}": float(hot.sum()) * ml,
    }


def peak(volume: Volume, at_hottest: bool = False) -> float:
    """SUVpeak: the largest mean of a 1-ml sphere whose centre is a voxel of the lesion.

    Wahl et al. (PERCIST), J Nucl Med 50 (2009) 122S: a sphere of 1 cm3 (diameter 1.2 cm) placed where its mean is
    largest. Which voxels it holds is IBSI's rule for the global intensity peak: those whose centre lies within its
    radius, also outside the mask. `at_hottest` takes IBSI's local peak instead: the sphere centred on the hottest voxel
    (the largest mean of them where several are equally hot). Beyond the edge of the scan there is nothing to count.
    """
    reach = [int(PEAK_RADIUS_MM // mm) for mm in volume.spacing_mm]
    axes = [np.arange(-n, n + 1) * mm for n, mm in zip(reach, volume.spacing_mm, strict=True)]
    squares = np.meshgrid(*(np.square(a) for a in axes), indexing="ij")
    sphere = (sum(squares) <= PEAK_RADIUS_MM**2).astype(np.float64)
    box = ndimage.find_objects((volume.mask > 0).astype(np.uint8))[0]
    near = tuple(slice(max(0, part.start - n), part.stop + n) for part, n in zip(box, reach, strict=True))
    array, lesion = volume.array[near].astype(np.float64), volume.mask[near] > 0
    total = ndimage.convolve(array, sphere, mode="constant")
    mean = total / ndimage.convolve(np.ones_like(array), sphere, mode="constant")
    centres = lesion & (array == array[lesion].max()) if at_hottest else lesion
    return float(mean[centres].max())
