"""A user's own PyRadiomics parameter file in the place of a preset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nsclc_mtl.records import UsageFault

GROUPS = ("setting", "voxelSetting", "imageType", "featureClass")
RECIPE = (
    "pyradiomics is not installed: pip install -U 'setuptools>=77' wheel && "
    "pip install --no-build-isolation pyradiomics==3.0.1 (after numpy), or run `make setup`"
)


def resolved(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The `scans` group with the content of `params` in the place of `radiomics`; unchanged where `params` is null.

    A `label` in the file counts where `scans.label` is null, as it does for PyRadiomics. The content decides, so a file
    that moved keeps its key. Raises `UsageFault`.
    """
    made = dict(cfg)
    path = made.pop("params", None)
    if not path:
        return made
    made["radiomics"] = groups = read_params(Path(path))
    label = (groups.get("setting") or {}).get("label")
    if made.get("label") is None and label is not None:
        made["label"] = int(label)
    return made


def read_params(path: Path) -> dict[str, Any]:
    """The groups of a parameter file (YAML or JSON), read as PyRadiomics reads it. Raises `UsageFault`."""
    if not path.is_file():
        raise UsageFault(f"scans.params: there is no file '{path}'; give the path of a PyRadiomics parameter file")
    try:
        from pykwalify.core import Core
        from pykwalify.errors import PyKwalifyException
        from ruamel.yaml.error import YAMLError
    except ImportError:
        raise UsageFault(RECIPE) from None
    try:
        told = Core(source_file=str(path), schema_data={"type": "any"}).source
    except (PyKwalifyException, YAMLError, ValueError, OSError) as error:
        raise UsageFault(f"scans.params: '{path}' is no YAML or JSON ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(told, Mapping) or not told or set(told) - set(GROUPS):
        strange = sorted(set(told) - set(GROUPS)) if isinstance(told, Mapping) else []
        raise UsageFault(
            f"scans.params: '{path}' {f'has the group {strange[0]!r}' if strange else 'is empty or no mapping'}; "
            f"a PyRadiomics parameter file has the groups {', '.join(GROUPS)}"
        )
    return {str(group): dict(value or {}) for group, value in told.items()}
