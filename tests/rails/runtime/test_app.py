"""The runtime: cached conversations, options, what `init(app)` may register, endless turns."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from adapter_truing import BagOfWordsEncoder

from truing.core.types import Sampling
from truing.models.scripted import ScriptedModel
from truing.rails.build import build_runtime
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime import app
from truing.rails.runtime.app import RailsError, Runtime, RuntimeParts

EMBEDDINGS_ONLY = "rails: {dialog: {user_messages: {embeddings_only: true}}}\n"


def make_runtime(
    yaml: str = "models: []\n", colang: str = "", config: RailsConfig | None = None, **parts: Any
) -> Runtime:
    config = config or RailsConfig.from_text(yaml, colang)
    model = ScriptedModel(lambda conversation, sampling: conversation.prompt)
    return build_runtime(config, model, RuntimeParts(encoder=BagOfWordsEncoder(), **parts))


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_the_next_turn_continues_from_the_cached_state() -> None:
    calls: list[str] = []
    colang = (
        'define user hi\n  "hi"\n\ndefine user again\n  "again"\n\ndefine bot say\n  "$name"\n\n'
        "define flow\n  user hi\n  $name = execute who\n  bot say\n  user again\n  bot say\n"
    )

    def who() -> str:
        calls.append("who")
        return "Ada"

    runtime = make_runtime(EMBEDDINGS_ONLY, colang, actions={"who": who})

    async def run() -> str:
        first = await runtime.run_turn([user("hi")])
        second = await runtime.run_turn([user("hi"), first.message, user("again")])
        return second.text

    assert asyncio.run(run()) == "Ada"
    assert calls == ["who"]


def test_the_least_recently_used_conversations_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "MAX_CACHED_CONVERSATIONS", 2)
    runtime = make_runtime()

    async def run() -> None:
        for text in "abc":
            await runtime.run_turn([user(text)])

    asyncio.run(run())
    assert len(runtime._states) == 2


def test_wrong_options_and_empty_conversations_are_errors() -> None:
    runtime = make_runtime()
    with pytest.raises(RailsError) as raised:
        asyncio.run(runtime.run_turn([user("hi")], options={"rail": []}))
    assert raised.value.failure.kind == "options"
    with pytest.raises(RailsError, match="no message to answer"):
        asyncio.run(runtime.run_turn([]))


def test_a_bot_message_can_be_checked_alone() -> None:
    colang = "define subflow shorten\n  $bot_message = $bot_message[0:3]\n"
    runtime = make_runtime("rails: {output: {flows: [shorten]}}\n", colang)
    messages = [user("hi"), {"role": "assistant", "content": "a long answer"}]
    result = asyncio.run(runtime.run_turn(messages, options={"rails": ["output"]}))
    assert result.text == "a l"
    assert result.llm_calls == 0


def test_init_of_config_py_registers_what_actions_and_prompts_use(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        "prompts: [{task: t, content: '{{ company }}'}]\n" + EMBEDDINGS_ONLY
    )
    (tmp_path / "rails.co").write_text(
        'define user hi\n  "hi"\n\ndefine flow\n  user hi\n  $x = execute look_up\n  bot $x\n'
    )
    (tmp_path / "config.py").write_text(
        "def look_up(database):\n    return database['name']\n\n"
        "def init(app):\n"
        "    app.register_action(look_up).register_action_param('database', {'name': 'Ada'})\n"
        "    app.register_prompt_context('company', 'Example Ltd')\n"
        "    app.register_output_parser(str.upper, 'upper')\n"
    )
    runtime = make_runtime(config=RailsConfig.load(tmp_path))
    assert asyncio.run(runtime.run_turn([user("hi")])).text == "Ada"
    assert runtime.prompts.render_task_prompt("t") == "Example Ltd"
    assert runtime.prompts.parse_task_output("t", "a", "upper") == "A"


def test_a_turn_without_end_is_an_error() -> None:
    colang = (
        'define user hi\n  "hi"\n\ndefine flow\n  user hi\n  while True\n    $x = execute tick\n'
    )
    runtime = make_runtime(EMBEDDINGS_ONLY, colang, actions={"tick": lambda: 1})
    with pytest.raises(RailsError, match="do not come to an end"):
        asyncio.run(runtime.run_turn([user("hi")], sampling=Sampling()))
