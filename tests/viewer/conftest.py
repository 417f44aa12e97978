"""A board, a client that speaks to its application in process, a server on a free port, and a browser before it."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fastapi", reason="the extra `viewer` is not installed")

from starlette.testclient import TestClient

from nsclc_mtl.viewer.app import build
from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.guard import Guard
from tests.viewer import board as toys

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PORT = 8765
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# WebGL in software, since a machine of tests has no graphics card
ARGUMENTS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """The board of `tests/viewer/board.py`; tests that write reviews take `fresh`."""
    return toys.make(tmp_path_factory.mktemp("board"))


@pytest.fixture
def fresh(shown: Board, tmp_path: Path) -> Board:
    """The same board with a file of reviews and lists of files of its own."""
    from dataclasses import replace

    return replace(shown, reviews=tmp_path / "reviews.jsonl", slides=list(shown.slides), scans=list(shown.scans))


@pytest.fixture
def client(fresh: Board) -> Iterator[TestClient]:
    """Whoever holds the token, on this machine."""
    guard = Guard.local(PORT)
    with TestClient(
        build(fresh, guard), base_url=f"http://127.0.0.1:{PORT}", cookies={guard.cookie: guard.token}
    ) as one:
        yield one


@pytest.fixture
def stranger(fresh: Board) -> Iterator[TestClient]:
    """Whoever has no token."""
    with TestClient(build(fresh, Guard.local(PORT)), base_url=f"http://127.0.0.1:{PORT}") as one:
        yield one


@pytest.fixture
def address(fresh: Board) -> Iterator[str]:
    """Where a real server shows the board, with the token: http://127.0.0.1:PORT/?token=..."""
    import uvicorn

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # whoever comes before the server waits
        port = listening.getsockname()[1]
        guard = Guard.local(port)
        server = uvicorn.Server(uvicorn.Config(build(fresh, guard), log_level="warning", access_log=False, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{port}/?token={guard.token}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's chromium; tests with it are marked `browser`."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    from nsclc_mtl.viewer.app import HERE

    if not (HERE / "static" / "vendor" / "made").is_file():
        pytest.skip("the slide and scan viewers are not there: run make viewer")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The worklist in a browser of 1366 x 768. Fails the test on any console error and any request to elsewhere."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    one = context.new_page()
    wrong: list[str] = []
    host = address.split("/?")[0]

    def ask(request: Any) -> None:
        if not request.url.startswith((host, "data:", "blob:")):
            wrong.append(f"request to {request.url}")

    one.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    one.on("pageerror", lambda error: wrong.append(str(error)))
    one.on("request", ask)
    one.goto(address)
    yield one
    context.close()
    assert not wrong, wrong
