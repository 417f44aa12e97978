"""The lesion by a segmentation network of MONAI with the user's own weights: a bundle's folder, or a class and a file.

A bundle's configuration is read as data: of it only the name of the network and plain arguments count, and weights load
as tensors, so that nothing in a stranger's folder runs. How the network wants its input is stated in our configuration.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nsclc_mtl.records import ItemFault, UsageFault
from nsclc_mtl.scans.grid import affine_of, onto, to_sitk

KNOWN = {"bundle", "network", "args", "weights", "spacing_mm", "window", "tile_vox", "overlap", "label", "device"}
_NAMES = ("state_dict", "model", "network", "model_state_dict")  # under which trainers put the tensors


def segment(scan: sitk.Image, options: Mapping[str, Any], name: str) -> tuple[sitk.Image, list[str]]:
    """What the network calls `label` (default 1) as 0 and 1 on the grid of the scan, and a note with the weights' hash.

    The scan is turned to RAS and resampled to `spacing_mm` (mm, linear; null: its own), values of `window` become 0..1
    (null: zero mean, unit variance), and the network slides over it in windows of `tile_vox` voxels (x, y, z) that
    overlap by `overlap`. One output channel is a logit, several are classes. The answer returns by nearest neighbour.

    Raises `ItemFault` (`empty_roi`) where the network finds nothing, `UsageFault` where it cannot be made.
    """
    import torch
    from monai.inferers import sliding_window_inference
    from monai.networks.utils import eval_mode

    model, title = load(options)
    upright = sitk.DICOMOrient(sitk.Cast(scan, sitk.sitkFloat32), "RAS")
    values, affine = _resampled(upright, options.get("spacing_mm"))
    window = options.get("window")
    if window is not None:
        low, high = (float(v) for v in window)
        values = np.clip((values - low) / (high - low), 0, 1)
    else:
        values = (values - values.mean()) / max(float(values.std()), 1e-6)
    given = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 1, 0), dtype=np.float32))[None, None]
    tile = [int(n) for n in options.get("tile_vox") or (96, 96, 96)]
    with torch.inference_mode(), eval_mode(model):
        logits = sliding_window_inference(
            given, tile, 1, model, overlap=float(options.get("overlap", 0.25)), mode="gaussian",
            sw_device=str(options.get("device", "cpu")), device="cpu",
        )  # fmt: skip
    assert isinstance(logits, torch.Tensor)  # our networks have one output
    answer = (logits[0, 0] > 0) if logits.shape[1] == 1 else (logits[0].argmax(0) == int(options.get("label", 1)))
    found = to_sitk(answer.numpy().astype(np.uint8).transpose(2, 1, 0), affine)
    if not answer.any():
        raise ItemFault("empty_roi", f"{title} finds nothing in {name}; draw the lesion")
    lesion, change = onto(scan, found)
    return lesion, [f"no mask drawn: the region is what {title} calls {int(options.get('label', 1))}; {change}"]


def load(options: Mapping[str, Any]) -> tuple[Any, str]:
    """The network with its weights, in evaluation mode, and its title with the first digits of the weights' SHA-256.

    Raises `UsageFault` where an option, the class, its arguments or the weights do not fit.
    """
    strange = set(options) - KNOWN - {"how"}
    if strange:
        raise UsageFault(f"scans.segmenter knows {', '.join(sorted(KNOWN))}, not {', '.join(sorted(strange))}")
    network, args, weights = options.get("network"), dict(options.get("args") or {}), options.get("weights")
    if options.get("bundle"):
        folder = Path(str(options["bundle"]))
        if not network:
            network, args = _of_bundle(folder)
        weights = weights or folder / "models" / "model.pt"
    if not network:
        raise UsageFault("scans.segmenter needs a network, a class of monai.networks.nets, or the folder of a bundle")
    if not weights:
        raise UsageFault("scans.segmenter.weights is not set; give a local file: a network without weights finds noise")
    return _loaded(str(network), json.dumps(args, sort_keys=True), str(weights), str(options.get("device", "cpu")))


@lru_cache(maxsize=1)
def _loaded(network: str, args: str, weights: str, device: str) -> tuple[Any, str]:
    import torch

    path = Path(weights)
    if not path.is_file():
        raise UsageFault(f"scans.segmenter.weights={path} does not exist; give a local file")
    model = _made(network, json.loads(args))
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        inner: list[Any] = [state[name] for name in _NAMES if isinstance(state.get(name), dict)]
        state = inner[0] if inner else state
        model.load_state_dict(state)
    except Exception as error:  # unpickling, shapes, names: each library has its own, and all end here
        told = " ".join(str(error).split())[:200]
        raise UsageFault(f"scans.segmenter.weights={path.name} are no weights of this {network} ({told})") from None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return model.eval().to(device), f"the network {network} (weights {digest[:12]})"


def _made(network: str, args: Mapping[str, Any]) -> Any:
    """A network of MONAI by the name of its class; nothing else can be made."""
    from monai.networks import nets
    from torch import nn

    kind = getattr(nets, network, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise UsageFault(f"scans.segmenter.network={network} is no class of monai.networks.nets")
    try:
        return kind(**args)
    except (TypeError, ValueError, AssertionError) as error:
        told = " ".join(str(error).split())[:200]
        raise UsageFault(f"scans.segmenter.args do not fit {network} ({told})") from None


def _of_bundle(folder: Path) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the network in a bundle, where they are plain; expressions and references are refused."""
    path = folder / "configs" / "inference.json"
    try:
        told = json.loads(path.read_text())
        network = dict(told["network_def"])
        name = str(network.pop("_target_")).rsplit(".", 1)[-1]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageFault(f"{path} is no JSON with a network_def; set scans.segmenter.network and args") from None
    text = json.dumps(network)
    if '"$' in text or '"@' in text or "_target_" in text:
        raise UsageFault(f"the network_def in {path} is not plain; set scans.segmenter.network and args yourself")
    network = {key: value for key, value in network.items() if not key.startswith("_")}
    return name, network


def _resampled(scan: sitk.Image, spacing_mm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Voxels [z, y, x] and RAS+ affine of the scan on a grid of the wished spacing that covers the same box."""
    if spacing_mm is not None:
        wished = np.broadcast_to(np.asarray(spacing_mm, float), 3)
        have = np.asarray(scan.GetSpacing())
        size = np.maximum(np.round(np.asarray(scan.GetSize()) * have / wished), 1).astype(int)
        corner = scan.TransformContinuousIndexToPhysicalPoint([float(v) for v in (wished / have - 1) / 2])
        scan = sitk.Resample(
            scan, [int(n) for n in size], sitk.Transform(), sitk.sitkLinear, corner, wished.tolist(),
            scan.GetDirection(), float(sitk.GetArrayViewFromImage(scan).min()), sitk.sitkFloat32,
        )  # fmt: skip
    return sitk.GetArrayFromImage(scan), affine_of(scan)
