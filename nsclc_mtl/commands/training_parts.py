"""What the training did with each patient who is predicted, as the column `training` of patients.csv says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nsclc_mtl.commands.trained import parts_of
from nsclc_mtl.records import DataFault

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.commands.known import Known
    from nsclc_mtl.config import Run

COLUMN = "training"
STRANGER, HELD_OUT, TRAINED_ON, PERHAPS = "", "held out", "trained on", "perhaps trained on"
UNSEEN = "no prediction of a patient unseen"
EVERY_FOLD, BUNDLE = f"trained on by every fold: {UNSEEN}", f"of the patients that the bundle was trained on: {UNSEEN}"
NOBODY = "nobody is left to be judged: every patient was trained on, or may have been; give patients of another study"
MAYBE = "perhaps of the patients that were trained on: their inputs do not tell"


@dataclass(frozen=True)
class Parts:
    """Whom each patient is predicted by, and what the training did with him."""

    tested: dict[str, int]  # patient of the training -> the fold that held him out
    by: dict[str, list[int]]  # patient -> the folds that predict: of who is `TRAINED_ON` all
    word: dict[str, str]  # patient -> STRANGER, HELD_OUT (no fold of `by` was trained on him), TRAINED_ON or PERHAPS
    folds: list[int]  # at hand

    def left(self, ids: Sequence[str], asked: bool, run: Run) -> list[str]:
        """The patients without those whom all the folds at hand trained on (where `ckpt` has not every fold).

        Raises DataFault where they were asked for by name, or nobody is left.
        """
        seen = [p for p in ids if p in self.tested and self.tested[p] not in self.folds]
        left = [p for p in ids if p not in set(seen)]
        if seen and (asked or not left):
            raise DataFault(
                f"patient {seen[0]} was held out by fold {self.tested[seen[0]]}, which ckpt does not have; the folds "
                "that it has were trained on this patient: give the run folder with all folds"
            )
        if seen:
            run.say(f"note: {len(seen)} patients left out: the folds that ckpt has were trained on them")
        return left


def of(found: Known, ids: Sequence[str], folder: Path, folds: Sequence[int]) -> Parts:
    """By which of the folds at hand each patient is predicted. folder: of the training run, or a bundle."""
    tested, seen = parts_of(folder, {p: found.whom[p] for p in ids if p in found.whom}, dict.fromkeys(folds))
    unsure, by, word = set(found.unsure), dict[str, list[int]](), dict[str, str]()
    for patient in ids:
        free = [tested[patient]] if patient in tested else [f for f in folds if f not in seen.get(patient, ())]
        by[patient] = free or list(folds)
        known = HELD_OUT if free else TRAINED_ON
        word[patient] = known if patient in found.whom else PERHAPS if patient in unsure else STRANGER
    return Parts(tested, by, word, list(folds))


def noted(cautions: pd.DataFrame, parts: Parts, packed: bool) -> pd.DataFrame:
    """Rows of patients.csv with the column `training`, and a caution where it is a reason for one."""
    why = {TRAINED_ON: BUNDLE if packed else EVERY_FOLD, PERHAPS: MAYBE}
    words = [parts.word[p] for p in cautions.index]
    more = ["; ".join(filter(None, (had, why.get(w)))) for had, w in zip(cautions["caution"], words, strict=True)]
    made = cautions.assign(caution=more)
    made.insert(list(made.columns).index("caution"), COLUMN, words)
    return made


def told(table: pd.DataFrame) -> Mapping[str, str] | None:
    """Patient -> word of `training`, as patients.csv has it; None of a table of before, which has none."""
    return dict(zip(table["patient_id"], table[COLUMN], strict=True)) if COLUMN in table else None
