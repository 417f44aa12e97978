"""Who may ask: a token, a known Host, our own Origin; and the headers that every answer carries."""

from __future__ import annotations

import asyncio
import html
import re
import secrets
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "mtl"  # with the port behind it, since cookies of one host are shared by its ports
AGAIN = "mtl-again"
# NiiVue draws its fonts and textures from data: addresses; it starts no worker and needs no eval. Marks of SVG and the
# viewers' own elements are coloured and placed by style attributes.
POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), usb=()",
    "cache-control": "no-store",
}
READS = ("GET", "HEAD")
METHODS = (*READS, "POST", "DELETE")
LONGEST_QUERY = 8192  # bytes; a deep link has about 300
SCHEME_PORT = {"http": ":80", "https": ":443"}  # what a browser leaves out of Host and Origin


@dataclass(frozen=True)
class Guard:
    """What a request must show: the token, and a Host among `hosts` (as the header has it -> http or https)."""

    hosts: Mapping[str, str]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    cookie: str = COOKIE

    @classmethod
    def local(cls, port: int, also: Iterable[str] = (), secure: bool = False, token: str = "") -> Guard:
        """A guard for this machine's own names at a port, and for further hosts.

        also: `name` or `name:port` of what stands before us with https, or a whole `http://name:port`. secure: we speak
        TLS ourselves. token: a lasting one; none = a new one.
        """
        scheme = "https" if secure else "http"
        written = [f"{scheme}://{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")]
        written += [one if "://" in one else f"https://{one}" for one in map(str, also)]
        hosts = {}
        for origin in written:
            how, _, host = origin.rstrip("/").lower().partition("://")
            hosts[host.removesuffix(SCHEME_PORT.get(how, ""))] = how
        return cls(hosts, token or secrets.token_urlsafe(32), f"{COOKIE}-{port}")


@dataclass(frozen=True)
class Bounds:
    """What one request may take, and how many there may be."""

    largest: int = 65536  # bytes of a body
    body_s: float = 10.0  # until the whole body is here
    at_once: int = 64  # requests being answered


