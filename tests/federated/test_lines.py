"""Command lines of Flower: that the pinned version takes them, and that nothing else is spoken to."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from nsclc_mtl.federated import lines, programs
from nsclc_mtl.federated.address import Address, unprotected
from nsclc_mtl.records import TryAgain, UsageFault

ROOT = Path(__file__).resolve().parents[2]
TLS = lines.Tls(Path("ca.pem"), Path("server.pem"), Path("server.key"))


def test_version_is_that_of_the_extra(monkeypatch):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"flwr=={lines.PINNED}" in extras["federated"]
    monkeypatch.setattr(metadata, "version", lambda name: "1.41.0")
    with pytest.raises(UsageFault, match=f"flwr=={lines.PINNED}"):
        lines.checked()

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(UsageFault, match=r"nsclc-mtl\[federated\]"):
        lines.checked()


def test_flower_takes_the_lines():
    pytest.importorskip("flwr", reason="the extra `federated` is not installed")
    node = importlib.import_module("flwr.supernode.cli.flower_supernode")
    link = importlib.import_module("flwr.superlink.cli.flower_superlink")
    read = link._parse_args_run_superlink().parse_args(lines.superlink(1234, Path("s"), TLS)[1:])
    assert (read.host, read.port, read.isolation) == ("127.0.0.1", 1234, "process")
    assert read.enable_supernode_auth
    assert not read.insecure
    assert not read.runtime_dependency_install
    bare = link._parse_args_run_superlink().parse_args(lines.superlink(1234, Path("s"), None)[1:])
    assert bare.insecure
    assert not bare.runtime_dependency_install

    line = lines.supernode("hub:9092", 1235, Path("s"), Path("ca.pem"), Path("site.key"))
    read = node._parse_args_run_supernode().parse_args(line[1:])
    assert (read.superlink, read.host, read.port, read.isolation) == ("hub:9092", "127.0.0.1", 1235, "process")
    assert (read.root_certificates, read.auth_supernode_private_key) == ("ca.pem", "site.key")
    assert not read.insecure
    assert not read.runtime_dependency_install
    assert node._parse_args_run_supernode().parse_args(lines.supernode("x:1", 2, Path("s"))[1:]).insecure


def test_flower_takes_settings_and_bundle(tmp_path, monkeypatch):
    pytest.importorskip("flwr", reason="the extra `federated` is not installed")
    from flwr.cli.build import build_fab_from_disk
    from flwr.cli.config_utils import load_and_validate
    from flwr.cli.flower_config import read_superlink_connection

    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    lines.settings(tmp_path, 1234, tmp_path / 'a "folder"' / "ca.pem")
    read = read_superlink_connection(None)
    assert (read.name, read.address, read.insecure) == (lines.CONNECTION, "127.0.0.1:1234", False)
    assert read.root_certificates == str(tmp_path / 'a "folder"' / "ca.pem")
    lines.settings(tmp_path, 1234, None)
    assert read_superlink_connection(None).insecure
    lines.bundle(tmp_path / lines.APP)
    config, _ = load_and_validate(tmp_path / lines.APP / "pyproject.toml")
    assert config["project"]["dependencies"] == []
    assert len(build_fab_from_disk(tmp_path / lines.APP)) < 4096


def test_environment_is_quiet(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.setenv("NO_PROXY", "here")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    given = lines.environment(tmp_path)
    assert given["FLWR_TELEMETRY_ENABLED"] == "0"
    assert given["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert given["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert given["FLWR_HOME"] == str(tmp_path)
    assert given["NO_PROXY"] == "here,127.0.0.1,localhost"
    assert given["HTTPS_PROXY"] == "http://proxy:1"  # a hospital may reach the server through nothing else


# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["host", "host:", ":1", "host:x", "https://host:1", "host:70000"])
def test_no_address(text):
    with pytest.raises(UsageFault, match="is no address"):
        Address.of(text)


def test_off_loopback_keys_are_needed(tmp_path):
    assert str(Address.of("[::1]:9092")) == "[::1]:9092"
    assert unprotected(Address.of("127.0.0.1:1"), None, plain=True)
    assert unprotected(Address.of("localhost:1"), None, plain=True)
    assert not unprotected(Address.of("hub.example.org:1"), tmp_path, plain=False)
    for host in ("0.0.0.0", "hub.example.org", "192.0.2.7", "[::]"):
        with pytest.raises(UsageFault, match="make keys"):
            unprotected(Address.of(f"{host}:1"), None, plain=True)
    with pytest.raises(UsageFault, match="needs keys"):
        unprotected(Address.of("127.0.0.1:1"), None, plain=False)
    with pytest.raises(UsageFault, match="leave one"):
        unprotected(Address.of("127.0.0.1:1"), tmp_path, plain=True)


# ---------------------------------------------------------------------------------------------------------------------


def said(program: programs.Program, word: str) -> None:
    """Waits until the program has said a word."""
    deadline = time.monotonic() + 20
    while word not in program.said():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_program_is_ended_on_every_way_out(tmp_path):
    line = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(60)"]
    kept = []

    def fail():
        with programs.running(line, tmp_path / "log", os.environ) as program:
            kept.append(program)
            said(program, "here")
            assert program.alive()
            assert program.last_words() == "here"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not kept[0].alive()


def test_program_that_does_not_leave_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "GRACE_S", 0.5)
    deaf = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print('here', flush=True); time.sleep(60)"
    with programs.running([sys.executable, "-c", deaf], tmp_path / "log", os.environ) as program:
        said(program, "here")
    assert not program.alive()


@pytest.mark.skipif(sys.platform != "linux", reason="the leash is Linux's")
def test_program_does_not_outlive_a_killed_one():
    inner = "import time; print('here', flush=True); time.sleep(60)"
    outer = (
        "import subprocess, sys, time\n"
        "from nsclc_mtl.federated.lines import leashed\n"
        f"child = subprocess.Popen(leashed([sys.executable, '-c', {inner!r}]))\n"
        "print(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = sorted(process.stdout.readline().strip() for _ in range(2))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    child, deadline = Path("/proc") / told[0], time.monotonic() + 10
    while child.exists() and "Z" not in (child / "stat").read_text().split()[2] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.exists() or "Z" in (child / "stat").read_text().split()[2]


def test_what_a_program_tells(tmp_path):
    assert programs.told([sys.executable, "-c", "print('yes')"], os.environ, 20).strip() == "yes"
    with pytest.raises(TryAgain, match="no way"):
        programs.told([sys.executable, "-c", "import sys; sys.exit('no way')"], os.environ, 20)
    with pytest.raises(TryAgain, match="within 2 s"):
        programs.told([sys.executable, "-c", "import time; time.sleep(60)"], os.environ, 2)
    assert len(programs.secret(tmp_path / "s")) == 32
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
