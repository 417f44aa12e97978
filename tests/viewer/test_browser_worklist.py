"""The worklist in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def test_every_patient_stands_in_the_list_and_names_are_inert(page: Page) -> None:
    page.wait_for_selector("#worklist a")
    assert page.locator("#worklist").inner_text().count("P000") >= 2
    assert page.title() == "toy & co"
