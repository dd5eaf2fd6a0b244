"""In a real Chromium, against the real command: two red-teamers and three raters at once, kill -9 in the middle, scripts,
keys, phone and dark. Nothing that a person has sent is lost or doubled.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from tests.serve.annotation.site import PHRASE, free_port

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


class Process:
    """The command, started, killed and started again on one port."""

    def __init__(self, url: str, *models: str) -> None:
        self.url, self.models, self.port = url, models, free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the pages answer."""
        models = [word for spec in self.models for word in ("--model", spec)]
        command = [
            sys.executable,
            "-m",
            "truing",
            "redteam",
            "serve",
            *models,
            "--db",
            self.url,
            "--port",
            str(self.port),
        ]
        self.running = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if httpx.get(self.base + "/healthz", timeout=2).text == "ok":
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise AssertionError("the server does not come up")

    def kill(self) -> None:
        """As a crash would."""
        if self.running is not None:
            self.running.send_signal(signal.SIGKILL)
            self.running.wait()
            self.running = None

    def invite(self, *roles: str) -> str:
        """A link, made beside the running server."""
        store = open_store(self.url)
        token = store.write(lambda tx: people.create_invitation(tx, roles, by=None))
        store.close()
        return f"{self.base}/join/{token}"


@asynccontextmanager
async def chromium() -> AsyncIterator[Any]:
    """A browser."""
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        await browser.close()


