"""Runs the real server command as a process, and people who use its pages in Chromium."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from tests.requirements import require_chromium
from tests.serve.annotation.site import PATIENCE, PHRASE, reserve_port

from truing.annotation import people
from truing.annotation.store import open_store
from truing.annotation.study import Study, save_study


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
            executable_path=require_chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"]
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
