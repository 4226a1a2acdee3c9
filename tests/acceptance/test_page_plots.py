"""What the page draws and says of a chain as a whole, in a real browser."""

import msgspec
import pytest
from playwright.async_api import Browser

from pipeline.models import ChainAggregates, EnrichedChain
from tests.support import browser, chains
from tests.support.browser import Window, expect
from tests.support.gateway import Gateway, moved
from tests.support.page import CHAIN, origin, show_chain

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_shape_of_the_chain_is_told_in_the_units_of_traders(
    chromium: Browser, gateway: Gateway
) -> None:
    shaped = msgspec.structs.replace(
        CHAIN.header.aggregates,
        skew_25_delta=-0.01234,
        gamma_exposure=-425_503_822.8,
        expected_move=222.27,
    )
    header = msgspec.structs.replace(CHAIN.header, aggregates=shaped, smile=chains.SMILE)
    await gateway.publish(moved(EnrichedChain(header, CHAIN.legs), seconds=1), 2)
    async with browser.opened(chromium, origin(gateway)) as window:
        await show_chain(window, gateway)
        await window.shows("#skew", "-1.23 pts")
        await window.shows("#gamma-exposure", "-42.55Cr")
        await window.shows("#expected-move", "± 222")
        await window.shows("#smile-status", "poor")
        await window.shows("#smile-error", "± 0.12 pts, 17 legs")
        await expect(window.page.locator("#smile-status")).to_have_css("color", "rgb(242, 193, 78)")

        bare = msgspec.structs.replace(header, aggregates=ChainAggregates(), smile=None)
        await gateway.publish(moved(EnrichedChain(bare, CHAIN.legs), seconds=2), 3)

        for name in ("skew", "gamma-exposure", "expected-move", "smile-status"):
            await window.shows(f"#{name}", "–")
        await window.shows("#smile-error", "")


async def test_plots_draw_the_smile_and_the_open_interest(
    chromium: Browser, gateway: Gateway
) -> None:
    async with browser.opened(chromium, origin(gateway)) as window:
        await show_chain(window, gateway)
        legend = window.page.locator("#smile .u-legend")
        await expect(legend).to_contain_text("call")
        await expect(legend).to_contain_text("fit")
        one_view = await painted(window, "#smile canvas")
        assert one_view > 200
        assert await painted(window, "#interest canvas") > 200

        await window.page.get_by_role("radio", name="Both").check()

        await expect(legend).to_contain_text("prov. put")
        assert await painted(window, "#smile canvas") > one_view

        await window.page.locator("#smile-view").get_by_role("radio", name="Provider").check()

        await expect(legend).not_to_contain_text("fit")


async def test_curve_through_the_volatilities_is_read_off_under_the_pointer(
    chromium: Browser, gateway: Gateway
) -> None:
    """The curve is drawn from iv_fit, also at strikes whose legs have no volatility."""
    curve = dict.fromkeys(range(CHAIN.header.n), 0.2)
    none = dict.fromkeys(range(CHAIN.header.n), 6)
    await gateway.publish(moved(CHAIN, seconds=1, iv_fit=curve, iv_status=none), 2)
    async with browser.opened(chromium, origin(gateway)) as window:
        await show_chain(window, gateway)
        await window.page.locator("#smile .u-over").hover()
        legend = window.page.locator("#smile .u-legend")
        await expect(legend).to_contain_text("20.00 %")
        assert (await legend.inner_text()).count("%") == 1


async def test_price_has_its_past_as_candles_and_its_change_since_the_day_began(
    chromium: Browser,
    gateway: Gateway,
) -> None:
    async with browser.opened(chromium, origin(gateway)) as window:
        await show_chain(window, gateway)

        await window.shows("#change", "+0.20 %")
        await expect(window.page.locator("#change")).to_have_attribute("data-direction", "up")
        candles = "#price td:nth-child(2) canvas"
        await expect(window.page.locator(candles).first).to_be_visible()
        assert await painted(window, candles) > 300


async def painted(window: Window, selector: str) -> int:
    """How many strongly coloured pixels a canvas has; its grid and words are grey."""
    return int(
        await window.page.locator(selector).first.evaluate(
            """canvas => {
              const {width, height} = canvas;
              const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
              let count = 0;
              for (let at = 0; at < data.length; at += 4) {
                const [r, g, b, a] = data.slice(at, at + 4);
                if (a > 100 && Math.max(r, g, b) - Math.min(r, g, b) > 60) count += 1;
              }
              return count;
            }"""
        )
    )
