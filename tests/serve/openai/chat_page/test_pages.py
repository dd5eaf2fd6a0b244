"""The chat page: who gets it, its headers, and in Chromium, at the sizes of a desk and of a phone.

With `TRUING_SCREENSHOTS=DIR` a picture of every step is kept there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient
from tests.integrations.hook_rails_folder import REFUSED_INPUT, write_rails
from tests.requirements import require_chromium
from tests.serve.annotation.browser import chromium
from tests.serve.annotation.site import PATIENCE
from tests.serve.openai.live import free_port, running_server

from truing.core.types import Answer, Conversation, Message, Sampling, ToolCall
from truing.models.scripted import ScriptedModel
from truing.serve.openai.app import ask_people, chat_app, show_chat_page
from truing.serve.openai.approvals import Approvals
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter

SIZES = {"desk": {"width": 1280, "height": 850}, "phone": {"width": 390, "height": 844}}
HTML = {"accept": "text/html,application/xhtml+xml"}
DIALOGUES = f"""
dialogues:
  - name: greets
    turns: [{{user: hello, bot: "you said: hello"}}]
  - name: expects too much
    turns:
      - {{user: hello, bot: "something else"}}
      - {{user: FORBIDDEN, bot: "{REFUSED_INPUT}"}}
"""


def reply(conversation: Conversation, sampling: Sampling) -> Answer | str:
    if conversation.prompt == "pay":
        call = ToolCall("c1", "transfer", '{"amount": 5}')
        return Answer(message=Message("assistant", "", (call,)), finish_reason="tool_calls")
    return f"you said: {conversation.prompt}"


def make_app(folder: Path, keys: list[str], *, page: bool = True) -> Any:
    approvals = Approvals()
    router = ModelRouter(ScriptedModel(reply), {"words": folder}, ask_person=approvals.ask)
    app = chat_app(router, keys=keys)
    ask_people(app, approvals)
    if page:
        show_chat_page(app, needs_key=bool(keys))
    return app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_rails(tmp_path_factory.mktemp("rails") / "words")
    config = path / "config.yml"
    config.write_text(config.read_text().replace("[check tool calls]", "[ask a person]"))
    return path


def test_a_browser_gets_the_page_and_others_the_health(folder: Path) -> None:
    with TestClient(make_app(folder, ["k"])) as client:
        page = client.get("/", headers=HTML)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "script-src 'self'" in policy and "unsafe" not in policy
        assert "<script>" not in page.text and "style=" not in page.text
        assert client.get("/").json() == {"status": "ok"}
        assert client.get("/health", headers=HTML).json() == {"status": "ok"}
        script = client.get("/static/chat.js")
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        assert script.status_code == 200 and script.headers["x-content-type-options"] == "nosniff"
        assert client.get("/static/app.js").status_code == 401
        assert client.get("/static/..%2fpages.py").status_code in (401, 404)
        assert client.get("/v1/rails/configs").status_code == 401


def test_a_server_without_the_page_has_none_of_it(folder: Path) -> None:
    with TestClient(make_app(folder, [], page=False)) as client:
        assert client.get("/", headers=HTML).json() == {"status": "ok"}
        assert client.get("/static/chat.js").status_code == 404


@pytest.fixture
def address(folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    port = free_port()
    with running_server(make_app(folder, list(request.param)), port, ServerLimits()):
        yield f"http://127.0.0.1:{port}/"


async def _look(page: Any, name: str, faults: list[str]) -> None:
    from axe_playwright_python.async_playwright import Axe

    width = await page.evaluate("document.documentElement.scrollWidth")
    if width > await page.evaluate("innerWidth"):
        faults.append(f"{name}: {width} px wide")
    found = await Axe().run(page)
    faults += [
        f"{name}: {v['id']}: {v['nodes'][0]['html'][:120]}"
        for v in found.response["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    pictures = os.environ.get("TRUING_SCREENSHOTS")
    if pictures:
        await page.screenshot(path=f"{pictures}/{name}.png")


@pytest.mark.parametrize("address", [()], indirect=True)
@pytest.mark.parametrize("size", list(SIZES))
def test_a_conversation_in_the_browser(address: str, size: str) -> None:
    require_chromium()
    faults: list[str] = []

    async def talk() -> None:
        async with chromium() as browser:
            scheme = "dark" if size == "phone" else "light"
            context = await browser.new_context(viewport=SIZES[size], color_scheme=scheme)
            page = await context.new_page()
            page.set_default_timeout(1000 * PATIENCE)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
            await page.goto(address)
            await page.fill("#message", "hello")
            await page.keyboard.press("Enter")
            await page.wait_for_selector(".by-bot .decisions")
            assert await page.inner_text(".by-bot .said") == "you said: hello"
            await page.fill("#message", "FORBIDDEN")
            await page.click("#submit")
            await page.wait_for_selector(".by-bot.blocked .decisions")
            blocked = await page.inner_text(".by-bot.blocked")
            assert REFUSED_INPUT in blocked and "no forbidden input" in blocked and "ms" in blocked
            await _look(page, f"{size}-blocked", faults)
            text = {"name": "words.yml", "mimeType": "text/yaml", "buffer": DIALOGUES.encode()}
            await page.set_input_files("#file", text)
            await page.wait_for_selector(".outcome.passed")
            # The dialogue that fails stands open, as a conversation with its decisions.
            replay = page.locator("details[open] > .replay")
            assert await replay.locator(".said").all_inner_texts() == [
                "hello",
                "you said: hello",
                "FORBIDDEN",
                REFUSED_INPUT,
            ]
            decided = await replay.locator(".blocked .decisions").inner_text()
            assert "no forbidden input" in decided and "block" in decided and "ms" in decided
            faults_shown = await page.inner_text("details[open]:has(> .replay) > ul")
            assert "something else" in faults_shown
            await _look(page, f"{size}-tests", faults)
            await page.click("#clear")
            assert await page.locator(".turns > li").count() == 0

    asyncio.run(talk())
    assert faults == []


@pytest.mark.parametrize("address", [("k",)], indirect=True)
def test_the_page_asks_for_the_key(address: str) -> None:
    require_chromium()

    async def enter() -> None:
        async with chromium() as browser:
            page = await browser.new_page()
            page.set_default_timeout(1000 * PATIENCE)
            await page.goto(address)
            await page.fill("#key", "wrong")
            await page.keyboard.press("Enter")
            await page.wait_for_selector("#notice:not([hidden])")
            await page.fill("#key", "k")
            await page.keyboard.press("Enter")
            await page.wait_for_selector("#chat:not([hidden])")
            assert await page.input_value("#config") == "words"

    asyncio.run(enter())
