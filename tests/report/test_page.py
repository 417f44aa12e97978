from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup

from nsclc_mtl.commands.judging import evaluate_predictions, with_others
from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.metrics.roc import GRID, Roc, roc
from nsclc_mtl.report import curves, page, words
from nsclc_mtl.report.evaluation import metric_rows
from nsclc_mtl.report.section import Evidence, Section, save
from nsclc_mtl.report.sections import SECTIONS
from nsclc_mtl.report.sections.cohort import cohort
from nsclc_mtl.report.sections.intended import intended
from nsclc_mtl.report.sections.risk import risk

from .conftest import TASKS
from .outline import Outline

NASTY = '<img src=x onerror=alert(1)> & "$x^2$"'


def png(path: Path) -> Path:
    """The smallest picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0\0")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    return path


SECTION = Section(
    "own-part",
    "A part of its own",
    Markup("<p>plain</p>"),
    task=next(iter(TASKS)),
    figures=[curves.interval_figure("own", [("learner", Interval(0.7, 0.6, 0.8, ""))], "One", "AUC", 0.5)],
    tables={"t": pd.DataFrame({"a": [1]})},
)


@pytest.fixture(scope="module")
def told(toy: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    floor = toy["predictions"][toy["predictions"]["part"] == "test"].assign(model=f"floor:{NASTY}")
    rng = np.random.default_rng(0)
    floor["value"] = floor.groupby(["task", "fold", "output"])["value"].transform(lambda v: rng.permutation(v))
    results = evaluate_predictions(with_others(toy["predictions"], floor), TASKS, toy["manifest"], toy["splits"], 100)
    story = page.Story(
        title=NASTY,
        meta=[("Run", NASTY)],
        primary_floor=f"floor:{NASTY}",
        notes=[NASTY],
        images=[(png(tmp_path_factory.mktemp("maps") / "a.png"), NASTY)],
    )
    evidence = Evidence(results, toy["predictions"], toy["manifest"], toy["splits"])
    return page.render(evidence, story, [cohort, risk, lambda _: [SECTION], intended]).html, results


def test_the_page_is_well_formed_and_its_ids_are_unique(told: tuple[str, Any]) -> None:
    outline = Outline()
    outline.feed(told[0])
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.seen["svg"] == 11  # two a task, the section's own, the flow, the follow-up
    assert outline.seen["h1"] == 1
    referred = {v[1:] for k, v in outline.attributes if k in ("href", "xlink:href") and v.startswith("#")}
    assert referred <= set(outline.ids)


def test_every_value_is_escaped(told: tuple[str, Any]) -> None:
    text, _ = told
    assert "<img src=x" not in text
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") > 10
    assert "<script" not in text


def test_the_page_needs_no_network_and_is_small(told: tuple[str, Any]) -> None:
    text, _ = told
    names = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"'<>)]+", text)) <= names
    assert "default-src 'none'" in text
    assert len(text.encode()) < 5_000_000
    assert "data:image/png;base64," in text


def test_the_page_says_what_it_must(told: tuple[str, Any]) -> None:
    text, _ = told
    assert "Research use only" in text
    assert "conditional on the models as trained" in text
    assert "90 patients from 2 sites" in text
    assert 'name="viewport"' in text
    assert "@media print" in text
    assert 'lang="en"' in text


def test_every_number_of_the_tables_is_that_of_the_rows(told: tuple[str, Any]) -> None:
    text, results = told
    plain = re.sub(r"<[^>]+>", "", text).replace("−", "-")
    for row in metric_rows(results):
        if row["fold"] != "all" or row["value"] is None:
            continue
        if row["model"] == "learner" or row["metric"] == results[row["task"]].primary:
            shown = f"{row['value']:.3f}"
            if row["lo"] is not None:
                shown += f" ({row['lo']:.3f} to {row['hi']:.3f})"
            assert shown in plain, row
        if row["metric"] == f"difference:{results[row['task']].primary}":
            assert f"{row['value']:+.3f} ({row['lo']:.3f} to {row['hi']:.3f})" in plain, row


def test_figures_speak_to_those_who_do_not_see_them(told: tuple[str, Any]) -> None:
    text, _ = told
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        assert 'role="img"' in svg
        assert re.search(r"<title id=\"\w+-title\">.+</title><desc id=\"\w+-desc\">.+</desc>", svg)


def test_roc_areas_are_the_aucs() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 300).astype(float)
    score = np.round(label + rng.normal(size=300), 1)
    from sklearn.metrics import roc_auc_score

    drawn = roc("one", [(label, score)])
    assert drawn is not None
    assert np.trapezoid(drawn.mean, GRID) == pytest.approx(roc_auc_score(label, score), abs=0.01)
    assert roc("none", [(np.ones(4), np.arange(4.0))]) is None
    both = roc("two", [(label, score), (np.ones(4), np.arange(4.0))])
    assert both is not None
    assert len(both.folds) == 1


def test_a_figure_is_the_same_every_time() -> None:
    groups = {"low": (np.arange(1.0, 400, 20), np.ones(20)), "high": (np.arange(1.0, 200, 10), np.zeros(20))}
    once = curves.kaplan_meier_figure("km", groups, "survival")
    assert once.svg == curves.kaplan_meier_figure("km", groups, "survival").svg
    assert "low: 20 patients, 20 events" in once.svg


def test_the_numbers_behind_a_figure() -> None:
    groups = {"low": (np.array([10.0, 20, 30, 40]), np.array([1.0, 0, 1, 0]))}
    data = curves.kaplan_meier_figure("km", groups, "survival").data
    assert data["value"].tolist() == pytest.approx([1, 0.75, 0.75, 0.375, 0.375])
    assert data["at_risk"].tolist() == [4, 4, 3, 2, 1]
    drawn = roc("one", [(np.array([0, 1, 1]), np.array([0.1, 0.4, 0.9]))])
    assert drawn is not None
    data = curves.roc_figure("roc", [drawn], "ROC").data
    assert data["of"].unique().tolist() == ["mean of the folds", "fold 0"]
    assert (data.loc[data["fpr"] > 0, "tpr"] == 1).all()
    rows = [("learner", Interval(0.7, 0.6, 0.8, "")), ("stage", Interval(0.6, 0.5, 0.7, ""))]
    assert curves.interval_figure("at", rows, "models", "AUC", 0.5).data["lo"].tolist() == [0.6, 0.5]


def test_sections_stand_in_their_chapters_and_their_files_beside_the_page(
    told: tuple[str, Any], tmp_path: Path
) -> None:
    text, _ = told
    assert text.index(f'id="{SECTION.name}"') < text.index('id="task-2"')
    assert f"{SECTION.title}</h3>\n<p>plain</p>" in text
    save([SECTION], [], tmp_path)
    figure = SECTION.figures[0]
    assert (tmp_path / "figures" / "own.svg").read_text() == f'<?xml version="1.0" encoding="utf-8"?>\n{figure.svg}\n'
    assert (tmp_path / "figures" / "own.csv").read_text().startswith("row,value,lo,hi\nlearner,0.7,0.6,0.8\n")
    assert (tmp_path / "tables" / "t.csv").read_text() == "a\n1\n"
    with pytest.raises(ValueError, match="figure own"):
        save([SECTION], [figure], tmp_path)


def test_words_of_metrics() -> None:
    assert words.metric_word("auc_3y") == "AUC at 3 years"
    assert words.metric_word("auc_above_G1") == "AUC, above G1"
    assert words.metric_word("auc_b") == "AUC, b against the rest"
    assert words.model_word("floor:all tables") == "all tables"


def test_the_chapters_are_listed_at_the_head(told: tuple[str, Any]) -> None:
    text, _ = told
    head = text[text.index("<nav") : text.index("</nav>")]
    listed = re.findall(r'href="#([^"]+)"', head)
    assert listed[:2] == ["study", "task-1"]
    assert listed[-1] == "tripod-ai"
    places = [text.index(f'id="{anchor}"') for anchor in listed]
    assert places == sorted(places)
    assert set(re.findall(r'<h2 id="([^"]+)"', text)) == set(listed)
    for section in ("risk-groups-survival", SECTION.name):  # sections of a task stand in its chapter
        assert f'id="{section}"' in text


def test_what_is_zero_on_the_page_has_no_sign() -> None:
    assert words.FILTERS["number"](-0.0004) == "0.000"
    assert words.FILTERS["signed"](Interval(-0.0004, -0.01, 0.0001)) == (
        '0.000 <span class="band">(−0.010 to 0.000)</span>'
    )
    assert str(words.FILTERS["signed"](Interval(0.0006, -0.01, 0.02))).startswith("+0.001 ")


def test_one_curve_needs_no_legend() -> None:
    time, event = np.array([10.0, 20, 30]), np.array([1.0, 0, 1])
    drawn = [curves.kaplan_meier_figure("x", dict.fromkeys(names, (time, event)), "t").svg for names in ("a", "ab")]
    assert ["legend_1" in svg for svg in drawn] == [False, True]


def test_every_curve_is_drawn_and_none_looks_like_another() -> None:
    looks = [curves.style(k) for k in range(30)]
    assert len({(str(one["color"]), str(one["ls"]), one["marker"]) for one in looks}) == 30
    eight = [Roc(f"class {k}", np.linspace(0, 1, 101) ** (k + 1), []) for k in range(8)]
    shown = curves.roc_figure("roc", eight, "ROC").svg
    rng = np.random.default_rng(0)
    groups = {f"site {k}": (rng.exponential(900, 30), rng.integers(0, 2, 30)) for k in range(8)}
    follow = curves.kaplan_meier_figure("km", groups, "follow-up").svg
    for k in range(8):
        assert f">class {k}</text>" in shown
        assert follow.count(f">site {k}</text>") == 2  # beside the numbers at risk, and in the legend


def test_where_there_is_no_interval_no_text_tells_nan(toy: dict[str, Any]) -> None:
    """Predictions that do not vary: every resample has .5, and the pictures' words say the value alone."""
    same = toy["predictions"].assign(value=1.0)
    results = evaluate_predictions(same, {"survival": TASKS["survival"]}, toy["manifest"], toy["splits"], 40)
    settings = {"bootstrap": 40, "seed": 0}
    evidence = Evidence(results, same, toy["manifest"], toy["splits"], settings)
    made = page.render(evidence, page.Story("toy"), SECTIONS)
    assert "learner 0.500" in made.html
    assert not re.search(r"\bnan\b", re.sub(r'base64,[^"]*', "", made.html))
