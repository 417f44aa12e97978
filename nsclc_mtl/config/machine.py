"""What a run was made with: packages, commit, memory."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import subprocess
import sys

from .wiring import PACKAGE

VERSIONS = (
    "nsclc-mtl", "torch", "pytorch-lightning", "monai", "numpy", "scipy", "pandas", "scikit-learn", "hydra-core",
    "openslide-python", "tifffile", "h5py", "SimpleITK", "pyradiomics", "pycox",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Python and the packages that a result depends on, without importing them."""
    found = {"python": platform.python_version()}
    for package in VERSIONS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the checkout that the package runs from; None for an installed wheel."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None
    try:
        out = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip() or None


def peak_rss_mb() -> float:
    """The largest resident memory of this process or of one of its children so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return round(max(peaks) * unit / 1e6, 1)
