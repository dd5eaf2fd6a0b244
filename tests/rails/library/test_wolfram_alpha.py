"""NeMo's action that asks Wolfram|Alpha."""

from __future__ import annotations

import asyncio

import pytest
from tests.servers import Request, serving

from truing.http.limits import close_connections
from truing.models.scripted import ScriptedModel
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import GuardedModel
from truing.rails.library import wolfram_alpha

COLANG = """\
define flow
  user ...
  $answer = execute wolfram alpha request(query="2 + 3")
  bot tell answer
define user ask
  "anything"
define bot tell answer
  "It is $answer."
"""


def _ask() -> str:
    bot = GuardedModel(RailsConfig.from_text("", COLANG), ScriptedModel("ask"))

    async def run() -> str:
        try:
            return (await bot.runtime.run_turn([{"role": "user", "content": "x"}])).text
        finally:
            await close_connections()

    return asyncio.run(run())


def test_without_a_key_the_bot_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(wolfram_alpha.KEY_VARIABLE, raising=False)
    assert _ask() == wolfram_alpha._NO_KEY


@pytest.mark.parametrize(("status", "answer"), [(200, "It is 5."), (501, "")])
def test_the_answer_is_that_of_the_service(
    monkeypatch: pytest.MonkeyPatch, status: int, answer: str
) -> None:
    async def handler(request: Request) -> None:
        await request.send(status, b"5" if status == 200 else b"no short answer")

    with serving(handler) as server:
        monkeypatch.setenv(wolfram_alpha.KEY_VARIABLE, "key-of-test")
        monkeypatch.setattr(wolfram_alpha, "ADDRESS", f"{server.url}/v2/result")
        assert _ask() == (answer or wolfram_alpha._NO_ANSWER)
    assert server.requests[0].path.startswith("/v2/result")
