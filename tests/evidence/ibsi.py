"""The IBSI digital phantom through our own path, against the consensus values: `python tests/evidence/ibsi.py`.

Phantom and values are those of the Image Biomarker Standardisation Initiative, part 1 (Zwanenburg et al., Radiology 295
(2020) 328), below MTL_REAL_DATA in `radiology/ibsi`. The way is NIfTI -> record -> features, as `mtl extract` goes it,
with bins of width 1, since the phantom's grey levels are its intensities. A value agrees when it differs by no more
than the published tolerance and the rounding of the published value to three digits. `--all` prints every row,
`--markdown` a table for a page.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nsclc_mtl.records import Volume
from nsclc_mtl.scans import radiomics, suv, volume

# ---------------------------------------------------------------------------------------------------------------------
# IBSI's tag -> PyRadiomics' name. A function takes the features and gives what the library's documentation derives.
# ---------------------------------------------------------------------------------------------------------------------

Get = str | Callable[[Mapping[str, float]], float]
SHAPE: dict[str, Get] = {
    "morph_volume": "shape_MeshVolume", "morph_vol_approx": "shape_VoxelVolume",
    "morph_area_mesh": "shape_SurfaceArea", "morph_av": "shape_SurfaceVolumeRatio",
    "morph_sphericity": "shape_Sphericity", "morph_diam": "shape_Maximum3DDiameter",
    "morph_pca_maj_axis": "shape_MajorAxisLength", "morph_pca_min_axis": "shape_MinorAxisLength",
    "morph_pca_least_axis": "shape_LeastAxisLength", "morph_pca_elongation": "shape_Elongation",
    "morph_pca_flatness": "shape_Flatness",
    # deprecated in the library because they follow from the others; its documentation gives these formulas
    "morph_comp_1": lambda f: f["shape_MeshVolume"] / math.sqrt(math.pi * f["shape_SurfaceArea"] ** 3),
    "morph_comp_2": lambda f: 36 * math.pi * f["shape_MeshVolume"] ** 2 / f["shape_SurfaceArea"] ** 3,
    "morph_sph_dispr": lambda f: 1 / f["shape_Sphericity"],
    "morph_asphericity": lambda f: 1 / f["shape_Sphericity"] - 1,
}  # fmt: skip
FIRST: dict[str, Get] = {
    "stat_mean": "firstorder_Mean", "stat_var": "firstorder_Variance", "stat_skew": "firstorder_Skewness",
    "stat_kurt": "firstorder_Kurtosis", "stat_median": "firstorder_Median", "stat_min": "firstorder_Minimum",
    "stat_p10": "firstorder_10Percentile", "stat_p90": "firstorder_90Percentile", "stat_max": "firstorder_Maximum",
    "stat_iqr": "firstorder_InterquartileRange", "stat_range": "firstorder_Range",
    "stat_mad": "firstorder_MeanAbsoluteDeviation", "stat_rmad": "firstorder_RobustMeanAbsoluteDeviation",
    "stat_energy": "firstorder_Energy", "stat_rms": "firstorder_RootMeanSquared",
    "stat_cov": lambda f: math.sqrt(f["firstorder_Variance"]) / f["firstorder_Mean"],
    "ih_entropy": "firstorder_Entropy", "ih_uniformity": "firstorder_Uniformity",
}  # fmt: skip
GLCM: dict[str, Get] = {
    "joint_max": "MaximumProbability", "joint_avg": "JointAverage", "joint_var": "SumSquares",
    "joint_entr": "JointEntropy", "diff_avg": "DifferenceAverage", "diff_var": "DifferenceVariance",
    "diff_entr": "DifferenceEntropy", "sum_avg": "SumAverage", "sum_var": "ClusterTendency",
    "sum_entr": "SumEntropy", "energy": "JointEnergy", "contrast": "Contrast", "dissimilarity": "DifferenceAverage",
    "inv_diff": "Id", "inv_diff_norm": "Idn", "inv_diff_mom": "Idm", "inv_diff_mom_norm": "Idmn",
    "inv_var": "InverseVariance", "corr": "Correlation", "auto_corr": "Autocorrelation",
    "clust_tend": "ClusterTendency", "clust_shade": "ClusterShade", "clust_prom": "ClusterProminence",
    "info_corr1": "Imc1", "info_corr2": "Imc2",
}  # fmt: skip
GLRLM: dict[str, Get] = {
    "sre": "ShortRunEmphasis", "lre": "LongRunEmphasis", "lgre": "LowGrayLevelRunEmphasis",
    "hgre": "HighGrayLevelRunEmphasis", "srlge": "ShortRunLowGrayLevelEmphasis",
    "srhge": "ShortRunHighGrayLevelEmphasis", "lrlge": "LongRunLowGrayLevelEmphasis",
    "lrhge": "LongRunHighGrayLevelEmphasis", "glnu": "GrayLevelNonUniformity",
    "glnu_norm": "GrayLevelNonUniformityNormalized", "rlnu": "RunLengthNonUniformity",
    "rlnu_norm": "RunLengthNonUniformityNormalized", "r_perc": "RunPercentage", "gl_var": "GrayLevelVariance",
    "rl_var": "RunVariance", "rl_entr": "RunEntropy",
}  # fmt: skip
GLSZM: dict[str, Get] = {
    "sze": "SmallAreaEmphasis", "lze": "LargeAreaEmphasis", "lgze": "LowGrayLevelZoneEmphasis",
    "hgze": "HighGrayLevelZoneEmphasis", "szlge": "SmallAreaLowGrayLevelEmphasis",
    "szhge": "SmallAreaHighGrayLevelEmphasis", "lzlge": "LargeAreaLowGrayLevelEmphasis",
    "lzhge": "LargeAreaHighGrayLevelEmphasis", "glnu": "GrayLevelNonUniformity",
    "glnu_norm": "GrayLevelNonUniformityNormalized", "zsnu": "SizeZoneNonUniformity",
    "zsnu_norm": "SizeZoneNonUniformityNormalized", "z_perc": "ZonePercentage", "gl_var": "GrayLevelVariance",
    "zs_var": "ZoneVariance", "zs_entr": "ZoneEntropy",
}  # fmt: skip
NGTDM: dict[str, Get] = {
    "coarseness": "Coarseness", "contrast": "Contrast", "busyness": "Busyness", "complexity": "Complexity",
    "strength": "Strength",
}  # fmt: skip
GLDM: dict[str, Get] = {  # the library's grey level dependence matrix is IBSI's neighbouring grey level dependence
    "lde": "SmallDependenceEmphasis", "hde": "LargeDependenceEmphasis", "lgce": "LowGrayLevelEmphasis",
    "hgce": "HighGrayLevelEmphasis", "ldlge": "SmallDependenceLowGrayLevelEmphasis",
    "ldhge": "SmallDependenceHighGrayLevelEmphasis", "hdlge": "LargeDependenceLowGrayLevelEmphasis",
    "hdhge": "LargeDependenceHighGrayLevelEmphasis", "glnu": "GrayLevelNonUniformity",
    "dcnu": "DependenceNonUniformity", "dcnu_norm": "DependenceNonUniformityNormalized",
    "gl_var": "GrayLevelVariance", "dc_var": "DependenceVariance", "dc_entr": "DependenceEntropy",
    # deprecated: the grey levels' own uniformity, in first order
    "glnu_norm": lambda f: f["firstorder_Uniformity"],
}  # fmt: skip
TEXTURES = {"cm": ("glcm", GLCM), "rlm": ("glrlm", GLRLM), "szm": ("glszm", GLSZM), "ngt": ("ngtdm", NGTDM)}
TEXTURES["ngl"] = ("gldm", GLDM)
# IBSI's ways to aggregate -> the library's settings. Within slices the library counts all slices into one matrix a
# direction, which is IBSI's 2.5D; a matrix a slice (2D) it does not have.
AVERAGED = {"3D_avg": {}, "2_5D_avg": {"force2D": True}}
MERGED = {"3D_comb": {"weightingNorm": "no_weighting"}, "2_5D_comb": {"force2D": True, "weightingNorm": "no_weighting"}}
SINGLE = {"3D": {}, "2_5D": {"force2D": True}}
_AXES = "the library divides the covariance of the voxels by n; n - 1 gives the consensus value (n = 74: 0.7 % more)"
WHY = {
    "stat_kurt": "the library does not subtract 3 (documented); IBSI's is the excess",
    **dict.fromkeys(("morph_pca_maj_axis", "morph_pca_min_axis", "morph_pca_least_axis"), _AXES),
}
ABSENT = {
    "2D": "a matrix a slice (2D): the library counts all slices into one (2.5D)",
    "dzm": "grey level distance zones: no such class",
    "ivh": "intensity-volume histogram: no such class",
    "ih": "statistics of the binned histogram: only entropy and uniformity",
    "morph": "density of boxes, ellipsoids and hulls, centre of mass shift, Moran, Geary: no such features",
    "stat": "median absolute and quartile dispersion: no such features",
    "ngl": "dependence count percentage (always 1) and energy: none or deprecated",
}


@dataclass
class Row:
    """One consensus value and what we found; `ours` is NaN where nothing can be compared."""

    tag: str
    name: str
    reference: float
    tolerance: float
    ours: float

    @property
    def agrees(self) -> bool:
        """Whether the difference stays within the tolerance and the rounding of the reference to three digits."""
        digits = 0.5 * 10 ** (math.floor(math.log10(abs(self.reference))) - 2) if self.reference else 5e-4
        return abs(self.ours - self.reference) <= self.tolerance + digits * (1 + 1e-9)


def rows(folder: Path) -> list[Row]:
    """Every consensus value that IBSI gives for the digital phantom, in its order."""
    with (folder / "reference_values" / "ibsi_1_dig_phantom.csv").open() as file:
        told = [line for line in csv.DictReader(file, delimiter=";") if line["reference value"]]
    found = dict(_found(folder))
    made = []
    for line in told:
        name, ours = found.get(line["tag"], ("", math.nan))
        made.append(Row(line["tag"], name, float(line["reference value"]), float(line["tolerance"]), ours))
    return made


def phantom(folder: Path) -> Volume:
    """The phantom as our record."""
    files = folder / "ibsi_1_digital_phantom" / "nifti"
    return volume.load(files / "image" / "phantom.nii.gz", files / "mask" / "mask.nii.gz", "MR")


def _found(folder: Path) -> Iterator[tuple[str, tuple[str, float]]]:
    ours = phantom(folder)

    def measured(classes: list[str], **setting: object) -> dict[str, float]:
        wanted = {"setting": {"binWidth": 1, **setting}, "featureClass": {c: [] for c in classes}}
        return {n.removeprefix("original_"): v for n, v in radiomics.features(ours, wanted).items()}

    plain = measured(["shape", "firstorder"])
    for tag, get in {**SHAPE, **FIRST}.items():
        yield tag, _value(plain, get, "")
    yield "loc_peak_loc", ("suv.peak(at_hottest=True)", suv.peak(ours, at_hottest=True))
    yield "loc_peak_glob", ("suv_peak", suv.peak(ours))
    for short, (feature_class, names) in TEXTURES.items():
        several = {**AVERAGED, **MERGED} if short in ("cm", "rlm") else SINGLE
        for aggregation, setting in several.items():
            texture = {**plain, **measured([feature_class], **setting)}
            for tag, get in names.items():
                yield f"{short}_{tag}_{aggregation}", _value(texture, get, f"{feature_class}_")


def _value(found: Mapping[str, float], get: Get, prefix: str) -> tuple[str, float]:
    if callable(get):
        return "(derived)", float(get(found))
    return prefix + get, found[prefix + get]


def why(row: Row) -> str:
    """The reason of a deviation or absence, as the library documents it."""
    if row.tag in WHY:
        return WHY[row.tag]
    parts = row.tag.split("_")
    dimension = "2D" if "2D" in parts else ""
    return ABSENT.get("dzm" if parts[0] == "dzm" else dimension or parts[0], "")


def main() -> None:
    """Prints what agrees, what deviates and why, and what the library does not have."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every row, not only the deviations")
    parser.add_argument("--markdown", action="store_true", help="rows as a Markdown table")
    options = parser.parse_args()
    folder = Path(os.environ.get("MTL_REAL_DATA", "../shared/data")) / "radiology" / "ibsi"
    if not folder.is_dir():
        raise SystemExit("no IBSI phantom: set MTL_REAL_DATA to the folder that holds radiology/ibsi")
    table = rows(folder)
    compared = [row for row in table if not math.isnan(row.ours)]
    deviating = [row for row in compared if not row.agrees]
    bar = "| " if options.markdown else ""
    if options.markdown:
        print("| IBSI tag | ours | consensus | tolerance | value | verdict |\n|---|---|---|---|---|---|")
    for row in compared if options.all or options.markdown else deviating:
        cells = [row.tag, row.name, f"{row.reference:g}", f"{row.tolerance:g}", f"{row.ours:.4g}"]
        verdict = "agrees" if row.agrees else f"deviates: {why(row) or 'unexplained'}"
        print(bar + (" | " if bar else "  ").join([*cells, verdict]) + (" |" if bar else ""))
    print(f"\n{len(compared)} of {len(table)} consensus values can be compared; {len(compared) - len(deviating)} agree")
    groups: dict[str, int] = {}
    for row in table:
        if math.isnan(row.ours):
            groups[why(row) or "unmapped: " + row.tag] = groups.get(why(row) or "unmapped: " + row.tag, 0) + 1
    for reason, count in groups.items():
        print(f"{count:4d} not compared: {reason}")


if __name__ == "__main__":
    main()
