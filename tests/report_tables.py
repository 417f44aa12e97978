"""Numbers in the tables of report.html against metrics.json and the CSV files beside it."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd

INTERVAL = re.compile(r"([+−]?\d+\.\d+) ?\((−?\d+\.\d+) to (−?\d+\.\d+)\)")
NUMBER = re.compile(r"(?<![\w.])([+−]?\d+(?:\.\d+)?)( ?%)?(?![\w.])")
TALKS = {"tripod-ai": "words of the checklist; its numbers are counts that stand in the chapters"}
"""Chapters whose tables hold sentences."""


class Tables(HTMLParser):
    """(anchor of the chapter or section, cells) of every row of every table on the page."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, list[str]]] = []
        self.anchor, self.cells, self.open = "", list[str](), False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("h2", "h3", "section") and (anchor := dict(attrs).get("id")):
            self.anchor = anchor
        if tag == "tr":
            self.cells = []
        if tag in ("td", "th"):
            self.cells.append("")
            self.open = tag == "td"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.open = False
        if tag == "tr":
            self.rows.append((self.anchor, self.cells))

    def handle_data(self, data: str) -> None:
        if self.open:
            self.cells[-1] += " ".join(data.split()) and " ".join(data.split()) + " "


def known(folder: Path, trained: Path) -> tuple[list[tuple[float, float, float]], list[float]]:
    """Every interval and every number that a file beside the page holds."""
    triples, numbers = [], []
    audit = trained / "audit.json"
    rows = json.loads((folder / "metrics.json").read_text())
    rows += [{**r, "value": r["loss"]} for r in json.loads(audit.read_text())] if audit.is_file() else []
    for r in rows:
        numbers += [v for v in r.values() if isinstance(v, int | float)]
        if r["value"] is not None and r["lo"] is not None:
            triples.append((r["value"], r["lo"], r["hi"]))
    for file in [*folder.glob("tables/*.csv"), *folder.glob("figures/*.csv")]:
        table = pd.read_csv(file)
        for column in table.select_dtypes("number"):
            numbers += list(table[column].dropna())
            if {f"{column}_lo", f"{column}_hi"} <= set(table):
                triples += list(table[[column, f"{column}_lo", f"{column}_hi"]].itertuples(index=False, name=None))
        for column in table.select_dtypes(exclude="number"):
            for cell in table[column].dropna().astype(str):
                numbers += [float(m.group()) for m in re.finditer(r"\d+(?:\.\d+)?", cell)]
    return triples, numbers


def printed(word: str) -> tuple[float, int]:
    plain = word.replace("−", "-")
    return float(plain), len(plain.partition(".")[2])


def near(value: float, word: str, scale: float = 1.0) -> bool:
    said, digits = printed(word)
    return math.isfinite(value) and abs(value * scale - said) <= 0.5 * 10**-digits * (1 + 1e-6)


def strangers(folder: Path, trained: Path) -> list[tuple[str, str]]:
    """Numbers of the tables that no file holds, with the chapter they stand in."""
    page = re.sub(r"<svg.*?</svg>|<style.*?</style>", "", (folder / "report.html").read_text(), flags=re.S)
    tables = Tables()
    tables.feed(page)
    triples, numbers = known(folder, trained)
    scales = (1.0, 1 / 30.4375)  # days, and months of them
    found, seen = [], 0
    for anchor, cells in tables.rows:
        if anchor in TALKS or anchor == "study":  # the table of the cohort: tests/report/test_sections.py
            continue
        for cell in cells[1:]:  # the first names the row
            rest = cell
            for match in INTERVAL.finditer(cell):
                seen += 1
                rest = rest.replace(match.group(), "")
                if not any(
                    all(near(v, w, s) for v, w in zip(t, match.groups(), strict=True)) for t in triples for s in scales
                ):
                    found.append((anchor, match.group()))
            if not re.fullmatch(r"[^A-Za-z]*", rest.replace("to", "").strip()):
                continue  # words
            for number, percent in NUMBER.findall(rest):
                seen += 1
                of = (100.0,) if percent else scales
                if not any(near(v, number, s) for v in numbers for s in of):
                    found.append((anchor, number + percent))
    assert seen > 100, "the page has lost its tables"
    return found
