"""A site of a federation: a SuperNode of Flower that reaches out to the server, and the worker that answers.

Nothing at the site listens but the SuperNode, on loopback, for this process, which has to know its secret. It runs no
code of the server's. A SuperNode that ends (a server that was started anew, a line that was cut) is started again; one
that was killed is held to be there by the server for up to a minute, in which its place is not given to another.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from nsclc_mtl.federated import keys, lines
from nsclc_mtl.federated.address import Address, unprotected
from nsclc_mtl.federated.audit import AuditLog
from nsclc_mtl.federated.inside import Answering
from nsclc_mtl.federated.programs import Program, free_port, running, secret
from nsclc_mtl.records import IntegrityFault, TryAgain, UsageFault

POLL_S = 0.2
PAUSE_S = 3.0  # between a SuperNode that ended and the next
DELIVERY_S = 10.0  # that the last answer has to leave
# What a SuperNode of the pinned version says of itself
_IN, _SENT, _TAKEN, _TLS = "SuperNode ID:", "Sent successfully", "could not be activated", "certificate verify failed"


@dataclass
class Stay:
    """How a site's time in a federation went."""

    answered: int = 0
    starts: int = 0


def join(
    worker: Answering,
    *,
    site: str,
    server: str,
    work: Path,
    folder: Path | None = None,
    plain: bool = False,
    wait_s: float = 600.0,
    idle_s: float = 86400.0,
    audit: AuditLog | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Stay:
    """Answers the server's questions by `worker` until it says farewell.

    `folder` holds the site's private key and the server's authority (`keys.site_keys`); without it `plain` must be
    said. Logs lie in `work`. Raises UsageFault where the server does not let this key in, IntegrityFault where its
    certificate is not of the authority given, TryAgain where it cannot be reached for `wait_s` seconds or asks nothing
    for `idle_s`.
    """
    lines.checked()
    address = Address.of(server)
    bare = unprotected(address, folder, plain)
    ca, key = (None, None) if bare or folder is None else keys.site_files(folder)
    lines.hush()
    from nsclc_mtl.federated.app import client_app

    stay, over = Stay(), threading.Event()
    app = client_app(site, worker, audit, say, over.set)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mtl-federate-")))
        word = secret(home / "secret")
        lost = time.monotonic()  # since when the server was not reached
        while not over.is_set():
            port = free_port()
            line = lines.supernode(str(address), port, home / "secret", ca, key, wait_s)
            stay.starts += 1
            with running(line, work / "supernode.log", lines.environment(home)) as supernode:
                if _let_in(supernode, lost + wait_s):
                    say(f"site {site} is connected to {address}")
                    _answering(f"127.0.0.1:{port}", word, app, supernode, over, stay, idle_s)
                    lost = time.monotonic()
                elif time.monotonic() > lost + wait_s:
                    raise TryAgain(
                        f"no server at {address} let site {site} in within {wait_s:.0f} s ({supernode.last_words()}): "
                        "see that it runs, and repeat the command"
                    )
                else:
                    _judge(supernode, site, address)
            if not over.is_set():
                time.sleep(PAUSE_S)
    return stay


def _let_in(supernode: Program, deadline: float) -> bool:
    """Whether the server took the SuperNode, which is waited for."""
    while time.monotonic() < deadline:
        if _IN in supernode.said():
            return True
        if not supernode.alive():
            return _IN in supernode.said()
        time.sleep(POLL_S)
    return False


def _judge(supernode: Program, site: str, address: Address) -> None:
    """Raises the fault for which a SuperNode that ended was not let in, unless it may be let in later."""
    said = supernode.said()
    if _TLS in said or "CERTIFICATE_VERIFY_FAILED" in said:
        raise IntegrityFault(
            f"the certificate of the server at {address} is not of the authority in ca.pem, or not for this name: "
            "compare ca.pem with the server's, and nothing was sent"
        )
    if _TAKEN in said or "Failed to initialize" in said:
        return
    raise UsageFault(
        f"the server at {address} did not let site {site} in: its public key is not enrolled there, or the clocks "
        f"differ by more than a few seconds ({supernode.last_words()})"
    )


def _answering(
    address: str, word: bytes, app: object, supernode: Program, over: threading.Event, stay: Stay, idle_s: float
) -> None:
    """Answers questions until the server says farewell or the SuperNode ends."""
    from nsclc_mtl.federated.tasks import Questions

    questions, last, before = Questions(address, word, app), time.monotonic(), stay.answered  # type: ignore[arg-type]
    try:
        while supernode.alive() and not over.is_set():
            if questions.answer_next():
                stay.answered, last = stay.answered + 1, time.monotonic()
            elif time.monotonic() > last + idle_s:
                raise TryAgain(f"the server asked nothing for {idle_s:.0f} s: see that it runs, and repeat the command")
            else:
                time.sleep(POLL_S)
        deadline = time.monotonic() + DELIVERY_S
        while supernode.alive() and time.monotonic() < deadline:
            if supernode.said().count(_SENT) >= stay.answered - before:
                return
            time.sleep(POLL_S)
    finally:
        questions.close()
