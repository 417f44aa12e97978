"""Where in a scan a score comes from: Grad-CAM and occlusion, signed, as an array, a picture and a NIfTI file.

Red raises the score, blue lowers it. For survival hand in the log-risk, or minus the restricted mean survival time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nsclc_mtl.encoders.volumetric import SliceEncoder, VolumeEncoder
from nsclc_mtl.records import Embedding, UsageFault, Volume
from nsclc_mtl.scans.picture import three_planes


def grad_cam(encoder: VolumeEncoder | SliceEncoder, volume: Tensor, score: Callable[[Embedding], Tensor]) -> np.ndarray:
    """What each place adds to the score, signed: float32 [z, y, x] on the grid of the crop.

    `volume` is [1, 1, z, y, x]; `score` makes one number of the embedding (a class's logit, a log-risk). Selvaraju et
    al., ICCV 2017, without their final ReLU, because a place that lowers a risk is a finding too. The resolution is
    that of the encoder's last stage; between its cells the map is interpolated.
    """
    seen: list[Tensor] = []

    def keep(_: object, __: object, activation: Tensor) -> None:
        seen.append(activation)

    training = encoder.training
    hook = encoder.target_layer.register_forward_hook(keep)
    try:
        encoder.eval()  # dropout and augmentation would explain another crop than the one shown
        with torch.enable_grad():
            # without a leaf that wants gradients a frozen encoder would build no graph
            told = score(encoder(volume.detach().clone().requires_grad_()))
            (slope,) = torch.autograd.grad(told.reshape(()), seen[-1])
    finally:
        hook.remove()
        encoder.train(training)
    weights = slope.mean(dim=tuple(range(2, slope.ndim)), keepdim=True)
    coarse = (weights * seen[-1]).sum(dim=1, keepdim=True)
    return encoder.to_voxels(coarse, volume.shape[2:]).detach().cpu().numpy().astype(np.float32)


def occlusion(
    encoder: VolumeEncoder | SliceEncoder,
    volume: Tensor,
    scores: Mapping[str, Callable[[Embedding], Tensor]],
    windows: int = 4,
    batch: int = 16,
) -> dict[str, np.ndarray]:
    """What the score of each task loses where a cube of the crop is hidden, signed: float32 [z, y, x] a task.

    `volume` is [1, 1, z, y, x]; each score makes a number a row of the embedding. The hidden cube, 1/`windows` of an
    edge, takes the mean of the crop and moves by half of itself; a voxel has the mean over the cubes that hid it.
    Slower than Grad-CAM, and free of gradients (Zeiler and Fergus, ECCV 2014).
    """
    if windows < 2:
        raise UsageFault(f"windows={windows} must be 2 or more: a crop hidden as a whole says nothing of places")
    size = tuple(volume.shape[2:])
    edges = [max(2, -(-n // windows)) for n in size]
    corners = list(product(*(_steps(n, edge) for n, edge in zip(size, edges, strict=True))))
    boxes = [tuple(slice(at, at + e) for at, e in zip(corner, edges, strict=True)) for corner in corners]
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            seen = encoder(volume)
            whole = {task: score(seen) for task, score in scores.items()}
            count = torch.zeros(size, device=volume.device)
            lost = {task: torch.zeros(size, device=volume.device) for task in scores}
            for start in range(0, len(boxes), batch):
                part = boxes[start : start + batch]
                hidden = volume.repeat(len(part), 1, 1, 1, 1)
                for row, box in zip(hidden, part, strict=True):
                    row[(slice(None), *box)] = volume.mean()
                seen = encoder(hidden)
                for i, box in enumerate(part):
                    count[box] += 1
                    own = replace(seen, vector=seen.vector[i : i + 1])
                    for task, score in scores.items():
                        lost[task][box] += (whole[task] - score(own)).reshape(())
    finally:
        encoder.train(training)
    return {task: (told / count).cpu().numpy().astype(np.float32) for task, told in lost.items()}


def _steps(voxels: int, edge: int) -> list[int]:
    """Where a window begins along an axis, by half windows; the last one ends with the crop."""
    return [*range(0, voxels - edge, max(1, edge // 2)), voxels - edge]


def picture(
    cube: Volume,
    cam: np.ndarray,
    path: Path,
    title: str,
    score: str = "",
    legend: str = "raises (red) or lowers (blue) the score",
) -> None:
    """Writes a PNG: axial, coronal and sagittal plane of the crop through the strongest voxel of the map in the lesion.

    Where the crop holds no lesion voxel, through the strongest voxel of the map. `score` says what the map is of.
    """
    at = strongest(cam, cube.mask)
    unit = cube.spacing_mm[0]
    inside = float(np.abs(cam[cube.mask > 0]).sum() / max(float(np.abs(cam).sum()), 1e-12))
    note = f"score: {score}; " if score else ""
    note += f"planes through the map's strongest voxel in the lesion; outlined: lesion; voxels {unit:g} mm; "
    note += f"{100 * inside:.0f} % of the map's strength lies inside the outline"
    three_planes(cube, path, title, note, at=at, overlay=cam, overlay_legend=legend)


def strongest(cam: np.ndarray, mask: np.ndarray) -> tuple[int, int, int]:
    """The voxel (z, y, x) of the lesion where the map is strongest, whatever its sign; of the crop without a lesion."""
    strength = np.abs(cam) * (mask > 0) if mask.any() else np.abs(cam)
    if not strength.any():
        strength = (mask > 0).astype(np.float32)
    z, y, x = np.unravel_index(int(strength.argmax()), cam.shape)
    return int(z), int(y), int(x)


def write_nifti(values: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Writes a map [z, y, x] as NIfTI, `affine` that of its voxels (RAS+), so that any viewer lays it over the scan."""
    import nibabel

    image = nibabel.Nifti1Image(np.ascontiguousarray(values.transpose(2, 1, 0), np.float32), affine)
    image.set_sform(affine, code=1)  # 1: the scanner's own space
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
