"""What the model is for, what it cannot say, and what was not validated."""

from __future__ import annotations

from markupsafe import Markup

from nsclc_mtl.report.facts import KINDS, counted, facts, limits, listed, said
from nsclc_mtl.report.section import Evidence, Section
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS


def intended(evidence: Evidence) -> list[Section]:
    """One section of the whole run."""
    of = facts(evidence)
    words = {name: (said(r.task), KINDS[r.task.kind], counted(r)) for name, r in of.results.items()}
    html = template("sections/intended.html.j2", FILTERS).render(
        of=of,
        tasks=words,
        inputs=listed([f"{word} ({name})" for name, (word, _) in of.modalities.items()]),
        limits=limits(of),
    )
    return [Section("intended-use", "What it is for, and what it cannot say", Markup(html))]
