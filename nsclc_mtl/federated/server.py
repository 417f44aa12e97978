"""The server of a federation: a SuperLink of Flower on loopback, the door before it, and the script that asks.

Off loopback nothing is offered without TLS and keys. All that is started is ended on every way out.
"""

from __future__ import annotations

import json
import ssl
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from nsclc_mtl.federated import keys, lines
from nsclc_mtl.federated.address import Address, unprotected
from nsclc_mtl.federated.audit import AuditLog
from nsclc_mtl.federated.door import Door, standing_open
from nsclc_mtl.federated.messages import Channel
from nsclc_mtl.federated.programs import Program, free_port, running, secret, told
from nsclc_mtl.records import TryAgain, UsageFault

Result = TypeVar("Result")
START_S = 60.0  # that a SuperLink has to begin, and every command of `flwr`


def serve(
    script: Callable[[Channel], Result],
    *,
    listen: str,
    sites: Sequence[str],
    work: Path,
    folder: Path | None = None,
    plain: bool = False,
    wait_s: float = 600.0,
    at_least: int | None = None,
    audit: AuditLog | None = None,
    say: Callable[[str], None] = lambda sentence: None,
    opened: Callable[[Address], None] = lambda address: None,
) -> Result:
    """What `script` makes of a channel to the sites, which it is given as soon as they are there.

    `folder` holds the server's keys and roster (`keys.make_keys`); without it `plain` must be said. `sites` are waited
    for `wait_s` seconds, then `at_least` of them are enough (all by default). Logs lie in `work`. `opened` is told the
    address at which the sites are let in. Raises UsageFault, DataFault and IntegrityFault for what is given, TryAgain
    for a port that is taken, sites that do not come, and a SuperLink that fails.
    """
    lines.checked()
    address = Address.of(listen)
    bare = unprotected(address, folder, plain)
    roster = None if bare or folder is None else {site: keys.as_pem(key) for site, key in keys.roster(folder).items()}
    if roster is not None and (strange := [site for site in sites if site not in roster]):
        raise UsageFault(f"site {strange[0]} is not in the roster ({', '.join(sorted(roster))}): enrol its key first")
    tls = None if bare or folder is None else keys.tls(folder)
    lines.hush()
    from nsclc_mtl.federated.app import server_app
    from nsclc_mtl.federated.flower import FlowerChannel
    from nsclc_mtl.federated.tasks import server_grid

    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mtl-federate-")))
        word, port = secret(home / "secret"), free_port()
        line = lines.superlink(port, home / "secret", tls)
        superlink = stack.enter_context(running(line, work / "superlink.log", lines.environment(home)))
        trust = None if tls is None else ssl.create_default_context(cafile=str(tls.ca))
        _ready(superlink, port, trust)
        run = _begun(home, port, tls, [] if roster is None else sorted(roster), folder)
        scheme = "http" if bare else "https"
        door = Door(f"{scheme}://127.0.0.1:{port}", trust, None if roster is None else roster.values(), say)
        at = Address(address.host, stack.enter_context(standing_open(door, address.host, address.port, tls)))
        grid, context = stack.enter_context(server_grid(f"127.0.0.1:{port}", tls.ca if tls else None, word, run))
        say(f"listening at {at}" + (" without TLS or keys" if bare else ""))
        opened(at)
        channel = FlowerChannel(grid, roster, audit, say)
        results: list[Result] = []

        def scripted() -> None:
            channel.wait_for(sites, wait_s, at_least)
            results.append(script(channel))
            channel.farewell()  # not where it failed: the sites wait for a server that is started again

        server_app(scripted)(grid, context)
        return results[0]


def _ready(superlink: Program, port: int, trust: ssl.SSLContext | None) -> None:
    import httpx

    scheme, deadline = "http" if trust is None else "https", time.monotonic() + START_S
    with httpx.Client(verify=True if trust is None else trust, timeout=5.0, trust_env=False) as client:
        while time.monotonic() < deadline:
            if not superlink.alive():
                raise TryAgain(f"Flower's SuperLink did not start: {superlink.last_words()}")
            try:
                if client.get(f"{scheme}://127.0.0.1:{port}/health").status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
    raise TryAgain(f"Flower's SuperLink did not start within {START_S:.0f} s: {superlink.last_words()}")


def _begun(home: Path, port: int, tls: lines.Tls | None, sites: Sequence[str], folder: Path | None) -> int:
    """Number of the run that was started, after the sites' keys were made known."""
    lines.settings(home, port, None if tls is None else tls.ca)
    lines.bundle(home / lines.APP)
    environment = lines.environment(home)
    for number, site in enumerate(sites):
        path = home / f"{number}.pub"
        assert folder is not None
        path.write_text(keys.public_text(folder, site), encoding="utf-8")
        _answer_of(told(lines.register(path), environment, START_S), f"the key of site {site} was not taken")
    return int(_answer_of(told(lines.start_run(home / lines.APP), environment, START_S), "no run was begun")["run-id"])


def _answer_of(text: str, fault: str) -> dict[str, Any]:
    try:
        answer = dict(json.loads(text[text.index("{") :]))
    except ValueError:
        answer = {"error-message": text}
    if not answer.get("success"):
        raise TryAgain(f"{fault} by Flower's SuperLink: {' '.join(str(answer.get('error-message')).split())[-300:]}")
    return answer
