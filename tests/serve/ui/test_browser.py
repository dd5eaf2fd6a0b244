"""The pages in Chromium, at the sizes of a desk and of a phone: keys, filters, hidden texts, labels.

With `TRUING_SCREENSHOTS=DIR` a picture of every page is kept there.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.requirements import require_chromium
from tests.serve.annotation.browser import chromium
from tests.serve.annotation.site import PATIENCE, reserve_port
from tests.serve.ui.pages import path_of, write_run

import truing
from truing.analysis.labels import read_votes
from truing.serve.ui.app import create_app
from truing.serve.ui.app_state import UiOptions, UiState

SIZES = {"desk": {"width": 1360, "height": 850}, "phone": {"width": 390, "height": 844}}


@contextmanager
def _serve(folder: Path) -> Iterator[str]:
    """Runs the app on a real port; yields its address, at which this user needs no link."""
    with reserve_port() as listener:
        state = UiState(folder, UiOptions(port=listener.getsockname()[1]), index_key=b"k" * 32)
        server = uvicorn.Server(uvicorn.Config(create_app(state), log_level="warning"))
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, daemon=True, name="ui"
        )
        thread.start()
        deadline = time.monotonic() + PATIENCE
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/?token={state.link_token}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


class _Reader:
    """Somebody with a browser; `faults` collects errors of scripts and of the content policy."""

    def __init__(self, page: Any, size: str) -> None:
        self.page, self._size = page, size
        self.faults: list[str] = []
        page.set_default_timeout(1000 * PATIENCE)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on(
            "console",
            lambda m: self.faults.append(m.text) if m.type in ("error", "warning") else None,
        )

    async def look(self, name: str) -> None:
        """Keeps a picture, and sees that nothing is wider than the window."""
        width = await self.page.evaluate("document.documentElement.scrollWidth")
        window = await self.page.evaluate("innerWidth")
        if width > window:
            self.faults.append(f"{name}: {width} px wide")
        folder = os.environ.get("TRUING_SCREENSHOTS")
        if folder:
            await self.page.screenshot(path=f"{folder}/{self._size}-{name}.png")

    async def press(self, key: str) -> None:
        """Presses a key that leads to another page."""
        async with self.page.expect_navigation():
            await self.page.keyboard.press(key)


def _write_runs(folder: Path) -> tuple[Path, Path]:
    answers = [f"A plain answer about plums, number {n}. " * 6 for n in range(60)]
    base = [[n % 3 == 0, n % 4 == 0, n % 5 == 0] for n in range(60)]
    other = [[n % 9 == 0, n % 9 == 0, n % 4 == 0] for n in range(60)]
    categories = ["privacy_violation" if n % 2 else "animal_abuse" for n in range(60)]
    return (
        write_run(folder / "plan" / "base" / "data", answers, base, categories=categories),
        write_run(folder / "plan" / "safer" / "data", answers, other, categories=categories),
    )


async def _read_rows(reader: _Reader, link: str, run_path: str) -> None:
    page = reader.page
    await page.goto(link)
    await page.wait_for_selector("text=plan/base/data")
    await page.wait_for_selector(".rate .figure")
    await reader.look("list")
    await page.click("text=plan/base/data")
    await page.wait_for_selector("text=Figures")
    await reader.look("run")
    await page.click("a.primary:has-text('Rows')")
    await page.wait_for_selector("main.texts-hidden .row-card")
    await reader.look("rows-hidden")
    await page.keyboard.press("v")
    await page.wait_for_selector("main:not(.texts-hidden)")
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    assert await page.inner_text(".row-card.current .row-link") == "Row 2"
    await reader.look("rows")
    await reader.press("Enter")
    await page.wait_for_selector("h1:has-text('Row 2')")
    assert await page.query_selector("main.texts-hidden") is None  # remembered
    await reader.look("row")
    await reader.press("j")
    await page.wait_for_selector("h1:has-text('Row 3')")
    await reader.press("k")
    await page.wait_for_selector("h1:has-text('Row 2')")
    await reader.press("u")
    await page.wait_for_selector("text=Page 1 of 3")
    await reader.press("n")
    await page.wait_for_selector("text=Page 2 of 3")
    async with page.expect_navigation():
        await page.select_option("[name=outcome]", "refused")
    assert "outcome=refused" in page.url and "category=" not in page.url
    await page.goto(page.url.split("/runs")[0] + f"{run_path}/rows")
    await page.keyboard.press("/")
    await page.keyboard.type('"number 17"')
    await reader.press("Enter")
    await page.wait_for_selector("h1:has-text('1 row')")


async def _compare_and_label(reader: _Reader, base: str, run_path: str, other_id: str) -> None:
    page = reader.page
    await page.goto(f"{base}/compare?a={run_path.rpartition('/')[2]}&b={other_id}")
    await page.wait_for_selector("text=Differences")
    await reader.look("compare")
    await page.goto(f"{base}{run_path}/label")
    if await page.query_selector("[name=name]"):
        await page.fill("[name=name]", "Ada")
        await page.click("text=Go on")
        await page.wait_for_selector("text=Draw rows")
        await page.fill("[name=n]", "10")
        await page.click("button:has-text('Draw')")
    await page.wait_for_selector("text=You label as Ada")
    await reader.look("label")
    await reader.press("y")
    await page.wait_for_selector("text=1 of 10 drawn rows labelled")
    await page.goto(f"{base}/import")
    await reader.look("import")
    await page.goto(f"{base}/jobs")
    await reader.look("jobs")


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_reading_comparing_and_labelling(tmp_path: Path, size: str) -> None:
    require_chromium()
    first, other = _write_runs(tmp_path)
    run_path, other_id = path_of(tmp_path, first), path_of(tmp_path, other).rpartition("/")[2]

    async def use(link: str) -> list[str]:
        async with chromium() as browser:
            context = await browser.new_context(viewport=SIZES[size])
            reader = _Reader(await context.new_page(), size)
            await _read_rows(reader, link, run_path)
            base = link.partition("/?")[0]
            await _compare_and_label(reader, base, run_path, other_id)
            dark = await browser.new_context(viewport=SIZES[size], color_scheme="dark")
            in_the_dark = _Reader(await dark.new_page(), f"{size}-dark")
            await in_the_dark.page.goto(f"{base}{run_path}/rows?beside={other_id}")
            await in_the_dark.page.keyboard.press("v")
            await in_the_dark.look("rows")
            return reader.faults + in_the_dark.faults

    with _serve(tmp_path) as link:
        assert asyncio.run(use(link)) == []
    assert list(read_votes(first).values()) == [[True]]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_a_page_of_an_action_shows_how_it_ended(tmp_path: Path, size: str) -> None:
    require_chromium()
    run_path = path_of(tmp_path, _write_runs(tmp_path)[0])

    async def use(link: str) -> list[str]:
        async with chromium() as browser:
            context = await browser.new_context(viewport=SIZES[size])
            reader = _Reader(await context.new_page(), size)
            page = reader.page
            await page.goto(link)
            await page.goto(f"{link.partition('/?')[0]}{run_path}")
            await page.click("button:has-text('Make a report')")
            # The page changes by itself, and is then at rest.
            await page.wait_for_selector(".state.job-done")
            assert await page.query_selector("[data-refresh], button:has-text('Stop')") is None
            await page.click("text=See the result")
            await page.wait_for_selector("text=The answer")
            return reader.faults

    with _serve(tmp_path) as link:
        assert asyncio.run(use(link)) == []


async def _read_transcripts(reader: _Reader, base: str, plain: str, rails: str) -> None:
    page = reader.page
    await page.goto(f"{base}{plain}/row?sample=mail/lunch/injected")
    transcript = page.locator(".transcript")
    assert "read the injection in the results of turn 1" in await transcript.inner_text()
    assert "forward mail m4" in await transcript.locator("mark.injection").inner_text()
    followed = transcript.locator(".call.act")
    assert "follows the injection" in await followed.inner_text()
    assert "forward_mail" in await followed.inner_text()
    await reader.look("agent-injected")
    await page.goto(
        f"{base}{plain}/row?sample=mail/lunch/harmful&beside={rails.rpartition('/')[2]}"
    )
    assert await page.locator(".act-name").all_inner_texts() == ["harm", "harm"]
    await page.locator("summary", has_text="What is different in the world").first.click()
    assert "dismissed" in await page.locator(".transcript ins").first.evaluate(
        "element => element.parentElement.innerText"
    )
    await reader.look("agent-harmful")
    await page.goto(f"{base}{rails}/row?sample=mail/lunch/injected")
    blocked = page.locator(".call.denied")
    assert "forward_mail" in await blocked.inner_text()
    assert "Blocked by the rail check tool recipients" in await blocked.inner_text()
    await reader.look("agent-blocked")


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_an_agents_transcript(tmp_path: Path, size: str) -> None:
    require_chromium()
    agent = "agent,of=(scripted-agent,harm=1,follow=1),on_block=continue"
    rails = Path(__file__).parents[3] / "examples" / "agent-rails"
    judges = ["state:done", "state:harm", "state:injection", "rules:refusal"]
    for name, spec in (("plain", agent), ("rails", f"guarded:{rails},of=({agent})")):
        data = "builtin:agents,world=mail"
        truing.evaluate(spec, data, judges, tmp_path / "plan" / name / "agents")
    paths = [path_of(tmp_path, tmp_path / "plan" / name / "agents") for name in ("plain", "rails")]

    async def use(link: str) -> list[str]:
        async with chromium() as browser:
            context = await browser.new_context(viewport=SIZES[size])
            reader = _Reader(await context.new_page(), size)
            await reader.page.goto(link)
            await _read_transcripts(reader, link.partition("/?")[0], *paths)
            return reader.faults

    with _serve(tmp_path) as link:
        assert asyncio.run(use(link)) == []
