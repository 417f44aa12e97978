"""The words and numbers of the report: metrics and models as a reader says them, values with their intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from markupsafe import Markup

from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.report.fold import OWN

METRIC_WORDS = {
    "auc": "AUC",
    "ordinal_auc": "ordinal AUC",
    "c_index": "C-index",
    "uno_c": "Uno’s C",
    "antolini_c": "Antolini’s C",
    "ibs": "integrated Brier score",
    "ipa": "index of prediction accuracy",
    "brier": "Brier score",
    "concordance": "concordance",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "r2": "R²",
    "spearman": "Spearman’s correlation",
    "balanced_accuracy": "balanced accuracy",
    "average_precision": "average precision",
    "quadratic_kappa": "quadratic weighted kappa",
    "sensitivity": "sensitivity at the training threshold",
    "specificity": "specificity at the training threshold",
    "balanced_accuracy_at_threshold": "balanced accuracy at the training threshold",
    "calibration_slope": "calibration slope",
    "share": "share of the attainable margin",
    "fusion_share": "fusion share",
}


def slug(name: str) -> str:
    """The name as a part of file names and anchors: a-z, 0-9 and -."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "x"


def metric_word(metric: str) -> str:
    """The metric as a reader says it."""
    if metric in METRIC_WORDS:
        return METRIC_WORDS[metric]
    if metric.startswith(OWN):
        return f"{metric_word(metric.removeprefix(OWN))}, own censoring"
    if metric.startswith("auc_above_"):
        return f"AUC, above {metric.removeprefix('auc_above_')}"
    name, _, horizon = metric.partition("_")
    if name in ("auc", "brier") and horizon.endswith("y") and horizon[:-1].isdigit():
        return f"{METRIC_WORDS[name]} at {horizon[:-1]} year{'s' if horizon != '1y' else ''}"
    return f"AUC, {metric.removeprefix('auc_')} against the rest" if metric.startswith("auc_") else metric


def model_word(model: str) -> str:
    """The model as a reader says it."""
    return model.replace("floor:", "").replace("oracle:", "ceiling: ")


def told(at: Interval, sign: str = "") -> str:
    """A value with its interval; a dash, with the reason, where there is none. `sign` is `+` for differences."""
    if not math.isfinite(at.value):
        return f"- ({at.reason})" if at.reason else "-"
    band = f" ({at.lo:{sign}.3f} to {at.hi:{sign}.3f})" if math.isfinite(at.lo) else ""
    return f"{at.value:{sign}.3f}{band}"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{_no_minus(value):.3f}".replace("-", "−")


def _no_minus(value: float) -> float:
    """The value, without the sign of one that is 0.000 on the page."""
    return 0.0 if abs(value) < 0.0005 else value


def _signed(at: Interval) -> Markup:
    """A difference with its interval, the interval on a line of its own where the page is narrow."""
    if not math.isfinite(at.value):
        return Markup("–")
    value = _no_minus(at.value)
    return _banded(f"{value:+.3f}".replace("-", "−") if value else _number(value), at)


def _interval(at: Interval) -> Markup:
    """A value with its interval."""
    return _banded(_number(at.value), at)


def _reason(at: Interval, told: str = "") -> Markup:
    """What has to be said beside a number, on a line of its own, unless it was told before."""
    if not at.reason or at.reason == told:
        return Markup()
    return Markup('<br><span class="soft">{}</span>').format(at.reason)


FILTERS: dict[str, Callable[..., str]] = {
    "number": _number,
    "interval": _interval,
    "signed": _signed,
    "reason": _reason,
}
"""What templates of the report say numbers and intervals with."""


def _banded(value: str, at: Interval) -> Markup:
    if not math.isfinite(at.lo):
        return Markup("{}").format(value)
    return Markup('{} <span class="band">({} to {})</span>').format(value, _number(at.lo), _number(at.hi))
