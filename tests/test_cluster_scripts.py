"""The scripts for SLURM in conf/cluster/: the commands they amount to, with stand-ins for what SLURM and Ray bring."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from nsclc_mtl.config import compose
from nsclc_mtl.config.engine_options import faults
from nsclc_mtl.config.wiring import conf_root

SCRIPTS = conf_root() / "cluster"
# srun runs the command (on one node, of which it is the first); the others print what they are called with
STAND_INS = {
    "srun": 'while [ "${1#-}" != "$1" ]; do [ "$1" = -w ] && shift; shift; done\nSLURM_NODEID=${NODE:-0} exec "$@"',
    "scontrol": "printf 'node7\\nnode8\\n'",
    "hostname": 'echo "${ADDRESS:-10.1.2.3}"',
    "ip": "echo '3: ib0    inet 10.9.8.7/24 brd 10.9.8.255 scope global ib0'",
    "mtl": 'for word; do echo "mtl: $word"; done',
    "ray": 'while [ "$1" != -- ]; do echo "ray: $1"; shift; done\nshift\nexec "$@"',
}


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    for name, does in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def script(stand_ins: Path, name: str, *words: str, **environment: str) -> tuple[int, list[str], str]:
    """Exit code, printed lines and errors."""
    slurm = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "70123"}
    path = f"{stand_ins}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", SCRIPTS / name, *words], capture_output=True, text=True, timeout=30,
        env={**os.environ, **slurm, "PATH": path, **environment},
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines(), done.stderr


def composed(lines: list[str]) -> list[str]:
    """The words that `mtl` was called with, which compose and hold."""
    words = [line.removeprefix("mtl: ") for line in lines if line.startswith("mtl: ")]
    assert faults(words[0], compose(words[0], words[1:])) == []
    return words


def test_each_task_of_an_array_is_a_share_and_all_of_them_are_the_whole(stand_ins: Path) -> None:
    text = (SCRIPTS / "shards.sh").read_text()
    first, last = re.search(r"^#SBATCH --array=(\d+)-(\d+)$", text, re.MULTILINE).groups()  # type: ignore[union-attr]
    assert (first, f"MTL_SHARES:-{int(last) + 1}}}" in text) == ("0", True)
    code, lines, _ = script(stand_ins, "shards.sh", "extract", "cohort.root=/my data", SLURM_ARRAY_TASK_ID="3")
    assert code == 0
    assert composed(lines) == ["extract", "cohort.root=/my data", "engine=shard", "shard.index=3", "shard.count=16"]
    _, lines, _ = script(stand_ins, "shards.sh", "tile", "slides", SLURM_ARRAY_TASK_ID="1", MTL_SHARES="4")
    assert composed(lines)[-2:] == ["shard.index=1", "shard.count=4"]


def test_ray_starts_on_the_given_network_and_only_its_head_knows_of_a_dashboard(stand_ins: Path) -> None:
    words = ["extract", "slides.dir=/my slides", "engine.gpus=1"]
    for node, interface, address in (("0", "", "10.1.2.3:20123"), ("1", "ib0", "10.9.8.7:20123")):
        code, lines, told = script(stand_ins, "ray.sh", *words, NODE=node, MTL_INTERFACE=interface)
        assert code == 0, told
        assert composed(lines) == [*words, "engine=ray", f"engine.address={address}"]
        ray = [line.removeprefix("ray: ") for line in lines if line.startswith("ray: ")]
        assert ray[:5] == ["symmetric-run", "--address", address, "--min-nodes", "2"]
        assert ("--include-dashboard=false" in ray) == (node == "0")  # workers refuse the word


@pytest.mark.parametrize("name", ["shards.sh", "ray.sh"])
def test_a_script_without_words_says_what_it_takes_and_hands_exit_codes_on(stand_ins: Path, name: str) -> None:
    code, lines, told = script(stand_ins, name)
    assert (code, lines) == (2, [])
    assert f"usage: sbatch {name} tile|extract" in told
    (stand_ins / "mtl").write_text("#!/bin/bash\nexit 75\n")
    assert script(stand_ins, name, "tile", "slides", SLURM_ARRAY_TASK_ID="0")[0] == 75


def test_an_address_that_no_other_node_can_reach_is_refused(stand_ins: Path) -> None:
    code, _, told = script(stand_ins, "ray.sh", "tile", "slides", ADDRESS="127.0.1.1")
    assert code == 2
    assert "node node7 has the address '127.0.1.1'" in told
