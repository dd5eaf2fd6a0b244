"""The pages in Chromium, served by the real command: concurrent people, kill -9, keys, accessibility.

Nothing that a person has submitted may be lost or duplicated.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from tests.serve.annotation.site import PATIENCE, PHRASE, reserve_port

from truing.annotation import people, queue
from truing.annotation.store import open_store
from truing.annotation.study import Study, save_study
from truing.annotation.tables import Dialogue, DialogueTurn, Rating, StoredAnswer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(autouse=True)
def _chromium() -> None:
    if CHROMIUM is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed")
        pytest.skip("chromium is not installed")


class ServerProcess:
    """The server process; it can be killed and started again on the same port."""

    def __init__(self, url: str, *models: str) -> None:
        self.url, self.models = url, models
        # Kept open: while the server is away, nobody else gets the port.
        self._reservation = reserve_port()
        self.port = self._reservation.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self.running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server; returns when it answers."""
        models = [word for spec in self.models for word in ("--model", spec)]
        command = [sys.executable, "-m", "truing", "redteam", "serve", *models]
        command += ["--db", self.url, "--port", str(self.port)]
        with tempfile.TemporaryFile() as log:
            self.running = subprocess.Popen(command, stdout=log, stderr=log)
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and self.running.poll() is None:
                try:
                    if httpx.get(self.base + "/healthz", timeout=PATIENCE).text == "ok":
                        return
                except httpx.HTTPError:
                    time.sleep(0.1)
            log.seek(0)
            reason = f"exit status {self.running.poll()}: {log.read().decode()}"
            raise AssertionError(f"the server does not come up ({reason})")

    def kill(self) -> None:
        """Kills the server with SIGKILL."""
        if self.running is not None:
            self.running.send_signal(signal.SIGKILL)
            self.running.wait()
            self.running = None

    def close(self) -> None:
        """Kills the server and gives its port back."""
        self.kill()
        self._reservation.close()

    def invite(self, *roles: str) -> str:
        """Creates an invitation while the server is running; returns its link."""
        store = open_store(self.url)
        token = store.write(lambda tx: people.create_invitation(tx, roles, by=None))
        store.close()
        return f"{self.base}/join/{token}"


@asynccontextmanager
async def chromium() -> AsyncIterator[Any]:
    """Launches a headless browser."""
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        await browser.close()


