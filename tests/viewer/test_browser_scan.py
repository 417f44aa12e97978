"""The scan viewer in a browser: what a reader does to a scan changes the picture, and left is where it says."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from nsclc_mtl.viewer.board import Board

pytestmark = pytest.mark.browser

# The viewer alone, as the patient's page mounts it.
MOUNT = """async () => {
  const box = document.createElement("div");
  document.querySelector("main").replaceChildren(box);
  const [{ mount }, { state }, { get }] =
    await Promise.all(["scan", "state", "api"].map((name) => import(`/static/${name}.js`)));
  window.state = state;
  await mount(box, await get("/api/patient", { id: "P0001" }), state);
}"""
# x, y, width, height of the planes on the stage, from the letters at their edges
PLANES = """() => {
  const letters = [...document.querySelectorAll(".scan-labels b")];
  const at = letters.map((b) => [parseFloat(b.style.left), parseFloat(b.style.top)]);
  return [0, 4, 8].map((k) => [at[k][0] - 10, at[k + 2][1] - 12, at[k + 1][0] + 12, at[k + 3][1] + 12]);
}"""


@pytest.fixture
def scan(page: Page) -> Page:
    """P0001's scan with the Grad-CAM of `grade` over it."""
    page.set_default_timeout(120_000)
    mounted(page)
    page.wait_for_selector(".scan-stage[data-ready=yes][data-map='gradcam grade']")
    settled(page)
    return page


def mounted(page: Page) -> None:
    """The viewer in the place of the worklist, once that has laid itself out."""
    page.wait_for_selector("#worklist:not([aria-busy]) table")
    page.evaluate(MOUNT)


def settled(page: Page) -> None:
    """After the next two frames."""
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 150))))"
    )


def pixels(page: Page) -> np.ndarray:
    """float [h, w, 3] of the stage, without what is written on it."""
    settled(page)
    page.evaluate("() => { document.querySelector('.scan-labels').style.visibility = 'hidden'; }")
    shot = page.locator(".scan-stage").screenshot()
    page.evaluate("() => { document.querySelector('.scan-labels').style.visibility = ''; }")
    picture = np.array(Image.open(io.BytesIO(shot)).convert("RGB"), float)
    inner = np.zeros(picture.shape[:2], bool)
    inner[6:-6, 6:-6] = True
    picture[~inner] = 0  # there the ring around what has the focus comes and goes
    return picture


def changed(before: np.ndarray, after: np.ndarray) -> int:
    """Pixels that differ to the eye."""
    return int((np.abs(before - after).max(axis=-1) > 12).sum())


def press(page: Page, *keys: str) -> None:
    page.locator(".scan-stage canvas").focus()
    for key in keys:
        page.keyboard.press(key)


def test_the_scan_is_drawn_and_the_patients_right_is_at_the_left(scan: Page) -> None:
    press(scan, "o", "m", "c")  # the scan alone
    picture = pixels(scan)
    assert picture.std() > 20
    letters = scan.locator(".scan-labels b").all_inner_texts()
    assert "".join(letters) == "RLAP" + "RLSI" + "APSI"
    assert "right is at the left" in scan.locator(".scan-keys").inner_text()
    # the ball lies right of, behind and below the middle: voxel 20 of 32, 12 of 32, 10 of 24 in RAS
    right, front, head = 20.5 / 32, 12.5 / 32, 10.5 / 24
    for box, wanted in zip(scan.evaluate(PLANES), ((right, front), (right, head), (front, head)), strict=True):
        x0, y0, x1, y1 = (round(v) for v in box)
        y, x = np.nonzero(picture[y0:y1, x0:x1].mean(axis=-1) > 200)
        assert x.size > 50
        assert (x.mean() / (x1 - x0), y.mean() / (y1 - y0)) == pytest.approx([1 - v for v in wanted], abs=0.03)


