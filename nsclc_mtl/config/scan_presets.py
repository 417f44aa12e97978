"""The presets of `conf/scans/` that a cohort's modalities name, each composed under `scan_presets.NAME`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from nsclc_mtl.records import UsageFault

from .allow import nearest

KINDS = ("radiomics", "volume", "deep")  # of modalities that are made from scans


def named(cfg: DictConfig, options: Sequence[str]) -> list[str]:
    """The presets that the modalities of the cohort name, in their order; none where the verb reads no scans.

    Raises UsageFault where one of them is not among the `options` of the group.
    """
    found: dict[str, str] = {}
    for modality, spec in _of_scans(cfg).items():
        if preset := spec.get("scans"):
            found.setdefault(str(preset), modality)
    for preset, modality in found.items():
        if preset not in options:
            near = nearest(preset, options) or f"; there are {', '.join(options)}"
            raise UsageFault(f"cohort.modalities.{modality}: the group scans has no option {preset!r}{near}")
    return list(found)


def lines(presets: Sequence[str]) -> list[str]:
    """What Hydra is told, so that every preset stands under its own name."""
    return [f"+scans@scan_presets.{name}={name}" for name in presets]


def refuse_unused(cfg: DictConfig, chosen: Sequence[Override], presets: Sequence[str]) -> None:
    """Raises UsageFault for `scans=NAME` where every modality names a preset of its own: the word would do nothing."""
    word = next((o for o in chosen if o.key_or_group.lstrip("/") == "scans"), None)
    if word is None or not presets:
        return
    specs = _of_scans(cfg)
    if all(spec.get("scans") for spec in specs.values()):
        first = next(iter(specs))
        raise UsageFault(
            f"{word.input_line}: the modalities of this cohort name their presets themselves ({', '.join(presets)}); "
            f"write cohort.modalities.{first}.scans={word.value()}"
        )


def spread(values: Sequence[Override], presets: Sequence[str]) -> list[str]:
    """`scans.KEY=VALUE` said of every preset too, before what is said of one (`scan_presets.NAME.KEY=VALUE`)."""
    common = []
    for override in values:
        sign = "++" if override.is_force_add() else "+" if override.is_add() else "~" if override.is_delete() else ""
        text = str(override.input_line).lstrip("+~")
        if text.startswith("scans."):
            common += [f"{sign}scan_presets.{name}.{text.removeprefix('scans.')}" for name in presets]
    return common


def _of_scans(cfg: DictConfig) -> dict[str, Mapping[str, Any]]:
    declared = OmegaConf.select(cfg, "cohort.modalities") if "scans" in cfg else None
    if not isinstance(declared, DictConfig):
        return {}
    return {str(name): spec for name, spec in declared.items() if spec.get("kind") in KINDS}
