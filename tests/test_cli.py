"""The command line as a stranger meets it: help, exit codes, and nothing heavy before it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nsclc_mtl import __version__
from nsclc_mtl.cli import VERBS

HEAVY = ("torch", "hydra", "omegaconf", "monai", "pandas", "pytorch_lightning", "numpy", "matplotlib", "openslide")


def mtl(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "nsclc_mtl", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120)


def modules_after(code: str) -> set[str]:
    program = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return set(out.stderr.split())


def test_help_imports_nothing_heavy() -> None:
    loaded = modules_after("import nsclc_mtl.cli as cli; sys.argv = ['mtl', '--help']; cli.main()")
    assert "typer" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("verb", [*VERBS, "demo", "doctor", "init"])
def test_command_modules_import_nothing_heavy(verb: str) -> None:
    loaded = modules_after(f"import nsclc_mtl.commands.{verb}")
    assert not loaded & {"torch", "hydra", "monai", "pandas"}


def test_show_imports_no_torch(tmp_path: Path) -> None:
    loaded = modules_after("import nsclc_mtl.cli as cli; sys.argv = ['mtl', 'train', '--show']; cli.main()")
    assert "hydra" in loaded
    assert not loaded & {"torch", "monai", "pandas", "pytorch_lightning"}


def test_help_names_every_verb(tmp_path: Path) -> None:
    told = mtl("--help", cwd=tmp_path)
    assert told.returncode == 0
    for verb in (*VERBS, "demo", "doctor", "init", "version"):
        assert verb in told.stdout
    assert "--sweep" in mtl("train", "--help", cwd=tmp_path).stdout


def test_version(tmp_path: Path) -> None:
    assert mtl("--version", cwd=tmp_path).stdout == mtl("version", cwd=tmp_path).stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "trainer.max_epoch=3"], "did you mean 'trainer.max_epochs'?"),
        (["train", "+trainer.max_epoch=3"], "no key 'trainer.max_epoch'"),
        (["train", "model=nonesuch"], "model has no option 'nonesuch'"),
        (["train", "--shwo"], "--shwo"),
        (["train", "slides"], "is not an override"),
        (["tile", "a", "b"], "takes one folder"),
        (["trian"], "trian"),
        (["train", "--conf", "absent"], "no such folder"),
        (["train", "-m", "seed=0,1", "modle=x"], "'modle'"),
    ],
)
def test_wrong_words_exit_2_and_write_nothing(tmp_path: Path, words: list[str], sentence: str) -> None:
    told = mtl(*words, cwd=tmp_path)
    assert told.returncode == 2, told.stderr
    assert sentence in told.stderr
    assert "Traceback" not in told.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_takes_no_files(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        target = Path("/proc")  # root may write into any ordinary folder
    else:
        target = tmp_path / "shut"
        target.mkdir(mode=0o500)
    (tmp_path / "slides").mkdir()
    told = mtl("tile", "slides", f"paths.runs={target}/runs", cwd=tmp_path)
    assert told.returncode == 2
    assert "set paths.runs=FOLDER" in told.stderr
