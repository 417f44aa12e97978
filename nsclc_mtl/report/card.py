"""card.md: the model card, with the front matter that Hugging Face reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml

from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.report.evaluation import TaskResult
from nsclc_mtl.report.facts import KINDS, Facts, counted, facts, limits, listed, said
from nsclc_mtl.report.measures import LEARNER
from nsclc_mtl.report.section import Evidence
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import metric_word, model_word

TAGS = ("medical", "oncology", "multimodal", "multitask", "research-use-only")
_KIND_TAGS = {"survival": "survival-analysis", "regression": "tabular-regression"}
_MODALITY_TAGS = {"bag": "digital-pathology", "radiomics": "radiomics", "volume": "radiology", "omics": "omics",
                  "clinical": "clinical-data"}  # fmt: skip


def render(evidence: Evidence, version: str, license_name: str | None = None) -> str:
    """The card as Markdown.

    version: of this software. license_name: of the model, as Hugging Face names it; nobody but its owner can know it,
    so it is `unknown` where it is not given.
    """
    of = facts(evidence)
    front = yaml.safe_dump(
        front_matter(of, license_name), sort_keys=False, allow_unicode=True, default_flow_style=False, width=120
    )
    return f"---\n{front}---\n" + template("card.md.j2", {"cell": _cell}).render(
        of=of,
        version=version,
        tasks={n: (said(r.task), KINDS[r.task.kind], counted(r)) for n, r in of.results.items()},
        metrics=[
            row for r in of.results.values() for row in _metrics(r, str(evidence.settings.get("primary_floor", "")))
        ],
        inputs=of.modalities,
        listed=listed(list(of.results)),
        limits=limits(of),
        license=license_name,
    )


def front_matter(of: Facts, license_name: str | None) -> dict[str, Any]:
    """License, tags and results, as https://huggingface.co/docs/hub/model-cards describes them."""
    kinds = [spec.kind for spec in (of.evidence.manifest.modalities.values() if of.evidence.manifest else ())]
    tags = [*TAGS, *dict.fromkeys(_MODALITY_TAGS[k] for k in kinds if k in _MODALITY_TAGS)]
    tags += [t for t in dict.fromkeys(_KIND_TAGS.get(r.task.kind, "") for r in of.results.values()) if t]
    return {
        "license": license_name or "unknown",
        "library_name": "nsclc_mtl",
        "tags": tags,
        "model-index": [
            {"name": f"{of.cohort}: {', '.join(of.results)}", "results": [_result(of, r) for r in of.results.values()]}
        ],
    }


def _result(of: Facts, result: TaskResult) -> dict[str, Any]:
    """One task of the model index."""
    return {
        "task": {"type": _KIND_TAGS.get(result.task.kind, "tabular-classification"), "name": result.task.name},
        "dataset": {"type": of.cohort, "name": f"{of.cohort}, test patients"},
        "metrics": [
            {"type": metric, "value": round(float(at.value), 4), "name": f"{metric_word(metric)}{_band(at)}"}
            for metric, models in result.metrics.items()
            if math.isfinite((at := models[LEARNER].interval()).value)
        ],
    }


def _band(at: Interval) -> str:
    """The interval of a number, and what else has to be said beside it: of how many folds it is, say."""
    words = [f"95 % interval {at.lo:.3f} to {at.hi:.3f}"] if math.isfinite(at.lo) else []
    words += [at.reason] if at.reason else []
    return f" ({'; '.join(words)})" if words else ""


def _metrics(result: TaskResult, floor: str) -> list[Mapping[str, str]]:
    """Lines of the card's table: the primary metric of the learner and of the primary floor, and their difference."""
    out = []
    models = result.metrics[result.primary]
    name = f"floor:{floor}"
    for model in [LEARNER, *([name] if name in models else [])]:
        at = models[model].interval()
        value = f"{at.value:.3f}" if math.isfinite(at.value) else "–"
        out.append((model_word(model), f"{value}{_band(at)}"))
    if name in models:
        gap = result.difference(result.primary, name)
        value = f"{gap.value:+.3f}" if math.isfinite(gap.value) else "–"
        out.append((f"learner minus {floor}", f"{value}{_band(gap)}"))
    task, metric = result.task.name, metric_word(result.primary)
    return [{"task": task, "metric": metric, "model": model, "value": value} for model, value in out]


def _cell(text: Any) -> str:
    """Text that ends neither a cell of a table nor its line."""
    return str(text).replace("|", "\\|").replace("\n", " ")
