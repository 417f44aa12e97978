"""`mtl serve`: the pages of a run on one port of this machine, until it is told to stop."""

from __future__ import annotations

import logging
import re
import signal
import socket
import ssl
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import Fault, UsageFault

if TYPE_CHECKING:
    from omegaconf import DictConfig

LOOPBACK = ("127.0.0.1", "::1", "localhost")
EVERYWHERE = ("0.0.0.0", "::")
HOST = r"(https?://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"


VENDOR = ("openseadragon.js", "niivue.js")
LEAST_TOKEN = 32  # characters


def body(cfg: DictConfig) -> int:
    """Serves until SIGINT or SIGTERM; the exit code. Prints the address, which holds this start's token."""
    from nsclc_mtl.config import plain

    return until_told(lambda: serving(plain(cfg)))


def serving(settings: Mapping[str, Any]) -> None:
    """Finds what there is to show, prints the address, and serves until a signal ends it."""
    token = lasting(settings["token_file"])
    listening = checked(settings)
    with listening:
        try:
            import uvicorn

            from nsclc_mtl.viewer.app import HERE, Limits, build
            from nsclc_mtl.viewer.guard import Guard
        except ModuleNotFoundError as missing:
            raise UsageFault(f"{missing.name} is not installed: pip install 'nsclc-mtl[viewer]'") from missing
        from nsclc_mtl.commands.served import board

        try:
            shown = board(settings)
        except Fault:
            raise
        except Exception as wrong:  # its message may quote a patient's data
            raise Fault(
                f"unexpected {type(wrong).__name__} in run='{settings['run']}': --verbose tells where"
            ) from wrong
        port, tls = listening.getsockname()[1], settings["tls"]
        guard = Guard.local(port, names(settings, port), secure=bool(tls["cert"]), token=token)
        app = build(shown, guard, Limits(**settings["limits"]))
        print(f"{shown.cohort}: {len(shown.ids)} patients, {len(shown.slides)} slides, {len(shown.scans)} scans")
        if not all((HERE / "static" / "vendor" / name).is_file() for name in VENDOR):
            print("slides and scans cannot be looked at: their viewers are not there; run make viewer (needs npm)")
        addresses = addressed(settings, port, guard.token)
        for address in addresses:
            print(f"open {address}")
        print("research use only; stop with Ctrl-C", flush=True)
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="warning", access_log=False, server_header=False, date_header=False,
                ssl_certfile=tls["cert"], ssl_keyfile=tls["key"], ws="none", http="h11",
                # what a proxy says of whom it speaks for is not needed, and could be said by anybody on this machine
                proxy_headers=False, timeout_graceful_shutdown=3, timeout_keep_alive=settings["keep_alive_s"],
                limit_concurrency=settings["connections"],
            )
        )  # fmt: skip
        with quiet(), opened(addresses[0] if settings["open"] else ""):
            server.run(sockets=[listening])


