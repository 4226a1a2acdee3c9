"""The page in a real browser, at a real gateway on a real Valkey: what a person sees."""

import numpy as np
import pytest
from playwright.async_api import Browser, WebSocketRoute

from pipeline.models import Kind
from tests.support import browser, chains
from tests.support import gateway as gateways
from tests.support.browser import Window, expect
from tests.support.gateway import Gateway, moved
from tests.support.page import ATM, CHAIN, NOW_S, last, leg, origin, show_chain

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZES = [(1600, 900), (1280, 720), (820, 1180), (390, 844)]
SIZE_IDS = ["desktop", "small-desktop", "tablet", "phone"]


async def test_chain_is_shown_with_the_money_marked_and_in_sight(
    chromium: Browser, gateway: Gateway
) -> None:
    async with browser.opened(chromium, origin(gateway)) as window:
        await show_chain(window, gateway)
        header, legs = CHAIN.header, CHAIN.legs

        call = leg(CHAIN, ATM, Kind.CALL)
        await window.shows(window.cell(ATM, "c", "last"), f"{legs['last'][call]:.2f}")
        await window.shows(window.cell(ATM, "c", "iv"), f"{100 * legs['iv'][call]:.2f}")
        await window.shows(window.cell(ATM, "c", "delta"), f"{legs['delta'][call]:.2f}")
        await window.shows(window.cell(ATM, "p", "last"), f"{last(CHAIN, ATM, Kind.PUT):.2f}")
        await window.shows("#spot", "25,000.00")
        assert header.forward is not None
        await window.shows("#forward", f"{header.forward:,.2f}")
        await window.shows("#forward-source", f"parity, {header.forward_pairs} pairs")
        assert header.aggregates.atm_iv is not None
        await window.shows("#atm-iv", f"{100 * header.aggregates.atm_iv:.2f} %")
        assert header.aggregates.max_pain is not None
        await window.shows("#max-pain", f"{header.aggregates.max_pain:,.0f}")
        await window.shows("#to-expiry", "2.0 d")
        marked = window.page.locator('.grid-row[aria-current="true"]')
        await expect(marked).to_have_count(1)
        await expect(marked.locator(".k")).to_have_text("25,000")
        await expect(marked).to_be_in_viewport()
        await expect(window.page.locator("#pill")).to_have_attribute("data-state", "live")


async def test_token_leaves_the_address_and_stays_in_the_tab_alone(
    chromium: Browser, gateway: Gateway
) -> None:
    async with browser.opened(chromium, origin(gateway)) as window:
        token = gateway.token()
        await window.open(token)
        await window.shows("#spot", "25,000.00")

        assert token not in window.page.url
        assert window.page.url.endswith("/?underlying=NIFTY&expiry=2026-01-27")
        assert not [url for url in window.requests if token in url]
        await window.page.reload()
        await window.shows("#spot", "25,000.00")
        other = await window.page.context.new_page()
        await other.goto(f"{window.origin}/")
        await expect(other.locator("#sign-in")).to_be_visible()


async def test_changed_cells_flash_in_their_direction_and_others_do_not(
    chromium: Browser, gateway: Gateway
) -> None:
    async with browser.opened(chromium, origin(gateway)) as window:
        await show_chain(window, gateway)
        call, put = leg(CHAIN, ATM, Kind.CALL), leg(CHAIN, ATM, Kind.PUT)
        up, down = float(CHAIN.legs["last"][call]) + 1, float(CHAIN.legs["last"][put]) - 1

        await gateway.publish(moved(CHAIN, seconds=1, last={call: up, put: down}), 2)

        risen = window.page.locator(window.cell(ATM, "c", "last") + ".up")
        fallen = window.page.locator(window.cell(ATM, "p", "last") + ".down")
        await expect(risen).to_have_text(f"{up:.2f}")
        await expect(fallen).to_have_text(f"{down:.2f}")
        assert await window.page.locator(".up, .down").count() <= 2
        await expect(window.page.locator(".up, .down")).to_have_count(0)
        await window.shows(window.cell(ATM, "c", "last"), f"{up:.2f}")


