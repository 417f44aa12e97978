"""Two patients, or one patient under two models, side by side, and how what is said of them differs in plain words."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from nsclc_mtl.records import DataFault
from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.patient import Details

SAME = 0.005  # probabilities that differ by less are the same to a reader
YEAR = 365.25


def routes(board: Board, pages: Jinja2Templates, details: Details) -> APIRouter:
    """`/compare` and `/api/compare`: patients a and b under model_a and model_b; b is a where it is not given."""
    router = APIRouter()
    models = [said.name for said in board.models]

    @router.get("/compare", response_class=HTMLResponse)
    def page(request: Request, a: str = "", b: str = "", model_a: str = "", model_b: str = "") -> HTMLResponse:
        fault = ""
        try:
            for patient, model in ((a, model_a), (b, model_b)):
                board.model(model)
                if patient:
                    details.known(patient)
        except DataFault as unknown:
            fault = str(unknown)
        chosen = {"a": a, "b": b, "model_a": model_a or models[0], "model_b": model_b or models[0]}
        ready = bool(a and b) and not fault
        context = {"ids": board.ids, "models": models, "fault": fault, "ready": ready, **chosen}
        return pages.TemplateResponse(request, "compare.html.j2", context, 404 if fault else 200)

    @router.get("/api/compare")
    def both(a: str, b: str = "", model_a: str = "", model_b: str = "") -> dict[str, Any]:
        left, right = details.of(a, model_a), details.of(b or a, model_b)
        return {"a": left, "b": right, "words": overall(left, right), "tasks": by_task(board, left, right)}

    return router


def overall(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """What differs between the two sides before any task: who they are, what they have, whether to rely on them."""
    one, other = _names(a, b)
    said = []
    if a["id"] == b["id"] and a["model"] == b["model"]:
        said.append("Both sides show the same patient under the same model.")
    elif a["id"] != b["id"] and a["model"] != b["model"]:
        said.append("Patient and model both differ, so a difference cannot be laid to either.")
    lacking = [(one, set(a["missing"]) - set(b["missing"])), (other, set(b["missing"]) - set(a["missing"]))]
    order = [*a["present"], *a["missing"]]
    for name, absent in lacking:
        if absent:
            said.append(f"Only {name} was predicted without {_and([m for m in order if m in absent])}.")
    if a["model"] == b["model"] and _folds(a) != _folds(b):
        said.append("They are predicted by models of different folds, so their risk scores share no scale.")
    if a["abstains"] != b["abstains"]:
        said.append(f"The model should not be relied on for {one if a['abstains'] else other}.")
    elif a["abstains"]:
        said.append("The model should be relied on for neither of the two.")
    return said


def by_task(board: Board, a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    """[{name, words}] of each task that one of the two sides has."""
    left, right = ({task["name"]: task for task in side["tasks"]} for side in (a, b))
    names = _names(a, b)
    told = []
    for name in board.tasks:
        if name in left and name in right:
            told.append({"name": name, "words": differences(left[name], right[name], names, _pair(a, b))})
        elif name in left or name in right:
            told.append(
                {"name": name, "words": [f"Only {names[0] if name in left else names[1]} has this prediction."]}
            )
    return told


def differences(
    a: dict[str, Any], b: dict[str, Any], names: tuple[str, str] = ("A", "B"), pair: str = "The two"
) -> list[str]:
    """Sentences on how two predictions of one task differ: what is said, by how much, the sets, where each stands.

    Risks of two models share no scale, so of survival only probabilities at the same day are held against each other.
    """
    kind = a["kind"]
    if kind == "survival":
        said = _survival(a, b, names, pair)
    elif kind == "regression":
        said = _numbers(a, b, pair)
    else:
        said = _classes(a, b, names, pair)
    said += _sets(a, b, pair)
    said += _positions(a, b, names)
    undecided = [name for name, task in zip(names, (a, b), strict=True) if task["abstains"]]
    if undecided:
        said.append(f"The model does not decide on {_and(undecided)}.")
    leading = [_strongest(task) for task in (a, b)]
    if leading[0] and leading[1] and leading[0] != leading[1]:
        said.append(f"Strongest modality: {leading[0]} for {names[0]}, {leading[1]} for {names[1]}.")
    elif leading[0] and leading[0] == leading[1]:
        said.append(f"Strongest modality: {leading[0]} for both.")
    return said


def _classes(a: dict[str, Any], b: dict[str, Any], names: tuple[str, str], pair: str) -> list[str]:
    said = []
    if a["said"] == b["said"]:
        said.append(f"Both are said to be {a['said']}.")
    else:
        said.append(f"{names[0]} is said to be {a['said']}, {names[1]} {b['said']}.")
    left, right = ({one["class"]: one["p"] for one in task["probabilities"]} for task in (a, b))
    both = [c for c in a["classes"] if left.get(c) is not None and right.get(c) is not None]
    if a["kind"] == "binary":
        both = both[-1:]
    if both:
        most = max(both, key=lambda c: abs(left[c] - right[c]))
        near = a["kind"] != "binary" and not _far(left[most], right[most])
        said.append(
            f"{pair} differ by less than a percentage point in every class."
            if near
            else _apart(left[most], right[most], f"the probability of {most}", pair)
        )
    return said


def _survival(a: dict[str, Any], b: dict[str, Any], names: tuple[str, str], pair: str) -> list[str]:
    said = []
    if a["group"] and b["group"]:
        if a["group"] == b["group"]:
            said.append(f"Both are in the {a['group']} group.")
        else:
            said.append(f"{names[0]} is in the {a['group']} group, {names[1]} in the {b['group']} group.")
    left, right = (
        dict(zip(task["curve"]["days"], task["curve"]["survival"], strict=True)) if task["curve"] else {}
        for task in (a, b)
    )
    shared = [day for day in left if day in right and day > 0]
    if shared:
        day = max(shared, key=lambda d: abs(left[d] - right[d]))
        if len(shared) > 1 and not _far(left[day], right[day]):
            said.append(f"{pair} differ by less than a percentage point in survival at every day that both predict.")
        else:
            said.append(_apart(left[day], right[day], f"the probability of no event at {_day(day)}", pair))
            if len(shared) > 1:
                said[-1] = f"{said[-1].removesuffix('.')}, where they differ most."
    elif left and right:
        said.append("The two curves have no day in common to be compared at.")
    return said


def _numbers(a: dict[str, Any], b: dict[str, Any], pair: str) -> list[str]:
    if a["value"] is None or b["value"] is None:
        return []
    unit = f" {a['unit']}" if a["unit"] else ""
    apart = abs(a["value"] - b["value"])
    return [f"{pair} differ by {apart:.3g}{unit} ({a['value']:.3g} and {b['value']:.3g})."]


def _sets(a: dict[str, Any], b: dict[str, Any], pair: str) -> list[str]:
    if a["set"] is None or b["set"] is None:
        return []
    if not a["set"] and not b["set"]:
        return ["Neither prediction set holds a class."]
    if set(a["set"]) == set(b["set"]):
        return []
    shared = [c for c in a["classes"] if c in a["set"] and c in b["set"]]
    if not shared:
        return ["The prediction sets share no class."]
    return [f"Both prediction sets hold {_and(shared)}; they are not the same."]


def _positions(a: dict[str, Any], b: dict[str, Any], names: tuple[str, str]) -> list[str]:
    shares = [_share(task["position"]) for task in (a, b)]
    if shares[0] is None or shares[1] is None:
        return []
    first, second = _of_all(shares[0]), _of_all(shares[1])
    # of classes without an order the place is that of the confidence
    one, both, than = ("is surer", "are surer", " than") if a["kind"] == "multiclass" else ("lies", "lie", " above")
    if first == second:
        return [f"Both {both}{than} {first} of the test patients."]
    return [f"{names[0]} {one}{than} {first} of the test patients, {names[1]}{than} {second}."]


def _of_all(share: float) -> str:
    return "none" if share == 0 else "all" if share == 1 else f"{round(100 * share)} %"


def _share(position: dict[str, Any] | None) -> float | None:
    if not position or not position["values"]:
        return None
    return sum(v < position["own"] for v in position["values"]) / len(position["values"])


def _folds(side: dict[str, Any]) -> dict[str, str]:
    return {task["name"]: task["fold"] for task in side["tasks"]}


def _strongest(task: dict[str, Any]) -> str | None:
    known = [one for one in task["contributions"] if one["present"] and one["value"]]
    return max(known, key=lambda one: abs(one["value"]))["modality"] if known else None


def _apart(a: float, b: float, of: str, pair: str) -> str:
    """How far two probabilities are apart, in percentage points, which no one takes for a ratio."""
    if not _far(a, b):
        return f"{pair} differ by less than a percentage point in {of} ({_percent(a)} and {_percent(b)})."
    points = max(1, round(100 * abs(a - b)))
    word = "point" if points == 1 else "points"
    return f"{pair} differ by {points} percentage {word} in {of} ({_percent(a)} and {_percent(b)})."


def _far(a: float, b: float) -> bool:
    return abs(a - b) >= SAME


def _percent(p: float) -> str:
    if p < 0.01:
        return "< 1 %"
    return "> 99 %" if p > 0.99 else f"{round(100 * p)} %"


def _day(day: float) -> str:
    years = day / YEAR
    near = round(years)
    if near and abs(years - near) < 0.02:
        return f"{near} year{'s' if near > 1 else ''}"
    return f"day {day:.0f}"


def _pair(a: dict[str, Any], b: dict[str, Any]) -> str:
    if a["id"] == b["id"]:
        return "The two models" if a["model"] != b["model"] else "The two"
    return "The two patients" if a["model"] == b["model"] else "The two"


def _names(a: dict[str, Any], b: dict[str, Any]) -> tuple[str, str]:
    """What the sides are called in a sentence: by patient, by model where the patient is the same."""
    if a["id"] != b["id"]:
        return a["id"], b["id"]
    return (a["model"], b["model"]) if a["model"] != b["model"] else ("A", "B")


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