class BrowserUser:
    """A person with a browser page; `faults` collects script errors and CSP violations."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("pageerror", lambda e: self.faults.append(str(e)))
        page.on(
            "console",
            lambda m: self.faults.append(m.text) if "Content Security Policy" in m.text else None,
        )

    @classmethod
    async def join(cls, browser: Any, link: str, name: str, **context: Any) -> BrowserUser:
        """Accepts an invitation and agrees to see everything."""
        user = cls(
            await (
                await browser.new_context(viewport={"width": 1200, "height": 800})
                if not context
                else await browser.new_context(**context)
            ).new_page()
        )
        page = user.page
        page.set_default_timeout(1000 * PATIENCE)
        await page.goto(link)
        await page.fill("[name=pseudonym]", name)
        await page.fill("[name=phrase]", PHRASE)
        await page.fill("[name=again]", PHRASE)
        await page.click("button.primary")
        await page.click("text=Tick all")
        await page.check("[name=unsorted]")
        await page.click("text=I agree to see")
        await page.wait_for_selector(".hello")
        return user

    async def run_dialogue(self, messages: list[str]) -> None:
        """Runs a whole dialogue, with keys and clicks."""
        page = self.page
        await page.click("text=Start a dialogue")
        for n, text in enumerate(messages):
            await page.wait_for_selector("#message")
            await page.fill("#message", text)
            await page.keyboard.press("Enter")
            await page.wait_for_selector(".pick:not([disabled])")
            await page.keyboard.press("v")
            await page.wait_for_selector("[data-side] .blurrable:not(.blurred)")
            await page.keyboard.press("abt"[n % 3])
        await page.wait_for_selector("#message")
        await page.click("text=Finish")
        await page.wait_for_selector("[name=rating]")
        await page.check('[name=rating][value="3"]')
        await page.check('[name=category][value="privacy_violation"]')
        await page.fill("[name=goal]", f"goal: {messages[0]}")
        groups = await page.query_selector_all("[data-grade]")
        await (await groups[0].query_selector("input")).focus()
        for n in range(len(groups)):
            await page.keyboard.press(str(2 + n % 3))
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".summary")
        await page.click(".summary >> text=Home")
        await page.wait_for_selector(".hello")

    async def rate(self, n_items: int, grade: int) -> int:
        """Rates `n_items` items from the page of the queue on, with keys only."""
        page, n_done = self.page, 0
        while n_done < n_items:
            if await page.query_selector("#rating") is None:
                await self._press_and_wait_for_page("n")
                continue
            for n in range(len(await page.query_selector_all("[data-grade]"))):
                await page.keyboard.press(str(1 + (grade + n) % 5))
            await self._press_and_wait_for_page("Control+Enter")
            n_done += 1
        return n_done

    async def _press_and_wait_for_page(self, key: str) -> None:
        """Presses a key that submits a form; returns when the next page has replaced this one."""
        page = self.page
        await page.wait_for_selector('[data-key="n"]:not([disabled]), [data-submit]')
        # The address does not tell: an empty queue leads back to the same one, and Playwright's own
        # copy of it is updated later than the page. A mark on the old content does.
        await page.evaluate("() => { document.querySelector('main').dataset.old = '1'; }")
        await page.keyboard.press(key)
        # Polled: the default asks at every animation frame, in each page, and starves the server.
        await page.wait_for_function(
            "() => !document.querySelector('main').dataset.old", polling=200
        )


def save_relaxed_study(url: str, **settings: Any) -> None:
    """Stores a study without breaks and gold items."""
    store = open_store(url)
    store.write(
        lambda tx: save_study(
            tx, Study(gold_every=0, exposure_budget=10**6, break_after=10**6, **settings)
        )
    )
    store.close()


def _wait_for_answer(url: str) -> None:
    store = open_store(url)
    while store.read(lambda tx: tx.session.scalar(select(StoredAnswer).limit(1))) is None:
        time.sleep(0.05)
    store.close()


def test_five_people_and_a_crash_of_the_server(url: str) -> None:
    save_relaxed_study(url)
    server = ServerProcess(url, "scripted:mixed,delay=0.15", "scripted:echo,delay=0.1")
    server.start()
    try:
        links = [server.invite("redteamer") for _ in range(2)] + [
            server.invite("rater") for _ in range(3)
        ]

        async def crash(users: list[BrowserUser]) -> None:
            await asyncio.to_thread(_wait_for_answer, url)  # then the dialogues are under way
            await asyncio.to_thread(server.kill)
            noticed = False
            while not noticed:
                await asyncio.sleep(0.2)
                noticed = any([await user.page.is_visible("#notice") for user in users])
            await asyncio.to_thread(server.start)

        async def run_users() -> list[BrowserUser]:
            async with chromium() as browser:
                names = ["red-one", "red-two", "rater-one", "rater-two", "rater-three"]
                users = await asyncio.gather(
                    *(BrowserUser.join(browser, k, n) for k, n in zip(links, names, strict=True))
                )
                redteamers, raters = users[:2], users[2:]
                for rater in raters:
                    await rater.page.goto(server.base + "/review")
                await asyncio.gather(
                    *(
                        p.run_dialogue([f"{n} first", f"{n} second", f"{n} third"])
                        for p, n in zip(redteamers, names, strict=False)
                    ),
                    *(p.rate(2, g) for g, p in enumerate(raters)),
                    crash(users),
                )
                return users

        users = asyncio.run(run_users())
        assert [f for p in users for f in p.faults] == []
    finally:
        server.close()
    store = open_store(url)
    dialogues = store.read(lambda tx: tx.session.scalars(select(Dialogue)).all())
    assert [(d.state, d.rating) for d in dialogues] == [("finished", 3)] * 2
    turns = store.read(lambda tx: Counter(tx.session.scalars(select(DialogueTurn.dialogue_id))))
    assert set(turns.values()) == {3}  # no message lost, none doubled
    answers = store.read(lambda tx: tx.session.scalars(select(StoredAnswer)).all())
    assert len(answers) == 12 and all(a.failure is None and a.grade for a in answers)
    ratings = store.read(lambda tx: tx.session.scalars(select(Rating)).all())
    assert len(ratings) == 6 and all(r.counted for r in ratings)
    assert set(Counter(r.item_id for r in ratings).values()) == {3} and set(
        Counter(r.person_id for r in ratings).values()
    ) == {2}
    assert store.read(queue.count_progress) == {
        "items": 2,
        "open": 0,
        "gold": 0,
        "slots": 6,
        "done": 6,
        "late": 0,
    }
    store.close()


def test_scripts_do_not_run_and_cross_site_forms_are_rejected(file_url: str) -> None:
    save_relaxed_study(file_url, raters=1)
    server = ServerProcess(file_url, "scripted:echo")
    server.start()

    async def scenario() -> None:
        async with chromium() as browser:
            redteamer = await BrowserUser.join(
                browser, server.invite("redteamer", "rater"), "red-one"
            )
            page = redteamer.page
            await redteamer.run_dialogue([SCRIPT, SCRIPT])
            rater = await BrowserUser.join(browser, server.invite("rater"), "rater-one")
            await rater.page.goto(server.base + "/review")
            await rater.page.keyboard.press("n")
            await rater.page.wait_for_selector("#rating")
            await rater.page.keyboard.press("v")
            text = await rater.page.inner_text("#rating .message.model .text >> nth=0")
            assert text == SCRIPT
            for user in (redteamer, rater):
                assert "owned" not in await user.page.title() and user.faults == []
                assert await user.page.query_selector("main img, main script") is None
            # a page of another site (another port) posts a form that deletes the account, with this browser's cookies
            form = f'<form method=post action="{server.base}/settings/delete"><input name=sure value=red-one></form>'
            html = f"<html><body>{form}<script>document.forms[0].submit()</script></body></html>"

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(
                    f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(html)}\r\n\r\n{html}".encode()
                )
                await writer.drain()
                writer.close()

            listening = await asyncio.start_server(serve, "127.0.0.1", 0)
            other_port = listening.sockets[0].getsockname()[1]
            async with page.expect_response(
                lambda r: r.url.endswith("/settings/delete")
            ) as response_info:
                await page.goto(f"http://localhost:{other_port}/")
            assert (await response_info.value).status in (303, 403)
            listening.close()
            await page.goto(server.base + "/")
            assert "red-one" in await page.inner_text(".hello")

    try:
        asyncio.run(scenario())
    finally:
        server.close()


def test_a_reused_link_and_a_copied_page_address(file_url: str) -> None:
    save_relaxed_study(file_url)
    server = ServerProcess(file_url, "scripted:comply")
    server.start()

    async def scenario() -> None:
        async with chromium() as browser:
            link = server.invite("redteamer")
            owner = await BrowserUser.join(browser, link, "red-one")
            await owner.page.click("text=Start a dialogue")
            await owner.page.wait_for_selector("#message")
            thief = await (await browser.new_context()).new_page()
            await thief.goto(link)
            assert "used already" in await thief.inner_text("main")
            await thief.goto(owner.page.url)
            assert thief.url.endswith("/sign-in")
            admin = await BrowserUser.join(browser, server.invite("admin", "rater"), "boss-crane")
            await admin.page.goto(server.base + "/admin")
            assert "link used twice" in await admin.page.inner_text("#flags")

    try:
        asyncio.run(scenario())
    finally:
        server.close()


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


def _contrast() -> str:
    """Returns a script that lists texts with a contrast under 4.5 to 1 (WCAG 2 AA)."""
    return """() => {
      const lum = (c) => c.map((v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; })
        .reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
      const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
      const rgb = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data]; };
      const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
        if (c[3] > 250) return c; } return [255, 255, 255, 255]; };
      const poor = [];
      for (const e of document.querySelectorAll('body *')) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        const style = getComputedStyle(e);
        if (!own || !e.offsetParent || e.closest('.visually-hidden, .skip-link, .blurred, option') || e.matches(':disabled')) continue;
        const a = lum(rgb(style.color).slice(0, 3)), b = lum(behind(e).slice(0, 3));
        const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        if (ratio < 4.5) poor.push(`${e.tagName}.${e.className} ${ratio.toFixed(2)} ${e.textContent.trim().slice(0, 30)}`);
      }
      return poor;
    }"""


_UNLABELLED = """() => [...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, meter, a')]
  .filter((e) => e.offsetParent && !(e.labels && e.labels.length) && !e.getAttribute('aria-label') && !e.textContent.trim())
  .map((e) => e.outerHTML.slice(0, 80))"""
_WIDER = "() => document.documentElement.scrollWidth - innerWidth"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_labels_contrast_and_phone_width(file_url: str, scheme: str) -> None:
    save_relaxed_study(file_url, raters=1)
    server = ServerProcess(file_url, "scripted:mixed", "scripted:comply")
    server.start()

    async def scenario() -> None:
        async with chromium() as browser:
            link = server.invite("redteamer", "rater", "adjudicator", "admin")
            phone = {
                "viewport": {"width": 360, "height": 740},
                "has_touch": True,
                "is_mobile": True,
                "color_scheme": scheme,
            }
            user = await BrowserUser.join(browser, link, "calm-heron", **phone)
            page, problems = user.page, {}

            async def check_page(name: str) -> None:
                problems[name] = [
                    await page.evaluate(_contrast()),
                    await page.evaluate(_UNLABELLED),
                    max(0, await page.evaluate(_WIDER)),
                ]

            await page.click("text=Start a dialogue")
            await page.wait_for_selector("#message")
            await page.fill("#message", "a" * 300 + " hello")
            await page.click("text=Send")
            await page.wait_for_selector(".pick:not([disabled])")
            await check_page("pair")
            await page.click(".pick >> nth=0")
            await page.click("text=Finish")
            await page.wait_for_selector("[name=rating]")
            await check_page("end")
            rater = await BrowserUser.join(browser, server.invite("redteamer"), "red-two", **phone)
            await rater.run_dialogue(["hello there"])
            await page.goto(server.base + "/review")
            await page.click("text=Take the next item")
            await page.wait_for_selector("#rating")
            await check_page("review")
            for path in (
                "",
                "consent",
                "settings",
                "help",
                "rest",
                "agreement",
                "disputes",
                "admin",
                "admin/audit",
            ):
                await page.goto(f"{server.base}/{path}")
                await check_page(path or "home")
            assert {k: v for k, v in problems.items() if v != [[], [], 0]} == {}
            assert user.faults == []

    try:
        asyncio.run(scenario())
    finally:
        server.close()