async def test_call_put_gap_is_shown_for_ours_and_for_the_provider(
    chromium: Browser, gateway: Gateway
) -> None:
    kinds, strikes = CHAIN.legs["kind"], CHAIN.legs["strike"]
    odd = {
        int(index): 0.125 + 0.001 * (strikes[index] - 24_000) / 50
        for index in np.flatnonzero(kinds == Kind.PUT)
    }
    chain = moved(CHAIN, seconds=1, iv_provider=odd)
    await gateway.publish(chain, 2)
    near = np.sort(np.unique(strikes))[10:31]
    assert near[10] == ATM

    def gaps(name: str) -> list[float]:
        column = chain.legs[name]
        pairs = [(leg(chain, k, Kind.CALL), leg(chain, k, Kind.PUT)) for k in near]
        return [100 * abs(float(column[c]) - float(column[p])) for c, p in pairs]

    async with browser.opened(chromium, origin(gateway)) as window:
        await window.open(gateway.token())
        await window.shows("#gap-note", "21 strikes round the money")
        for whose, name in (("ours", "iv"), ("provider", "iv_provider")):
            median = float(await window.text(f"#gap-{whose}-median"))
            largest = float(await window.text(f"#gap-{whose}-maximum"))
            assert median == pytest.approx(np.median(gaps(name)), abs=0.0051)
            assert largest == pytest.approx(max(gaps(name)), abs=0.0051)
        assert float(await window.text("#gap-provider-median")) > 1


async def test_picking_another_underlying_shows_its_chain(
    chromium: Browser, gateway: Gateway
) -> None:
    bank = chains.enriched(11, underlying="BANKNIFTY")
    await gateway.publish(moved(bank, seconds=NOW_S), 2)
    async with browser.opened(chromium, origin(gateway)) as window:
        await show_chain(window, gateway)

        await window.page.get_by_role("combobox", name="Underlying").select_option("BANKNIFTY")

        await expect(window.page.locator(".grid-body .grid-row")).to_have_count(11)
        assert "underlying=BANKNIFTY" in window.page.url
        await expect(window.page).to_have_title("BANKNIFTY 27 Jan 2026 · Stockify")


async def test_column_sets_are_chosen_by_keyboard(chromium: Browser, gateway: Gateway) -> None:
    async with browser.opened(chromium, origin(gateway)) as window:
        await show_chain(window, gateway)
        heads = window.page.locator('[role="columnheader"]')
        await expect(heads.filter(has_text="Bid")).to_have_count(2)

        await window.page.get_by_role("radio", name="Quotes").focus()
        await window.page.keyboard.press("ArrowRight")

        await expect(heads.filter(has_text="Vega")).to_have_count(2)
        vega = CHAIN.legs["vega"][leg(CHAIN, ATM, Kind.CALL)]
        await window.shows(window.cell(ATM, "c", "vega"), f"{vega:.2f}")


async def test_lost_update_is_noticed_and_repaired(chromium: Browser, gateway: Gateway) -> None:
    async with browser.opened(chromium, origin(gateway)) as window:
        lost: list[str] = []

        def pass_on(route: WebSocketRoute) -> None:
            server = route.connect_to_server()

            def from_server(message: str | bytes) -> None:
                if not lost and '"update"' in str(message):
                    lost.append(str(message))
                else:
                    route.send(message)

            server.on_message(from_server)

        await window.page.route_web_socket("**/v1/ws", pass_on)
        await show_chain(window, gateway)
        call, put = leg(CHAIN, ATM, Kind.CALL), leg(CHAIN, ATM, Kind.PUT)

        first = moved(CHAIN, seconds=1, last={call: 321.0})
        await gateway.publish(first, 2)
        await gateways.until_true(lambda: bool(lost))
        await gateway.publish(moved(first, seconds=1, last={put: 123.0}), 3)

        await window.shows(window.cell(ATM, "p", "last"), "123.00")
        await window.shows(window.cell(ATM, "c", "last"), "321.00")
        await expect(window.page.locator("#repairs")).not_to_have_text("0")