class Guarded:
    """ASGI middleware around everything.

    Refuses whoever has no token (401), names another Host or comes from another Origin (403), by another method (405),
    sends too much (413) or too slowly (408), or comes when too many are being answered (503). Writes the safety headers
    onto every answer. A fault of the program becomes 500 and one line on stderr that quotes nothing of a request.
    """

    def __init__(self, app: ASGIApp, guard: Guard, bounds: Bounds | None = None) -> None:
        self.app, self.guard, self.bounds = app, guard, bounds or Bounds()
        self._now = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websockets
            await send({"type": "websocket.close", "code": 1008})
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                if scope["path"].startswith("/static/"):  # files of the program: kept, and asked after each time
                    headers.setdefault("cache-control", "no-cache")
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if _arrived(scope):
                    headers.append("set-cookie", f"{AGAIN}=; Max-Age=0; Path=/")
            await send(message)

        self._now += 1
        try:
            refused: ASGIApp | None
            if self._now > self.bounds.at_once:
                refused = PlainTextResponse("too much is being asked at once", 503, {"retry-after": "1"})
            else:
                refused = self._refused(scope)
            if refused is None and scope["method"] not in READS:
                body = await self._body(receive)
                if isinstance(body, bytes):
                    receive = _again(body, receive)
                else:
                    refused = body
            await (refused or self.app)(scope, receive, answer)
        except ClientDisconnect:
            return
        except Exception as wrong:
            _note(scope, wrong)
            if not begun:
                told = "something went wrong here; the terminal of `mtl serve` says where"
                page = "text/html" in Headers(scope=scope).get("accept", "")
                said = PlainTextResponse(told, 500) if page else JSONResponse({"fault": told}, 500)
                await said(scope, receive, answer)
        finally:
            self._now -= 1

    def _refused(self, scope: Scope) -> ASGIApp | None:
        """What is answered instead of the page, None where the request may pass."""
        headers, method = Headers(scope=scope), scope["method"]
        scheme = self.guard.hosts.get(headers.get("host", "").lower())
        if scheme is None or len(headers.getlist("host")) != 1:
            return PlainTextResponse("this host is not served", 403)
        own = f"{scheme}://{headers['host'].lower()}"
        if any(origin.lower().removesuffix(SCHEME_PORT[scheme]) != own for origin in headers.getlist("origin")):
            return PlainTextResponse("requests from other pages are not answered", 403)
        elsewhere = _elsewhere(headers)
        # links to us may stand anywhere; pictures, scripts, frames and forms of other pages, also of other ports, not
        clicked = method == "GET" and headers.get("sec-fetch-mode", "navigate") == "navigate"
        clicked = clicked and headers.get("sec-fetch-dest", "document") == "document"
        if elsewhere and not clicked:
            return PlainTextResponse("requests from other pages are not answered", 403)
        if method not in METHODS:
            return PlainTextResponse("this method is not answered", 405, {"allow": ", ".join(METHODS)})
        length = headers.get("content-length", "0")
        if not re.fullmatch("[0-9]{1,18}", length):
            return PlainTextResponse("the length of the request is no number", 400)
        if int(length) > self.bounds.largest:
            return PlainTextResponse("the request is too large", 413)
        if len(scope["query_string"]) > LONGEST_QUERY:
            return PlainTextResponse("the address is too long", 414)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = [value for name, value in query if name == "token"]
        if shown and method == "GET" and self._is_token(shown[-1]):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            # one slash before the path, so that `//evil.com` is a path of ours and no other machine
            onward = RedirectResponse("/" + scope["path"].lstrip("/\\") + (f"?{rest}" if rest else ""), 303)
            onward.set_cookie(
                self.guard.cookie, self.guard.token, httponly=True, samesite="strict", secure=scheme == "https"
            )
            return onward
        cookies = _cookies(headers)
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if any(self._is_token(said) for said in (bearer, cookies.get(self.guard.cookie, ""))):
            return None
        if elsewhere and AGAIN not in cookies:
            return _bounce(scope, scheme)
        return PlainTextResponse("open the address that `mtl serve` printed: it holds this start's token", 401)

    async def _body(self, receive: Receive) -> bytes | PlainTextResponse:
        """The whole body, with or without a stated length; what is answered where it is too large or too slow."""
        body = b""
        try:
            async with asyncio.timeout(self.bounds.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    body += message.get("body", b"")
                    if len(body) > self.bounds.largest:
                        return PlainTextResponse("the request is too large", 413, {"connection": "close"})
                    if not message.get("more_body", False):
                        return body
        except TimeoutError:
            return PlainTextResponse("the request came too slowly", 408, {"connection": "close"})

    def _is_token(self, said: str) -> bool:
        return secrets.compare_digest(said.encode("utf-8", "replace"), self.guard.token.encode())


def _elsewhere(headers: Headers) -> bool:
    """Whether the browser says that another page asks."""
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")


def _cookies(headers: Headers) -> dict[str, str]:
    return cookie_parser("; ".join(headers.getlist("cookie")))


def _arrived(scope: Scope) -> bool:
    """Whether the page of `_bounce` has led here, so that its mark may go."""
    headers = Headers(scope=scope)
    return AGAIN in _cookies(headers) and not _elsewhere(headers)


def _bounce(scope: Scope, scheme: str) -> HTMLResponse:
    """A page that asks for its own address once more.

    Whoever follows a link from a mail or a chat brings no SameSite=Strict cookie; a page of ours that goes on does. A
    cookie that lives for seconds keeps it from going round where that does not help; it goes when a page is reached.
    """
    path = (
        "/"
        + quote(scope["path"].lstrip("/\\"))
        + (f"?{said}" if (said := scope["query_string"].decode("latin-1")) else "")
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>mtl serve</title>'
        f'<meta http-equiv="refresh" content="0;url={html.escape(path)}"></head><body><p>One moment.</p></body></html>'
    )
    told = HTMLResponse(page, 401)
    told.set_cookie(AGAIN, "1", max_age=5, httponly=True, samesite="lax", secure=scheme == "https")
    return told


def _again(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read already, and afterwards what comes."""
    given = False

    async def once() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once


def _note(scope: Scope, wrong: Exception) -> None:
    """One line about a fault of the program: its type and place. Its message and the address may name a patient."""
    frames = traceback.extract_tb(wrong.__traceback__)
    ours = [frame for frame in frames if "nsclc_mtl" in Path(frame.filename).parts] or frames[-1:]
    place = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    route = getattr(scope.get("route"), "path", "a page")
    print(f"mtl: {scope['method']} {route}: unexpected {type(wrong).__name__}{place}", file=sys.stderr, flush=True)
