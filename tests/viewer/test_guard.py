"""Nobody sees anything without the token, by another name, or from another page."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from nsclc_mtl.records import DataFault
from nsclc_mtl.viewer import app as application
from nsclc_mtl.viewer import faults
from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.guard import HEADERS, Bounds, Guard, Guarded

SECRET = "P0001 /home/somebody/slides"
HTML = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


def guard_of(client: TestClient) -> Guard:
    return client.app.user_middleware[0].kwargs["guard"]  # type: ignore[attr-defined, no-any-return]


@pytest.fixture(scope="module")
def toy() -> Iterator[TestClient]:
    """A small application behind the guard, which may break."""
    inner = FastAPI(openapi_url=None)

    @inner.get("/breaks")
    def breaks(id: str) -> None:
        raise KeyError(f"{id} {SECRET}")

    @inner.post("/takes")
    async def takes(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    guard = Guard.local(1, ["platform.example.org", "http://plain.example.org:81"])
    inner.add_middleware(Guarded, guard=guard, bounds=Bounds(largest=1000, body_s=0.05))
    with TestClient(inner, base_url="http://127.0.0.1:1", headers={"authorization": f"Bearer {guard.token}"}) as one:
        yield one


@pytest.mark.parametrize("path", ["/", "/api/worklist", "/static/base.css", "/nothing"])
def test_without_the_token_there_is_nothing(stranger: TestClient, path: str) -> None:
    cookie = guard_of(stranger).cookie
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer "},
        {"cookie": f"{cookie}=wrong"},
        {"cookie": f"{cookie}="},
        {"cookie": b"\xff;=;;a[]=\x80"},
    ):
        answer = stranger.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["x-frame-options"] == "DENY"
    assert stranger.get(path, params={"token": "ä" * 40}).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.com"},
        {"host": ""},
        {"host": "127.0.0.1"},
        {"host": "127.0.0.1:8765.evil.com"},
        {"origin": "http://evil.com"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "https://127.0.0.1:8765"},
        {"origin": "http://localhost:8765"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    ],
)
def test_other_hosts_and_origins_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        answer = client.request(method, "/api/worklist", headers=headers)
        assert answer.status_code == 403, method
        assert HEADERS.items() <= dict(answer.headers).items()


def test_only_few_methods_are_answered(client: TestClient) -> None:
    for method in ("PUT", "PATCH", "OPTIONS", "TRACE", "BREW"):
        answer = client.request(method, "/api/worklist")
        assert answer.status_code == 405, method
        assert "P0001" not in answer.text


def test_the_printed_address_leads_in_and_leaves_no_token_behind(stranger: TestClient) -> None:
    guard = guard_of(stranger)
    answer = stranger.get(f"/patient?id=P0001&token={guard.token}", follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/patient?id=P0001"
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    assert "secure" not in answer.headers["set-cookie"].lower()  # a browser would not send it back over http
    assert stranger.get("/api/worklist").status_code == 200


@pytest.mark.parametrize(
    "path", ["//evil.com", "///evil.com/", "/%5Cevil.com", "/%2F%2Fevil.com", "/a%0D%0Aset-cookie:%20x=1"]
)
def test_the_redirect_leads_nowhere_else(stranger: TestClient, path: str) -> None:
    address = f"http://127.0.0.1:8765{path}?token={guard_of(stranger).token}&next=%0D%0Ax:1"
    answer = stranger.get(address, follow_redirects=False)
    target = urlsplit(answer.headers["location"])
    assert answer.status_code == 303
    assert (target.scheme, target.netloc) == ("", "")
    assert "\n" not in answer.headers["location"]
    assert answer.headers["location"][1] not in "/\\"
    assert answer.headers.get_list("set-cookie")[0].startswith("mtl-8765=")
    assert len(answer.headers.get_list("set-cookie")) == 1


def test_a_link_in_a_mail_is_followed_once_more_by_our_own_page(stranger: TestClient) -> None:
    from_mail = {"sec-fetch-site": "cross-site", **HTML}
    answer = stranger.get('/patient?id=<P"1>&task=grade', headers=from_mail)
    assert answer.status_code == 401
    assert 'content="0;url=/patient?id=' in answer.text
    assert "<P" not in answer.text
    assert "script" not in answer.text
    assert stranger.get("/patient?id=P0001", headers=from_mail).text.startswith("open the address")  # not in a circle


def test_names_of_a_proxy_and_schemes(toy: TestClient) -> None:
    takes = {"content": b"x"}
    for host, origin, code in (
        ("platform.example.org", "https://platform.example.org", 200),
        ("platform.example.org", "https://platform.example.org:443", 200),
        ("platform.example.org", "http://platform.example.org", 403),
        ("PLATFORM.example.org", "https://platform.example.org", 200),
        ("plain.example.org:81", "http://plain.example.org:81", 200),
        ("127.0.0.1:1", "https://platform.example.org", 403),
    ):
        forged = {"host": host, "origin": origin, "x-forwarded-host": "evil.com", "x-forwarded-proto": "ftp"}
        assert toy.post("/takes", headers=forged, **takes).status_code == code, (host, origin)
    token = guard_of(toy).token
    behind = toy.get(f"/breaks?token={token}", headers={"host": "platform.example.org"}, follow_redirects=False)
    assert "secure" in behind.headers["set-cookie"].lower()
    assert set(Guard.local(443, secure=True).hosts) == {"127.0.0.1", "localhost", "[::1]"}


def test_bodies_have_a_bound_with_and_without_a_stated_length(toy: TestClient) -> None:
    def parts(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield b"x" * 100

    assert toy.post("/takes", content=parts(10)).json() == {"bytes": 1000}
    assert toy.post("/takes", content=parts(11)).status_code == 413
    assert toy.post("/takes", content=b"x" * 1001).status_code == 413
    for length in ("-1", "1e3", "+5", "9" * 40, "²"):
        answer = toy.post("/takes", headers={"content-length": length.encode()}, content=b"")
        assert answer.status_code == 400, length
    assert toy.get("/takes?a=" + "x" * 9000).status_code == 414


def scope_of(guard: Guard, method: str = "POST", path: str = "/takes") -> dict[str, Any]:
    headers = [(b"host", b"127.0.0.1:1"), (b"authorization", f"Bearer {guard.token}".encode())]
    return {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers, "scheme": "http"}


def in_a_loop(work: Coroutine[Any, Any, None]) -> None:
    """Runs it in a thread, since the browser tests leave a loop behind in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


