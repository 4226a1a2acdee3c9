"""The references of the product in a real browser: complete, and from the gateway alone."""

import pytest
from playwright.async_api import Browser

from tests.support import browser
from tests.support.browser import WAIT_MS, expect
from tests.support.gateway import Gateway
from tests.support.page import origin

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_rest_reference_shows_every_route_and_loads_nothing_foreign(
    chromium: Browser, gateway: Gateway
) -> None:
    document = (await gateway.http.get("/openapi.json")).json()
    count = sum(len(methods) for methods in document["paths"].values())
    async with browser.opened(chromium, origin(gateway)) as window:
        await window.page.goto(f"{window.origin}/docs")
        shown = window.page.locator(".opblock")
        await expect(shown).to_have_count(count, timeout=WAIT_MS)

        await shown.first.click()
        await expect(window.page.locator(".opblock.is-open")).to_have_count(1)
    assert f"{window.origin}/openapi.json" in window.requests


async def test_rest_reference_tries_a_route_with_a_token(
    chromium: Browser, gateway: Gateway
) -> None:
    async with browser.opened(chromium, origin(gateway)) as window:
        await window.page.goto(f"{window.origin}/docs")
        await window.page.locator(".auth-wrapper .authorize").click()
        box = window.page.locator(".modal-ux")
        await box.get_by_label("auth-bearer-value").first.fill(gateway.token())
        await box.get_by_role("button", name="Apply credentials").first.click()
        await box.get_by_role("button", name="Close").last.click()

        route = window.page.locator("#operations-underlyings-underlyings")
        await route.click()
        await route.get_by_role("button", name="Execute").click()
        status = route.locator(".live-responses-table tbody .response-col_status")
        await expect(status).to_contain_text("200", timeout=WAIT_MS)
        await expect(route.locator(".live-responses-table")).to_contain_text("NIFTY")


async def test_live_reference_shows_every_message_and_loads_nothing_foreign(
    chromium: Browser, gateway: Gateway
) -> None:
    document = (await gateway.http.get("/asyncapi.json")).json()
    async with browser.opened(chromium, origin(gateway)) as window:
        await window.page.goto(f"{window.origin}/docs/ws")
        sections = window.page.locator("section")
        await expect(sections).to_have_count(len(document["components"]["messages"]))
        await expect(window.page.locator("#docs")).to_contain_text("4413")
