"""A patient's page: everything escaped, reasons and sets in words, nothing fetched, pictures within their bytes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report import patient_page

EVIL = "<img src=x>"


def patient() -> patient_page.Patient:
    said = pd.DataFrame(
        [("grade", "p:G1", 0.2), ("grade", f"p:{EVIL}", 0.8), ("survival", "risk", 1.5), ("survival", "surv:365", 0.9),
         ("survival", "surv:730", 0.6)],
        columns=["task", "output", "value"],
    ).assign(target=[EVIL, EVIL, np.nan, np.nan, np.nan], event=[np.nan] * 2 + [1.0] * 3, time_days=400.0)  # fmt: skip
    facts = [
        ("", "grade", "n_calibration", "20"), ("", "grade", "miss", "0.1"), ("", "grade", "members", "3"),
        (EVIL, "grade", "predicted", EVIL), (EVIL, "grade", "confidence", "0.8"), (EVIL, "grade", "set", f"G1|{EVIL}"),
        (EVIL, "grade", "spread", "0.05"), (EVIL, "grade", "votes", "2"), (EVIL, "survival", "predicted", "event-free"),
        (EVIL, "survival", "confidence", "0.6"), ("", "survival", "horizon_days", "730"),
    ]  # fmt: skip
    trust = pd.DataFrame(facts, columns=["patient_id", "task", "what", "value"])
    tasks = {"grade": TaskSpec("grade", "ordinal", ("G1", EVIL, "G3")), "survival": TaskSpec("survival", "survival")}
    return patient_page.Patient(EVIL, EVIL, tasks, said, trust, reasons=["no rna", EVIL], missing=["rna"])


def test_the_page_is_escaped_and_says_reasons_and_sets_in_words() -> None:
    page = patient_page.render(patient())
    assert EVIL not in page
    words = page.replace("&lt;img src=x&gt;", "X")
    assert "Reasons not to rely on this prediction" in words
    assert "<li>no rna</li>" in words
    assert "Prediction set: G1 or X (the set does not decide); such sets hold the truth for 90 of 100" in words
    assert "differ by a standard deviation of 0.050" in words
    assert "2 of 3 say X" in words
    assert "There is no lower bound" in words
    assert "Known: event on day 400." in words
    assert "day 365: 0.900, day 730: 0.600" in words
    assert not re.search(r"""(?:src|href|url\()=?["']?(?:https?:)?//""", re.sub(r'xmlns(:\w+)?="[^"]*"', "", page))


def test_a_vote_promises_less_than_each_of_its_sets() -> None:
    """Of several folds a class needs half of their sets: that misses at most twice as often as one set."""
    votes = [(EVIL, task, "sets", "5") for task in ("grade", "survival")]
    more = [("", "survival", "n_calibration", "20"), ("", "survival", "miss", "0.1"),
            (EVIL, "survival", "set", "30 days or more")]  # fmt: skip
    one = patient()
    one.trust = pd.concat([one.trust, pd.DataFrame([*votes, *more], columns=one.trust.columns)])
    words = patient_page.render(one).replace("&lt;img src=x&gt;", "X")
    told = (
        "Prediction set: G1 or X (the set does not decide), by a vote of 5 folds. Of each fold alone such sets "
        "hold the truth for 90 of 100 patients like the 20 of the calibration; of the vote at least 80 of 100 is all "
        "that is proven (Cherubin 2019; Gasparin and Ramdas 2024)."
    )
    assert told in words
    assert "Lower bound: 30 days or more without the event, by a vote of 5 folds." in words
    assert "such bounds are outlived by 90 of 100 patients" in words


def test_the_largest_pictures_are_left_out_and_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, edge in (("small", 20), ("large", 200)):
        Image.fromarray(rng.integers(0, 255, (edge, edge, 3), np.uint8)).save(tmp_path / f"{name}.png")
    both = [(tmp_path / f"{name}.png", name) for name in ("large", "small")]
    shown, left_out, _ = patient_page.embedded(both, most=8000)
    assert left_out == ["large.png"]
    assert [p["caption"] for p in shown] == ["small"]
    assert len(patient_page.embedded(both)[0]) == 2
