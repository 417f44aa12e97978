"""Features in the layouts of other tools, beside the store's own files: STAMP (`feats`, um) and CLAM (`.pt` and `.h5`).

TRIDENT, and CLAM's reader of HDF5, take the store's own files as they are. Only plain datasets and the attributes that
those readers look at are written; everything comes from the store's file, so that an export can be made at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nsclc_mtl.features import layouts, store
from nsclc_mtl.records import DataFault, Features, UsageFault


def check(kinds: object) -> list[str]:
    """The names of layouts, known ones only. Raises UsageFault."""
    names = list(kinds) if isinstance(kinds, (list, tuple)) else [kinds]
    for name in names:
        if name not in KINDS:
            raise UsageFault(f"extract.also={name}: the layouts are {', '.join(KINDS)}; or extract.also=[]")
    return [str(name) for name in names]


def write(kind: str, path: Path) -> None:
    """Writes the feature file `path` of the store in another layout, below the folder `path` lies in."""
    found = store.read(path)
    for file, put in KINDS[kind](path):
        with store.published(file) as aside:
            put(aside, found)


def is_complete(kind: str, path: Path) -> bool:
    """Whether the export of a feature file is there and holds the same features."""
    own = store.read(path)
    for file, _ in KINDS[kind](path):
        try:
            values = layouts.read(file)[0]
        except (DataFault, OSError):
            return False
        if not np.array_equal(values, own.features):
            return False
    return True


def _stamp(aside: Path, found: Features) -> None:
    """Coordinates are micrometres from the corner of the slide, and the edge of a tile is given in um and in pixels."""
    with store.new_hdf5(aside) as file:
        file.create_dataset("feats", data=found.features, track_times=False)
        file.create_dataset("coords", data=(found.coords * found.attrs["mpp"]).astype(np.float32), track_times=False)
        file.attrs["extractor"] = str(found.attrs["backbone"])
        file.attrs["unit"] = "um"
        file.attrs["tile_size_um"] = float(found.attrs["tile_um"])
        file.attrs["tile_size_px"] = int(found.attrs["patch_size"])
        file.attrs["feat_type"] = "tile"
        file.attrs["code_hash"] = str(found.attrs["code_digest"])
        file.attrs["mpp"] = float(found.attrs["mpp"])  # of level 0, for our own reader: um back to pixels


def _clam_h5(aside: Path, found: Features) -> None:
    """A tile is a square of `patch_size` pixels at `patch_level` 0."""
    with store.new_hdf5(aside) as file:
        file.create_dataset("features", data=found.features.astype(np.float32), track_times=False)
        file.create_dataset("coords", data=found.coords, track_times=False)
        file["coords"].attrs["patch_size"] = int(found.attrs["patch_size_level0"])
        file["coords"].attrs["patch_level"] = 0
        file["coords"].attrs["level_dim"] = [int(found.attrs["level0_width"]), int(found.attrs["level0_height"])]
        file["coords"].attrs["downsample"] = [1.0, 1.0]
        file["coords"].attrs["name"] = str(found.attrs["name"])


def _clam_pt(aside: Path, found: Features) -> None:
    import torch

    torch.save(torch.from_numpy(found.features.astype(np.float32)), aside)


Put = Callable[[Path, Features], None]


def _stamp_files(path: Path) -> list[tuple[Path, Put]]:
    return [(path.parent / "stamp" / path.name, _stamp)]


def _clam_files(path: Path) -> list[tuple[Path, Put]]:
    folder = path.parent / "clam"
    return [
        (folder / "h5_files" / path.name, _clam_h5),
        (folder / "pt_files" / f"{path.stem}.pt", _clam_pt),
    ]


KINDS: dict[str, Callable[[Path], list[tuple[Path, Put]]]] = {"stamp": _stamp_files, "clam": _clam_files}
