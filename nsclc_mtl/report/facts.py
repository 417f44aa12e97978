"""What a reader must know of a run before its numbers: in sentences, for the page, the card and the checklist."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nsclc_mtl.metrics.comparison import times_dealt
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report.against_floor import AgainstFloor, against_floor
from nsclc_mtl.report.evaluation import TaskResult
from nsclc_mtl.report.fold import MEAN
from nsclc_mtl.report.section import Evidence

KINDS = {
    "binary": "the probability of each of two classes",
    "multiclass": "a probability for each class",
    "ordinal": "a probability for each of the ordered classes",
    "survival": "a risk that orders patients, and the probability of being free of the event at fixed times",
    "regression": "a number",
}
MODALITY_KINDS = {
    "bag": "tile features of slides",
    "spots": "spots of spatial omics",
    "radiomics": "radiomic features of a lesion",
    "deep": "deep features of a lesion",
    "volume": "volumes of scans",
    "omics": "molecular measurements",
    "pathways": "molecular measurements by pathway",
    "clinical": "clinical variables",
    "series": "repeated visits",
    "vector": "feature vectors",
}
ENOUGH_EVENTS = 100  # with the event, and as many without: Collins, Ogundimu and Altman, Statistics in Medicine, 2016
_MUCH_MISSING = 0.2


@dataclass(frozen=True)
class Facts:
    """Counts and words of a run."""

    evidence: Evidence
    cohort: str
    patients: int  # evaluated
    sites: int  # among them
    modalities: dict[str, tuple[str, int]]  # name -> kind in words, patients who have it
    folds: int
    repeats: int  # how often all patients were dealt into folds; of `folds` each has so many
    external: bool  # patients of another cohort

    @property
    def results(self) -> Mapping[str, TaskResult]:
        """Task -> what came out."""
        return self.evidence.results

    @property
    def trained(self) -> Mapping[str, Any]:
        """Settings of the training."""
        return self.evidence.trained

    @property
    def design(self) -> str:
        """How the model was judged, as a sentence says it."""
        if self.evidence.locked:
            model = f"; all is fitted as training on {self.folds} folds left it" if self.external else ""
            return f"evaluation of predictions that were locked on {self.evidence.locked}, before the outcomes{model}"
        if self.external:
            how = f"training on {self.folds} folds" if self.folds != 1 else "the training of one fold"
            return f"evaluation on patients of another cohort; all is fitted as {how} left it"
        folds, each = self.trained.get("folds") or {}, self.folds // self.repeats
        again = f", in {self.repeats} repeats" if self.repeats > 1 else ""
        if folds.get("sites") == "leave_one_out":
            return f"development, and internal-external validation that leaves out each of {each} sites in turn{again}"
        if folds.get("external"):
            return "development, and validation on the patients of sites that training did not see" + again
        if self.folds == 1:
            return "development, and validation on a held-out part of the same cohort"
        whole = ", each site whole in one part" if folds.get("sites") == "preserve" else ""
        return f"development, and internal validation by cross-validation over {each} folds{whole}{again}"

    @property
    def independent(self) -> bool:
        """Whether sites were judged that training did not see."""
        folds = self.trained.get("folds") or {}
        return self.external or bool(folds.get("sites")) or bool(folds.get("external"))


def facts(evidence: Evidence) -> Facts:
    """What there is to say of this evidence."""
    manifest, folded = evidence.manifest, evidence.splits if evidence.splits is not None else evidence.predictions
    ids = set(folded["patient_id"])
    modalities: dict[str, tuple[str, int]] = {}
    sites = 0
    if manifest is not None:
        inside = manifest.patients[manifest.patients.index.isin(ids)]
        sites = int(inside["site"].replace("", None).nunique()) if "site" in inside else 0
        for name, spec in manifest.modalities.items():
            word = MODALITY_KINDS.get(spec.kind, spec.kind)
            modalities[name] = (word, len(inside.index.intersection(manifest.who(name))))
    judged = set(evidence.predictions["fold"].astype(str))
    external = evidence.splits is None and judged == {MEAN}
    held = evidence.folder.glob("fold*/fitted.json") if evidence.folder is not None else ()
    folds = (len(evidence.mean_of) or len(list(held))) if external else len(judged)
    name = manifest.name if manifest is not None else "unnamed"
    tested = evidence.predictions.loc[evidence.predictions["part"] == "test", ["patient_id", "fold"]].drop_duplicates()
    often = times_dealt([list(of) for _, of in tested.groupby("fold")["patient_id"]])
    return Facts(evidence, name, len(ids), sites, modalities, folds, often, external)


def said(task: TaskSpec) -> str:
    """A task in words: its name, endpoint or classes."""
    if task.kind == "survival":
        return f"{task.name} ({task.endpoint})" if task.endpoint and task.endpoint != task.name else task.name
    if task.classes:
        return f"{task.name} ({', '.join(task.classes)})"
    return f"{task.name} (in {task.unit})" if task.unit else task.name


def listed(words: list[str]) -> str:
    """Words as a sentence lists them."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "nothing"


