"""`mtl tile` and `mtl extract` killed, ended, on full disks, sharing work, with damaged files: nothing is lost."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_slide_jobs import mtl, reasons, tissue_image

from nsclc_mtl import lease
from nsclc_mtl.commands import engine, pool, staging
from nsclc_mtl.commands import slides as jobs
from nsclc_mtl.commands.job import Job, Outcome
from nsclc_mtl.features import keys
from nsclc_mtl.lease import Lease
from nsclc_mtl.phantom.slides import write_pyramid

WORDS = ["slides.dir=slides", "slides.tile_um=64", "backbone.tile_px=64"]
ALONE = [*WORDS, "slides.workers=1"]
TILE = ["slides.dir=slides", "slides.tile_um=64", "slides.workers=1"]
SLIDES = ["s0", "s1", "s2", "s3", "sub__ä 4"]


def command(*words: str, limit: int | None = None) -> subprocess.Popen[str]:
    """`mtl extract` in a process of its own; `limit` is the largest file that it may write."""

    def narrow() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # type: ignore[arg-type]

    line = [sys.executable, "-m", "nsclc_mtl", "extract", *words]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=narrow if limit else None
    )


def content(out: str | Path) -> dict[str, Any]:
    """Every file below `out`: of HDF5 all datasets and attributes, of the others the bytes."""
    found: dict[str, Any] = {}
    for path in sorted(Path(out).rglob("*")):
        name = str(path.relative_to(out))
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                found[name] = {
                    "data": {key: (item.dtype, item[()].tobytes(), item.shape) for key, item in file.items()},
                    "attrs": {
                        key: {k: repr(v) for k, v in item.attrs.items()} for key, item in {"": file, **file}.items()
                    },
                }
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def until(happened: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Waits until something has happened, or the process has ended."""
    deadline = time.monotonic() + seconds
    while not happened() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five slides in `slides`, and `reference`: what an uninterrupted extract makes of them."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "slides" / "sub").mkdir(parents=True)
    for seed, name in enumerate(SLIDES):
        write_pyramid(folder / "slides" / f"{name.replace('__', '/')}.tiff", tissue_image(seed=seed))
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert mtl("extract", *ALONE, "paths.out=reference")[0] == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with those slides."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slides").symlink_to(whole / "slides")
    return tmp_path


def kill_and_rerun(whole: Path, moment: random.Random, workers: int) -> None:
    """One kill -9 at a moment between the first file and the last, and a rerun; afterwards nothing tells of it."""
    shutil.rmtree("out", ignore_errors=True)
    process = command(*WORDS, f"slides.workers={workers}")
    slides = moment.randrange(len(SLIDES))
    until(lambda: len(list(Path("out/features").rglob("*.h5"))) >= slides and Path("out").exists(), process)
    time.sleep(moment.uniform(0, 0.4))
    process.kill()
    process.communicate()
    code, account = mtl("extract", *ALONE)
    assert (code, account["done"]) == (0, SLIDES)
    assert content("out") == content(whole / "reference")


