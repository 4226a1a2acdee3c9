"""The references of the product in a real browser: complete, and from the gateway alone."""

import re

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
    async with browser.opened(chromium, origin(gateway), color_scheme="dark") as window:
        page = window.page
        await page.goto(f"{window.origin}/docs#/stream/stream")
        await expect(page.locator(".opblock")).to_have_count(count, timeout=WAIT_MS)
        await expect(page.locator(".errors-wrapper, .version-pragma")).to_have_count(0)
        # What has no end is shown, and cannot be tried.
        await expect(page.locator(".opblock.is-open .responses-wrapper")).to_have_count(1)
        await expect(page.get_by_role("button", name="Execute")).to_have_count(0)

        body = page.locator("body")
        await expect(body).to_have_css("background-color", "rgb(28, 32, 34)")
        await page.emulate_media(color_scheme="light")
        await expect(body).to_have_css("background-color", "rgb(255, 255, 255)")
    assert f"{window.origin}/openapi.json" in window.requests
    policy = (await gateway.http.get("/docs")).headers["content-security-policy"]
    assert policy == (await gateway.http.get("/")).headers["content-security-policy"]
    assert "unsafe" not in policy


async def test_rest_reference_tries_a_route_with_the_token_of_its_tab_or_a_given_one(
    chromium: Browser, gateway: Gateway
) -> None:
    async with browser.opened(chromium, origin(gateway)) as window:
        page = window.page
        await page.goto(f"{window.origin}/docs#token={gateway.token()}")
        route = page.locator("#operations-underlyings-term_structure")
        status = route.locator("tbody .response-col_status").first
        await route.click(timeout=WAIT_MS)
        assert "token" not in page.url
        await route.get_by_role("button", name="Execute").click()
        await expect(status).to_have_text("200", timeout=WAIT_MS)
        # Examples of what may be left out are shown, and not sent.
        asked = [url for url in window.requests if "/v1/" in url]
        assert asked == [f"{window.origin}/v1/underlyings/NIFTY/term-structure?ts=rfc3339"]

        await page.locator(".auth-wrapper .authorize").click()
        box = page.locator(".modal-ux")
        await box.get_by_role("button", name="Remove authorization").first.click()
        await box.get_by_label("auth-bearer-value").first.fill(gateway.token("admin"))
        await box.get_by_role("button", name="Apply credentials").first.click()
        await box.get_by_role("button", name="Close").last.click()
        await route.get_by_role("button", name="Execute").click()
        await expect(status).to_have_text(re.compile("^403"), timeout=WAIT_MS)
        assert len(window.complaints) == 1  # which the browser says of the 403
        window.complaints.clear()


async def test_live_reference_shows_every_message_and_loads_nothing_foreign(
    chromium: Browser, gateway: Gateway
) -> None:
    document = (await gateway.http.get("/asyncapi.json")).json()
    async with browser.opened(chromium, origin(gateway)) as window:
        await window.page.goto(f"{window.origin}/docs/ws")
        sections = window.page.locator("section")
        await expect(sections).to_have_count(len(document["components"]["messages"]))
        await expect(window.page.locator("#docs")).to_contain_text("4413")


async def test_live_reference_leads_to_a_message_and_fits_a_phone(
    chromium: Browser, gateway: Gateway
) -> None:
    async with browser.opened(chromium, origin(gateway), width=400) as window:
        await window.page.goto(f"{window.origin}/docs/ws#hello")
        message = window.page.locator("#hello")
        await expect(message).to_be_in_viewport(timeout=WAIT_MS)
        await expect(message).to_contain_text("limits.channels")  # also what its parts hold
        width = await window.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 400
        await window.page.locator(".contents").get_by_text("skipped").click()
        await expect(window.page.locator("#skipped")).to_be_in_viewport()
