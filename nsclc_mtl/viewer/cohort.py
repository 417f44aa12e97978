"""The cohort page: how well the model did on the test patients of its training run, in all and in subgroups."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.templating import Jinja2Templates

from nsclc_mtl.metrics import calibration, survival_calibration
from nsclc_mtl.metrics.risk_groups import groups_of
from nsclc_mtl.metrics.roc import GRID, roc
from nsclc_mtl.metrics.survival import kaplan_meier
from nsclc_mtl.records import DataFault, TaskSpec
from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.evaluation import PRIMARY, WORDS, Evaluation
from nsclc_mtl.viewer.levels import EVERYBODY, columns, parted
from nsclc_mtl.viewer.reference import NAMES, Reference, steps
from nsclc_mtl.viewer.tested import Target, Tested
from nsclc_mtl.viewer.told import Told, known, number

FEWEST = 10  # patients of a subgroup, or it has no curve
YEAR_DAYS = 365.25
# The report is this program's own page without scripts; sandboxed, it could not run any nor reach the other pages.
REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def routes(board: Board, pages: Jinja2Templates) -> APIRouter:
    """`/cohort`, `/api/cohort` and `/report.html`."""
    router = APIRouter()
    cohort = Cohort(board)

    @router.get("/cohort", response_class=HTMLResponse)
    def page(request: Request) -> HTMLResponse:
        return pages.TemplateResponse(request, "cohort.html.j2", {})

    @router.get("/api/cohort")
    def figures(task: str = "", by: str = "") -> dict[str, Any]:
        return cohort.of(task, by)

    @router.get("/report.html")
    def report(download: bool = False) -> FileResponse:
        file = cohort.evaluation.file("report.html") if cohort.evaluation else None
        if file is None:
            raise DataFault("there is no report: make one with `mtl evaluate`")
        return FileResponse(
            file, media_type="text/html; charset=utf-8", filename="report.html",
            content_disposition_type="attachment" if download else "inline",
            headers={"content-security-policy": REPORT_POLICY},
        )  # fmt: skip

    return router


class Cohort:
    """What `/api/cohort` answers. Tasks and covariates are few, so each answer is made once and kept."""

    def __init__(self, board: Board) -> None:
        self.board, self.said = board, board.models[0]
        self.reference = Reference(self.said, board.tasks)
        self.evaluation = Evaluation(board.report) if board.report else None
        self.columns = columns(board.covariates)
        self.told = Told(self.said, board.tasks)
        self._tested: dict[str, Tested] = {}
        self._placed: dict[str, list[dict[str, Any]]] = {}
        self._made: dict[tuple[str, str], dict[str, Any]] = {}

    def of(self, task: str = "", by: str = "") -> dict[str, Any]:
        """Everything that the page shows of a task. Raises DataFault where the task or the covariate is not known.

        {task: {name, kind, classes, unit, endpoint, causes, metric}, tasks, by, bys, training, folds, n, events,
        unknown, evaluation, other, report, metrics, targets, levels, curves, calibration, abstention, points}
        """
        name = task or next(iter(self.board.tasks))
        if name not in self.board.tasks:
            raise DataFault(f"no task '{name[:80]}' is shown here")
        if by and by not in self.columns:
            raise DataFault(f"no covariate '{by[:80]}' parts the patients")
        if (name, by) not in self._made:
            self._made[name, by] = self._answer(self.board.tasks[name], by)
        return self._made[name, by]

    def tested(self, spec: TaskSpec) -> Tested:
        """The test patients of the training run whose outcome is known."""
        if spec.name not in self._tested:
            rows = self.said.reference if self.said.reference is not None else self.said.predictions.iloc[:0]
            self._tested[spec.name] = Tested.of(spec, rows[rows["task"] == spec.name])
        return self._tested[spec.name]

    def _answer(self, spec: TaskSpec, by: str) -> dict[str, Any]:
        tested = self.tested(spec)
        levels = self._levels(tested, by)
        people = len(set(tested.patients))
        other = self.evaluation.other(spec, people) if self.evaluation else ""
        found = None if other else self.evaluation
        of = {}
        for level, inside in levels.items():
            for patient in tested.patients[inside]:
                of[str(patient)] = level
        return {
            "task": {"name": spec.name, "kind": spec.kind, "classes": list(spec.classes), "unit": spec.unit,
                     "endpoint": spec.endpoint, "causes": list(spec.causes), "metric": WORDS[PRIMARY[spec.kind]]},
            "tasks": list(self.board.tasks),
            "by": by,
            "bys": self.columns,
            "training": dict(self.said.provenance).get("trained run", self.said.name),
            "folds": len(set(tested.fold)),
            "n": people,
            "events": _events(tested, tested.once),
            "unknown": tested.unknown,
            "evaluation": found.name if found else None,
            "other": other,
            "report": bool(self.evaluation and self.evaluation.file("report.html")),
            "metrics": found.metrics(spec) if found else [],
            "targets": [target.name for target in tested.targets],
            "levels": [self._level(tested, found, by, level, inside) for level, inside in levels.items()],
            "curves": self._survival(tested, levels) if spec.kind == "survival" else _rocs(tested, levels),
            "calibration": self._calibration(tested, found, by, levels),
            "abstention": found.abstention(spec) if found else [],
            "points": [{**point, "level": of.get(point["id"])} for point in self._points(spec.name, tested)],
        }  # fmt: skip

    def _levels(self, tested: Tested, by: str) -> dict[str, np.ndarray]:
        """Level -> its rows, bool [n]. The levels are those of the patients whose outcome is known."""
        if not by:
            return {EVERYBODY: np.ones(len(tested.patients), dtype=bool)}
        people = [p for p in dict.fromkeys(tested.patients) if p in self.board.covariates.index]
        each = parted(self.board.covariates.loc[people, by]) if people else {}
        return {level: np.isin(tested.patients.astype(str), list(ids)) for level, ids in each.items()}

    def _level(
        self, tested: Tested, found: Evaluation | None, by: str, level: str, inside: np.ndarray
    ) -> dict[str, Any]:
        """{name, n, events, metric}: what the evaluation says of the subgroup; else the metric without an interval."""
        spec, metric = tested.spec, None
        if found:
            metric = found.of_level(spec, by, level) if by else found.metrics(spec)[0]
        n = int((inside & tested.once).sum())
        if metric is None:
            value = tested.discrimination(inside) if n >= FEWEST else None
            why = _few(n) if value is None else value.reason
            metric = {"words": WORDS[PRIMARY[spec.kind]], "value": number(value), "lo": None, "hi": None, "reason": why}
        return {"name": level, "n": n, "events": _events(tested, inside & tested.once), "metric": metric}

    def _survival(self, tested: Tested, levels: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        """Kaplan-Meier curves of each subgroup below and above the cut-off that each fold's training fixed:
        [{name, n, reason, groups: [{name, n, events, days, survival, lower, upper, at_risk: [{days, n}]}]}]."""
        cuts = self.reference.cuts(tested.spec.name)
        group = np.full(len(tested.patients), -1)
        for fold, cut in cuts.items():
            rows = (tested.fold == fold) & ~np.isnan(tested.score)
            group[rows] = groups_of(tested.score[rows], [cut])
        last = float(tested.label.max()) if len(tested.label) else 0.0
        ticks = np.arange(0, last + 1, YEAR_DAYS * max(1, round(last / YEAR_DAYS / 8)))
        out = []
        for level, inside in levels.items():
            rows = inside & tested.once & (group >= 0)
            n = int(rows.sum())
            reason = "" if cuts else "the run kept no risks of its training patients, so nothing says where to cut"
            reason = reason or ("" if n >= FEWEST else _few(n))
            groups = []
            for k, word in enumerate(NAMES[2]):
                time, event = tested.label[rows & (group == k)], tested.event[rows & (group == k)]
                if not reason and len(time):
                    groups.append(
                        {"name": word, "n": len(time), "events": int(event.sum()), **steps(kaplan_meier(time, event)),
                         "at_risk": [{"days": float(t), "n": int((time >= t).sum())} for t in ticks]}
                    )  # fmt: skip
            out.append({"name": level, "n": n, "reason": reason, "groups": groups})
        return out

    def _calibration(
        self, tested: Tested, found: Evaluation | None, by: str, levels: dict[str, np.ndarray]
    ) -> list[dict[str, Any]]:
        """Of each target: the evaluation's smooth curve, and groups of patients (the evaluation's, of subgroups made
        here in the same way): [{target, curve, levels: [{name, n, reason, groups}]}]."""
        read = {c["target"]: c for c in found.calibration(tested.spec)} if found else {}
        out = []
        for target in tested.targets:
            told = read.get(target.name)
            each = []
            for level, inside in levels.items():
                rows = inside & tested.once & np.isfinite(target.said)
                n = int(rows.sum())
                groups = told["groups"] if told and not by else _grouped(tested, target, rows) if n >= FEWEST else []
                each.append({"name": level, "n": n, "reason": "" if groups else _few(n), "groups": groups})
            out.append({"target": target.name, "curve": told["curve"] if told else None, "levels": each})
        return out

    def _points(self, name: str, tested: Tested) -> list[dict[str, Any]]:
        """One a patient: {id, opens, label, event, known, said, predicted, abstains, reasons}.

        said: the probability of each target; predicted: what orders patients within a fold; label: number of the class,
        days or the number; opens: the patient has a page here.
        """
        if name not in self._placed:
            self._placed[name] = self._place(tested)
        return self._placed[name]

    def _place(self, tested: Tested) -> list[dict[str, Any]]:
        here, told, out = set(self.board.ids), self.told, list[dict[str, Any]]()
        classes = bool(tested.spec.classes)
        for k in np.flatnonzero(tested.once):
            patient = str(tested.patients[k])
            of_all = told.patient(patient) if patient in here else None
            of_task = told.task(patient, tested.spec.name) if patient in here else None
            row: dict[str, Any] = {"time_days": tested.label[k], "event": tested.event[k], "target": tested.label[k]}
            if classes:
                row["target"] = tested.spec.classes[int(tested.label[k])]
            reasons = [*(of_all["reasons"] if of_all else ()), *(of_task["reasons"] if of_task else ())]
            out.append(
                {
                    "id": patient,
                    "opens": patient in here,
                    "label": number(tested.label[k]),
                    "event": number(tested.event[k]),
                    "known": known(tested.spec, row),
                    "said": [number(target.said[k]) for target in tested.targets],
                    "predicted": number(tested.score[k]),
                    "abstains": bool((of_all and of_all["abstains"]) or (of_task and of_task["abstains"])),
                    "reasons": list(dict.fromkeys(reasons)),
                }
            )
        return out


def _rocs(tested: Tested, levels: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Within-fold ROC curves of each class or cut and subgroup, and their mean with the patients as weights:
    [{target, fpr, levels: [{name, n, events, auc, mean, folds, reason}]}]."""
    out = []
    for target in tested.targets:
        each = []
        for level, inside in levels.items():
            rows = inside & np.isfinite(target.said)
            n, happened = int((rows & tested.once).sum()), int(target.happened[rows & tested.once].sum())
            curve = None
            if n >= FEWEST:
                curve = roc(level, [(target.happened[fold], target.said[fold]) for fold in tested.folds(rows)])
            one = happened in (0, n)
            few = "all of them have the same outcome" if one else "no fold has patients with and without it"
            each.append(
                {
                    "name": level,
                    "n": n,
                    "events": happened,
                    "mean": curve.mean.round(5).tolist() if curve else None,
                    "folds": [own.round(5).tolist() for own in curve.folds] if curve else [],
                    "reason": "" if curve else _few(n) if n < FEWEST else few,
                }
            )
        out.append({"target": target.name, "fpr": GRID.round(5).tolist(), "levels": each})
    return out


def _grouped(tested: Tested, target: Target, rows: np.ndarray) -> list[dict[str, Any]]:
    p = target.said[rows]
    if target.when is None:
        observe = calibration.rates(target.happened[rows])
    else:
        observe = survival_calibration.risks(tested.label[rows], tested.event[rows], target.when)
    names = ("predicted", "observed", "lo", "hi", "n")
    return [{name: number(getattr(group, name)) for name in names} for group in calibration.groups(p, observe)]


def _events(tested: Tested, rows: np.ndarray) -> int | None:
    """How many had it; None where several classes or a number have no one event."""
    return int(tested.events[rows].sum()) if tested.spec.kind in ("binary", "survival") else None


def _few(n: int) -> str:
    return f"{n} {'patient' if n == 1 else 'patients'}: fewer than {FEWEST}, so nothing is drawn"
