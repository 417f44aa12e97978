"""Every command line of Flower that `mtl` runs, for the one version whose flags they are.

What was found in the source of Flower 1.42, and what is made of it here:

* A SuperLink serves three interfaces on one port: Fleet (the sites' side), Control (who may register a site, start a
  run) and Runtime (what runs the server's script). Control knows no password. So the SuperLink listens on loopback
  alone, and sites reach Fleet through a door of ours (`door.py`). Who has an account on the server's machine can still
  disturb a federation by Control, such as stop its run; to read a question or answer for a site takes a key or a token.
* With `--isolation subprocess` a SuperNode would run code that the server sends it. With `process` it runs nothing and
  hands questions to whoever holds a secret: to `mtl`, whose code was installed at the site by the site (`tasks.py`).
* A process that is left alone asks its maker's servers about updates and reports its use; the SuperLink installs what
  an app bundle names. All of it is off (`environment`).
* `FLWR_HOME` holds who is reached at which address; a folder of the run's own leaves the user's untouched.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from nsclc_mtl.records import UsageFault

PINNED = "1.42.0"
CONNECTION = "mtl"  # name of the SuperLink in the settings of `flwr`
APP = "mtl-federation"

# Makes the process that follows end with the one that started it, also where that is killed and can end nobody.
_LEASH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(75)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Tls:
    """Files of a server: the certificate it shows, its private key, and the authority that signed it."""

    ca: Path
    certificate: Path
    key: Path


def checked() -> str:
    """The version of Flower that is installed. Raises UsageFault where it is none, or not the pinned one."""
    try:
        found = metadata.version("flwr")
    except metadata.PackageNotFoundError:
        raise UsageFault(
            "a federation over a network needs Flower, which is not installed: pip install 'nsclc-mtl[federated]'"
        ) from None
    if found != PINNED:
        raise UsageFault(
            f"Flower {found} is installed, and mtl speaks to {PINNED}, since its command lines change from version to "
            f"version: pip install flwr=={PINNED}"
        )
    return found


def superlink(port: int, secret: Path, tls: Tls | None) -> list[str]:
    """The server's exchange of messages, on loopback; without `tls` it asks nobody who they are."""
    line = [_program("flower-superlink"), "--host", "127.0.0.1", "--port", str(port), "--isolation", "process"]
    line += ["--superexec-auth-secret-file", str(secret), "--disable-runtime-dependency-installation"]
    if tls is None:
        return [*line, "--insecure"]
    line += ["--ssl-ca-certfile", str(tls.ca), "--ssl-certfile", str(tls.certificate), "--ssl-keyfile", str(tls.key)]
    return [*line, "--enable-supernode-auth"]


def supernode(
    server: str, port: int, secret: Path, ca: Path | None = None, key: Path | None = None, patience_s: float = 60.0
) -> list[str]:
    """A site's connection to the server at `server` (host:port); questions are fetched from it at `port` of loopback.

    It gives up after `patience_s` without a server. Without `ca` and `key` nothing is encrypted or signed.
    """
    line = [_program("flower-supernode"), "--superlink", server, "--isolation", "process"]
    line += ["--superexec-auth-secret-file", str(secret), "--host", "127.0.0.1", "--port", str(port)]
    line += ["--max-wait-time", str(patience_s)]
    if ca is None or key is None:
        return [*line, "--insecure"]
    return [*line, "--root-certificates", str(ca), "--auth-supernode-private-key", str(key)]


def register(public_key: Path) -> list[str]:
    """Lets the holder of a key in."""
    return [_program("flwr"), "supernode", "register", str(public_key), CONNECTION, "--format", "json"]


def start_run(app: Path) -> list[str]:
    """Starts a run of the bundle in the folder `app`."""
    return [_program("flwr"), "run", str(app), CONNECTION, "--format", "json"]


def leashed(line: list[str]) -> list[str]:
    """The same program, which on Linux ends when this process does, however that ends."""
    return [sys.executable, "-I", "-c", _LEASH, str(os.getpid()), *line]


def environment(home: Path) -> dict[str, str]:
    """The environment of Flower's programs: settings in `home`, and no words to anybody but the named addresses."""
    return past_proxies(os.environ) | _quiet() | {"FLWR_HOME": str(home), "PYTHONUNBUFFERED": "1"}


def hush() -> None:
    """The same for what of Flower runs in this process. Must come before `flwr` is imported."""
    os.environ.update(past_proxies(os.environ) | _quiet())


def settings(home: Path, port: int, ca: Path | None) -> None:
    """Writes into `home` where `flwr` finds the SuperLink."""
    trust = "insecure = true" if ca is None else f"root-certificates = {_quoted(str(ca.resolve()))}"
    text = f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\naddress = "127.0.0.1:{port}"\n{trust}\n'
    (home / "config.toml").write_text(text, encoding="utf-8")


def bundle(app: Path) -> None:
    """Writes the bundle without which Flower starts no run. Nobody loads it: both sides run what is installed there."""
    app.mkdir(parents=True, exist_ok=True)
    (app / "pyproject.toml").write_text(_BUNDLE, encoding="utf-8")
    (app / "nothing.py").write_text('"""The code is at the sites."""\n\napp = None\n', encoding="utf-8")


_BUNDLE = f"""[project]
name = "{APP}"
version = "1.0.0"
description = "Names a run; holds no code"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "mtl"

[tool.flwr.app.components]
serverapp = "nothing:app"
clientapp = "nothing:app"

[tool.flwr.app.config]
"""


def past_proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment in which loopback is never looked for behind a proxy."""
    out = dict(environ)
    for name in ("NO_PROXY", "no_proxy"):
        known = [part for part in out.get(name, "").split(",") if part]
        out[name] = ",".join(dict.fromkeys([*known, "127.0.0.1", "localhost"]))
    return out


def _quiet() -> dict[str, str]:
    return {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }


def _program(name: str) -> str:
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.is_file():
        raise UsageFault(f"Flower's program '{name}' is not beside this Python: pip install flwr=={PINNED}")
    return str(path)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
