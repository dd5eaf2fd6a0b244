"""The pages in Chromium, served by the real command: concurrent people, kill -9, keys, accessibility.

Nothing that a person has submitted may be lost or duplicated.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.annotation.databases import database
from tests.requirements import require_chromium
from tests.serve.annotation.browser import (
    BrowserUser,
    ServerProcess,
    chromium,
    save_relaxed_study,
)

from truing.annotation import queue
from truing.annotation.store import Store, open_store
from truing.annotation.tables import Dialogue, DialogueTurn, Rating, StoredAnswer

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(autouse=True)
def _chromium() -> None:
    require_chromium()


def _wait_for_answer(url: str) -> None:
    store = open_store(url)
    while store.read(lambda tx: tx.session.scalar(select(StoredAnswer).limit(1))) is None:
        time.sleep(0.05)
    store.close()


@pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_five_people_and_a_crash_of_the_server(backend: str, tmp_path: Path) -> None:
    with database(backend, tmp_path) as url:
        faults, store = _work_through_a_crash(url)
        assert faults == []
        dialogues = store.read(lambda tx: tx.session.scalars(select(Dialogue)).all())
        assert [(d.state, d.rating) for d in dialogues] == [("finished", 3)] * 2
        turns = store.read(lambda tx: Counter(tx.session.scalars(select(DialogueTurn.dialogue_id))))
        assert set(turns.values()) == {3}  # no message lost, none doubled
        answers = store.read(lambda tx: tx.session.scalars(select(StoredAnswer)).all())
        assert len(answers) == 12 and all(a.failure is None and a.grade for a in answers)
        ratings = store.read(lambda tx: tx.session.scalars(select(Rating)).all())
        assert len(ratings) == 6 and all(r.counted for r in ratings)
        assert set(Counter(r.item_id for r in ratings).values()) == {3}
        assert set(Counter(r.person_id for r in ratings).values()) == {2}
        progress = {"items": 2, "open": 0, "gold": 0, "slots": 6, "done": 6, "late": 0}
        assert store.read(queue.count_progress) == progress
        store.close()


def _work_through_a_crash(url: str) -> tuple[list[str], Store]:
    """Returns the faults that five people's browsers saw while the server died, and its store."""
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
    finally:
        server.close()
    return [str(fault) for user in users for fault in user.faults], open_store(url)


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


def test_labels_contrast_and_phone_width(file_url: str) -> None:
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
                # A change of colours would take its time.
                "reduced_motion": "reduce",
            }
            user = await BrowserUser.join(browser, link, "calm-heron", **phone)
            page, problems, backgrounds = user.page, {}, set()
            await page.emulate_media(color_scheme="light")
            backgrounds.add(await page.evaluate("getComputedStyle(document.body).background"))

            async def check_page(name: str) -> None:
                for scheme in ("light", "dark"):
                    await page.emulate_media(color_scheme=scheme)
                    problems[f"{name}, {scheme}"] = [
                        await page.evaluate(_contrast()),
                        await page.evaluate(_UNLABELLED),
                        max(0, await page.evaluate(_WIDER)),
                    ]
                backgrounds.add(await page.evaluate("getComputedStyle(document.body).background"))

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
            assert len(backgrounds) == 2  # both schemes were shown
            assert user.faults == []

    try:
        asyncio.run(scenario())
    finally:
        server.close()
