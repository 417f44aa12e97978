"""Three planes through a lesion: grey scan, outline of the mask, an overlay where one is given, and a scale in mm.

Expects cubes along the patient's axes (x left, y back, z head), as `crop.lesion_volume` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from nsclc_mtl.records import Volume
from nsclc_mtl.scans.crop import lesion_volume

UNITS = {"CT": " HU", "PT": " SUV", "MR": ""}
INK = "#222222"
OUTLINE = "#00d0ff"
PLANES = (("axial", "R", "L", "A", "P"), ("coronal", "R", "L", "S", "I"), ("sagittal", "A", "P", "S", "I"))
"""Name of the plane and the letters at its left, right, upper and lower edge (radiological convention)."""


def three_planes(
    volume: Volume,
    path: Path,
    title: str,
    note: str,
    *,
    at: Sequence[int] | None = None,
    overlay: np.ndarray | None = None,
    overlay_legend: str = "",
    frame_mm: float | None = None,
) -> None:
    """Writes a PNG of the axial, coronal and sagittal plane through voxel `at` (z, y, x; default: the lesion's middle).

    `volume` is a cube with values 0..1; `overlay` float [z, y, x], signed, drawn red above and blue below zero and
    transparent near it; `frame_mm` draws the edge of a smaller cube around the middle.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    z, y, x = at if at is not None else middle_of(volume.mask)
    spacing = volume.spacing_mm[0]
    half = np.asarray(volume.array.shape)[::-1] * spacing / 2  # x, y, z
    figure = Figure(figsize=(10.7 if overlay is not None else 9.4, 3.95), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    strength = float(np.abs(overlay).max()) if overlay is not None else 0.0
    drawn = None
    light = volume.modality == "PT"  # nuclear medicine reads dark on white
    width = 0.317 if overlay is None else 0.2775  # room for the colour bar and its words
    for number, (plane, left, right, upper, lower) in enumerate(PLANES):
        axes = figure.add_axes((0.015 + (0.325 if overlay is None else 0.285) * number, 0.115, width, 0.755))
        wide, tall = (half[0], half[0], half[1])[number], (half[1], half[2], half[2])[number]
        extent = (-wide, wide, -tall, tall)
        grey, roi = (_plane(a, number, z, y, x) for a in (volume.array, volume.mask))
        axes.imshow(grey, cmap="gray_r" if light else "gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        if overlay is not None:
            drawn = _draw_overlay(axes, _plane(overlay, number, z, y, x), strength, extent)
        if roi.any() and not roi.all():
            axes.contour(roi, levels=[0.5], colors=OUTLINE, linewidths=1.1, extent=extent, origin="upper")
        if frame_mm is not None:
            side = frame_mm / 2
            box = ([-side, side, side, -side, -side], [-side, -side, side, side, -side])
            axes.plot(*box, color="#ffb000", lw=0.8, ls=(0, (4, 3)))
        axes.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
        axes.set_title(plane, fontsize=9, color=INK, pad=4)
        for letter, across, up in ((left, 0.03, 0.5), (right, 0.97, 0.5), (upper, 0.5, 0.96), (lower, 0.5, 0.04)):
            _label(axes, letter, across, up, light)
        if number == 0:
            _scale_bar(axes, wide, tall, light)
    if drawn is not None:
        bar = figure.colorbar(drawn, cax=figure.add_axes((0.88, 0.2, 0.012, 0.58)))
        bar.ax.tick_params(labelsize=7, length=2)
        bar.set_label(overlay_legend, fontsize=7.5)
    figure.text(0.015, 0.955, title, fontsize=10.5, weight="bold", color=INK, va="center")
    figure.text(0.015, 0.045, note, fontsize=7.5, color=INK, va="center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", metadata={"Software": "mtl"})


def quality_picture(
    scan: Volume,
    path: Path,
    scan_id: str,
    size_vox: int = 0,
    spacing_mm: float = 1.0,
    window: tuple[float, float] | None = None,
) -> None:
    """Writes the lesion as the scanner saw it, finer and wider than the encoder's cube, whose edge is drawn."""
    edge = size_vox * spacing_mm
    box = ndimage.find_objects(scan.mask)[0]
    lesion = max((part.stop - part.start) * mm for part, mm in zip(box, scan.spacing_mm, strict=True))
    wide = 1.25 * max(edge, lesion)
    size = int(np.clip(wide / min(scan.spacing_mm), 48, 192))
    view = lesion_volume(scan, size, wide / size, window)
    ml = float(scan.mask.sum() * np.prod(scan.spacing_mm)) / 1000
    shown = f"{window[0]:g} to {window[1]:g}{UNITS[scan.modality]}" if window else "1st to 99th percentile of the scan"
    voxels = " x ".join(f"{s:.3g}" for s in reversed(scan.spacing_mm))
    note = f"window {shown}; voxels {voxels} mm; lesion {ml:.1f} ml, outlined"
    note += f"; dashed: cube of {edge:g} mm for the encoder" if edge else ""
    three_planes(view, path, f"{scan_id}  ({scan.modality})", note, frame_mm=edge or None)


def middle_of(mask: np.ndarray) -> tuple[int, int, int]:
    """The lesion's voxel (z, y, x) nearest to its centre of mass, so that the planes always cut it; else the cube's."""
    where = np.argwhere(mask)
    if len(where) == 0:
        return tuple(n // 2 for n in mask.shape)
    z, y, x = where[np.linalg.norm(where - where.mean(0), axis=1).argmin()]
    return int(z), int(y), int(x)


def _plane(array: np.ndarray, number: int, z: int, y: int, x: int) -> np.ndarray:
    """One plane with the head up: rows from top to bottom, columns from left to right of the picture."""
    if number == 0:
        return array[z]
    return array[::-1, y] if number == 1 else array[::-1, :, x]


def _draw_overlay(axes: Any, plane: np.ndarray, strength: float, extent: tuple[float, ...]) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    strength = strength or 1.0
    shade = ScalarMappable(Normalize(-strength, strength), "RdBu_r")
    colours = shade.to_rgba(plane)
    colours[..., 3] = 0.65 * np.clip(np.abs(plane) / strength, 0, 1) ** 0.7  # what says nothing hides nothing
    axes.imshow(colours, extent=extent, interpolation="bilinear")
    return shade


def _scale_bar(axes: Any, wide: float, tall: float, light: bool) -> None:
    length = next(mm for mm in (100, 50, 20, 10, 5, 2, 1) if mm <= 0.7 * wide or mm == 1)
    start, base = -0.93 * wide, -0.93 * tall
    ink, around = (INK, "white") if light else ("white", "black")
    axes.plot([start, start + length], [base, base], color=around, lw=4.5, solid_capstyle="butt")
    axes.plot([start, start + length], [base, base], color=ink, lw=2.5, solid_capstyle="butt")
    _label(axes, f"{length} mm", (start + length / 2 + wide) / (2 * wide), 0.075, light)


def _label(axes: Any, text: str, across: float, up: float, light: bool) -> None:
    from matplotlib.patheffects import withStroke

    ink, around = (INK, "white") if light else ("white", "black")
    outline = [withStroke(linewidth=2, foreground=around)]
    axes.text(
        across, up, text, transform=axes.transAxes, color=ink, fontsize=8, ha="center", va="center",
        path_effects=outline,
    )  # fmt: skip
