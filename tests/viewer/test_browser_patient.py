"""The patient page in a browser: what is said can be read, chosen, doubted, left out, linked to and printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from nsclc_mtl.report.held_out import UNCALIBRATED
from nsclc_mtl.viewer.board import Board
from tests.viewer.board import EVIL, HELD_OUT, TASKS

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def open_patient(page: Page, patient: str, **more: str) -> None:
    page.goto(f"{'/'.join(page.url.split('/')[:3])}/patient?{urlencode({'id': patient} | more)}")
    page.wait_for_selector("#patient:not([aria-busy])")


def test_the_worklist_leads_to_a_patient_with_a_card_a_task(page: Page) -> None:
    page.locator("#worklist a", has_text="P0001").first.click()
    page.wait_for_selector("#patient:not([aria-busy])")
    assert page.locator(".task").evaluate_all("all => all.map((one) => one.dataset.task)") == list(TASKS)
    assert page.locator(".only").inner_text() == "Research use only"
    assert page.locator("#slides").is_visible()


def test_the_essentials_need_no_scrolling(page: Page) -> None:
    open_patient(page, "P0001")
    for place in ("#pictures", *(f".task[data-task={name}] .position" for name in TASKS)):
        box = page.locator(place).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 768, place
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_phone_scrolls_downwards_only(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_patient(page, "P0002")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_beside_the_probabilities_stands_how_far_the_model_can_be_believed(page: Page) -> None:
    open_patient(page, "P0001")
    assert page.locator(".task[data-task=grade] .of-model").inner_text() == HELD_OUT.sentence
    assert page.locator(".task[data-task=response] .of-model").inner_text() == f"{UNCALIBRATED} {HELD_OUT.sentence}"


def test_choosing_a_card_chooses_the_task_for_all_and_stands_in_the_address(page: Page) -> None:
    open_patient(page, "P0001")
    page.locator(".task[data-task=response] .name").click()
    assert "task=response" in page.url
    assert page.locator(".chosen").get_attribute("data-task") == "response"
    assert "response" in page.locator("#rests h2").inner_text()
    page.reload()
    page.wait_for_selector("#patient:not([aria-busy])")
    assert page.locator(".task .name[aria-pressed=true]").inner_text() == "response"


def test_leaving_a_modality_out_shows_the_audits_score_and_nothing_for_what_it_did_not_show(
    page: Page, shown: Board
) -> None:
    open_patient(page, "P0001", task="grade")
    answer = page.locator(".answer")
    assert "expected class 1.00" in answer.inner_text()
    page.locator(".modalities input[value=clinical]").uncheck()
    audit = shown.models[0].audit
    assert audit is not None
    row = audit[(audit["patient_id"] == "P0001") & (audit["task"] == "grade") & (audit["modality"] == "clinical")]
    assert f"Without clinical: expected class 1.00 (G2) → {row['value'].iloc[0]:.2f}" in answer.inner_text()
    page.locator(".modalities input[value=ct_volume]").uncheck()
    told = "Without CT volume and clinical: expected class 1.00 (G2) → 0.25 (G1 to G2): towards G1"
    assert told in answer.inner_text()
    page.locator(".modalities input[value=rna]").uncheck()
    assert "this combination was not computed" in answer.inner_text()
    page.locator(".reset").click()
    assert "With all: expected class 1.00" in answer.inner_text()


def test_the_outcome_is_hidden_until_it_is_asked_for(page: Page, shown: Board) -> None:
    rows = shown.models[0].predictions
    known = rows[(rows["task"] == "grade") & (rows["target"] != "")].iloc[0]
    open_patient(page, str(known["patient_id"]))
    card = page.locator(".task[data-task=grade]")
    assert "outcome: " not in page.locator("#tasks").inner_text()
    card.locator("button.outcome").click()
    assert card.locator(".outcome.shown").inner_text() == f"outcome: {known['target']}"
    assert page.locator(".outcome.shown").count() == 1


def test_a_banner_says_what_speaks_against_the_model_and_missing_modalities_are_hatched(page: Page) -> None:
    open_patient(page, "P0002")
    assert (
        page.locator(".banner").inner_text().split("\n")[-1] == "Predicted without CT volume, which this patient lacks."
    )
    assert page.locator(".hatched").count() == 1
    assert page.locator(".modalities input[value=ct_volume]").count() == 0
    open_patient(page, "P0001")
    assert page.locator(".banner").count() == 0


def test_a_hostile_name_is_only_a_name(page: Page) -> None:
    open_patient(page, EVIL)
    page.wait_for_timeout(200)
    assert page.locator("h1").inner_text() == EVIL
    assert page.title().startswith("<img")
    assert page.locator("img[src=x]").count() == 0


def order(page: Page, *patients: str) -> None:
    page.wait_for_selector("#worklist:not([aria-busy])")  # it writes its own order when it is drawn
    page.evaluate("order => sessionStorage.setItem('mtl.order', JSON.stringify(order))", list(patients))


def test_keys_lead_to_the_next_patient_and_back_and_keep_the_task(page: Page) -> None:
    order(page, "P0001", "P0002")
    open_patient(page, "P0001", task="survival")
    page.keyboard.press("j")
    page.wait_for_url(re.compile("id=P0002"), wait_until="commit")
    page.wait_for_selector("#patient:not([aria-busy])")
    assert page.locator(".chosen").get_attribute("data-task") == "survival"
    page.keyboard.press("Alt+ArrowUp")
    page.wait_for_url(re.compile("id=P0001"), wait_until="commit")
    page.wait_for_selector("#patient:not([aria-busy])")
    assert page.locator(".steps button[disabled]").inner_text() == "Previous"
    page.locator(".task[data-task=grade] .name").focus()
    page.keyboard.press("Enter")
    assert page.locator(".chosen").get_attribute("data-task") == "grade"


def test_next_and_previous_follow_the_worklist_as_it_was_sorted(page: Page) -> None:
    order(page, "P0005", "P0001")
    open_patient(page, "P0001")
    assert "2 of 2" in page.locator(".steps").inner_text()
    assert page.locator(".steps button[disabled]").inner_text() == "Next"
    page.keyboard.press("k")
    page.wait_for_url(re.compile("id=P0005"), wait_until="commit")


def test_the_survival_card_has_the_curve_over_the_groups_with_those_at_risk(page: Page) -> None:
    open_patient(page, "P0001", task="survival")
    card = page.locator(".task[data-task=survival]")
    assert card.locator("svg .mine").count() == 1
    assert card.locator("svg").nth(1).inner_html().count("<polygon") == 2  # bands of two groups
    told = card.text_content() or ""
    assert all(word in told for word in ("lower risk", "higher risk", "at risk", "horizon", "lower bound", "5 years"))


def test_a_second_model_can_be_chosen(page: Page) -> None:
    open_patient(page, "P0001")
    before = page.locator(".task[data-task=grade] .bars").inner_text()
    page.locator("#model").select_option("second")
    page.wait_for_function(
        "before => document.querySelector('.task[data-task=grade] .bars').innerText !== before", arg=before
    )
    assert "model=second" in page.url
    assert "model_a=second" in (page.locator(".steps a", has_text="Compare").get_attribute("href") or "")


def test_in_print_the_scale_bar_and_what_lies_on_a_picture_shrink_with_it(page: Page) -> None:
    share = """() => { const width = (part) => document.querySelector(`.slide-${part}`).getBoundingClientRect().width;
        return [width("scale i") / width("canvas"), width("layer") / width("canvas"), width("canvas")]; }"""
    open_patient(page, "P0001", pane="slides")
    page.wait_for_selector(".slide-stage[data-open]")
    page.wait_for_selector(".slide-tile")  # the last that takes room from the picture
    page.wait_for_timeout(600)
    before = page.evaluate(share)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    page.wait_for_timeout(300)  # whoever watches its size has seen it
    printed = page.evaluate(share)
    assert printed[:2] == pytest.approx(before[:2], rel=0.01)
    assert printed[2] < before[2]
    assert page.locator(".slide-legend").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.locator(".slide-stage").get_attribute("style")


def test_the_next_patient_is_looked_at_with_the_same_map(page: Page) -> None:
    order(page, "P0001", "P0002")
    open_patient(page, "P0001", map="attention", opacity="0.7", pane="slides")
    page.locator("[data-step=Next]").click()
    page.wait_for_url("**P0002**")
    assert {"map=attention", "opacity=0.7", "pane=slides"} <= set(page.url.split("?")[1].split("&"))


def test_a_patient_prints_on_two_pages_with_folds_open_and_no_controls(page: Page, tmp_path: Path) -> None:
    open_patient(page, "P0002", task="survival")
    page.pdf(path=tmp_path / "patient.pdf", prefer_css_page_size=True)
    count = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "patient.pdf").read_bytes()))
    assert 1 <= count <= 2
    page.emulate_media(media="print")
    assert not page.locator(".steps").is_visible()
    assert not page.locator("button.outcome").first.is_visible()


def test_the_place_of_another_slide_and_an_unknown_map_are_not_taken_from_an_address(page: Page) -> None:
    open_patient(page, "P0001", slide="99", x="10", y="10", zoom="40", map="rubbish")
    page.wait_for_selector(".slide-tile")
    assert "zoom=" not in page.url
    assert page.locator(".slide-choice select").input_value() != "none"


def test_worklist_leads_back_to_the_list_as_it_was_filtered(page: Page) -> None:
    page.wait_for_selector("#worklist:not([aria-busy])")
    page.locator("#task").select_option("response")
    page.locator("#worklist a", has_text="P0001").first.click()
    page.wait_for_selector("#patient:not([aria-busy])")
    page.locator(".bar nav a", has_text="Worklist").click()
    page.wait_for_selector("#worklist:not([aria-busy])")
    assert page.locator("#task").input_value() == "response"
