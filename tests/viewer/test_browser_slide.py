"""The slide viewer in a browser, on a page that holds nothing else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.guard import POLICY
from tests.viewer.board import EVIL

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

HTML = """<!doctype html><html lang="en"><meta charset="utf-8"><title>toy & co</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/base.css"><main id="slides" style="height: 700px"></main>
<script type="module" src="/slides-only.js"></script></html>"""
SCRIPT = """import { mount } from "/static/slide.js";
import { state } from "/static/state.js";
import { get } from "/static/api.js";
window.state = state;
const detail = await get("/api/patient", { id: new URLSearchParams(location.search).get("id") });
window.mounted = mount(document.querySelector("#slides"), detail, state);"""
# [mean alpha, drawn pixels] of the canvas over the slide
LAYER = """(() => {
  const canvas = document.querySelector(".slide-layer");
  const dots = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let [sum, drawn] = [0, 0];
  for (let k = 3; k < dots.length; k += 4) { sum += dots[k]; drawn += dots[k] > 0; }
  return [sum / Math.max(drawn, 1), drawn];
})()"""
# how many colours the slide itself has
SLIDE = """(() => {
  const canvas = document.querySelector(".slide-canvas .openseadragon-canvas canvas:not(.slide-layer)");
  if (!canvas || !canvas.width) return 0;
  const dots = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = new Set();
  for (let k = 0; k < dots.length; k += 404) seen.add(dots.slice(k, k + 3).join());
  return seen.size;
})()"""
WAIT_MS = 60_000


def look(page: Page, patient: str = "P0001", **place: Any) -> None:
    """The page of slides alone, once a slide is open."""
    only_slides(page, patient, **place)
    page.wait_for_selector(".slide-stage[data-open]")


def only_slides(page: Page, patient: str = "P0001", **place: Any) -> None:
    """Goes to a page of slides alone, under the same rules as every other."""
    host = page.url.split("/", 3)
    root = "/".join(host[:3])
    page.set_default_timeout(WAIT_MS)
    page.route("**/slides-only?*", lambda route: route.fulfill(
        body=HTML, content_type="text/html", headers={"content-security-policy": POLICY}))  # fmt: skip
    page.route("**/slides-only.js", lambda route: route.fulfill(body=SCRIPT, content_type="text/javascript"))
    page.goto(f"{root}/slides-only?{urlencode({'id': patient} | place)}")


def until(page: Page, true: str) -> None:
    """Waits until the expression holds; the page's own policy forbids Playwright's way of asking again and again."""
    end = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(true):
        assert time.monotonic() < end, f"never: {true}"
        page.wait_for_timeout(100)


def mapped(page: Page) -> None:
    page.wait_for_selector(".slide-tile")
    until(page, f"{LAYER}[1] > 0")


def test_tiles_appear_with_a_scale_bar_and_a_legend_in_words(page: Page) -> None:
    look(page, task="grade")
    mapped(page)
    until(page, f"{SLIDE} > 50")
    assert page.locator(".slide-scale").inner_text().strip().split()[1] in ("µm", "mm")
    told = page.locator(".slide-side").inner_text()
    assert "percentile of influence within this slide (100 = highest), not to be compared between slides" in told
    assert "How much a tile can move the grade score, not in which direction" in told
    page.get_by_role("button", name="Raw score").click()
    assert (
        "raw influence, no unit, from 0 to the highest of this patient's slides"
        in page.locator(".slide-unit").inner_text()
    )
    page.select_option("select[aria-label='map over the slide']", "attention")
    assert "Not its influence" in page.locator(".slide-words").first.inner_text()
    page.get_by_role("button", name="10×", exact=True).click()
    until(page, "document.querySelector('.slide-power').textContent.startsWith('10× · 1 µm/px')")


def test_opacity_and_threshold_change_what_lies_over_the_tissue(page: Page) -> None:
    look(page, map="attention")
    mapped(page)
    page.get_by_label("Outline of the tissue").uncheck()
    page.wait_for_timeout(800)
    page.get_by_label("Opacity").fill("20")
    until(page, f"Math.abs({LAYER}[0] - 51) < 4")
    page.get_by_label("Opacity").fill("80")
    until(page, f"Math.abs({LAYER}[0] - 204) < 4")
    assert "opacity=0.8" in page.url
    whole = page.evaluate(LAYER)[1]
    page.get_by_label("Show from").fill("600")
    until(page, f"{LAYER}[1] < {0.6 * whole}")
    assert 0.3 * whole < page.evaluate(LAYER)[1]
    page.select_option("select[aria-label='map over the slide']", "none")
    until(page, f"{LAYER}[1] === 0")
    assert page.locator(".slide-tile").count() == 0


def test_an_address_leads_to_the_same_colours(page: Page) -> None:
    look(page, map="attention")
    mapped(page)
    page.get_by_role("button", name="Raw score").click()
    page.get_by_label("Show from").fill("600")
    until(page, f"{LAYER}[1] > 0")
    assert "colours=raw" in page.url
    assert "least=0.6" in page.url
    look(page, map="attention", colours="raw", least=0.6)
    mapped(page)
    assert "raw attention" in page.locator(".slide-unit").inner_text()
    assert page.get_by_label("Show from").input_value() == "600"
    page.select_option("select[aria-label='map over the slide']", "influence")  # whose scores are others
    assert "least" not in page.url
    assert "colours=raw" in page.url
    assert page.get_by_label("Show from").input_value() == "0"


def test_the_map_follows_the_task(page: Page, shown: Board) -> None:
    look(page, task="grade", map="influence")
    mapped(page)
    first = page.locator(".slide-tile").first.get_attribute("data-tile")
    page.evaluate("state.set({ task: 'survival' })")
    until(page, "document.querySelector('.slide-words').textContent.startsWith('Influence on survival')")
    import pandas as pd

    assert shown.slides[0].scores is not None
    scores = pd.read_csv(shown.slides[0].scores)
    assert first == str(scores["influence:grade"].idxmax())
    assert page.locator(".slide-tile").first.get_attribute("data-tile") == str(scores["influence:survival"].idxmax())


def test_a_tile_of_the_strip_is_flown_to_and_the_place_can_be_linked(page: Page) -> None:
    look(page, map="attention", slide=1)
    mapped(page)
    tile = page.locator(".slide-tile").first
    found = page.evaluate(
        "async (k) => { const s = await (await fetch('/api/slides/1/scores')).json(); return [s.x[k], s.y[k]]; }",
        int(tile.get_attribute("data-tile") or -1),
    )
    tile.focus()
    page.keyboard.press("Enter")
    until(page, f"Math.abs(state.x - {found[0] + 128}) < 3 && Math.abs(state.zoom - 20) < .1")
    assert tile.get_attribute("aria-pressed") == "true"
    assert "percentile 100" in page.locator(".slide-numbers").inner_text()
    until(page, "location.search.includes('zoom=20')")
    link = page.url
    page.goto(link)
    page.wait_for_selector(".slide-stage[data-open='1']")
    until(page, "document.querySelector('.slide-power').textContent.startsWith('20×')")
    page.wait_for_timeout(600)
    assert abs(page.evaluate("state.x") - found[0] - 128) < 3
    page.keyboard.press("Tab")
    page.locator(".slide-canvas .openseadragon-canvas").first.focus()
    page.keyboard.press("3")
    until(page, "Math.abs(state.zoom - 5) < .05")
    x = page.evaluate("state.x")
    page.keyboard.press("ArrowRight")
    until(page, f"state.x > {x} + 20")


def test_a_hostile_name_is_a_name_and_a_slide_without_maps_says_how_to_get_them(page: Page, fresh: Board) -> None:
    from dataclasses import replace

    fresh.slides[:] = [*fresh.slides[:2], replace(fresh.slides[2], scores=None)]
    look(page, EVIL)
    assert "explain.patients=all" in page.locator(".slide-side").inner_text()
    assert page.title() == "toy & co"
    assert page.locator("img[src='x']").count() == 0


def test_a_slide_that_cannot_be_opened_says_why_in_its_place(browser: Browser, fresh: Board, address: str) -> None:
    from dataclasses import replace

    fresh.slides[:] = [replace(fresh.slides[0], path=fresh.slides[0].path.with_name("gone.svs")), *fresh.slides[1:]]
    context = browser.new_context()  # the browser itself tells of the answer 404 on its console
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(address)
    only_slides(page)
    page.wait_for_selector(".slide-note[role='alert']")
    assert "slide 'gone.svs' does not exist" in page.locator(".slide-note").inner_text()
    page.get_by_role("button", name="P0001-S2").click()  # the others are there
    page.wait_for_selector(".slide-stage[data-open='1']")
    assert "slide=1" in page.url
    context.close()


def test_the_outline_is_drawn_and_the_map_goes_with_a_key(page: Page) -> None:
    look(page, map="attention")
    mapped(page)
    page.locator(".slide-canvas .openseadragon-canvas").first.focus()
    page.keyboard.press("h")
    until(page, "document.querySelectorAll('.slide-tile').length === 0")
    assert "map=none" in page.url
    page.wait_for_timeout(500)
    line = page.evaluate(LAYER)[1]
    assert line > 500
    page.get_by_label("Outline of the tissue").uncheck()
    until(page, f"{LAYER}[1] === 0")
    page.locator(".slide-canvas .openseadragon-canvas").first.focus()
    page.keyboard.press("h")
    until(page, f"{LAYER}[1] > 1000")


@pytest.mark.parametrize("on_grid", [True, False])
def test_ten_thousand_tiles_are_drawn_between_two_frames(page: Page, on_grid: bool) -> None:
    look(page)
    took = page.evaluate(
        """async (onGrid) => {
          const { Heatmap } = await import("/static/heatmap.js");
          const tiles = [...Array(10000).keys()];
          const raw = tiles.map((k) => (k * 7919) % 10007);
          const x = tiles.map((k) => (k % 100) * 256 + (onGrid ? 0 : k % 3));
          const y = tiles.map((k) => Math.floor(k / 100) * 256);
          const heat = new Heatmap({ size: 256, x, y, maps: { attention: { raw, percentile: null, highest: 10006 } } });
          heat.choose("attention", "raw", 0);
          const canvas = Object.assign(document.createElement("canvas"), { width: 1300, height: 700 });
          const context = canvas.getContext("2d", { willReadFrequently: true });
          const times = [];
          for (let k = 0; k < 20; k += 1) {
            const begun = performance.now();
            heat.draw(context, { left: -k, top: -k, scale: 0.03, width: 1300, height: 700 });
            times.push(performance.now() - begun);
          }
          const found = [0, 5050, 9999].map((k) => heat.at(x[k] + 128, y[k] + 128));
          return { found, gone: heat.at(-1, 5), median: times.sort((a, b) => a - b)[10], grid: heat.cells !== null };
        }""",
        on_grid,
    )
    assert took["grid"] is on_grid
    assert took["found"] == [0, 5050, 9999]
    assert took["gone"] == -1
    print(f"10,000 tiles, {'grid' if on_grid else 'rectangles'}: {took['median']:.1f} ms")
    assert took["median"] < (30 if on_grid else 300)
