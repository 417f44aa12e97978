"""What of a run can be looked at."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from nsclc_mtl.commands import served


def test_features_of_tiles_are_no_slides_to_look_at(tmp_path: Path) -> None:
    for name in ("a.svs", "b.h5", "c.pt"):
        (tmp_path / name).touch()
    paths = {"a": "a.svs", "b": "b.h5", "c": "c.pt", "gone": "gone.svs"}
    slides = pd.DataFrame({"patient_id": "P1", "path": paths}, index=pd.Index(paths, name="slide_id"))
    manifest: Any = SimpleNamespace(slides=slides)
    read = {"cohort": {"root": str(tmp_path)}, "paths": {"out": str(tmp_path / "out")}}
    found = served.slides(manifest, read, tmp_path / "run", {"P1"})
    assert [slide.slide_id for slide in found] == ["a"]


def test_the_evaluation_is_the_newest_of_the_same_training_and_cohort(tmp_path: Path) -> None:
    import os

    import yaml

    training, run = tmp_path / "runs/train/a", tmp_path / "runs/predict/p"
    other = {"name": "other", "modalities": {}}
    told = {
        "old": ("runs/train/a", {"root": None}),
        "own": ("runs/train/a", {"root": None}),
        "elsewhere": ("runs/train/a", other),
        "another": ("runs/train/b", {"root": None}),
    }
    for k, (name, (ckpt, cohort)) in enumerate(told.items()):
        folder = tmp_path / "runs/evaluate" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump({"ckpt": str(tmp_path / ckpt), "cohort": cohort}))
        (folder / "metrics.json").write_text("[]")
        os.utime(folder / "metrics.json", (k, k))
    settings = {"evaluation": None, "paths": {"runs": str(tmp_path / "runs")}}
    run.mkdir(parents=True)
    for cohort, newest in (({"root": None}, "own"), (other, "elsewhere"), ({"name": "third", "modalities": {}}, None)):
        (run / "config.yaml").write_text(yaml.safe_dump({"ckpt": str(training), "cohort": cohort}))
        found = served.evaluation(settings, run, training)
        assert (found.name if found else None) == newest
