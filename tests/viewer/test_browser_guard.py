"""What a browser makes of the guard: links from elsewhere lead in, pages from elsewhere get nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.fixture
def elsewhere(address: str) -> Iterator[int]:
    """The port of another program's page, with links to us and with attempts on us."""
    host = address.split("/?")[0]
    page = f"""<!doctype html><title>chat</title><a id="first" href="{address}">the board</a>
        <a id="deep" href="{host}/patient?id=P0001&amp;task=grade">a patient</a>
        <img id="picture" src="{host}/api/slides/0/thumbnail.jpg"><iframe src="{host}/"></iframe>
        <script src="{host}/static/state.js"></script>
        <form method="post" action="{host}/api/reviews" enctype="text/plain"><input name="a" value="b"></form>"""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_links_from_another_page_lead_in(browser: Browser, address: str, elsewhere: int, name: str) -> None:
    """`localhost` is another site than 127.0.0.1; another port of 127.0.0.1 is the same site and another origin."""
    host = address.split("/?")[0]
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://{name}:{elsewhere}/")
    page.click("#deep")  # before the token was shown
    page.wait_for_function("document.body.innerText.includes('open the address')")
    page.goto(f"http://{name}:{elsewhere}/")
    page.click("#first")
    page.wait_for_selector("header .only")
    assert page.url == f"{host}/"
    page.goto(f"http://{name}:{elsewhere}/")
    page.click("#deep")
    page.wait_for_selector("header .only")
    assert page.url == f"{host}/patient?id=P0001&task=grade"
    assert "P0001" in page.inner_text("h1")
    context.close()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_another_page_gets_nothing(browser: Browser, address: str, elsewhere: int, name: str) -> None:
    host = address.split("/?")[0]
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("header .only")
    page.goto(f"http://{name}:{elsewhere}/")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.querySelector('#picture').naturalWidth") == 0
    assert not [frame for frame in page.frames if "Research" in frame.content()]
    credentials = "credentials: 'include'"
    for how in ("{}", f"{{mode: 'no-cors', {credentials}}}", f"{{method: 'POST', body: '[]', {credentials}}}"):
        told = page.evaluate(f"fetch('{host}/api/reviews', {how}).then((r) => r.type, () => 'refused')")
        assert told == "refused"
    page.evaluate("document.querySelector('form').submit()")
    page.wait_for_function("document.body.innerText.includes('other pages')")
    context.close()
