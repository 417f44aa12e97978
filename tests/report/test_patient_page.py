"""A patient's page: everything escaped, reasons and sets in words, nothing fetched, pictures within their bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from nsclc_mtl.explain import attention
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report import evaluation, feature_bars, held_out, patient_page, patient_pictures
from nsclc_mtl.report.held_out import HeldOut

from .conftest import TASKS

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


def test_a_perfect_model_is_told_apart_from_chance() -> None:
    """All resamples agree, so that there is no interval: that does not make it uncertain."""
    n = 40
    proba = np.repeat([0.9, 0.1], n // 2)
    rows = pd.DataFrame(
        {"patient_id": [f"P{i}" for i in range(n)], "task": "response", "fold": "0", "part": "test",
         "target": np.repeat(["no", "yes"], n // 2), "event": np.nan, "time_days": np.nan}
    )  # fmt: skip
    both = [rows.assign(output="p:no", value=proba), rows.assign(output="p:yes", value=1 - proba)]
    found = held_out.held_out(pd.concat(both), {"response": TaskSpec("response", "binary", ("no", "yes"))})["response"]
    assert (found.value, found.agree, found.verdict) == (1.0, True, "better than chance")
    assert "AUC 1.000, better than chance" in found.sentence
    assert HeldOut.load(json.loads(json.dumps(found.state()))).verdict == "better than chance"


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
    assert "day 365: 0.90, day 730: 0.60" in words
    assert not re.search(r"""(?:src|href|url\()=?["']?(?:https?:)?//""", re.sub(r'xmlns(:\w+)?="[^"]*"', "", page))


def test_a_number_below_zero_has_a_minus_and_no_hyphen() -> None:
    one = patient()
    one.said.loc[one.said["output"] == "risk", "value"] = -1.5
    assert "Risk score −1.500: higher is worse" in patient_page.render(one)
    assert feature_bars._label("GENE1", "-1.527") == "GENE1 = −1.527"


def test_the_page_says_how_the_model_does_and_that_it_is_not_calibrated() -> None:
    """A model that knows nothing can be sure: both stand in the box and beside the probability."""
    one = patient()
    one.reasons = []
    one.held_out = {"grade": HeldOut("ordinal_auc", 0.435, 0.152, 0.703, 21, None),
                    "survival": HeldOut("c_index", 0.7, 0.6, 0.8, 24, 12)}  # fmt: skip
    one.calibrated = {"grade": "", "survival": "level and slope"}
    one.said.loc[one.said["task"] == "grade", "value"] = [0.00003, 0.99997]
    one.trust.loc[one.trust["value"] == "0.8", "value"] = "0.99997"
    words = re.sub(r"<svg.*?</svg>", "", patient_page.render(one), flags=re.DOTALL).replace("&lt;img src=x&gt;", "X")
    assert "About this patient no reason for caution was found" in words
    assert "No reason for caution" not in words
    assert "<li>grade: not told apart from chance on the patients who were held out</li>" in words
    assert "<li>grade: probabilities are not calibrated</li>" in words
    assert "survival: " not in words[: words.index("<section")]
    assert (
        "On 21 held-out patients of the training cohort: ordinal AUC 0.435 (95 % interval 0.152 to 0.703), not told "
        "apart from chance, which is 0.5." in words
    )
    assert "(12 events): C-index 0.700 (95 % interval 0.600 to 0.800), better than chance, which is 0.5." in words
    assert "Probabilities are calibrated: level and slope." in words
    assert "Predicted: X, with probability &gt; 0.99." in words
    assert '<td class="n">&lt; 0.01</td>' in words
    assert not re.search(r"1\.000?\b|0\.000?\b", words[words.index("<section") :])
    one.held_out = {}
    assert patient_page.render(one).count("is not known: neither run nor bundle has it on record.") == 2


def test_held_out_patients_are_judged_as_the_evaluation_judges_them(toy: dict[str, Any]) -> None:
    judged = evaluation.judge(toy["predictions"], TASKS, draws=100)
    found = held_out.held_out(toy["predictions"], TASKS, draws=100)
    assert set(found) == set(TASKS)
    for name, one in found.items():
        at = judged[name].metrics[judged[name].primary]["learner"].interval()
        assert (one.metric, one.n, one.events) == (judged[name].primary, judged[name].n, judged[name].events)
        assert (one.value, one.lo, one.hi) == (at.value, at.lo, at.hi)
        assert HeldOut.load(json.loads(json.dumps(one.state(), allow_nan=False))) == one
    assert found["survival"].verdict == "better than chance"
    few = toy["predictions"][toy["predictions"]["patient_id"] < "00009"]
    alone = held_out.held_out(few, {"survival": TASKS["survival"]}, draws=100)["survival"]
    assert np.isfinite(alone.value)
    assert np.isnan(alone.lo)
    assert "not told apart from chance (no interval: 9 patients, at least 10 are needed)" in alone.sentence
    nobody = toy["predictions"].assign(target="", event=np.nan)
    assert "has no C-index" in held_out.held_out(nobody, TASKS, draws=20)["survival"].sentence


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
    shown, left_out, _ = patient_pictures.embedded(both, most=8000)
    assert left_out == ["large.png"]
    assert [p["caption"] for p in shown] == ["small"]
    assert len(patient_pictures.embedded(both)[0]) == 2


def test_a_map_stands_beside_its_slide_or_below_it(tmp_path: Path) -> None:
    """One file, two pictures on the page: together they are the whole."""
    thumbnail = np.full((80, 80, 3), 240, np.uint8)
    attention.heatmap(thumbnail, np.array([[0, 0], [256, 0]]), np.array([0.1, 0.9]), 256, 8.0, tmp_path / "map.png")
    (shown,), left_out, _ = patient_pictures.embedded([(tmp_path / "map.png", "a map")])
    assert not left_out
    assert shown["caption"] == "a map"
    with Image.open(tmp_path / "map.png") as whole:
        assert sum(part["width"] for part in shown["parts"]) == whole.width
    one = patient()
    one.pictures = [(tmp_path / "map.png", "a map")]
    page = patient_page.render(one)
    assert page.count('<img src="data:image/') == 2
    assert '<h2 id="pictures">Maps</h2>' in page
