"""`mtl serve`: what it refuses to open, what it prints, and how it ends."""

from __future__ import annotations

import datetime
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nsclc_mtl.commands import serve
from nsclc_mtl.config import compose, execute, plain
from nsclc_mtl.records import UsageFault
from nsclc_mtl.viewer.board import Board


def settings(*words: str) -> dict[str, Any]:
    return dict(plain(compose("serve", ["run=none", "port=0", *words])))


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of our own for 127.0.0.1, and its key."""
    x509 = pytest.importorskip("cryptography.x509")
    from ipaddress import ip_address

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, end)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return cert, secret


def test_the_configuration_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute("serve", ["run=none"], lambda: None, show=True) == 0
    assert "host: 127.0.0.1" in capsys.readouterr().out
    assert execute("serve", ["run=none"], lambda: None, check_only=True) == 0
    assert execute("serve", ["run=none", "limits.bodykb=1"], lambda: None) == 2
    assert "body_kb" in capsys.readouterr().err


def opened(given: dict[str, Any]) -> None:
    serve.lasting(given["token_file"])
    serve.checked(given).close()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["host=0.0.0.0"], "allow_remote=true"),
        (["host=0.0.0.0", "allow_remote=true"], "tls.cert"),
        (["host=192.0.2.1", "allow_remote=true"], "tls.cert"),
        (["host=localhost.evil.com"], "allow_remote=true"),
        (["tls.cert=none.pem", "tls.key=none.pem"], "is no file"),
        (["port=99999"], "port=0"),
        (["port=-1"], "port=0"),
        (["hosts=[evil.com/path]"], "NAME:PORT"),
        (["hosts=['*']"], "NAME:PORT"),
        (["limits.readers=0"], "limits.readers"),
        (["keep_alive_s=0"], "keep_alive_s"),
        (["token_file=none.txt"], "openssl rand"),
    ],
)
def test_what_is_not_opened(words: list[str], told: str) -> None:
    given = settings(*words)
    with pytest.raises(UsageFault) as fault:
        opened(given)
    assert told in str(fault.value)
    assert fault.value.exit_code == 2


def test_other_machines_need_tls_a_flag_and_a_name(pair: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = pair
    tls = [f"tls.cert={cert}", f"tls.key={key}"]
    with pytest.raises(UsageFault, match="together"):
        serve.checked(settings(tls[0]))
    with pytest.raises(UsageFault, match="no pair"):
        serve.checked(settings(tls[0], f"tls.key={cert}"))
    with pytest.raises(UsageFault, match="hosts="):
        serve.checked(settings("host=0.0.0.0", "allow_remote=true", *tls))
    given = settings("host=0.0.0.0", "allow_remote=true", "hosts=['viewer.example.org:8765']", *tls)
    serve.checked(given).close()
    assert serve.names(given, 8765) == ["viewer.example.org:8765"]
    assert serve.addressed(given, 8765, "T") == ["https://viewer.example.org:8765/?token=T"]
    assert serve.names(settings("host=192.0.2.1"), 7) == ["https://192.0.2.1:7"]
    proxied = settings("hosts=[viewer.example.org]")
    assert serve.addressed(proxied, 7, "T") == ["http://127.0.0.1:7/?token=T", "https://viewer.example.org/?token=T"]


def test_a_port_that_is_taken() -> None:
    with serve.checked(settings()) as first:
        port = first.getsockname()[1]
        with pytest.raises(UsageFault, match=f"port={port} of 127.0.0.1 cannot be taken"):
            serve.checked(settings(f"port={port}"))


def test_a_lasting_token_is_long_and_nobody_elses(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a" * 40 + "\n")
    file.chmod(0o644)
    with pytest.raises(UsageFault, match="chmod 600"):
        serve.lasting(str(file))
    file.chmod(0o600)
    assert serve.lasting(str(file)) == "a" * 40
    for short in ("a" * 31, "", "ä" * 40, "a b" * 20):
        file.write_text(short)
        with pytest.raises(UsageFault, match="32"):
            serve.lasting(str(file))


def test_without_fastapi_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [n for n in sys.modules if n.startswith(("fastapi", "nsclc_mtl.viewer"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert execute("serve", ["run=none", "port=0"], lambda: None, no_run=lambda: serve.body) == 2
    err = capsys.readouterr().err
    assert err == "mtl: fastapi is not installed: pip install 'nsclc-mtl[viewer]'\n"


def test_a_run_that_is_none_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute("serve", ["run=none", "port=0"], lambda: None, no_run=lambda: serve.body) == 2
    assert capsys.readouterr().err.startswith("mtl: run='none' does not exist")


def test_the_browser_is_opened_by_a_file_that_only_the_user_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def look(address: str) -> None:
        file = Path(address.removeprefix("file://"))
        assert file.parent.stat().st_mode & 0o077 == 0
        seen.append(file.read_text())

    monkeypatch.setattr("webbrowser.open", look)
    with serve.opened("http://127.0.0.1:1/?token=T"):
        pass
    with serve.opened(""):
        pass
    assert len(seen) == 1
    assert "url=http://127.0.0.1:1/?token=T" in seen[0]


def test_viewers_that_are_not_there_are_told(
    shown: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is printed, without a server that runs."""
    monkeypatch.setattr("nsclc_mtl.commands.served.board", lambda settings: shown)
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    for names, note in ((("none.js",), True), ((), False)):
        monkeypatch.setattr(serve, "VENDOR", names)
        assert execute("serve", ["run=toy", "port=0"], lambda: None, no_run=lambda: serve.body) == 0
        said = capsys.readouterr()
        assert ("make viewer" in said.out) == note
        assert re.search(r"^open http://127\.0\.0\.1:\d+/\?token=\S{40,}$", said.out, re.M)
        assert "research use only" in said.out
        assert "P0001" not in said.out + said.err


