"""The page's script: connections and streams that stay silent, throttling, pages in hidden tabs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.requirements import require_chromium
from tests.serve.annotation.browser import (
    BrowserUser,
    ServerProcess,
    chromium,
    save_relaxed_study,
)


@pytest.fixture(autouse=True)
def _chromium() -> None:
    require_chromium()


@pytest.mark.slow
def test_a_silent_stream_is_opened_again(file_url: str) -> None:
    save_relaxed_study(file_url)
    server = ServerProcess(file_url, "scripted:echo")
    server.start()

    async def scenario() -> None:
        async with chromium() as browser:
            user = await BrowserUser.join(browser, server.invite("redteamer"), "red-one")
            page, streams = user.page, []

            async def misbehave(route: Any) -> None:
                streams.append(route.request.url)
                if len(streams) > 1:
                    await route.continue_()  # the first one is never answered

            await page.route("**/stream", misbehave)
            await page.clock.install()
            await page.click("text=Start a dialogue")
            await page.wait_for_selector("#message")
            async with page.expect_request("**/stream"):
                await page.fill("#message", "hello there")
                await page.keyboard.press("Enter")
            await page.clock.run_for(40_000)
            assert len(streams) == 1
            await page.clock.run_for(10_000)
            await page.wait_for_selector(".pick:not([disabled])")
            assert len(streams) == 2
            await page.unroute_all(behavior="ignoreErrors")

    try:
        asyncio.run(scenario())
    finally:
        server.close()


# Shortens the time-outs of requests to half a second, and collects the notices.
_SHORT_TIMEOUTS = """() => { const timeout = AbortSignal.timeout.bind(AbortSignal), notices = [];
  AbortSignal.timeout = (ms) => timeout(Math.min(ms, 500)); window.notices = notices;
  const box = document.querySelector('#notice');
  new MutationObserver(() => notices.push(box.textContent)).observe(box, { childList: true }); }"""


def test_a_silent_connection_and_a_throttled_request_are_tried_again(file_url: str) -> None:
    save_relaxed_study(file_url, raters=1)
    server = ServerProcess(file_url, "scripted:echo")
    server.start()

    async def scenario() -> None:
        async with chromium() as browser:
            red = await BrowserUser.join(browser, server.invite("redteamer"), "red-one")
            await red.run_dialogue(["hello there"])
            rater = await BrowserUser.join(browser, server.invite("rater"), "rater-one")
            page, attempts = rater.page, []

            async def misbehave(route: Any) -> None:
                attempts.append(route.request.url)
                if len(attempts) == 1:
                    return  # never answered, as by a connection that a crash left half open
                if len(attempts) == 2:
                    await route.fulfill(status=429, headers={"retry-after": "1"}, body="{}")
                else:
                    await route.continue_()

            await page.goto(server.base + "/review")
            await page.evaluate(_SHORT_TIMEOUTS)
            await page.route("**/review/next", misbehave)
            await page.keyboard.press("n")
            await page.wait_for_selector("#rating")
            assert len(attempts) == 3 and await page.is_hidden("#notice")
            notices = await page.evaluate("notices.filter((text) => text).join(' ')")
            assert "The server does not answer" in notices and "Too many requests" in notices
            await page.unroute_all(behavior="ignoreErrors")

    try:
        asyncio.run(scenario())
    finally:
        server.close()


@pytest.mark.slow
def test_a_hidden_agreement_page_goes_on_when_it_is_visible_again(file_url: str) -> None:
    save_relaxed_study(file_url)
    server = ServerProcess(file_url)
    server.start()

    async def scenario() -> None:
        async with chromium() as browser:
            user = await BrowserUser.join(browser, server.invite("adjudicator"), "calm-heron")
            page, loads = user.page, []
            await page.clock.install()
            await page.goto(server.base + "/agreement")
            page.on("request", lambda request: loads.append(request.url))
            hide = "hidden => Object.defineProperty(document, 'hidden', { get: () => hidden, configurable: true })"
            await page.evaluate(hide, True)
            await page.clock.run_for(60_000)
            assert not any(url.endswith("/agreement") for url in loads)  # there may be an icon
            await page.evaluate(hide, False)
            changed = "document.dispatchEvent(new Event('visibilitychange'))"
            async with page.expect_response("**/agreement"):
                await page.evaluate(changed)
            async with page.expect_response("**/agreement"):
                await page.clock.run_for(16_000)

    try:
        asyncio.run(scenario())
    finally:
        server.close()