def counted(result: TaskResult) -> str:
    """Patients and events of a task."""
    n = f"{result.n} patient{'s' * (result.n != 1)}"
    if result.events is None:
        return n
    return f"{n}, {result.events} {'events' if result.task.kind == 'survival' else 'positive'}"


def limits(of: Facts) -> list[str]:
    """What this run does not show, a sentence each."""
    out: list[str] = []
    if "level" in (of.trained.get("cohort") or {}):
        out.append("The patients are simulated: the numbers say how the software works, and nothing of medicine.")
    if not of.independent:
        out.append(
            "No patient of another hospital was judged: all are of the cohort that the model was trained on, "
            "so another scanner, stain, laboratory or population may lower every number here."
        )
    if of.sites < 2:
        out.append("One site, or none named: whether the model holds from site to site cannot be seen.")
    if not of.evidence.locked:
        out.append("Nothing was predicted before its outcome was known: this is no prospective study.")
    floor = f"floor:{of.evidence.settings.get('primary_floor', '')}"
    tested = against_floor(of.results, floor, of.evidence.splits)
    for name, result in of.results.items():
        if result.events is not None:
            fewer = result.events if result.task.kind == "survival" else min(result.events, result.n - result.events)
            if fewer < ENOUGH_EVENTS:
                word = "events" if result.task.kind == "survival" else "of the rarer class"
                out.append(
                    f"{name}: {fewer} {word} among {result.n} patients. At least {ENOUGH_EVENTS} are advised for a "
                    "validation, so only large faults would show."
                )
        if gap := _not_above(result, floor, tested.get(name)):
            out.append(gap)
    for name, (_, n) in of.modalities.items():
        if of.patients and n < (1 - _MUCH_MISSING) * of.patients:
            out.append(f"{name} is missing for {100 * (1 - n / of.patients):.0f} % of the patients.")
    if int(of.trained.get("members") or 1) == 1 and of.repeats == 1:
        out.append(
            "Each fold was trained once: another seed or split would give other numbers, which no interval here holds."
        )
    return out


def _not_above(result: TaskResult, floor: str, tested: AgainstFloor | None) -> str:
    """One sentence where the learner is not shown to be above the primary floor, after Holm, or that says little.

    tested: None where one of the two has no value.
    """
    if floor not in result.metrics[result.primary]:
        return ""
    name, linear = result.task.name, f"the linear floor ({floor[6:]})"
    if tested is None or math.isnan(tested.adjusted):
        return f"{name}: the model could not be compared with {linear}."
    if not tested.better:
        shown = "is shown to be worse" if tested.apart else "is not shown to be better"
        return f"{name}: the model {shown} than {linear}."
    if tested.remark:
        return f"{name}: the model is {tested.word} {linear}, but {tested.remark[:1].lower()}{tested.remark[1:]}"
    return ""
