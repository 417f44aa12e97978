"""A finding: what a reviewer would ask about, where it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["error", "warning"]
FEW = 5  # patients of either kind: fewer, and no column can be judged

REMEDIES = {
    "table": "correct the table or the cohort's declaration, then check again: nothing behind it was looked at",
    "declared": "take the column out of the modality's `columns`",
    "copy": "take the column out of the inputs (cohort.modalities.*.columns or exclude, or cohort.never_inputs)",
    "alarm": "find out when the value was known; if after the index date, put the column into cohort.never_inputs",
    "name": "find out when the value was known; if after the index date, put the column into cohort.never_inputs",
    "duplicate": "find out whether they are one person, then keep one, name the person in a column "
    "cohort.patients.group, or correct the table",
    "constant": "nothing, or leave the columns out",
    "missing": "report results by who has the modality; compare with a model of the absence alone",
    "site": "test on sites that were not trained on: folds.sites=leave_one_out",
    "follow_up": "check the unit of the time (cohort.tasks.*.unit) against the source of the table",
    "events": "check cohort.tasks.*.events: 1 = it happened, 0 = censored",
    "split": "change the folds as the sentence says",
    "overlap": "correct the file of the folds",
}
"""What to do about a finding, by rule."""


@dataclass(frozen=True)
class Finding:
    """Something that a reviewer would ask about."""

    level: Level
    rule: str  # a key of REMEDIES
    where: str  # modality, table or task
    sentence: str
    column: str = ""  # the input column, where the finding is about one

    @property
    def todo(self) -> str:
        """What to do about it."""
        return REMEDIES[self.rule]

    def plain(self) -> dict[str, str]:
        """As `check.json` holds it: level, rule, where, column, sentence, todo."""
        return {**asdict(self), "todo": self.todo}


def some(names: Iterable[object], most: int = 4) -> str:
    """The first few names in quotes, and how many more there are."""
    listed = [f"'{name}'" for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Errors before warnings, within each in the order of the rules."""
    order = list(REMEDIES)
    return sorted(findings, key=lambda f: (f.level != "error", order.index(f.rule)))
