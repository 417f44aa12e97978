"""The results on the terminal: one table, the learner of each task above its floors and ceilings."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from rich.box import HEAVY_HEAD
from rich.table import Table

from nsclc_mtl.report.against_floor import against_floor
from nsclc_mtl.report.evaluation import TaskResult
from nsclc_mtl.report.words import metric_word, model_word, told


def table(results: Mapping[str, TaskResult], primary: str, splits: pd.DataFrame | None, boxed: bool) -> Table:
    """The learner of each task, the floors below it, the paired difference beside them; `primary` is a floor's name.

    Bold: told apart from the primary floor after Holm and, where above it, from chance. Without `boxed` the table has
    no lines, as a log wants it.
    """
    tested = against_floor(results, primary, splits)
    title = "Learner and floor, 95 % intervals conditional on the trained models"
    made = Table(title=title, title_justify="left", box=HEAVY_HEAD if boxed else None)
    for column in ("task", "n", "events", "metric", "model", "value", "learner minus it"):
        made.add_column(column, justify="right" if column in ("n", "events") else "left")
    for name, result in results.items():
        models = result.metrics[result.primary]
        events = "" if result.events is None else str(result.events)
        row = (name, str(result.n), events, metric_word(result.primary))
        style = "bold" if name in tested and tested[name].bold else ""
        made.add_row(*row, "learner", told(models["learner"].interval()), "", style=style)
        for model in result.models("floor:"):
            word = model_word(model) + (" *" if model == primary else "")
            gap = told(result.difference(result.primary, model), "+")
            made.add_row("", "", "", "", word, told(models[model].interval()), gap)
        for model in result.models("oracle:"):
            made.add_row("", "", "", "", model_word(model), told(models[model].interval()), "", style="dim")
        made.add_section()
    if any(primary in result.metrics[result.primary] for result in results.values()):
        bold = "; bold: P below .05, adjusted by Holm over the tasks; above a floor only if above chance, too"
        made.caption = "* primary floor" + (bold if any(one.bold for one in tested.values()) else "")
        ruled = [f"{name}: {one.at.by}" for name, one in tested.items() if one.at.by]
        made.caption += "".join(f"\n{words}" for words in ruled)
    return made
