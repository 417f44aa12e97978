"""The cohort that a configuration names: its manifest, its splits, and the phantom where it is cheap to make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, FaultRow, Manifest, TableFault, UsageFault

if TYPE_CHECKING:
    import pandas as pd


def open_cohort(cfg: Mapping[str, Any]) -> Manifest:
    """The manifest of `cfg["cohort"]` (plain types), for the tasks and modalities that the run asks for."""
    from nsclc_mtl.cohort import manifest

    cohort, out = _placed(cfg), Path(cfg["paths"]["out"])
    wanted = {"tasks": cfg.get("tasks"), "modalities": cfg.get("modalities")}
    try:
        return manifest.load(cohort, out, **wanted, keys=derived(cfg), icc_lower=_lower(cfg))
    except DataFault as fault:
        rows = table_faults(cohort, cfg)
        if not rows:
            raise
        told = f" ({len(rows)} faults in all, see faults.json)" if len(rows) > 1 else ""
        raise TableFault(f"{fault}{told}", rows) from fault


def whole_cohort(cfg: Mapping[str, Any], picked: Manifest) -> Manifest:
    """The cohort with all that `cfg["cohort"]` declares, of which a run asks for `picked` (`manifest.whole`)."""
    from nsclc_mtl.cohort import manifest

    asked = cfg.get("modalities") is not None  # else all that have data are there
    out = Path(cfg["paths"]["out"])
    return manifest.whole(_placed(cfg), out, picked, modalities=asked, keys=derived(cfg), icc_lower=_lower(cfg))


def _placed(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The declaration, with the folder of a phantom filled in."""
    cohort = dict(cfg["cohort"])
    if "level" in cohort:
        cohort["root"] = str(phantom_root(cohort, cfg["paths"]))
    return cohort


def _lower(cfg: Mapping[str, Any]) -> float:
    """What the lower bound of the ICC of robust radiomics must reach."""
    return float((cfg["scans"].get("robustness") or {}).get("lower", 0.75))


def table_faults(cohort: Mapping[str, Any], cfg: Mapping[str, Any]) -> list[FaultRow]:
    """Every fault of the cohort's tables, for the tasks and modalities that the run asks for."""
    if not cohort.get("root") or not Path(str(cohort["root"])).is_dir():
        return []
    from nsclc_mtl.cohort import schema

    return schema.faults(cohort, tasks=cfg.get("tasks"), modalities=cfg.get("modalities"))


def checked(cfg: Mapping[str, Any]) -> None:
    """Raises TableFault where the schema of a cohort's tables finds a fault, also one that loading does not mind."""
    rows = table_faults({**cfg["cohort"], "root": str(cohort_root(cfg))}, cfg)
    if rows:
        first = rows[0]
        at = f" row {first.row}" if first.row else ""
        told = f"'{first.file}'{at} column '{first.column}': {first.rule}; {first.todo}"
        raise TableFault(f"{told} ({len(rows)} faults, see faults.json)", rows)


def write_unmatched(manifest: Manifest, folder: Path) -> None:
    """`unmatched.csv` (file, id): ids of the tables that are no patients of the cohort, where there are any."""
    import csv

    rows = [(file, name) for file, ids in manifest.unmatched.items() for name in ids]
    if rows:
        with (folder / "unmatched.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("file", "id"), *rows])


def cohort_root(cfg: Mapping[str, Any]) -> Path:
    """Folder of the cohort's tables."""
    cohort = cfg["cohort"]
    return phantom_root(cohort, cfg["paths"]) if "level" in cohort else Path(str(cohort["root"]))


def derived(cfg: Mapping[str, Any]) -> dict[str, str]:
    """Names of the derived folders under `paths.out` that these settings lead to.

    A bundle brings them along (`derived`): the weights of its backbone need not be at hand to read what they made.
    """
    if cfg.get("derived") is not None:
        return dict(cfg["derived"])
    from nsclc_mtl.commands import scans
    from nsclc_mtl.features.backbones import feature_key
    from nsclc_mtl.features.slide_encoders import slide_key

    features = feature_key(cfg["slides"], cfg["backbone"], cfg.get("stain"))
    encoder = cfg.get("slide_encoder") or {}
    slides = slide_key(features, encoder) if encoder.get("name") else ""
    return {"features": features, "slides": slides, **scans.keys(cfg)}


def phantom_root(cohort: Mapping[str, Any], paths: Mapping[str, Any]) -> Path:
    """Folder of the phantom cohort. `level=features` is made here in seconds; images are made by `mtl demo`.

    Raises DataFault where it is missing and UsageFault where the folder holds another phantom.
    """
    import json

    from nsclc_mtl.phantom.cohort import identity, make

    words = {key: cohort[key] for key in ("level", "n", "seed", "missing", "site")}
    wanted = identity(**words, extras=tuple(cohort.get("extras") or ()))
    given = cohort.get("root")
    if given is None and words["level"] == "features":
        name = "-".join(
            map(
                str,
                [
                    words["level"],
                    f"n{words['n']}",
                    f"seed{words['seed']}",
                    words["missing"],
                    words["site"],
                    *wanted["extras"],
                ],
            )
        )
        root = Path(paths["out"]) / "phantom" / name
        if not (root / "phantom.json").is_file():
            try:
                make(root, **words, extras=tuple(wanted["extras"]))
            except ValueError as error:
                raise UsageFault(str(error)) from error
    else:
        root = Path(given or paths["data"])
    if not root.is_dir():
        raise DataFault(
            f"no folder '{root}'; set cohort.root (and cohort=NAME), or make the phantom with "
            f"`mtl demo --data-only --out {root}`; slides alone, without a cohort: `mtl extract slides.dir=FOLDER`"
        )
    if not (root / "phantom.json").is_file():
        raise DataFault(f"no phantom cohort in '{root}'; make it with `mtl demo --data-only --out {root}`")
    found = json.loads((root / "phantom.json").read_text())
    if given is None and found != wanted:
        unlike = ", ".join(f"{k}={found.get(k)} (asked: {v})" for k, v in wanted.items() if found.get(k) != v)
        raise UsageFault(
            f"'{root}' holds another phantom: {unlike}; make yours with `mtl demo --data-only --out DIR` "
            "and set cohort.root=DIR"
        )
    return root


def split(cfg: Mapping[str, Any], manifest: Manifest) -> pd.DataFrame:
    """Table patient_id, fold, part of the split that `cfg["folds"]` asks for."""
    from nsclc_mtl.commands import splitting

    return splitting.split(cfg, manifest).table
