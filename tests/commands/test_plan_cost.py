"""`mtl plan-cost` on run folders with known numbers: each figure by hand, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nsclc_mtl.commands import items, plan_cost
from nsclc_mtl.commands.items import Item
from nsclc_mtl.config import execute

GB = 1_000_000_000


def account(folder: Path, verb: str, done: Sequence[str], settings: dict[str, Any], code: int = 0) -> Path:
    folder.mkdir(parents=True)
    told = {"argv": ["mtl", verb], "done": list(done), "skipped": [], "failed": [], "exit_code": code}
    (folder / "run.json").write_text(json.dumps({**told, "wall_s": 9.0, "peak_rss_mb": 512.0}))
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def slides(folder: Path, verb: str, seconds: Sequence[float], **columns: Any) -> Path:
    """A run of `tile` or `extract`: slide k has k + 1 hundred tiles and as many tenths of a GB."""
    names = [f"s{k}" for k in range(len(seconds))]
    made = account(folder, verb, names, {"slides": {"workers": 1}})
    rows = []
    for k, name in enumerate(names):
        known = {
            "tiles": 100 * (k + 1),
            "slide_bytes": (k + 1) * GB // 10,
            "tiles_bytes": 1000,
            "read_bytes": GB // 100,
        }
        rows.append(Item(name, seconds[k], **{**known, **columns}))
    items.write(made, rows)
    return made


def trained(folder: Path) -> Path:
    """Two folds of a hundred patients: 60 train, two steps of 32 an epoch, so that 50 steps are 25 epochs."""
    settings = {
        "optim": {"batch_size": 32, "min_steps": 50}, "trainer": {"max_epochs": 10}, "folds": {"workers": 2},
        "cox": {"mode": "batch"}, "members": 1, "bag_cache_mb": 1,
    }  # fmt: skip
    made = account(folder, "train", ["fold0", "fold1"], settings)
    part = {0: "test", 1: "validation"}
    lines = [f"p{p},{f},{part.get((p + f) % 5, 'train')}" for f in (0, 1) for p in range(100)]
    (made / "splits.csv").write_text("patient_id,fold,part\n" + "\n".join(lines) + "\n")
    items.write(made, [Item("fold0", 30.0), Item("fold1", 60.0)])
    (made / "fold0").mkdir()
    (made / "fold0" / "model0.ckpt").write_bytes(bytes(5000))
    return made


def plan(root: Path, *words: str, code: int = 0) -> dict[tuple[str, str], dict[str, Any]]:
    given = [f"paths.runs={root / 'runs'}", "name=plan", *words]
    assert execute("plan-cost", given, lambda: plan_cost.body) == code
    if code:
        return {}
    content = json.loads((root / "runs" / "plan-cost" / "plan" / "plan.json").read_text())
    return {(row["step"], row["what"]): row for row in content["rows"]}


def test_slides_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tile = slides(tmp_path / "tile", "tile", [1, 2, 3, 2])
    extract = slides(tmp_path / "extract", "extract", [10, 20, 30, 40], features_bytes=2_000_000, laid=0)
    rows = plan(tmp_path, f"sample=[{tile},{extract}]", "slides=3600", "shards=2", "workers=5")
    value = {key: row["value"] for key, row in rows.items()}
    assert value["tile", "work of one process"] == pytest.approx(2)  # 2 s in the mean
    assert value["tile", "time of 10 processes"] == pytest.approx(0.2)
    assert value["extract", "work of one process"] == pytest.approx(25)
    assert value["extract", "time of 10 processes"] == pytest.approx(2.5)
    assert value["extract", "memory, largest process"] == 512
    assert value["disk", "tiles"] == pytest.approx(3600 * 1000 / 1e9)
    assert value["disk", "features"] == pytest.approx(7.2)
    assert value["network", "slides, whole"] == pytest.approx(900)  # a quarter of a GB in the mean
    assert value["network", "read by extract"] == pytest.approx(36)
    assert value["network", "an hour of extract"] == pytest.approx(36 / 2.5)
    parts = [v for (step, what), v in value.items() if step == "disk" and what != "all of it"]
    assert value["disk", "all of it"] == pytest.approx(sum(parts))
    assert rows["extract", "work of one process"]["runs"] == [str(extract)]
    assert rows["disk", "all of it"]["runs"] == [str(tile), str(extract)]
    # the mean of four slides, resampled: 25 s with a standard error of 5.6 s
    lo, hi = (rows["extract", "work of one process"][end] for end in ("lo", "hi"))
    drawn = np.random.default_rng(1).choice([10.0, 20, 30, 40], (20_000, 4)).mean(axis=1)
    np.testing.assert_allclose([lo, hi], np.percentile(drawn, [2.5, 97.5]), atol=1)
    told = capsys.readouterr().out
    assert "4 slides make a rough interval" in told
    assert "at the speed that each had in the sample" in told
    assert "3,600 slides, 3,600 patients, 2 x 5 processes" in told


def test_from_the_command_line(tmp_path: Path) -> None:
    made = slides(tmp_path / "tile", "tile", [1, 2, 3])
    line = [sys.executable, "-m", "nsclc_mtl", "plan-cost", "slides=10", f"sample={made}"]
    told = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert told.returncode == 0, told.stderr
    assert "10 slides, 10 patients" in told.stdout
    wrong = subprocess.run([*line, "slide=10"], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert wrong.returncode == 2
    assert "did you mean 'slides'?" in wrong.stderr


def test_larger_slides_cost_more(tmp_path: Path) -> None:
    tile = slides(tmp_path / "tile", "tile", [1, 2, 3, 4])
    extract = slides(tmp_path / "extract", "extract", [10, 20, 30, 40], features_bytes=2_000_000, laid=0)
    more = ["tiles_per_slide=750", "gb_per_slide=0.75"]  # both three times those of the sample
    value = plan(tmp_path, f"sample=[{tile},{extract}]", "slides=3600", *more)
    hours = value["extract", "work of one process"]
    assert hours["value"] == pytest.approx(75)  # exactly 0.1 s a tile, so without a spread
    assert (hours["lo"], hours["hi"]) == (pytest.approx(75), pytest.approx(75))
    assert value["tile", "work of one process"]["value"] == pytest.approx(7.5)
    assert value["disk", "features"]["value"] == pytest.approx(3 * 7.2)
    assert value["network", "slides, whole"]["value"] == pytest.approx(2700)
    assert value["network", "slides, whole"]["runs"] == ["gb_per_slide"]


def test_the_start_of_a_process_is_left_out_where_slides_are_enough(tmp_path: Path) -> None:
    """The largest slides come first, so that their tiles count at the rate of the others."""
    made = slides(tmp_path / "extract", "extract", [10, 20, 30], laid=1)
    items.write(made, [Item("cold", 900.0, True, 1000, 1, 1, 1, 1, None, 1)])
    hours = plan(tmp_path, f"sample={made}", "slides=3600")["extract", "work of one process"]
    assert hours["value"] == pytest.approx(0.1 * (100 + 200 + 300 + 1000) / 4)
    assert hours["lo"] < hours["value"] < hours["hi"]
    items.write(made, [Item("s0", 10.0, True, 100, 1, 1, 1, 1, None, 1)])  # now two slides are left
    rows = plan(tmp_path / "again", f"sample={made}", "slides=3600")
    assert rows["extract", "work of one process"]["value"] == pytest.approx((10 + 20 + 30 + 900) / 4)


def test_training_by_hand(tmp_path: Path) -> None:
    extract = slides(tmp_path / "extract", "extract", [10, 20, 30, 40], features_bytes=2_000_000, laid=0)
    rows = plan(tmp_path, f"sample=[{trained(tmp_path / 'train')},{extract}]", "slides=2000", "patients=1000")
    value = {key: row["value"] for key, row in rows.items()}
    # 90 s for 2 folds x 25 epochs x 60 patients; then 10 epochs of 600 patients, as 19 steps an epoch are enough
    assert value["train", "work of 2 folds"] == pytest.approx(90 / (2 * 25 * 60) * (2 * 10 * 600) / 3600)
    assert value["train", "time, 2 at a time"] == pytest.approx(value["train", "work of 2 folds"] / 2)
    assert rows["train", "work of 2 folds"]["lo"] is None
    # 4 GB of features; 80 of 100 patients train or validate; 1 MB of memory holds none, so each of 10 epochs reads
    assert value["network", "features read by train, at most"] == pytest.approx(4 * 0.8 * 2 * 10)
    small = sum(path.stat().st_size for path in (tmp_path / "train").rglob("*") if path.is_file()) - 5000
    assert value["disk", "run of train"] == pytest.approx((5000 + 10 * small) / 1e9)


@pytest.mark.parametrize(
    ("make", "words", "code", "told"),
    [
        (lambda f: slides(f, "extract", [1, 2]), [], 3, "measured 2 slide(s): 3 are needed"),
        (lambda f: account(f, "tile", ["a", "b", "c"], {}), [], 3, "nothing was measured in"),
        (lambda f: account(f, "train", ["fold0"], {}), [], 3, "1 folds were finished or begun before"),
        (lambda f: account(f, "evaluate", [], {}), [], 2, "is a run of mtl evaluate"),
        (lambda f: account(f, "tile", [], {}, code=143), [], 3, "exit code 143"),
        (lambda f: f, [], 2, "is no run folder"),
        (lambda f: slides(f, "tile", [1, 2, 3], tiles=0), ["patients=0"], 2, "patients: a whole number"),
        (
            lambda f: slides(f, "extract", [1, 2, 3], tiles=0),
            ["tiles_per_slide=9"],
            3,
            "slides of 9 tiles or bytes are far from",
        ),
        (
            lambda f: slides(f, "extract", [1, 2, 3]),
            ["tiles_per_slide=601"],
            3,
            "far from those of the sample (100 to 3",
        ),
        (lambda f: slides(f, "tile", [1, 2, 3]), ["gb_per_slide=0.04"], 3, "far from those of the sample"),
    ],
)
def test_too_little_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, words: list[str], code: int, told: str
) -> None:
    plan(tmp_path, f"sample={make(tmp_path / 'sample')}", "slides=100", *words, code=code)
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_nothing_is_counted_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tile, extract = slides(tmp_path / "t", "tile", [1, 2, 3]), slides(tmp_path / "e", "extract", [1, 2, 3], laid=1)
    plan(tmp_path, f"sample=[{tile},{extract}]", "slides=10", code=2)
    assert "laid its tiles itself" in capsys.readouterr().err
    plan(tmp_path, f"sample=[{tile},{tile}]", "slides=10", code=2)
    assert "two runs of one verb" in capsys.readouterr().err


def test_rows_are_read_as_written_and_of_the_last_start(tmp_path: Path) -> None:
    items.write(tmp_path, [Item("a", 1.5, True, 3, 4, None, 5, None, None, 1), Item("b", 2.0)])
    items.write(tmp_path, [Item("b", 3.0)])
    assert items.read(tmp_path) == [Item("a", 1.5, True, 3, 4, None, 5, None, None, 1), Item("b", 3.0)]
    (tmp_path / items.FILE).write_text("id,seconds\na,1\n")
    assert items.read(tmp_path) == []
