"""The cohort page in a browser: points open patients, subgroups change the curves, names are inert."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlparse

import pytest

from tests.viewer import board as toys
from tests.viewer.board import EVIL

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from nsclc_mtl.viewer.board import Board

pytestmark = pytest.mark.browser
WAIT_MS = 120_000


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """Sixty patients, that subgroups have curves."""
    return toys.make(tmp_path_factory.mktemp("crowd"), patients=60, pictures=False)


def _open(page: Page, query: str = "") -> None:
    page.set_default_timeout(WAIT_MS)
    page.goto(page.url.split("/?")[0].rstrip("/") + f"/cohort{query}")
    page.wait_for_selector(".points path")


def _labels(page: Page) -> list[str]:
    found: list[str] = page.locator(".points path").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
    return found


def test_a_point_opens_its_patient_by_mouse_and_by_keyboard(page: Page) -> None:
    _open(page, "?task=response")
    label = _labels(page)[0]
    page.locator(".points path").first.hover()
    assert page.locator(".tip").inner_text().split("\n")[0] == label.split(", predicted ")[0]
    page.locator(".points path").first.click()
    page.wait_for_url("**/patient?*", timeout=WAIT_MS)
    assert parse_qs(urlparse(page.url).query) == {"id": [label.split(", predicted ")[0]], "task": ["response"]}

    page.go_back()
    page.wait_for_selector(".points path")
    second = _labels(page)[1]
    page.locator(".points path[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url("**/patient?*", timeout=WAIT_MS)
    assert parse_qs(urlparse(page.url).query)["id"] == [second.split(", predicted ")[0]]


def test_subgroups_and_tasks_change_the_figures_and_the_address(page: Page) -> None:
    _open(page, "?task=response")
    curves = page.locator("#curves polyline.curve")
    assert curves.count() == 1
    before = curves.first.get_attribute("points")
    page.locator("#by").select_option("sex")
    page.wait_for_selector("#cohort table")
    assert curves.count() == 2
    assert before not in [curve.get_attribute("points") for curve in curves.all()]
    page.get_by_role("button", name="survival").click()
    page.wait_for_selector("#curves h2:has-text('Survival by risk group')")
    assert curves.count() == 4  # two subgroups, each with lower and higher risk
    assert parse_qs(urlparse(page.url).query) == {"task": ["survival"], "by": ["sex"]}
    page.reload()
    page.wait_for_selector("#cohort table")
    assert page.locator("#by").input_value() == "sex"
    page.locator("#by").select_option("")
    page.wait_for_selector("#cohort table", state="detached")
    assert curves.count() == 2


def test_names_are_inert_and_the_page_says_how_to_make_an_evaluation(page: Page) -> None:
    _open(page, "?task=survival")
    page.locator("#cohort .note:has-text('mtl evaluate ckpt=runs/train/toy')").wait_for()
    for task in ("grade", "response", "subtype", "survival"):
        page.get_by_role("button", name=task).click()
        page.wait_for_selector(f"button[aria-pressed='true']:text-is('{task}')")
        evil = [k for k, label in enumerate(_labels(page)) if label.startswith(EVIL)]
        for k in evil:
            page.locator(".points path").nth(k).focus()
            assert EVIL in page.locator(".tip").inner_text()
    assert page.locator("#cohort img").count() == 0
    assert page.title() == "Cohort – toy & co"