def test_the_map_toggles_fades_and_follows_the_task(scan: Page) -> None:
    press(scan, "m")  # the outline has a colour of its own
    with_map = pixels(scan)
    press(scan, "o")
    without = pixels(scan)
    assert changed(with_map, without) > 300
    press(scan, "o")
    assert changed(with_map, pixels(scan)) < 30
    scan.get_by_label("opacity of the map").fill("90")
    strong = pixels(scan)
    assert changed(with_map, strong) > 300
    orange = strong[..., 0] - strong[..., 2] > 80
    assert orange.sum() > 300
    assert "raises the score" in scan.locator(".scan-legend").inner_text()
    assert "1" in scan.locator(".scan-marks").inner_text()
    scan.evaluate("state.set({ task: 'survival' })")
    scan.wait_for_selector(".scan-stage[data-map='gradcam survival']")
    other = pixels(scan)
    assert (other[..., 2] - other[..., 0] > 80).sum() > 300
    assert (other[..., 0] - other[..., 2] > 80).sum() == 0
    assert "risk score" in scan.locator(".scan-legend").inner_text()
    scan.evaluate("state.set({ task: 'response' })")
    scan.wait_for_selector(".scan-stage[data-map='none']")
    assert "No map was made of this scan for response" in scan.locator(".scan-legend").inner_text()
    scan.get_by_label("task of the map").select_option("grade")
    scan.wait_for_selector(".scan-stage[data-map='gradcam grade']")
    scan.get_by_label("map", exact=True).select_option("occlusion")
    scan.wait_for_selector(".scan-stage[data-map='occlusion grade']")
    assert "0.5" in scan.locator(".scan-marks").inner_text()


def test_an_address_leads_to_the_same_map(scan: Page) -> None:
    scan.get_by_label("map", exact=True).select_option("occlusion")
    scan.wait_for_selector(".scan-stage[data-map='occlusion grade']")
    scan.get_by_label("opacity of the map").fill("80")
    assert "scanmap=occlusion" in scan.url
    assert "scanopacity=0.8" in scan.url
    root = "/".join(scan.url.split("/", 3)[:3])
    scan.goto(f"{root}/patient?id=P0001&task=grade&pane=scans&scanmap=occlusion&scanopacity=0.8")
    scan.wait_for_selector(".scan-stage[data-map='occlusion grade']")
    assert scan.get_by_label("opacity of the map").input_value() == "80"
    scan.goto(f"{root}/patient?id=P0001&task=grade&pane=scans&scanmap=none")
    scan.wait_for_selector(".scan-stage[data-ready=yes][data-map='none']")


def test_windows_outline_and_slices_change_the_picture(scan: Page) -> None:
    press(scan, "o")
    lung = pixels(scan)
    scan.get_by_role("button", name="mediastinum").click()
    tissue = pixels(scan)
    assert changed(lung, tissue) > 2000
    assert scan.get_by_label("level and width").inner_text() == "level 40, width 400 HU"
    scan.get_by_role("button", name="outline").click()
    plain = pixels(scan)
    line = changed(tissue, plain)
    assert 100 < line < 0.25 * plain[..., 0].size  # a line, not a disc
    assert scan.get_by_role("button", name="outline").get_attribute("aria-pressed") == "false"
    box = scan.locator(".scan-stage").bounding_box()
    assert box is not None
    scan.mouse.move(box["x"] + 200, box["y"] + 150)
    scan.mouse.down(button="right")
    scan.mouse.move(box["x"] + 350, box["y"] + 150, steps=3)
    scan.mouse.up(button="right")
    assert scan.get_by_label("level and width").inner_text() == "level 40, width 800 HU"
    where = scan.locator(".scan-labels span").first.inner_text()
    press(scan, "ArrowUp", "ArrowUp")
    settled(scan)
    moved = scan.locator(".scan-labels span").first.inner_text()
    assert (where.split("(")[1], moved.split("(")[1]) == ("11/24)", "13/24)")
    assert "S 30.0 mm" in moved
    scan.evaluate("() => document.addEventListener('keydown', (e) => { window.heard = (window.heard ?? '') + e.key; })")
    press(scan, "j", "l")  # keys of the page around go on to it
    assert scan.evaluate("window.heard") == "j"
    settled(scan)
    assert scan.locator(".scan-labels span").first.inner_text() == where


def test_without_webgl_the_pictures_of_the_run_stand_in(page: Page, fresh: Board) -> None:
    made = fresh.scans[0].maps["gradcam", "grade"].with_name("gradcam-grade.png")
    Image.new("RGB", (60, 20), "navy").save(made)
    try:
        page.set_default_timeout(60_000)
        page.evaluate("() => { HTMLCanvasElement.prototype.getContext = () => null; }")
        mounted(page)
        page.wait_for_function("() => document.querySelector('.scan-still')?.naturalWidth === 60")
        assert "no WebGL2" in page.locator(".scan-status").inner_text()
        assert not page.locator(".scan-tools").is_visible()
    finally:
        made.unlink()