@pytest.mark.slow
def test_killed_anywhere_and_run_again_gives_what_an_undisturbed_run_gives(here: Path, whole: Path) -> None:
    kill_and_rerun(whole, random.Random(1), workers=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_twenty_random_moments(here: Path, whole: Path, seed: int) -> None:
    kill_and_rerun(whole, random.Random(100 + seed), 1 + seed % 2)


@pytest.mark.slow
def test_the_processes_of_a_killed_command_end_as_well(here: Path) -> None:
    process = command(*WORDS, "slides.workers=2")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: list(Path("out").rglob("*.lease")), process)
    pids = [int(pid) for pid in children.read_text().split()]
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(b"spawn_main" in _command_line(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sigterm_keeps_what_is_finished_and_leaves_nothing_else(here: Path, whole: Path, workers: int) -> None:
    process = command(*WORDS, f"slides.workers={workers}", "name=it")
    until(lambda: list(Path("out/features").rglob("*.h5")), process)
    process.terminate()
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert told.splitlines() == ["mtl: ended by SIGTERM"]
    assert not [path for path in Path("out").rglob("*") if path.suffix in {".tmp", ".lease"}]
    kept = {path: path.stat().st_mtime_ns for path in Path("out/features").rglob("*.h5")}
    assert kept
    code, account = mtl("extract", *ALONE)
    assert (code, account["done"]) == (0, SLIDES)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert content("out") == content(whole / "reference")


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_limit_of_a_file_leaves_no_remnant_and_a_rerun_completes(here: Path, whole: Path, workers: int) -> None:
    largest = max(path.stat().st_size for path in (whole / "reference" / "features").rglob("*.h5"))
    process = command(*WORDS, f"slides.workers={workers}", "slides.pictures=false", limit=largest - 100)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 75
    assert len(told.splitlines()) == 1
    assert "no space left while writing 's" in told
    assert not [path for path in Path("out").rglob("*") if path.suffix in {".tmp", ".lease"}]
    assert mtl("extract", *ALONE, "slides.pictures=false")[0] == 0
    names = [name for name in content("out") if name.endswith(".h5")]
    assert {name: content("out")[name] for name in names} == {
        name: found for name, found in content(whole / "reference").items() if name.endswith(".h5")
    }


@pytest.mark.parametrize("limit", [pytest.param(3000, marks=pytest.mark.slow), 12288])
@pytest.mark.slow
def test_whichever_file_meets_the_limit_the_end_is_tidy(here: Path, limit: int) -> None:
    """HDF5 writing on where nothing can be written ended the process by a signal; Pillow's writer left half a JPEG."""
    process = command(*WORDS, "slides.workers=1", limit=limit)
    told = process.communicate(timeout=120)[1]
    assert (process.returncode, len(told.splitlines())) == (75, 1), told
    for picture in Path("out").rglob("*.jpg"):
        assert picture.read_bytes().endswith(b"\xff\xd9")  # the mark of a JPEG's end
    assert not list(Path("out").rglob("*.h5"))


@pytest.mark.slow
def test_two_commands_share_the_work_and_both_account_for_all_of_it(here: Path, whole: Path) -> None:
    pair = [command(*ALONE, f"name={name}") for name in ("a", "b")]
    for process in pair:
        assert process.communicate(timeout=200) is not None
        assert process.returncode == 0
    made = 0
    for name in ("a", "b"):
        folder = Path("runs/extract") / name
        account = json.loads((folder / "run.json").read_text())
        assert account["done"] == SLIDES
        (line,) = [line for line in (folder / "log.txt").read_text().splitlines() if "complete before" in line]
        made += 5 - int(line.split("(")[1].split()[0])
    assert made == 5  # each slide once
    assert content("out") == content(whole / "reference")


def test_a_slide_that_another_holds_is_waited_for_and_taken_when_it_is_free(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mtl("tile", *TILE)[0] == 0
    (folder,) = Path("out/tiles").iterdir()
    (folder / "s1.h5").unlink()
    held = Lease.take(folder / "s1.lease")
    assert held is not None
    monkeypatch.setattr(engine.time, "sleep", lambda seconds: held.release() if held.path.exists() else None)
    code, account = mtl("tile", *TILE)
    assert (code, account["done"]) == (0, SLIDES)
    assert (folder / "s1.h5").exists()
    assert not list(Path("out").rglob("*.lease"))


def test_leases_and_halves_of_the_dead_are_cleared_those_of_the_living_stay(here: Path, whole: Path) -> None:
    shutil.copytree(whole / "reference", "out")
    (features,) = Path("out/features").iterdir()
    dead = json.dumps({"host": lease._here(), "pid": os.getpid(), "started": "1", "token": ""})
    (features / "s0.lease").write_text(dead)  # killed just after it had finished
    (features / "s1.h5.0123abcd.tmp").write_bytes(b"half")
    (features / "clam").mkdir()
    (features / "clam" / "s2.pt.0123abcd.tmp").write_bytes(b"half")
    (features / "other.lease").write_text(dead.replace(lease._here(), "far away"))
    (features / "other.h5.0123abcd.tmp").write_bytes(b"in work elsewhere")
    assert mtl("extract", *ALONE)[0] == 0
    assert sorted(path.name for path in features.rglob("*") if path.suffix != ".h5") == [
        "clam", "other.h5.0123abcd.tmp", "other.lease",
    ]  # fmt: skip


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
        return
    with h5py.File(path, "r+") as file:
        if how == "rows dropped":  # by somebody who keeps the books
            for name in list(file):
                rows, noted = file[name][:-2], dict(file[name].attrs)
                del file[name]
                file[name] = rows
                file[name].attrs.update(noted)
            file.attrs["rows"] = len(file["coords"])
        elif how == "a value":
            name = "features" if "features" in file else "tissue"
            file[name][1] = 0.25
        else:
            file.attrs["mpp"] = 9.0


@pytest.mark.parametrize("how", ["truncated", "rows dropped", "a value", "an attribute"])
@pytest.mark.parametrize("kind", ["features", "tiles"])
def test_a_finished_file_that_was_damaged_is_found_and_made_again(here: Path, whole: Path, how: str, kind: str) -> None:
    shutil.copytree(whole / "reference", "out")
    path = next(Path("out", kind).rglob("s2.h5"))
    damage(path, how)
    others = {p: p.stat().st_mtime_ns for p in Path("out", kind).rglob("*.h5") if p != path}
    assert mtl("extract", *ALONE)[0] == 0
    assert content("out") == content(whole / "reference")
    assert {p: p.stat().st_mtime_ns for p in others} == others


def test_other_settings_and_other_code_have_folders_of_their_own(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "one").mkdir()
    shutil.copy("slides/s0.tiff", "one")
    words = ["slides.dir=one", "slides.tile_um=64", "slides.workers=1"]
    seen = []
    for more in (["backbone.tile_px=64"], ["backbone.tile_px=96"], ["backbone.tile_px=64", "slides.min_tissue=0.5"]):
        assert mtl("extract", *words, *more)[0] == 0
        seen.append({path.parent.name for path in Path("out/features").rglob("s0.h5")})
    plain = keys.code_digest
    monkeypatch.setattr(keys, "code_digest", lambda *places: plain(*places) + "changed")
    assert mtl("extract", *words, "backbone.tile_px=64")[0] == 0
    seen.append({path.parent.name for path in Path("out/features").rglob("s0.h5")})
    assert [len(found) for found in seen] == [1, 2, 3, 4]


def test_dry_run_lists_the_work_and_writes_nothing(here: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from nsclc_mtl.cli import app

    shutil.rmtree("out", ignore_errors=True)
    (here / "slides").unlink()
    shutil.copytree(whole / "slides", here / "slides")
    (here / "slides" / "zero.svs").touch()
    write_pyramid(here / "slides" / "glass.tiff", np.full((768, 768, 3), 243, np.uint8))
    before = sorted(here.rglob("*"))
    told = CliRunner().invoke(app, ["extract", "--dry-run", *ALONE])
    assert told.exit_code == 4
    assert told.stdout.splitlines()[:6] == [f"todo    {name}" for name in ["glass", *SLIDES]]
    assert told.stdout.splitlines()[6].startswith("refused zero: unsupported: ")
    assert sorted(here.rglob("*")) == before
    (here / "slides" / "zero.svs").unlink()
    assert mtl("tile", *TILE)[0] == 0
    held = Lease.take(next(Path("out/tiles").rglob("s3.h5")).with_suffix(".lease"))
    assert held is not None
    next(Path("out/tiles").rglob("s3.h5")).unlink()
    before = sorted(here.rglob("*"))
    told = CliRunner().invoke(app, ["tile", "--dry-run", *TILE])
    assert told.exit_code == 0
    assert "held    s3" in told.stdout
    assert told.stdout.splitlines()[-1].startswith("tiles: 0 to do, 5 kept (1 of them without a tile), 1 with another")
    assert sorted(here.rglob("*")) == before
    held.release()


# ---------------------------------------------------------------------------------------------------------------------
# Staging
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_staged_slides_give_the_same_and_leave_nothing(here: Path, whole: Path, workers: int) -> None:
    words = [*WORDS, f"slides.workers={workers}", "slides.stage=fast"]
    assert mtl("extract", *words)[0] == 0
    assert content("out") == content(whole / "reference")
    assert list(Path("fast").iterdir()) == []


def test_copies_are_read_bounded_in_number_and_only_made_of_what_is_to_be_done(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mtl("tile", *TILE)[0] == 0
    next(Path("out/tiles").rglob("s1.h5")).unlink()
    next(Path("out/tiles").rglob("s3.h5")).unlink()
    seen, most = [], 0
    plain = jobs.open_job

    def opened(job: Job, slides: Any) -> Any:
        nonlocal most
        seen.append(Path(job.staged).relative_to(Path("fast")).parts[0][:4] + job.slide_id)
        assert Path(job.staged).stat().st_size == Path(job.path).stat().st_size
        most = max(most, len(list(Path("fast").glob("mtl-*/*/*"))))
        return plain(job, slides)

    monkeypatch.setattr(jobs, "open_job", opened)
    assert mtl("tile", *TILE, "slides.stage=fast", "slides.stage_ahead=1")[0] == 0
    assert seen == ["mtl-s1", "mtl-s3"]
    assert most <= 2
    Path("out/tiles").rename("out/before")
    assert mtl("tile", *TILE, "slides.stage=fast", "slides.stage_ahead=1")[0] == 0
    assert most <= 2
    assert list(Path("fast").iterdir()) == []


def test_a_copy_of_another_size_and_a_full_disk_are_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = shutil.copyfile

    def short(source: Path, target: Path) -> None:
        plain(source, target)
        if source.name == "s1.tiff":
            os.truncate(target, 100)

    monkeypatch.setattr(staging.shutil, "copyfile", short)
    code, account = mtl("tile", *TILE, "slides.stage=fast")
    assert (code, reasons(account["failed"])) == (4, {"s1": "copy_differs"})

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staging.shutil, "copyfile", full)
    assert mtl("tile", *TILE, "slides.stage=fast")[0] == 75
    assert list(Path("fast").iterdir()) == []


def test_copies_of_a_killed_command_are_removed_by_the_next(here: Path) -> None:
    gone = here / "fast" / f"mtl-{'0' * 32}"
    (gone / "copy").mkdir(parents=True)
    (gone / "copy" / "s0.tiff").write_bytes(b"half")
    (here / "fast" / "my own").mkdir()
    assert mtl("tile", *TILE, "slides.stage=fast")[0] == 0
    assert [path.name for path in (here / "fast").iterdir()] == ["my own"]


def test_slides_of_several_files_are_copied_whole(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for name in ("a.mrxs", "a/Slidedat.ini", "a/Data0000.dat", "a/deep/x.dat", "b.mrxs", "img(1).jpg", "opt.opt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "h.vms").write_text(
        "[Virtual Microscope Specimen]\nImageFile=img(1).jpg\nOptimisationFile=opt.opt\nX=7\n"
    )

    def names(slide: str) -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in staging.parts_of(tmp_path / slide)]

    assert names("a.mrxs") == ["a.mrxs", "a/Data0000.dat", "a/Slidedat.ini", "a/deep/x.dat"]
    assert names("b.mrxs") == ["b.mrxs"]
    assert names("h.vms") == ["h.vms", "img(1).jpg", "opt.opt"]
    stage = staging.Stage(tmp_path / "fast", 1, lambda job: True)
    with stage:
        stage.add(Job("a", str(tmp_path / "a.mrxs")))
        job, fault = stage.next()
        assert fault is None
        copied = Path(job.staged)
        assert (copied.parent / "a" / "deep" / "x.dat").read_text() == "a/deep/x.dat"
        assert stage.drop(job).staged == ""
        assert not copied.parent.exists()
    assert list((tmp_path / "fast").iterdir()) == []


# ---------------------------------------------------------------------------------------------------------------------
# A process of the pool dies
# ---------------------------------------------------------------------------------------------------------------------


def dies_once(job: Job) -> Outcome:
    """The first time that slide 3 is worked on, its process is killed; slide 5 kills every time."""
    mark = Path(job.path) / job.slide_id
    if job.slide_id == "5" or (job.slide_id == "3" and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(tiles=1)


@pytest.mark.slow
def test_a_killed_worker_costs_its_slide_and_no_other(tmp_path: Path) -> None:
    todo = [Job(str(number), str(tmp_path)) for number in range(8)]
    stage = staging.Stage(None, 1, lambda job: False)
    found = dict(engine._each(todo, pool.Processes(dies_once, 2), stage, print))
    assert found["5"].reason == "worker_died"
    assert found["3"].tiles == 1
    assert sorted(found) == [str(number) for number in range(8)]
    assert sum(outcome.reason == "worker_died" for outcome in found.values()) <= 2  # the neighbour of 5, at worst
