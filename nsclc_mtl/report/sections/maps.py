"""What the maps over slides are worth: deletion and insertion of tiles against random ones, and how scores spread.

From the tables that `mtl predict explain.patients=all` wrote (`explained` of `mtl evaluate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas

from nsclc_mtl.explain import deletion
from nsclc_mtl.metrics import comparison
from nsclc_mtl.records import UsageFault
from nsclc_mtl.report import curves
from nsclc_mtl.report.held_out import FEWEST, enough
from nsclc_mtl.report.measures import LEARNER
from nsclc_mtl.report.section import Evidence, Figure, Section
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS, slug

FOLDER = "explanations"
NUMBERS = ("entropy", "effective_tiles", "moran_i", "moran_p")  # empty where there is none; ids may be spelt NA
WHO = ["patient_id", "fold", "part", "modality"]
MODES = ("removed", "kept")
MINUS = "influence − attention"
LINES = {"influence": curves.STYLES[0], "attention": curves.STYLES[1], deletion.RANDOM: curves.STYLES[2]}


def maps(evidence: Evidence) -> list[Section]:
    """One section: gaps between maps and random tiles with intervals, the curves, and heterogeneity of the patients.

    Raises UsageFault where the explained patients are others than those of the evidence.
    """
    folder = evidence.settings.get("explained")
    if not folder:
        return []
    files = ("deletion.csv", "heterogeneity.csv", "heterogeneity-patients.csv")
    told, spread, whole = (_read(Path(str(folder)) / FOLDER / name) for name in files)
    judged = set(evidence.predictions.loc[evidence.predictions["part"] == "test", "patient_id"])
    told, spread, whole = (
        frame[frame["task"].isin(["", *evidence.results]) & frame["patient_id"].isin(judged)]
        for frame in (told, spread, whole)
    )
    if spread.empty:
        raise UsageFault(f"explained='{folder}': none of the patients evaluated here is explained there")
    settings = evidence.settings
    found = (
        gaps(told, int(settings.get("bootstrap", 1000)), int(settings.get("seed", 0))) if len(told) else pd.DataFrame()
    )
    figures, summary = curves_of(told), heterogeneity(whole)
    html = template("sections/maps.html.j2", FILTERS).render(
        patients=spread["patient_id"].nunique(),
        slides=spread["slide_id"].nunique(),
        test=int((spread.drop_duplicates("patient_id")["part"] == "test").sum()),
        gaps=_told(found),
        few=sorted({int(row["n"]) for row in found.to_dict("records") if row["n"] < FEWEST}),
        fewest=FEWEST,
        several=spread["modality"].nunique() > 1,
        spread=summary.to_dict("records"),
    )
    tables = {"maps-heterogeneity": summary, "maps-gaps": found}
    tables = {name: table for name, table in tables.items() if len(table)}
    return [Section("maps", "What the maps are worth", Markup(html), "", figures, tables, _rows(found))]


def gaps(told: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Mean over patients of the gap to random tiles, a row a modality, task, map and mode.

    Columns: n, gap, lo, hi, times, reason. Also of influence minus attention, paired. Patients are resampled within
    their folds; of fewer than `FEWEST` there is no interval, and `reason` says so: resamples of two would give back the
    two. `times` is the mean area of the map over that of random tiles. Who was trained on is left out.
    """
    each = deletion.areas(told[told["part"] != "train"], WHO)
    both = each[each["by"] == "influence"].merge(each[each["by"] == "attention"], on=[*WHO, "task", "mode"])
    paired = both[[*WHO, "task", "mode"]].assign(by=MINUS, gap=both["gap_x"] - both["gap_y"])
    each = pd.concat([each, paired], ignore_index=True)
    rows = []
    for modality, task in dict.fromkeys(zip(each["modality"], each["task"], strict=True)):
        for by, mode in product((*LINES, MINUS), MODES):
            one = (each["modality"] == modality) & (each["task"] == task) & (each["by"] == by) & (each["mode"] == mode)
            if not one.any():
                continue
            here = each[one]
            parts = [part for _, part in here.groupby("fold")]
            rng = np.random.Generator(np.random.PCG64([seed, 701]))
            weights = comparison.resamples_of([list(part["patient_id"]) for part in parts], draws, rng)
            patients = here["patient_id"].nunique()
            made = comparison.bootstrap([comparison.average(part["gap"].to_numpy()) for part in parts], weights)
            at = enough(made.interval(), patients)
            area, random = float(here["area"].mean()), float(here["random"].mean())
            row = {"modality": modality, "task": task, "map": by, "mode": mode, "n": patients}
            row |= {"gap": at.value, "lo": at.lo, "hi": at.hi, "times": area / random if random > 0 else np.nan}
            rows.append({**row, "reason": at.reason})
    return pd.DataFrame(rows)


