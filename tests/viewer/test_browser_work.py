"""Notes, exports, links and the comparison in a browser."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.viewer.board import EVIL

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
WAIT = 60_000  # ms: a machine with much to do


def visit(page: Page, address: str, path: str, **query: str) -> None:
    page.set_default_timeout(WAIT)
    page.goto(f"{address.split('/?')[0]}{path}?{urlencode(query)}")


def test_a_verdict_and_a_note_survive_a_reload_and_the_name_is_asked_once(page: Page, address: str) -> None:
    visit(page, address, "/patient", id="P0001", task="grade")
    row = page.locator('.notes-row[data-task="grade"]')
    row.get_by_role("button", name="disagree").click()
    assert "write your name" in page.locator(".notes-told").inner_text()
    page.keyboard.type("Dr. Ü")
    page.keyboard.press("Enter")
    page.wait_for_selector(".notes-told:has-text('Kept')")
    assert "disagree" in page.evaluate("document.activeElement.textContent")  # goes on where he was
    page.locator("#notes-about").select_option("response")
    page.locator("#notes-text").focus()
    page.keyboard.type("tile 3 is necrosis")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".notes-past li:has-text('necrosis')")
    assert page.locator("#notes-text").input_value() == ""
    page.reload()
    page.wait_for_selector(".notes-past li:has-text('necrosis')")
    entries = page.locator(".notes-past li").all_inner_texts()
    assert len(entries) == 2
    assert "Dr. Ü" in entries[1]
    assert "disagree on grade" in entries[1]
    assert "1 disagree" in page.locator(".notes-rows").inner_text()
    assert row.get_by_role("button", name="disagree").get_attribute("aria-pressed") == "true"
    assert not page.locator("#notes-author").is_visible()


def test_a_hostile_note_is_text_and_a_lost_server_is_told(page: Page, address: str) -> None:
    visit(page, address, "/patient", id=EVIL)
    title = page.title()
    page.evaluate("localStorage.setItem('mtl-author', '<b onclick=alert(1)>x</b>')")
    page.reload()
    page.locator("#notes-about").select_option("")
    page.locator("#notes-text").fill(EVIL)
    page.locator(".notes-keep").click()
    page.wait_for_selector(".notes-past li")
    assert EVIL in page.locator(".notes-past").inner_text()
    assert page.locator(".notes img, .notes b").count() == 0
    assert page.title() == title
    page.evaluate("() => { window.fetch = () => Promise.reject(new TypeError('Failed to fetch')); }")
    page.locator("#notes-text").fill("not lost")
    page.locator(".notes-keep").click()
    page.wait_for_selector(".notes-told.warn:has-text('does not answer')")
    assert page.locator("#notes-text").input_value() == "not lost"
    page.locator("#notes-text").fill("")


def test_two_patients_stand_side_by_side(page: Page, address: str) -> None:
    visit(page, address, "/compare", a="P0001", b=EVIL)
    page.wait_for_selector("#compare:not([aria-busy])")
    assert page.locator("#compare .task[data-task]").count() == 4
    response = page.locator('.task[data-task="response"]')
    assert "percentage point" in response.locator(".words").inner_text()
    assert page.locator(".curves polyline").count() == 2
    assert page.locator("#compare .modalities .hatched").count() > 0  # the second one has no CT
    assert page.locator("#compare img").count() == 3
    link = page.locator("#compare a.slide").nth(1)
    asked = parse_qs(urlsplit(link.get_attribute("href") or "").query)
    assert asked == {"id": ["P0001"], "model": ["first"], "pane": ["slides"], "slide": ["1"]}
    page.locator("#swap").click()
    page.wait_for_selector("#compare:not([aria-busy]) .head.side-b h2:has-text('P0001')")
    page.locator("select[name=model_a]").select_option("second")
    page.wait_for_selector(".head.side-a:has-text('model second')")
    page.wait_for_selector("#compare:not([aria-busy])")


def test_a_download_has_its_name_and_rows(page: Page, address: str, tmp_path: Path) -> None:
    visit(page, address, "/patient", id="P/3 ü")
    page.locator("summary:has-text('Export')").click()
    with page.expect_download() as caught:
        page.get_by_role("link", name="Predictions and confidence").click()
    name = caught.value.suggested_filename
    assert name.startswith("predictions-P_3-")
    assert name.isascii()
    caught.value.save_as(tmp_path / "kept.csv")
    with (tmp_path / "kept.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["table"] == "predictions"]
    assert {row["patient_id"] for row in rows} == {"P/3 ü"}
    assert "mtl predict" in page.locator("#behind .exports").inner_text()


def test_a_link_holds_the_view_and_no_token(page: Page, address: str) -> None:
    visit(page, address, "/patient", id="P0001", task="response")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(".copy-link").click()
    page.wait_for_selector(".link .told:has-text('Copied')")
    told = urlsplit(page.evaluate("navigator.clipboard.readText()"))
    asked = parse_qs(told.query)
    assert (told.path, asked["id"], asked["task"]) == ("/patient", ["P0001"], ["response"])
    assert "token" not in asked