def until_told(work: Callable[[], None]) -> int:
    """The exit code of work that a signal ends: 130 after SIGINT, 143 after SIGTERM, 0 without one.

    uvicorn catches both, closes its connections, and then sends the signal on to here.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        work()
    except KeyboardInterrupt:
        return 130
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


@contextmanager
def quiet() -> Iterator[None]:
    """Libraries say nothing meanwhile: what they warn of names files, and files bear the names of patients."""
    silent = logging.NullHandler()
    logging.getLogger().addHandler(silent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.getLogger().removeHandler(silent)


@contextmanager
def opened(address: str) -> Iterator[None]:
    """The address in the user's browser, where there is one.

    By way of a file that only the user can read: words of a command line, the token among them, are seen by everybody.
    """
    if not address:
        yield
        return
    import html
    import webbrowser

    with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
        page = Path(folder) / "open.html"
        page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0;url={html.escape(address)}">', "utf-8")
        webbrowser.open(page.as_uri())
        yield


def lasting(file: Any) -> str:
    """The token in a file; empty where none is named. Raises UsageFault where it is short or others can read it."""
    if not file:
        return ""
    path = Path(str(file))
    if not path.is_file():
        raise UsageFault(f"token_file='{file}' is no file: make one by  (umask 077; openssl rand -hex 32 > {file})")
    if sys.platform != "win32" and path.stat().st_mode & 0o077:
        raise UsageFault(f"token_file='{file}' can be read by others: chmod 600 {file}")
    token = path.read_text("utf-8", errors="replace").strip()
    if len(token) < LEAST_TOKEN or not re.fullmatch(r"[A-Za-z0-9_-]+", token):
        raise UsageFault(f"token_file='{file}' needs {LEAST_TOKEN} letters and digits or more: openssl rand -hex 32")
    return token


def checked(settings: Mapping[str, Any]) -> socket.socket:
    """The socket, which listens. Raises UsageFault where it would be open to others without TLS and the user's word."""
    host, tls = str(settings["host"]), settings["tls"]
    small = [f"limits.{name}" for name, value in settings["limits"].items() if not value > 0]
    small += [name for name in ("keep_alive_s", "connections") if not settings[name] > 0]
    if small:
        raise UsageFault(f"{small[0]} is larger than 0")
    for name in ("cert", "key"):
        if tls[name] and not Path(str(tls[name])).is_file():
            raise UsageFault(f"tls.{name}='{tls[name]}' is no file")
    if bool(tls["cert"]) != bool(tls["key"]):
        raise UsageFault("tls.cert and tls.key are given together")
    if tls["cert"]:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls["cert"], tls["key"], password=lambda: "")
        except (ssl.SSLError, OSError, ValueError) as wrong:
            raise UsageFault(
                f"tls.cert='{tls['cert']}' and tls.key='{tls['key']}' are no pair of PEM files (a key without password)"
            ) from wrong
    if host not in LOOPBACK and not (settings["allow_remote"] and tls["cert"]):
        raise UsageFault(
            f"host={host} is open to other machines: that needs allow_remote=true, tls.cert and tls.key; "
            "or keep 127.0.0.1 and use ssh -L or a reverse proxy"
        )
    if host in EVERYWHERE and not settings["hosts"]:
        raise UsageFault(f"host={host} listens under every name: say by which one browsers come, hosts=[NAME:PORT]")
    strange = [one for one in settings["hosts"] if not re.fullmatch(HOST, str(one))]
    if strange:
        raise UsageFault(f"hosts: '{strange[0]}' is no NAME or NAME:PORT (https), nor http://NAME:PORT")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # named as TCP, since asyncio turns off Nagle's waiting (40 ms an answer) on such sockets alone
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if sys.platform != "win32":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, int(settings["port"])))
        listening.listen()  # now, so that of two that start at once one is told
    except (OSError, OverflowError, ValueError) as wrong:
        listening.close()
        told = wrong.strerror if isinstance(wrong, OSError) else "0 to 65535"
        raise UsageFault(f"port={settings['port']} of {host} cannot be taken ({told}): try port=0") from wrong
    return listening


def names(settings: Mapping[str, Any], port: int) -> list[str]:
    """Under which further names browsers come: what the user says, and the address that we listen on."""
    host = str(settings["host"])
    own = [] if host in (*LOOPBACK, *EVERYWHERE) else [f"https://{_name(host)}:{port}"]
    return [*map(str, settings["hosts"]), *own]


def addressed(settings: Mapping[str, Any], port: int, token: str) -> list[str]:
    """The addresses to open: our own, then that of each further name."""
    host, scheme = str(settings["host"]), "https" if settings["tls"]["cert"] else "http"
    own = [] if host in EVERYWHERE else [f"{scheme}://{_name(host)}:{port}"]
    further = [one if "://" in one else f"https://{one}" for one in map(str, settings["hosts"])]
    return [f"{one}/?token={token}" for one in (*own, *further)]


def _name(host: str) -> str:
    return f"[{host}]" if ":" in host else host
