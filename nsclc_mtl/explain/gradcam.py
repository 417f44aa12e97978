"""Where in a scan a score comes from: Grad-CAM of the 3-D encoder, signed, as an array, a picture and a NIfTI file.

Red raises the score, blue lowers it. For survival hand in the log-risk, or minus the restricted mean survival time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nsclc_mtl.encoders.volumetric import VolumeEncoder
from nsclc_mtl.records import Embedding, Volume
from nsclc_mtl.scans.picture import three_planes


def grad_cam(encoder: VolumeEncoder, volume: Tensor, score: Callable[[Embedding], Tensor]) -> np.ndarray:
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
    weights = slope.mean(dim=(2, 3, 4), keepdim=True)
    coarse = (weights * seen[-1]).sum(dim=1, keepdim=True)
    fine = _to_voxels(coarse, volume.shape[2:], encoder.stride)
    return fine[0, 0].detach().cpu().numpy().astype(np.float32)


def _to_voxels(coarse: Tensor, size: Sequence[int], stride: int) -> Tensor:
    """Cells [1, 1, z', y', x'] interpolated to voxels [1, 1, z, y, x], each cell where its receptive field is centred.

    Odd kernels padded by half keep cell k over voxel k * stride. The usual resizing takes cells for tiles and would
    move the map by half a cell, which is nearly a centimetre at 2 mm.
    """
    axes = []
    for voxels, cells in zip(size, coarse.shape[2:], strict=True):
        place = torch.arange(voxels, device=coarse.device, dtype=coarse.dtype) / stride
        axes.append(2 * place.clamp(max=cells - 1) / max(cells - 1, 1) - 1)
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack([x, y, z], dim=-1)[None]
    return functional.grid_sample(coarse, grid, mode="bilinear", padding_mode="border", align_corners=True)


def picture(
    cube: Volume, cam: np.ndarray, path: Path, title: str, legend: str = "raises (red) or lowers (blue)"
) -> None:
    """Writes a PNG: axial, coronal and sagittal plane of the crop through the strongest voxel of the map in the lesion.

    Where the crop holds no lesion voxel, through the strongest voxel of the map.
    """
    at = strongest(cam, cube.mask)
    unit = cube.spacing_mm[0]
    inside = float(np.abs(cam[cube.mask > 0]).sum() / max(float(np.abs(cam).sum()), 1e-12))
    note = f"planes through the map's strongest voxel in the lesion; outlined: lesion; voxels {unit:g} mm; "
    note += f"{100 * inside:.0f} % of the map's strength lies inside the outline"
    three_planes(cube, path, title, note, at=at, overlay=cam, overlay_legend=legend)


def strongest(cam: np.ndarray, mask: np.ndarray) -> tuple[int, int, int]:
    """The voxel (z, y, x) of the lesion where the map is strongest, whatever its sign; of the crop without a lesion."""
    strength = np.abs(cam) * (mask > 0) if mask.any() else np.abs(cam)
    if not strength.any():
        strength = (mask > 0).astype(np.float32)
    z, y, x = np.unravel_index(int(strength.argmax()), cam.shape)
    return int(z), int(y), int(x)


def write_nifti(cube: Volume, cam: np.ndarray, path: Path) -> None:
    """Writes the map as NIfTI in the patient's space, so that any viewer lays it over the scan it came from."""
    import nibabel

    image = nibabel.Nifti1Image(np.ascontiguousarray(cam.transpose(2, 1, 0)), cube.affine)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