def test_a_slow_body_and_too_many_requests_are_given_up() -> None:
    guard, told = Guard.local(1), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b""})

    async def never() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            told.append(message["status"])

    guarded = Guarded(app, guard, Bounds(body_s=0.01, at_once=2))
    in_a_loop(guarded(scope_of(guard), never, send))
    assert told == [408]

    async def crowd() -> None:
        await asyncio.gather(*(guarded(scope_of(guard, "GET"), never, send) for _ in range(4)))
        await guarded(scope_of(guard, "GET"), never, send)  # afterwards there is room again

    in_a_loop(crowd())
    assert told == [408, 200, 200, 503, 503, 200]


def test_a_fault_of_the_program_names_no_patient_and_no_path(
    toy: TestClient, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    answer = toy.get("/breaks", params={"id": "P0001\n<b>"})
    assert answer.status_code == 500
    assert HEADERS.items() <= dict(answer.headers).items()
    assert set(answer.json()) == {"fault"}
    out, err = capfd.readouterr()
    assert err.startswith("mtl: GET /breaks: unexpected KeyError at ")
    assert err.count("\n") == 1
    for text in (answer.text, out, err, caplog.text):
        assert "P0001" not in text
        assert "somebody" not in text


OUTWARD = [
    "/../../etc/passwd",
    "/static/../../../../../../etc/passwd",
    "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/static/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/..%5c..%5capp.py",
    "/static/../app.py",
    "/static/%2e%2e/templates/base.html.j2",
    "/static/base.css%00.js",
    "/static/",
    "/static/" + "a" * 5000,
    "/static/out.txt",
    "/api/slides/%2e%2e/thumbnail.jpg",
    "/api/slides/0/label.jpg",
    "/api/slides/0/macro.jpg",
    "/api/slides/..%2f..%2fetc/thumbnail.jpg",
    "/openapi.json",
    "/docs",
]


def test_no_path_leads_out(address: str) -> None:
    """Over a real socket, since clients tidy addresses before they send them."""
    for path in OUTWARD:
        answer = raw(address, path)
        assert int(answer.split()[1]) in (404, 422), (path, answer[:200])
        assert "root:" not in answer
        assert "x-content-type-options: nosniff" in answer
    assert raw(address, "/static/base.css").startswith("HTTP/1.1 200")


def raw(address: str, path: str, method: str = "GET") -> str:
    parts = urlsplit(address)
    token = parts.query.removeprefix("token=")
    with socket.create_connection((parts.hostname, parts.port), 5) as wire:
        wire.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        return b"".join(iter(lambda: wire.recv(65536), b"")).decode("utf-8", "replace")


def test_a_link_out_of_the_static_folder_is_not_followed(
    fresh: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "viewer"
    (here / "static").mkdir(parents=True)
    (here / "templates").symlink_to(application.HERE / "templates")
    (here / "static" / "own.css").write_text("a {}")
    (here / "static" / "out.txt").symlink_to("/etc/passwd")
    (here / "static" / "away").symlink_to("/etc")
    monkeypatch.setattr(application, "HERE", here)
    guard = Guard.local(8765)
    with TestClient(
        application.build(fresh, guard), base_url="http://127.0.0.1:8765", cookies={guard.cookie: guard.token}
    ) as one:
        assert one.get("/static/own.css").headers["cache-control"] == "no-cache"
        assert one.get("/static/out.txt").status_code == 404
        assert one.get("/static/away/passwd").status_code == 404


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/json"),
        (b"[]", "application/json"),
        (b"[" * 60_000, "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"id": ["P0001"], "task": {}, "author": 1}', "application/json"),
        (b'{"id": "P0001", "task": "grade", "verdict": "SECRET", "author": "a"}', "application/json"),
        (b"id=P0001&verdict=agree&author=a&task=grade", "application/x-www-form-urlencoded"),
        (b'{"id": "P0001", "task": "grade", "verdict": "agree", "author": "a"}', "text/plain"),
    ],
)
def test_bodies_of_wrong_types_are_refused_in_one_sentence(client: TestClient, body: bytes, kind: str) -> None:
    answer = client.post("/api/reviews", content=body, headers={"content-type": kind})
    assert answer.status_code in (400, 422)
    assert list(answer.json()) == ["fault"]
    assert "SECRET" not in answer.text
    assert client.get("/api/reviews", params={"id": "P0001"}).json() == {"reviews": []}


def test_every_answer_carries_the_headers(client: TestClient) -> None:
    for path in ("/", "/api/worklist", "/api/patient?id=P0001", "/api/patient?id=nobody", "/api/patient", "/none"):
        answer = client.get(path)
        assert HEADERS.keys() <= dict(answer.headers).keys(), path
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert "server" not in answer.headers
    assert "unsafe-eval" not in HEADERS["content-security-policy"]
    assert "http" not in HEADERS["content-security-policy"]


def test_faults_name_files_without_their_folders(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any, **__: Any) -> None:
        raise DataFault("slide '/data/st. mary/P0001.svs' cannot be read (/data/x/log.txt): set slides.mpp=0.25")

    monkeypatch.setattr("nsclc_mtl.viewer.open_slides.open_slide", wrong)
    answer = client.get("/api/slides/0")
    assert answer.status_code == 404
    assert answer.json() == {"fault": "slide 'P0001.svs' cannot be read (log.txt): set slides.mpp=0.25"}


@pytest.mark.parametrize(
    "sentence",
    ["a/b is no ratio", "no patient 'P/3 ü' is shown here", "0.5 um/px", "either/or 1/2", "write task=grade, not x/y"],
)
def test_what_is_no_path_stays(sentence: str) -> None:
    assert faults.without_paths(sentence) == sentence