def test_a_fault_of_the_program_quotes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(settings: Any) -> None:
        raise KeyError("P0001")

    monkeypatch.setattr("nsclc_mtl.commands.served.board", breaks)
    assert execute("serve", ["run=toy", "port=0"], lambda: None, no_run=lambda: serve.body) == 1
    said = capsys.readouterr()
    assert "unexpected KeyError" in said.err
    assert "P0001" not in said.err


def test_libraries_are_quiet_while_it_serves(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import logging, warnings\nfrom nsclc_mtl.commands.serve import quiet\n"
        "with quiet():\n    logging.getLogger('tifffile').error('P0001.svs is odd')\n    warnings.warn('P0001.nii')\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stderr == ""


# A server of its own, with the board that was made by hand instead of a run's.
STUB = """
import pathlib, sys
from nsclc_mtl.commands import served
from tests.viewer import board
served.board = lambda settings: board.make(pathlib.Path({folder!r}))
from nsclc_mtl.cli import main
sys.argv = ["mtl", "serve", "run=toy", "port=0", *{words!r}]
main()
"""


@contextmanager
def served(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and what it printed until it was ready."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", STUB.format(folder=str(folder), words=list(words))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        printed = ""
        while "stop with" not in printed:
            line = process.stdout.readline()
            if not line:
                raise AssertionError(process.communicate()[1])
            printed += line
        yield process, printed
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_server_answers_and_ends_by_a_signal(tmp_path: Path, number: int, code: int) -> None:
    with served(tmp_path) as (process, printed):
        found = re.search(r"open http://127\.0\.0\.1:(\d+)/\?token=(\S+)", printed)
        assert found
        port, token = int(found[1]), found[2]
        wire = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        wire.request("GET", "/api/worklist", headers={"Authorization": f"Bearer {token}"})
        answer = wire.getresponse()
        assert answer.status == 200
        assert answer.getheader("server") is None
        answer.read()
        wire.request("GET", "/api/patient?id=P0001")
        assert wire.getresponse().status == 401
        wire.close()
        with socket.create_connection(("127.0.0.1", port)) as slow:  # somebody who never finishes does not hold it up
            slow.sendall(b"GET / HTTP/1.1\r\n")
            process.send_signal(number)
            began = time.monotonic()
            out, err = process.communicate(timeout=20)
            assert time.monotonic() - began < 10
        assert process.returncode == code
        assert "P0001" not in out + err
        assert "Traceback" not in err


@pytest.mark.slow
def test_a_server_with_tls(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    cert, key = pair
    with served(tmp_path, f"tls.cert={cert}", f"tls.key={key}") as (_, printed):
        found = re.search(r"open https://127\.0\.0\.1:(\d+)/\?token=(\S+)", printed)
        assert found
        trust = ssl.create_default_context(cafile=str(cert))
        wire = http.client.HTTPSConnection("127.0.0.1", int(found[1]), timeout=10, context=trust)
        wire.request("GET", f"/?token={found[2]}")
        answer = wire.getresponse()
        assert answer.status == 303
        assert "secure" in str(answer.getheader("set-cookie")).lower()