async def test_lost_connection_is_told_and_made_again(chromium: Browser, gateway: Gateway) -> None:
    async with browser.opened(chromium, origin(gateway)) as window:
        routes: list[WebSocketRoute] = []

        def pass_on(route: WebSocketRoute) -> None:
            route.connect_to_server()
            routes.append(route)

        await window.page.route_web_socket("**/v1/ws", pass_on)
        await show_chain(window, gateway)

        await routes[0].close(code=1012, reason="the gateway restarts")

        pill = window.page.locator("#pill")
        await expect(pill).to_have_attribute("data-state", "reconnecting")
        await expect(pill).to_have_attribute("data-state", "live")
        assert len(routes) == 2
        call = leg(CHAIN, ATM, Kind.CALL)
        await gateway.publish(moved(CHAIN, seconds=1, last={call: 321.0}), 2)
        await window.shows(window.cell(ATM, "c", "last"), "321.00")


async def test_refused_token_is_said_and_another_can_be_pasted(
    chromium: Browser, gateway: Gateway
) -> None:
    async with browser.opened(chromium, origin(gateway)) as window:
        await window.open(gateway.token(ttl_s=-60))
        box = window.page.get_by_role("dialog", name="Sign in")
        await expect(box).to_be_visible()
        await expect(box.get_by_role("alert")).to_contain_text("expired")
        await expect(window.page.locator("#pill")).to_have_text("signed out")

        await box.get_by_label("Token").fill(gateway.token())
        await box.get_by_role("button", name="Connect").click()

        await expect(box).to_be_hidden()
        await expect(window.page.locator(".grid-body .grid-row")).to_have_count(41)
        window.complaints = [text for text in window.complaints if "401" not in text]


async def test_old_data_is_called_stale_with_its_age(chromium: Browser, gateway: Gateway) -> None:
    await gateway.redis.flushall()
    await gateway.publish(moved(CHAIN, seconds=-60), 2)
    async with browser.opened(chromium, origin(gateway)) as window:
        await show_chain(window, gateway)

        await expect(window.page.locator("#pill")).to_have_attribute("data-state", "stale")
        await expect(window.page.locator("#pill")).to_contain_text("s")
        assert int((await window.text("#age")).split()[0]) >= 60


@pytest.mark.parametrize(("width", "height"), SIZES, ids=SIZE_IDS)
async def test_no_number_is_cut_and_nothing_sticks_out(
    chromium: Browser, gateway: Gateway, width: int, height: int
) -> None:
    wide = dict.fromkeys(range(0, CHAIN.header.n, 7), 12_345.6)
    await gateway.publish(moved(CHAIN, seconds=1, last=wide, bid=wide, ask=wide), 2)
    async with browser.opened(chromium, origin(gateway), width=width, height=height) as window:
        await show_chain(window, gateway)
        for name in ("Quotes", "Greeks", "Compare"):
            await window.page.locator("#columns").get_by_role("radio", name=name).check()
            await expect(window.page.locator(".grid-body .grid-row")).to_have_count(41)
            assert await cut_texts(window) == [], name
        overflow = "document.documentElement.scrollWidth - innerWidth"
        assert await window.page.evaluate(overflow) <= 0


async def cut_texts(window: Window) -> list[str]:
    """The texts that are wider than their place."""
    found: list[str] = await window.page.evaluate(
        """() => [...document.querySelectorAll(
             ".grid-row span, dd, .spot strong, .spot span:not(.hidden), .pill, td, h2")]
           .filter(each => each.checkVisibility() && each.scrollWidth > each.clientWidth
                           && getComputedStyle(each).display !== "inline")
           .map(each => `${each.className} ${each.textContent}`)"""
    )
    return found


async def test_without_motion_a_change_is_coloured_but_does_not_flash(
    chromium: Browser, gateway: Gateway
) -> None:
    async with browser.opened(chromium, origin(gateway), reduced_motion="reduce") as window:
        await show_chain(window, gateway)
        call = leg(CHAIN, ATM, Kind.CALL)

        await gateway.publish(moved(CHAIN, seconds=1, last={call: 999.0}), 2)

        risen = window.page.locator(window.cell(ATM, "c", "last") + ".up")
        await expect(risen).to_have_css("background-color", "rgba(0, 0, 0, 0)")
        await expect(risen).to_have_css("color", "rgb(53, 211, 154)")