class Person:
    """Somebody before a browser; `faults` collects what the console says."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("pageerror", lambda e: self.faults.append(str(e)))
        page.on(
            "console",
            lambda m: self.faults.append(m.text) if "Content Security Policy" in m.text else None,
        )

    @classmethod
    async def arrive(cls, browser: Any, link: str, name: str, **context: Any) -> Person:
        """Follows an invitation and agrees to see everything."""
        made = cls(
            await (
                await browser.new_context(viewport={"width": 1200, "height": 800})
                if not context
                else await browser.new_context(**context)
            ).new_page()
        )
        page = made.page
        page.set_default_timeout(30_000)
        await page.goto(link)
        await page.fill("[name=pseudonym]", name)
        await page.fill("[name=phrase]", PHRASE)
        await page.fill("[name=again]", PHRASE)
        await page.click("button.primary")
        await page.click("text=Tick all")
        await page.check("[name=unsorted]")
        await page.click("text=I agree to see")
        await page.wait_for_selector(".hello")
        return made

    async def dialogue(self, messages: list[str]) -> None:
        """A whole dialogue by keys and clicks."""
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

    async def rate(self, wanted: int, grade: int) -> int:
        """Rates until so many items are done; by keys alone."""
        page, done = self.page, 0
        await page.goto(re.sub(r"(https?://[^/]+).*", r"\1/review", page.url))
        while done < wanted:
            if await page.query_selector("#rating") is None:
                await page.wait_for_selector('[data-key="n"]:not([disabled])')
                before = page.url
                await page.keyboard.press("n")
                await page.wait_for_function(
                    "was => location.href !== was || document.querySelector('[data-key=n]:not([disabled])')",
                    arg=before,
                )
                await asyncio.sleep(0.2)
                continue
            token = page.url
            for n in range(len(await page.query_selector_all("[data-grade]"))):
                await page.keyboard.press(str(1 + (grade + n) % 5))
            await page.keyboard.press("Control+Enter")
            await page.wait_for_function("was => location.href !== was", arg=token, timeout=60_000)
            await page.wait_for_load_state()
            done += 1
        return done


def prepare(url: str, **choices: Any) -> None:
    """Keeps a study that asks for no breaks."""
    store = open_store(url)
    store.write(
        lambda tx: save_study(
            tx, Study(gold_every=0, exposure_budget=10**6, break_after=10**6, **choices)
        )
    )
    store.close()


def test_five_people_at_once_and_a_crash_in_the_middle(url: str) -> None:
    prepare(url)
    server = Process(url, "scripted:mixed,delay=0.15", "scripted:echo,delay=0.1")
    server.start()
    try:
        links = [server.invite("redteamer") for _ in range(2)] + [
            server.invite("rater") for _ in range(3)
        ]

        async def crash() -> None:
            await asyncio.sleep(2.5)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(1.0)
            await asyncio.to_thread(server.start)

        async def everybody() -> list[Person]:
            async with chromium() as browser:
                names = ["red-one", "red-two", "rater-one", "rater-two", "rater-three"]
                present = await asyncio.gather(
                    *(Person.arrive(browser, k, n) for k, n in zip(links, names, strict=True))
                )
                reds, raters = present[:2], present[2:]
                await asyncio.gather(
                    *(
                        p.dialogue([f"{n} first", f"{n} second", f"{n} third"])
                        for p, n in zip(reds, names, strict=False)
                    ),
                    *(p.rate(2, g) for g, p in enumerate(raters)),
                    crash(),
                )
                return present

        present = asyncio.run(everybody())
        assert [f for p in present for f in p.faults] == []
    finally:
        server.kill()
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


def test_scripts_do_not_run_and_forms_from_elsewhere_do_nothing(file_url: str) -> None:
    prepare(file_url, raters=1)
    server = Process(file_url, "scripted:echo")
    server.start()

    async def story() -> None:
        async with chromium() as browser:
            red = await Person.arrive(browser, server.invite("redteamer", "rater"), "red-one")
            page = red.page
            await red.dialogue([SCRIPT, SCRIPT])
            rater = await Person.arrive(browser, server.invite("rater"), "rater-one")
            await rater.page.goto(server.base + "/review")
            await rater.page.keyboard.press("n")
            await rater.page.wait_for_selector("#rating")
            await rater.page.keyboard.press("v")
            shown = await rater.page.inner_text("#rating .message.model .text >> nth=0")
            assert shown == SCRIPT
            for one in (red, rater):
                assert "owned" not in await one.page.title() and one.faults == []
                assert await one.page.query_selector("main img, main script") is None
            # a page of another site (another port) posts a form that deletes the account, with this browser's cookies
            other = free_port()
            trap = f'<form method=post action="{server.base}/settings/delete"><input name=sure value=red-one></form>'
            answer = f"<html><body>{trap}<script>document.forms[0].submit()</script></body></html>"

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(
                    f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(answer)}\r\n\r\n{answer}".encode()
                )
                await writer.drain()
                writer.close()

            listening = await asyncio.start_server(serve, "127.0.0.1", other)
            async with page.expect_response(lambda r: r.url.endswith("/settings/delete")) as seen:
                await page.goto(f"http://localhost:{other}/")
            assert (await seen.value).status in (303, 403)
            listening.close()
            await page.goto(server.base + "/")
            assert "red-one" in await page.inner_text(".hello")

    try:
        asyncio.run(story())
    finally:
        server.kill()


def test_a_stolen_link_and_a_stolen_page(file_url: str) -> None:
    prepare(file_url)
    server = Process(file_url, "scripted:comply")
    server.start()

    async def story() -> None:
        async with chromium() as browser:
            link = server.invite("redteamer")
            owner = await Person.arrive(browser, link, "red-one")
            await owner.page.click("text=Start a dialogue")
            await owner.page.wait_for_selector("#message")
            thief = await (await browser.new_context()).new_page()
            await thief.goto(link)
            assert "used already" in await thief.inner_text("main")
            await thief.goto(owner.page.url)
            assert thief.url.endswith("/sign-in")
            admin = await Person.arrive(browser, server.invite("admin", "rater"), "boss-crane")
            await admin.page.goto(server.base + "/admin")
            assert "link used twice" in await admin.page.inner_text("#flags")

    try:
        asyncio.run(story())
    finally:
        server.kill()


def _contrast() -> str:
    """Script that gives texts on the page whose contrast with what lies behind them is under 4.5 to 1."""
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
def test_labels_contrast_and_a_phone(file_url: str, scheme: str) -> None:
    prepare(file_url, raters=1)
    server = Process(file_url, "scripted:mixed", "scripted:comply")
    server.start()

    async def story() -> None:
        async with chromium() as browser:
            link = server.invite("redteamer", "rater", "adjudicator", "admin")
            phone = {
                "viewport": {"width": 360, "height": 740},
                "has_touch": True,
                "is_mobile": True,
                "color_scheme": scheme,
            }
            one = await Person.arrive(browser, link, "calm-heron", **phone)
            page, found = one.page, {}

            async def look(name: str) -> None:
                found[name] = [
                    await page.evaluate(_contrast()),
                    await page.evaluate(_UNLABELLED),
                    max(0, await page.evaluate(_WIDER)),
                ]

            await page.click("text=Start a dialogue")
            await page.wait_for_selector("#message")
            await page.fill("#message", "a" * 300 + " hello")
            await page.click("text=Send")
            await page.wait_for_selector(".pick:not([disabled])")
            await look("pair")
            await page.click(".pick >> nth=0")
            await page.click("text=Finish")
            await page.wait_for_selector("[name=rating]")
            await look("end")
            rater = await Person.arrive(browser, server.invite("redteamer"), "red-two", **phone)
            await rater.dialogue(["hello there"])
            await page.goto(server.base + "/review")
            await page.click("text=Take the next item")
            await page.wait_for_selector("#rating")
            await look("review")
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
                await look(path or "home")
            assert {k: v for k, v in found.items() if v != [[], [], 0]} == {}
            assert one.faults == []

    try:
        asyncio.run(story())
    finally:
        server.kill()
