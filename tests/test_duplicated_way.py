"""Every slide five times is every slide once, through the whole way, for a model that pools tiles by their mean."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_way import Way, table, wide

TIMES = 5


def five_times(data: Path, to: Path) -> Path:
    """The cohort with every slide under five ids, each with a feature file of its own."""
    shutil.copytree(data, to)
    slides = pd.read_csv(data / "slides.csv", dtype=str)
    rows = []
    for slide in slides.to_dict("records"):
        for k in range(TIMES):
            path = f"features/{slide['slide_id']}-again{k}.h5"
            shutil.copyfile(data / slide["path"], to / path)
            rows.append({**slide, "slide_id": f"{slide['slide_id']}-again{k}", "path": path})
        (to / slide["path"]).unlink()
    pd.DataFrame(rows).to_csv(to / "slides.csv", index=False)
    return to


@pytest.mark.slow
def test_duplicated_slides_change_no_prediction_metric_or_interval(tmp_path: Path) -> None:
    way = Way(tmp_path)
    many = five_times(way.data, tmp_path / "many")
    # no bag is longer than `max_tiles`: both trainings see every tile of every patient in every epoch
    words = ["encoder=mean", "audit=0", "folds.calibration=0.3", "trust.miss=0.3"]
    # a few steps: sums of single precision round otherwise, and every further step carries it on (4e-5 after 20 steps)
    assert way.train("once", *words) == 0
    assert way.train("five", *words, f"cohort.root={many}") == 0
    ours, theirs = (way.table(name=name) for name in ("once", "five"))
    pd.testing.assert_frame_equal(ours.drop(columns="value"), theirs.drop(columns="value"))
    np.testing.assert_allclose(theirs["value"], ours["value"], rtol=1e-5, atol=1e-5)
    rows = []
    for name in ("once", "five"):
        judged = ("bootstrap=50", "floors=[stage, mean slide feature]", "primary_floor=stage")
        assert way.run("evaluate", name, f"ckpt={way.folder(name=name)}", *judged) == 0
        rows.append(json.loads((way.folder("evaluate", name) / "metrics.json").read_text()))
    ends = {"value": 0, "lo": 0, "hi": 0}
    assert [r | ends for r in rows[0]] == [r | ends for r in rows[1]]
    once, five = (np.array([[r[end] for end in ends] for r in each], dtype=float) for each in rows)
    # fits of almost equal probabilities magnify 1e-7: of 1,827 numbers one came out 1.4e-5 off on another processor
    np.testing.assert_allclose(five, once, rtol=3e-4, atol=5e-5)
    assert way.predict("once", ckpt=way.folder(name="once")) == 0
    assert way.predict("five", f"cohort.root={many}", ckpt=way.folder(name="once")) == 0
    made = [wide(table(way.folder("predict", name) / "predictions.csv")) for name in ("once", "five")]
    pd.testing.assert_series_equal(*made, rtol=1e-5, atol=1e-5)
