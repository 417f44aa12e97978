"""Shares of a cohort: disjoint, complete, about equal; and what a run of the whole makes of them afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_slide_jobs import mtl, reasons, tissue_image

from nsclc_mtl.commands import shards
from nsclc_mtl.commands.job import Job
from nsclc_mtl.commands.shards import Shard, deal
from nsclc_mtl.features import store
from nsclc_mtl.phantom.slides import write_pyramid
from nsclc_mtl.records import Features

SIZES = st.dictionaries(st.text(min_size=1, max_size=6), st.integers(0, 10**12), max_size=60)
TILE = ["slides.tile_um=64", "slides.workers=1", "slides.pictures=false"]


@given(SIZES, st.integers(1, 20), st.randoms())
def test_shares_are_disjoint_complete_about_equal_and_of_no_order(
    sizes: dict[str, int], count: int, by: object
) -> None:
    dealt = deal(sizes, count)
    assert len(dealt) == count
    assert sorted(name for names in dealt for name in names) == sorted(sizes)
    items = list(sizes.items())
    by.shuffle(items)  # type: ignore[attr-defined]
    assert deal(dict(items), count) == dealt
    assert [Shard(index, count).of(sizes) for index in range(count)] == [frozenset(names) for names in dealt]
    loads = [sum(max(1, sizes[name]) for name in names) for names in dealt]
    largest = max((max(1, size) for size in sizes.values()), default=0)
    assert max(loads) - min(loads) <= largest
    # Graham's bound against what no dealing can beat: the mean, and the largest item
    assert max(loads) <= sum(loads) / count + largest * (1 - 1 / count) + 1e-6


def test_the_largest_come_first_and_items_of_no_size_are_spread() -> None:
    assert deal({"a": 1, "b": 8, "c": 8, "d": 3, "e": 4}, 2) == [["b", "e"], ["c", "d", "a"]]
    assert [len(names) for names in deal(dict.fromkeys("abcdefgh", 0), 4)] == [2, 2, 2, 2]
    jobs = [Job(name, "") for name in "abcd"]
    assert [job.slide_id for job in shards.largest_first(jobs, {"a": 1, "b": 5, "c": 5, "d": 9})] == [
        "d",
        "b",
        "c",
        "a",
    ]


def test_the_size_of_a_slide_is_that_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "series").mkdir()
    for name, size in (("plain.svs", 30), ("a.mrxs", 1), ("a/Data0.dat", 50), ("a/Data1.dat", 60)):
        (tmp_path / name).write_bytes(b"0" * size)
    for name, size in (("one.dcm", 10), ("two.dcm", 70), ("three.dcm", 20)):
        (tmp_path / "series" / name).write_bytes(b"0" * size)
    jobs = [Job(name, str(tmp_path / name)) for name in ("plain.svs", "a.mrxs", "gone.svs")]
    jobs += [Job(name, str(tmp_path / "series" / f"{name}.dcm")) for name in ("one", "two")]
    found = shards.slide_bytes(jobs)
    assert found == {"plain.svs": 30, "a.mrxs": 111, "gone.svs": 0, "one": 50, "two": 50}
    assert shards.scan_bytes(tmp_path, {"ct": "plain.svs", "mr": "a", "pet": "none", "bare": "series/none"}) == {
        "ct": 30, "mr": 100, "pet": 0, "bare": 0,
    }  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `slides` of eight slides of different sizes, one that is none, and two that would share a name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slides").mkdir()
    for number in range(8):
        write_pyramid(tmp_path / "slides" / f"s{number}.tiff", tissue_image(384 + 32 * number, seed=number))
    (tmp_path / "slides" / "empty.svs").touch()
    (tmp_path / "slides" / "twice.svs").touch()
    (tmp_path / "slides" / "twice.tif").touch()
    return tmp_path


def test_every_share_accounts_for_its_own_and_the_whole_keeps_them_all(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accounts = []
    for index in range(3):
        words = ["engine=shard", f"shard.index={index}", "shard.count=3"]
        code, account = mtl("tile", "slides", *TILE, *words)
        assert code == (4 if account["failed"] else 0)
        assert f"shard {index} of 3: {len(account['done']) + ('empty' in reasons(account['failed']))} of 9 slides" in (
            capsys.readouterr().out
        )
        accounts.append(account)
    done = [name for account in accounts for name in account["done"]]
    assert sorted(done) == [f"s{number}" for number in range(8)]  # each by one share
    assert min(len(account["done"]) for account in accounts) >= 2
    assert reasons(accounts[0]["failed"])["twice"] == "id_collision"  # of the list itself: told once
    assert not any("twice" in reasons(account["failed"]) for account in accounts[1:])
    assert sum("empty" in reasons(account["failed"]) for account in accounts) == 1
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.h5")}
    code, account = mtl("tile", "slides", *TILE)
    assert (code, account["done"]) == (4, sorted(done))
    assert reasons(account["failed"]) == {"twice": "id_collision", "empty": "unsupported"}
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.h5")} == before
    assert "(8 of them complete before)" in capsys.readouterr().out


def test_more_shares_than_slides_and_a_dry_run_of_one(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nsclc_mtl.commands.tile import dry_run
    from nsclc_mtl.config import compose

    code, account = mtl("tile", "slides", *TILE, "engine=shard", "shard.index=19", "shard.count=20")
    assert (code, account["done"], account["failed"]) == (0, [], [])
    listed = []
    for index in range(2):
        capsys.readouterr()
        words = ["engine=shard", f"shard.index={index}", "shard.count=2"]
        dry_run(compose("tile", ["slides", *TILE, *words]))
        listed.append({line.split()[1].rstrip(":") for line in capsys.readouterr().out.splitlines()[1:-1]})
    assert listed[0] | listed[1] == {*(f"s{number}" for number in range(8)), "empty", "twice"}
    assert not listed[0] & listed[1]
    assert not list(Path("out").rglob("*.h5"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["engine=shard"], "engine=shard needs shard.index=0"),
        (["engine=shard", "shard.index=4", "shard.count=4"], "shard.index=4 is none of shard.count=4 shares"),
        (["engine=shard", "shard.index=-1", "shard.count=4"], "shard.index: a whole number from 0 up"),
        (["engine=shard", "shard.index=0", "shard.count=0"], "shard.count: a whole number from 1 up"),
        (["engine=shard", "shard.index=1.5", "shard.count=4"], "shard.index: a whole number"),
        (["shard.index=0"], "add engine=shard"),
        (["shard.count=4", "engine=ray"], "do nothing with engine=ray: add engine=shard"),
        (["engine=shart"], "did you mean 'shard'?"),
        (["engine=ray", "engine.actors=0"], "engine.actors: a whole number from 1 up"),
        (["engine=ray", "engine.cpus=0"], "engine.cpus: a number above 0"),
        (["engine=ray", "engine.cpus=2.5"], "engine.cpus: a part of one or a whole number"),
        (["engine=ray", "engine.address=ray://head:10001"], "engine.address: null, auto or HOST:PORT"),
        (["engine=ray", "engine.interface=eth0"], "engine.interface: an IP address"),
    ],
)
def test_words_that_cannot_be_meant(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert mtl("tile", "slides", *words)[0] == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_verb_refuses_an_engine_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nsclc_mtl.config.engine_options import faults

    assert faults("tile", {"engine": {"name": "submitit"}}) == [
        "engine=submitit is not for `mtl tile`, which knows local, shard, ray"
    ]
    assert faults("train", {"engine": {"name": "ray"}}) == [
        "engine=ray is not for `mtl train`, which knows local, submitit"
    ]
    assert faults("extract", {"engine": {"name": "ray", "gpus": 0, "interface": "::1"}, "device": "cuda"}) == [
        "device=cuda with engine.gpus=0: workers would see no GPU; set engine.gpus=1"
    ]
    assert faults("evaluate", {}) == faults("tile", {}) == []


def test_patients_are_written_by_the_whole_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ["slide_id,patient_id,path"]
    for number in range(4):  # two slides of each of two patients, in different shares
        store.write(tmp_path / f"s{number}.h5", Features(np.full((3, 5), number), np.zeros((3, 2)), {}))
        rows.append(f"s{number},p{number // 2},s{number}.h5")
    (tmp_path / "slides.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "patients.csv").write_text("patient_id\np0\np1\n")
    (tmp_path / "conf" / "cohort").mkdir(parents=True)
    (tmp_path / "conf" / "cohort" / "mine.yaml").write_text(
        "name: mine\nroot: .\npatients: {file: patients.csv, id: patient_id}\n"
        "tasks: {}\nmodalities: {wsi: {kind: bag}}\n"
    )
    words = ["cohort=mine", "slide_encoder=mean", "slides.workers=1"]
    for index in range(2):
        part = ["engine=shard", f"shard.index={index}", "shard.count=2"]
        code, account = mtl("extract", *words, *part, conf_dirs=[tmp_path / "conf"])
        assert (code, len(account["done"])) == (0, 2)
    assert len(list(Path("out/slides").rglob("*.h5"))) == 4
    assert not list(Path("out/slides").rglob("*.npz"))
    assert mtl("extract", *words, conf_dirs=[tmp_path / "conf"])[0] == 0
    with np.load(next(Path("out/slides").rglob("*.npz"))) as found:
        assert {name: found[name][0] for name in found.files} == {"p0": 0.5, "p1": 2.5}


def test_scans_are_shared_and_their_tables_are_those_of_an_undivided_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ["scan_id,patient_id,modality,image,mask"]
    for number, patient in enumerate(["p0", "p0", "p1", "p2"]):
        ball = np.zeros((12, 12, 12), np.uint8)
        ball[3 : 6 + number, 3:8, 3:8] = 1
        image = np.random.default_rng(number).normal(40, 20, ball.shape).astype(np.int16)
        for name, array in (("ct", image), ("mask", ball)):
            nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0])), f"{name}{number}.nii.gz")
        rows.append(f"c{number},{patient},CT,ct{number}.nii.gz,mask{number}.nii.gz")
    rows.append("other,p2,PT,ct3.nii.gz,mask3.nii.gz")
    Path("scans.csv").write_text("\n".join(rows) + "\n")
    Path("patients.csv").write_text("patient_id\np0\np1\np2\n")
    Path("my.yaml").write_text("setting: {binWidth: 25}\nfeatureClass: {shape: [VoxelVolume], firstorder: [Mean]}\n")
    Path("conf/cohort").mkdir(parents=True)
    Path("conf/cohort/toy.yaml").write_text(
        "name: toy\nroot: .\npatients: {file: patients.csv, id: patient_id}\ntasks: {}\n"
        "modalities: {radiomics: {kind: radiomics}}\n"
    )
    words = ["cohort=toy", "scans.params=my.yaml", "scans.crop=null", "scans.qc=false", "scans.workers=1"]
    conf = [tmp_path / "conf"]
    done, skipped = [], []
    for index in range(2):
        part = ["engine=shard", f"shard.index={index}", "shard.count=2"]
        code, account = mtl("extract", *words, *part, conf_dirs=conf)
        assert code == 0
        done.append(account["done"])
        skipped += account["skipped"]
    assert sorted(done[0] + done[1]) == ["c0", "c1", "c2", "c3"]
    assert all(done)
    assert skipped == [{"id": "other", "reason": "other_modality"}]
    assert not list(Path("out").rglob("*.parquet"))
    capsys.readouterr()
    assert mtl("extract", *words, conf_dirs=conf)[0] == 0
    assert "scans: 4 done (4 of them complete before)" in capsys.readouterr().out
    assert mtl("extract", *words, "paths.out=undivided", conf_dirs=conf)[0] == 0
    (table,), (whole,) = (list(Path(out).rglob("radiomics-*.parquet")) for out in ("out", "undivided"))
    assert list(pd.read_parquet(table).index) == ["p0", "p1", "p2"]
    pd.testing.assert_frame_equal(pd.read_parquet(table), pd.read_parquet(whole))
    assert mtl("extract", "scans.batch=cases.csv", "engine=shard", "shard.index=0")[0] == 2


@pytest.mark.slow
def test_four_processes_at_a_time(bench: Path) -> None:
    line = [
        sys.executable,
        "-m",
        "nsclc_mtl",
        "extract",
        "slides.dir=slides",
        "backbone.tile_px=64",
        *TILE,
        "engine=shard",
    ]
    running = [
        subprocess.Popen(
            [*line, "shard.count=4", f"shard.index={index}", f"name=shard-{index}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for index in range(4)
    ]  # fmt: skip
    told = [process.communicate(timeout=300) for process in running]
    accounts = [json.loads((Path("runs/extract") / f"shard-{index}" / "run.json").read_text()) for index in range(4)]
    assert [process.returncode for process in running] == [4 if account["failed"] else 0 for account in accounts], told
    done = [name for account in accounts for name in account["done"]]
    assert sorted(done) == [f"s{number}" for number in range(8)]
    assert [len(account["done"]) for account in accounts] == [2, 2, 2, 2]
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.h5")}
    assert len(before) == 16  # tiles and features
    code, account = mtl("extract", "slides.dir=slides", "backbone.tile_px=64", *TILE)
    assert (code, account["done"]) == (4, sorted(done))
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.h5")} == before
    assert not [path for path in Path("out").rglob("*") if path.suffix in {".lease", ".tmp"}]
