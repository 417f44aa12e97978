"""What the JSON of a bundle must look like before any of it is used: one place, and a sentence where it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Shape = Callable[[Any, str], str]
"""From a value and the name of its place to what is wrong with it; '' where nothing is."""


def checked(model: Any, cohort: Any, fitted: Mapping[int, Any]) -> str:
    """What is wrong with `model.json`, `cohort.json` and the folds' `fitted.json`, each as read; '' where nothing is.

    fitted: number of the fold -> content. Also whether they speak of the same tasks, modalities and folds.
    """
    wrong = MODEL(model, "model.json") or COHORT(cohort, "cohort.json")
    for fold, state in fitted.items():
        wrong = wrong or FITTED(state, f"fold{fold}/fitted.json")
    if wrong:
        return wrong
    if sorted(model["folds"]) != sorted(map(str, fitted)) or not fitted:
        return f"model.json describes the folds {', '.join(model['folds']) or 'none'}, and others are there"
    for fold, state in fitted.items():
        file, inside = f"fold{fold}/fitted.json", state["fitted"]
        held = {name for word in ("tables", "bags", "volumes", "series") for name in inside.get(word) or {}}
        for what, names in (("tasks", state["tasks"]), ("modalities", state["modalities"])):
            if not cohort[what] or not set(cohort[what]) <= set(names):  # of a federation's site some alone
                return f"cohort.json and {file} name other {what}"
        if set(inside["tasks"]) != set(state["tasks"]) or set(model["tasks"]) != set(state["tasks"]):
            return f"model.json and {file} name other tasks"
        if not inside["patterns"]:
            return f"{file} names no combination of modalities that was trained"
        if held != set(state["modalities"]):
            return f"{file} holds what was fitted on other modalities than it names"
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# Shapes
# ---------------------------------------------------------------------------------------------------------------------


def plain(*kinds: type) -> Shape:
    """A value of one of these types; a truth value is no number."""

    def look(value: Any, at: str) -> str:
        right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        return "" if right else f"{at} is no {' or '.join(WORDS[kind] for kind in kinds)}"

    return look


WORDS = {str: "text", int: "whole number", float: "number", dict: "mapping", list: "list", bool: "truth value"}
TEXT, WHOLE, NUMBER, MAPPING = plain(str), plain(int), plain(int, float), plain(dict)


def maybe(shape: Shape) -> Shape:
    """Null, or this."""
    return lambda value, at: "" if value is None else shape(value, at)


def nothing_or(shape: Shape) -> Shape:
    """Null or an empty mapping, or this."""
    return lambda value, at: "" if value is None or value == {} else shape(value, at)


def listed(shape: Shape) -> Shape:
    """A list of these."""

    def look(value: Any, at: str) -> str:
        if not isinstance(value, list):
            return f"{at} is no list"
        return next((wrong for i, one in enumerate(value) if (wrong := shape(one, f"{at}[{i}]"))), "")

    return look


def each(shape: Shape) -> Shape:
    """A mapping from any name to this."""

    def look(value: Any, at: str) -> str:
        if not isinstance(value, dict):
            return f"{at} is no mapping"
        return next((wrong for name, one in value.items() if (wrong := shape(one, f"{at}: {name}"))), "")

    return look


def words(optional: Mapping[str, Shape] | None = None, **needed: Shape) -> Shape:
    """A mapping with these words; others may stand beside them."""

    def look(value: Any, at: str) -> str:
        if not isinstance(value, dict):
            return f"{at} is no mapping"
        for word, shape in needed.items():
            if word not in value:
                return f"{at} lacks '{word}'"
            if wrong := shape(value[word], f"{at}: {word}"):
                return wrong
        there = {word: shape for word, shape in (optional or {}).items() if word in value}
        return next((wrong for word, shape in there.items() if (wrong := shape(value[word], f"{at}: {word}"))), "")

    return look


SECTION = maybe(MAPPING)
CONFIG = words(
    {
        "precision": maybe(plain(str, int)), "members": maybe(WHOLE),
        "tasks": maybe(listed(TEXT)), "modalities": maybe(listed(TEXT)),
        "cox": SECTION, "trust": SECTION, "slides": SECTION, "segmenter": SECTION,
        "backbone": SECTION, "stain": SECTION, "slide_encoder": SECTION, "scan_presets": SECTION, "deep": SECTION,
        "skip": SECTION, "adaptation": SECTION,
    },
    seed=WHOLE,
    cohort=words({"name": maybe(TEXT)}, patients=words(file=TEXT), tasks=each(MAPPING), modalities=each(MAPPING)),
    scans=MAPPING, parts=words(modalities=each(MAPPING), tasks=each(MAPPING)), fusion=MAPPING, balance=MAPPING,
    optim=MAPPING,
)  # fmt: skip
MARKS = words(
    blocks=each(listed(listed(TEXT))), chance=each(NUMBER), telling=each(NUMBER), content=listed(TEXT),
    named=listed(TEXT),
)  # fmt: skip
HELD_OUT = words(
    {"value": maybe(NUMBER), "lo": maybe(NUMBER), "hi": maybe(NUMBER), "events": maybe(WHOLE), "agree": plain(bool)},
    metric=TEXT, n=WHOLE, reason=TEXT,
)  # fmt: skip
MODEL = words(
    {
        "thresholds": maybe(each(each(NUMBER))), "patients_sha256": maybe(listed(TEXT)), "derived": maybe(each(TEXT)),
        "marks": maybe(MARKS), "git_commit": maybe(TEXT), "held_out": maybe(each(HELD_OUT)),
    },
    schema=WHOLE, version=TEXT, run=TEXT, tasks=each(words(kind=TEXT, classes=listed(TEXT))),
    folds=each(words({"settings": maybe(each(SECTION))}, weights=each(TEXT), dims=MAPPING)),
    cutoffs=each(each(words(median=NUMBER, lower_tertile=NUMBER, upper_tertile=NUMBER))), config=CONFIG,
)  # fmt: skip
"""`model.json`; words that came later are optional."""
TASK = {
    "columns": listed(TEXT), "endpoint": maybe(TEXT), "landmark_days": maybe(NUMBER), "causes": maybe(listed(TEXT)),
    "unit": maybe(TEXT),
}  # fmt: skip
COHORT = words(
    name=TEXT, patients=WHOLE, tasks=each(words(TASK, kind=TEXT, classes=listed(TEXT))),
    modalities=each(words(kind=TEXT, patients=WHOLE)), notes=listed(TEXT),
)  # fmt: skip
LATER = maybe(each(MAPPING))
FITTED = words(
    fitted=words(
        {
            "combat": LATER, "series": LATER, "trust": LATER, "robust": LATER, "reference": LATER, "follow_up": LATER,
            "outside": nothing_or(words(rate=NUMBER, reference=TEXT, known=listed(NUMBER), scales=each(MAPPING))),
            "sites": maybe(listed(TEXT)),
        },
        tables=each(MAPPING), bags=each(MAPPING), volumes=each(listed(WHOLE)), tasks=each(MAPPING),
        patterns=listed(listed(TEXT)),
    ),
    tasks=each(words(TASK, kind=TEXT, classes=listed(TEXT))), modalities=each(MAPPING),
)  # fmt: skip
