"""check.html and the terminal: what is found stands there, escaped, and nothing is fetched from elsewhere."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
from rich.console import Console

from nsclc_mtl.cohort import lint, split_record, splits
from nsclc_mtl.records import Manifest, ModalitySpec, TaskSpec
from nsclc_mtl.report import check_page, check_text

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Balance(HTMLParser):
    """Every element that opens closes, in order; the text of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def cohort() -> tuple[Manifest, pd.DataFrame]:
    """Three sites, one with a hostile name; a copy of the time among the inputs under a hostile name."""
    n = 90
    rng = np.random.default_rng(0)
    index = pd.Index([f"p{i:02d}" for i in range(n)])
    labels = {
        "survival": pd.DataFrame(
            {"event": (rng.random(n) < 0.4) * 1.0, "time_days": np.ceil(rng.exponential(900, n))}, index=index
        ),
        "response": pd.DataFrame({"value": rng.integers(0, 2, n) * 1.0}, index=index),
    }
    labels["response"].iloc[:9] = np.nan
    table = pd.DataFrame({"age": rng.normal(60, 9, n), "<b>x": labels["survival"]["time_days"] / 30.4}, index=index)
    manifest = Manifest(
        "toy", pd.DataFrame({"site": np.resize(["A", "B", "<i>C</i>"], n)}, index=index),
        {"survival": TaskSpec("survival", "survival"), "response": TaskSpec("response", "binary", ("no", "yes"))},
        {"clinical": ModalitySpec("clinical", "clinical", {})}, labels, tables={"clinical": table.iloc[5:]},
        notes=["a note & more"],
    )  # fmt: skip
    return manifest, splits.k_fold(labels, manifest.ids, folds=3, seed=0)


def page() -> tuple[str, lint.Lint]:
    manifest, dealt = cohort()
    found = lint.check(manifest, dealt)
    record = split_record.record(dealt, manifest, {})
    return check_page.render([("Cohort", "toy")], manifest, found, dealt, record), found


def test_the_page_is_whole_and_alone() -> None:
    html, found = page()
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html)
    assert "default-src 'none'" in html
    assert "<i>C</i>" not in html
    assert "<b>x" not in html
    text = " ".join(" ".join(parser.text).split())
    assert "1 error," in text
    assert text.index("1 error,") < text.index("From the tables to the folds")
    for finding in found.findings:
        assert finding.sentence in text
        assert finding.todo in text
    assert "a note & more" in text
    assert split_record.digest(cohort()[1]) in text
    assert html.count("<svg") == 2  # the flow, and one curve of follow-up
    assert "85 (94 %)" in text  # have the clinical table


def test_errors_come_first() -> None:
    html, _ = page()
    levels = re.findall(r'class="finding (error|warning)"', html)
    assert levels == sorted(levels)


def test_tables_that_cannot_be_read_have_a_page_of_their_faults() -> None:
    faults = [{"file": "p.csv", "row": 3, "what to do": "<fill it in>"}, {"file": "q.csv", "row": 9, "what to do": "x"}]
    html = check_page.render([("Cohort", "toy")], faults=faults)
    assert "Faults of the tables" in html
    assert "2 errors" in html
    assert "&lt;fill it in&gt;" in html


def test_the_terminal_needs_no_more_than_a_hundred_columns() -> None:
    manifest, dealt = cohort()
    found = lint.check(manifest, dealt)
    console = Console(width=120, record=True, file=io.StringIO())
    for table in check_text.tables(manifest, found, dealt, split_record.record(dealt, manifest, {})):
        console.print(table)
    told = console.export_text()
    assert max(len(line.rstrip()) for line in told.splitlines()) <= check_text.WIDTH
    assert "task response: patients" in told
    assert "– not known" in told
    lines = list(check_text.lines(found.findings))
    assert lines[0][0] == "red"
    assert lines[0][1].startswith("error [copy] clinical: column '<b>x' is a copy of the task 'survival' (time)")
    assert lines[1] == ("dim", f"  to do: {found.findings[0].todo}")