def curves_of(told: pd.DataFrame) -> list[Figure]:
    """A figure a task (and modality, where there are several): mean change over patients, tiles removed and kept."""
    told = told[told["part"] != "train"] if len(told) else told
    if told.empty:
        return []
    figures, several = [], told["modality"].nunique() > 1
    for (modality, task), here in told.groupby(["modality", "task"], sort=False):
        mean = here.groupby(["by", "mode", "share"], sort=False)["change"].mean().reset_index()
        ends = mean.drop_duplicates(["by", "mode"])  # nothing removed, everything kept: no change
        ends = ends.assign(share=np.where(ends["mode"] == "removed", 0.0, 1.0), change=0.0)
        mean = pd.concat([mean, ends]).sort_values(["by", "mode", "share"], kind="stable", ignore_index=True)
        name = f"deletion-{slug(str(task))}" + (f"-{slug(str(modality))}" if several else "")
        patients = here["patient_id"].nunique()
        caption = (
            f"{task}{f', {modality}' if several else ''}: mean distance of the task’s score from that of all tiles, "
            f"{patients} patients, in units of the score, as tiles go in the order of a map, and at random."
        )
        figures.append(Figure(name, _drawn(mean, str(task), patients), mean, caption))
    return figures


def _drawn(mean: pd.DataFrame, task: str, patients: int) -> str:
    with matplotlib.rc_context(curves.RC):
        drawn = Canvas(figsize=(curves.WIDTH, 3.1))
        axes = drawn.subplots(1, 2, sharey=True)
        drawn.subplots_adjust(left=0.12, right=0.97, bottom=0.17, top=0.81, wspace=0.2)
        for panel, mode in zip(axes, MODES, strict=True):
            for by, (colour, style) in LINES.items():
                line = mean[(mean["by"] == by) & (mean["mode"] == mode)]
                panel.plot(100 * line["share"], line["change"], color=colour, ls=style, lw=1.8, label=WORDS[by])
            panel.set(xlim=(0, 100), xlabel=f"% of the tiles {mode}")
            panel.set_title(f"highest tiles {'removed' if mode == 'removed' else 'kept alone'}", fontsize=9.5)
        axes[0].set_ylim(bottom=0)  # both panels, once they are full
        axes[0].set_ylabel("change of the score")
        drawn.legend(*axes[0].get_legend_handles_labels(), loc="upper center", ncols=3, frameon=False, handlelength=2.5)
        told = ", ".join(WORDS[by] for by in LINES if by in set(mean["by"]))
        return curves.svg(drawn, f"Deletion of tiles: {task}", f"Mean over {patients} patients; tiles go {told}.")


WORDS = {"influence": "by influence", "attention": "by attention", deletion.RANDOM: "at random"}


def heterogeneity(whole: pd.DataFrame) -> pd.DataFrame:
    """Median and quartiles over patients of every number of heterogeneity-patients.csv, a row a modality, map and task.

    A patient counts once, however many slides he has. `clustered` is the share of patients whose scores are more alike
    among neighbours than chance has it (P < .05).
    """
    rows = []
    for (modality, kind, task), here in whole.groupby(["modality", "map", "task"], sort=False) if len(whole) else ():
        row: dict[str, Any] = {"modality": modality, "map": kind, "task": task, "patients": len(here)}
        row["slides"] = int(here["slides"].sum())
        for column in ("tiles", "entropy", "effective_tiles", "moran_i"):
            low, middle, high = here[column].quantile([0.25, 0.5, 0.75])
            row |= {column: middle, f"{column}_q1": low, f"{column}_q3": high}
        known = here["moran_p"].dropna()
        rows.append({**row, "clustered": float((known < 0.05).mean()) if len(known) else np.nan})
    return pd.DataFrame(rows)


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame({"task": [], "patient_id": []})
    words = dict.fromkeys(("patient_id", "slide_id", "modality", "task", "part", "reason"), str)
    frame = pd.read_csv(path, dtype=words, keep_default_na=False)
    numbers = [name for name in NUMBERS if name in frame]
    frame[numbers] = frame[numbers].apply(pd.to_numeric)
    return frame


def _told(found: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for the page: a task and map, removed and kept side by side."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in found.to_dict("records"):
        key = (row["modality"], row["task"], row["map"])
        into = rows.setdefault(key, {"modality": key[0], "task": key[1], "map": key[2], "n": row["n"]})
        into[row["mode"]] = comparison.Interval(row["gap"], row["lo"], row["hi"])
        into[f"{row['mode']}_times"] = row["times"]
    return list(rows.values())


def _rows(found: pd.DataFrame) -> list[dict[str, Any]]:
    """For metrics.json; nothing is NaN there."""

    def plain(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return [
        {
            "task": row["task"], "metric": f"deletion_gap:{row['modality']}:{row['map']}:{row['mode']}", "part": "test",
            "fold": "all", "model": LEARNER, "value": plain(row["gap"]), "lo": plain(row["lo"]), "hi": plain(row["hi"]),
            "n": int(row["n"]), "n_events": None, "reason": row["reason"],
        }
        for row in found.to_dict("records")
    ]  # fmt: skip


def explained_run(folder: Path) -> Mapping[str, Any] | None:
    """Settings of the run of `mtl predict` in a folder that explained slides; None where it is none."""
    import yaml

    if not (folder / FOLDER / "heterogeneity.csv").is_file() or not (folder / "config.yaml").is_file():
        return None
    settings: Mapping[str, Any] = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return settings
