"""The only address of a server that others than itself can reach: Flower's Fleet interface, and nothing beside it.

A SuperLink of Flower 1.42 offers Control (register a key, start a run) and Runtime on the same port as Fleet, and asks
nobody for a password. The door listens for the sites and passes on, to the SuperLink on loopback, only what a site has
to ask, only for keys of the roster, and every signed request once: Flower's signature is over the time alone and holds
for five minutes, in which it could be sent again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nsclc_mtl.federated.lines import Tls
from nsclc_mtl.records import TryAgain

if TYPE_CHECKING:
    import httpx

_ASKED = [
    "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "get-run", "get-fab",
    "push-object", "pull-object", "confirm-message-received",
]  # fmt: skip
_OF_ANYBODY = ["register-node", "unregister-node"]  # where no key is asked for, a site makes itself known so
LIMIT = 16 << 20  # bytes of a request; Flower cuts what is longer into pieces of 5 MiB
MEMORY_S = 320.0  # a signature is known for longer than Flower takes it
PATIENCE_S = 30.0
QUIET_S = 60.0  # in which the same sentence is told once
_KEY, _SIGNATURE = "flwr-public-key", "flwr-signature"

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class Door:
    """An ASGI application before the SuperLink at `inside`, for the sites with these public keys (PEM).

    `keys` None lets anybody in, for trials on loopback. `told` is called with a sentence when somebody is turned away.
    """

    def __init__(
        self,
        inside: str,
        trust: ssl.SSLContext | None,
        keys: Iterable[bytes] | None,
        told: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._inside, self._trust, self._told = inside, trust, told
        self._keys = None if keys is None else {base64.b64encode(key).decode(): True for key in keys}
        self._paths = {f"/v1/fleet/{name}" for name in _ASKED + (_OF_ANYBODY if keys is None else [])}
        self._told_at: dict[str, float] = {}
        self._seen: dict[str, float] = {}  # signature -> when it came, oldest first
        self._client: httpx.AsyncClient | None = None

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """One request: passed on, or turned away with a sentence."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        status, sentence = self._judged(scope["method"], scope["path"], headers)
        if not status:
            body = await _read(receive)
            if body is None:
                status, sentence = 413, f"more than {LIMIT} bytes in one request"
        if status:
            self._tell(f"turned away {(scope.get('client') or ('?',))[0]}: {sentence}")
            await _say(send, status, [(b"content-type", b"application/json")], _fault(sentence))
            return
        assert body is not None
        await self._passed_on(scope["path"], headers, body, send)

    def _judged(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        if method != "POST" or path not in self._paths:
            return 404, "nothing is offered here but what a site of the federation has to ask"
        if self._keys is None:
            return 0, ""
        key, signature = headers.get(_KEY, ""), headers.get(_SIGNATURE, "")
        if key not in self._keys:
            return 401, "its public key is not in the roster of the sites"
        if not signature:
            return 401, "a request without signature"
        now = time.monotonic()
        while self._seen and now - next(iter(self._seen.values())) > MEMORY_S:
            self._seen.pop(next(iter(self._seen)))
        if signature in self._seen:
            return 401, "a request that came before was sent again"
        self._seen[signature] = now
        return 0, ""

    def _tell(self, sentence: str) -> None:
        now = time.monotonic()
        if now - self._told_at.get(sentence, -QUIET_S) >= QUIET_S:
            self._told_at = {s: at for s, at in self._told_at.items() if now - at < QUIET_S} | {sentence: now}
            self._told(sentence)

    async def _passed_on(self, path: str, headers: Mapping[str, str], body: bytes, send: Send) -> None:
        import httpx

        if self._client is None:
            verify = True if self._trust is None else self._trust
            self._client = httpx.AsyncClient(base_url=self._inside, verify=verify, timeout=PATIENCE_S, trust_env=False)
        kept = {n: v for n, v in headers.items() if n in ("content-type", "accept") or "flwr" in n}
        try:
            reply = await self._client.post(path, content=body, headers=kept)
        except httpx.HTTPError:
            await _say(send, 503, [(b"content-type", b"application/json")], _fault("the SuperLink does not answer"))
            return
        named = [(n, v) for n, v in reply.headers.raw if n.lower() == b"content-type" or b"flwr" in n.lower()]
        await _say(send, reply.status_code, named, reply.content)

    async def close(self) -> None:
        """Lets go of the connections to the SuperLink."""
        if self._client is not None:
            await self._client.aclose()


@contextlib.contextmanager
def standing_open(door: Door, host: str, port: int, tls: Tls | None) -> Iterator[int]:
    """The port at which the door stands open meanwhile (a free one for `port` 0). Raises TryAgain where it is taken."""
    import uvicorn

    files = {} if tls is None else {"ssl_certfile": str(tls.certificate), "ssl_keyfile": str(tls.key)}
    server = uvicorn.Server(
        uvicorn.Config(
            door,
            host=host,
            port=port,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
            **files,  # type: ignore[arg-type]
        )
    )
    failed: list[BaseException] = []

    async def served() -> None:
        try:
            await server.serve()
        finally:
            await door.close()

    def run() -> None:
        try:
            asyncio.run(served())
        except (SystemExit, Exception) as wrong:  # uvicorn leaves so where the port is taken
            failed.append(wrong)

    thread = threading.Thread(target=run, name="door", daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    if not server.started:
        raise TryAgain(f"{host}:{port} cannot be listened on (taken, or not an address of this machine)")
    try:
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(timeout=10)


async def _read(receive: Receive) -> bytes | None:
    body = bytearray()
    while True:
        part = await receive()
        body += part.get("body", b"")
        if len(body) > LIMIT:
            return None
        if not part.get("more_body") or part["type"] != "http.request":
            return bytes(body)


async def _say(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    sized = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": sized})
    await send({"type": "http.response.body", "body": body})


def _fault(sentence: str) -> bytes:
    return json.dumps({"code": 0, "detail": sentence}).encode()
