"""`mtl doctor`: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RADIOMICS = "pip install -U 'setuptools>=77' wheel && pip install --no-build-isolation pyradiomics==3.0.1"
# Its build script calls names that Python 3.12 removed; the checkout holds a folder that brings them back.
RADIOMICS_312 = RADIOMICS.replace("&& pip", "&& PYTHONPATH=tools/old_configparser pip") + " (in a checkout: make setup)"


@dataclass
class Finding:
    """One row of the table: what was looked at, how it stands (`ok`, `note`, `missing`), and what to do."""

    what: str
    state: str
    found: str
    do: str = ""


def doctor() -> int:
    """Prints the table; 0 where everything needed is there, 3 where something is missing."""
    from rich.console import Console
    from rich.table import Table

    findings = look()
    table = Table("", "found", "what to do", title="mtl doctor", show_lines=False)
    for finding in findings:
        style = {"ok": "green", "note": "yellow", "missing": "red"}[finding.state]
        table.add_row(f"[{style}]{finding.state:8}[/]{finding.what}", finding.found, finding.do)
    Console(width=None if sys.stdout.isatty() else 140, highlight=False).print(table)
    return 3 if any(finding.state == "missing" for finding in findings) else 0


def look() -> list[Finding]:
    """Every finding, in the order in which a cohort needs things."""
    looks: tuple[Callable[[], Finding], ...] = (
        python, torch, accelerator, bfloat16, torchvision, openslide, monai, pyradiomics, pycox, viewer,
        cores, memory, disk,
    )  # fmt: skip
    return [_safely(one) for one in looks]


def _safely(one: Callable[[], Finding]) -> Finding:
    try:
        return one()
    except Exception as wrong:  # a broken installation is exactly what is looked for
        return Finding(one.__name__, "missing", f"{type(wrong).__name__}: {str(wrong).splitlines()[0]}", "make setup")


def python() -> Finding:
    """The interpreter."""
    right = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Finding(
        "python", "ok" if right else "missing", platform.python_version(), "" if right else "use 3.11 to 3.13"
    )


def torch() -> Finding:
    """PyTorch and which build of it."""
    found = importlib.import_module("torch")
    build = f"CUDA {found.version.cuda}" if found.version.cuda else "CPU build"
    return Finding("torch", "ok", f"{found.__version__} ({build})")


def accelerator() -> Finding:
    """CUDA or Apple's Metal, where there is one."""
    found = importlib.import_module("torch")
    if found.cuda.is_available():
        names = ", ".join(found.cuda.get_device_name(i) for i in range(found.cuda.device_count()))
        return Finding("accelerator", "ok", names)
    if found.backends.mps.is_available():
        return Finding("accelerator", "ok", "Apple Metal")
    driver = shutil.which("nvidia-smi") is not None
    advice = (
        "an NVIDIA driver is here, but torch is a CPU build: install the CUDA build"
        if driver and not (found.version.cuda)
        else "training works on the processor; extraction of many slides wants a GPU"
    )
    return Finding("accelerator", "note", "none", advice)


def bfloat16() -> Finding:
    """Whether this processor multiplies bfloat16 natively: three times the speed of extraction."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    native = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    return Finding("bfloat16", "ok" if native else "note", native[0] if native else "not native on this processor")


def torchvision() -> Finding:
    """torchvision, which is not needed, and which breaks Lightning beside a CPU build of torch."""
    version = _version("torchvision")
    if version is None:
        return Finding("torchvision", "ok", "absent, and not needed")
    try:
        importlib.import_module("torchvision")
    except Exception as wrong:  # `operator torchvision::nms does not exist`
        advice = "a CUDA build beside a CPU torch: pip uninstall torchvision timm, or install matching builds"
        return Finding("torchvision", "missing", f"{version}, import fails: {str(wrong).splitlines()[0]}", advice)
    return Finding("torchvision", "ok", version)


def openslide() -> Finding:
    """OpenSlide, with the library that its wheel brings."""
    found = importlib.import_module("openslide")
    return Finding("openslide", "ok", f"{found.__version__} (library {found.__library_version__})")


def monai() -> Finding:
    """MONAI, for volumes and networks."""
    importlib.import_module("monai")
    return Finding("monai", "ok", str(_version("monai")))


def pyradiomics() -> Finding:
    """PyRadiomics, which builds only with care."""
    version = _version("pyradiomics")
    recipe = RADIOMICS_312 if sys.version_info >= (3, 12) else RADIOMICS
    if version is None:
        return Finding("pyradiomics", "missing", "absent: no radiomics from scans", recipe)
    importlib.import_module("radiomics")
    return Finding("pyradiomics", "ok", version)


def pycox() -> Finding:
    """pycox, for the losses of survival."""
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        return Finding("pycox", "missing", "cannot be imported with NUMBA_DISABLE_JIT=1", "unset NUMBA_DISABLE_JIT")
    importlib.import_module("pycox.models")
    return Finding("pycox", "ok", str(_version("pycox")))


def viewer() -> Finding:
    """What `mtl serve` needs: FastAPI and uvicorn, and the slide and scan viewers that npm brings."""
    versions = {name: _version(name) for name in ("fastapi", "uvicorn")}
    absent = [name for name, version in versions.items() if version is None]
    if absent:
        return Finding("mtl serve", "note", f"no {', no '.join(absent)}", "pip install 'nsclc-mtl[viewer]'")
    vendor = Path(__file__).parents[1] / "viewer" / "static" / "vendor"
    gone = [name for name in ("openseadragon", "niivue") if not (vendor / f"{name}.js").is_file()]
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    if gone:
        how = "make viewer" if shutil.which("npm") else "install Node.js, then make viewer"
        return Finding("mtl serve", "note", f"{found}; no {', no '.join(gone)}: no slides and scans", how)
    return Finding("mtl serve", "ok", f"{found}, openseadragon, niivue")


def cores() -> Finding:
    """Processor cores that this process may use."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("cores", "ok", str(affinity))


def memory() -> Finding:
    """Memory of the machine; the demo needs less than 4 GB."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return Finding(
        "memory", "ok" if size >= 4 else "note", f"{size:.0f} GB", "" if size >= 4 else "the demo needs 4 GB"
    )


def disk() -> Finding:
    """Free space where out/ and runs/ would go."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    advice = "" if free > 10 else "features of 100 slides take 5 to 10 GB: set paths.out to another disk"
    writable = os.access(Path.cwd(), os.W_OK)
    if not writable:
        return Finding(
            "disk", "note", f"{free:.0f} GB free, but this folder is read-only", "set paths.out= and paths.runs="
        )
    return Finding("disk", "ok" if free > 10 else "note", f"{free:.0f} GB free here", advice)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
