"""`mtl serve`: the pages of a run on one port of this machine, until it is told to stop."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import UsageFault

if TYPE_CHECKING:
    from omegaconf import DictConfig

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def body(cfg: DictConfig) -> int:
    """Serves until SIGINT or SIGTERM; the exit code. Prints the address, which holds this start's token."""
    from nsclc_mtl.config import plain

    settings = plain(cfg)
    listening = checked(settings)
    try:
        import uvicorn

        from nsclc_mtl.viewer.app import Limits, build
        from nsclc_mtl.viewer.guard import Guard
    except ModuleNotFoundError as missing:
        raise UsageFault(f"{missing.name} is not installed: pip install 'nsclc-mtl[viewer]'") from missing
    from nsclc_mtl.commands.served import board

    shown = board(settings)
    with listening:
        port = listening.getsockname()[1]
        tls = settings["tls"]
        guard = Guard.local(port, settings["hosts"], secure=bool(tls["cert"]))
        app = build(shown, guard, Limits(**settings["limits"]))
        address = f"{'https' if tls['cert'] else 'http'}://{_name(settings['host'])}:{port}/?token={guard.token}"
        print(f"{shown.cohort}: {len(shown.ids)} patients, {len(shown.slides)} slides, {len(shown.scans)} scans")
        print(f"open {address}\nresearch use only; stop with Ctrl-C", flush=True)
        if settings["open"]:
            import webbrowser

            webbrowser.open(address)
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="warning", access_log=False, server_header=False, date_header=False,
                ssl_certfile=tls["cert"], ssl_keyfile=tls["key"], timeout_graceful_shutdown=3, ws="none",
            )
        )  # fmt: skip
        server.run(sockets=[listening])
    return 0


def checked(settings: Mapping[str, Any]) -> socket.socket:
    """The socket to listen on. Raises UsageFault where it would be open to others without TLS and the user's word."""
    host, tls = str(settings["host"]), settings["tls"]
    for name in ("cert", "key"):
        if tls[name] and not Path(str(tls[name])).is_file():
            raise UsageFault(f"tls.{name}='{tls[name]}' is no file")
    if bool(tls["cert"]) != bool(tls["key"]):
        raise UsageFault("tls.cert and tls.key are given together")
    if host not in LOOPBACK and not (settings["allow_remote"] and tls["cert"]):
        raise UsageFault(
            f"host={host} is open to other machines: that needs allow_remote=true, tls.cert and tls.key; "
            "or keep 127.0.0.1 and use ssh -L or a reverse proxy"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # named as TCP, since asyncio turns off Nagle's waiting (40 ms an answer) on such sockets alone
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if sys.platform != "win32":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, int(settings["port"])))
    except OSError as wrong:
        listening.close()
        raise UsageFault(f"port={settings['port']} of {host} cannot be taken ({wrong.strerror}): try port=0") from wrong
    return listening


def _name(host: str) -> str:
    return f"[{host}]" if ":" in host else host
