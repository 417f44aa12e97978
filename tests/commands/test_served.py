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
