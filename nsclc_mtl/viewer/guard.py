"""Who may ask: a token, a known Host, our own Origin; and the headers that every answer carries."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "mtl"
# NiiVue's workers are blobs, its fonts and textures data; colours of marks are set by style attributes of SVG.
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Guard:
    """What a request must show: the token, and a Host (with port) among `hosts`. `secure`: it comes by TLS."""

    hosts: frozenset[str]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    secure: bool = False

    @classmethod
    def local(cls, port: int, also: Iterable[str] = (), secure: bool = False) -> Guard:
        """A guard for this machine's own names at a port, and for further hosts that the user names."""
        own = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        return cls(frozenset(own | set(also)), secure=secure)


class Guarded:
    """ASGI middleware: refuses whoever has no token (401), names another Host or comes from another Origin (403),
    or sends too much (413); writes the safety headers onto every answer."""

    def __init__(self, app: ASGIApp, guard: Guard, largest: int) -> None:
        self.app, self.guard, self.largest = app, guard, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # no websockets

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refused(scope)
        await (refused or self.app)(scope, receive, answer)

    def _refused(self, scope: Scope) -> ASGIApp | None:
        """What is answered instead of the page, None where the request may pass."""
        headers = Headers(scope=scope)
        if headers.get("host", "") not in self.guard.hosts:
            return PlainTextResponse("this host is not served", 403)
        origin = headers.get("origin")
        if origin is not None and origin not in {f"{scope['scheme']}://{host}" for host in self.guard.hosts}:
            return PlainTextResponse("requests from other pages are not answered", 403)
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and scope["method"] != "GET":
            return PlainTextResponse("requests from other pages are not answered", 403)
        if int(headers.get("content-length") or 0) > self.largest:
            return PlainTextResponse("the request is too large", 413)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = dict(query).get("token")
        if shown is not None and scope["method"] == "GET" and self._is_token(shown):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            # the path as it came, so that an address with two slashes leads nowhere else
            onward = RedirectResponse("/" + scope["path"].lstrip("/") + (f"?{rest}" if rest else ""), 303)
            onward.set_cookie(COOKIE, self.guard.token, httponly=True, samesite="strict", secure=self.guard.secure)
            return onward
        cookies = SimpleCookie(headers.get("cookie", ""))
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if not any(self._is_token(said) for said in (bearer, cookies[COOKIE].value if COOKIE in cookies else "")):
            return PlainTextResponse("open the address that `mtl serve` printed: it holds this start's token", 401)
        return None

    def _is_token(self, said: str) -> bool:
        return secrets.compare_digest(said.encode(), self.guard.token.encode())
