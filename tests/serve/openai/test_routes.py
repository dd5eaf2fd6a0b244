"""Rails over HTTP: streams that carry the decision, options, sessions by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from litestar.testing import TestClient

from truing.models.scripted import ScriptedModel
from truing.serve.openai.app import chat_app
from truing.serve.openai.model_router import ModelRouter

CHAT = "/v1/chat/completions"


def _client(tmp_path: Path, colang: str, yaml: str, **given: Any) -> TestClient:  # type: ignore[type-arg]
    folder = tmp_path / "bot"
    folder.mkdir()
    (folder / "config.yml").write_text(yaml)
    (folder / "rails.co").write_text(colang)
    return TestClient(
        chat_app(
            ModelRouter(ScriptedModel("fine weather today", name="talker"), {"bot": folder}),
            **given,
        )
    )


RAIL = 'define subflow own\n  if "secret" in $user_message\n    bot refuse to respond\n    stop\n'
YAML = "rails: {input: {flows: [own]}}\n"


def _ask(text: str, **more: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": text}],
        "guardrails": {"config_id": "bot", **more.pop("rails", {})},
        **more,
    }


def _events(text: str) -> list[dict[str, Any]]:
    rows = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert rows[-1] == "[DONE]"
    return [json.loads(r) for r in rows[:-1]]


def test_a_blocked_stream_ends_with_content_filter_and_its_record(tmp_path: Path) -> None:
    asked = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "rails": {"options": {"log": {"activated_rails": True}}},
    }
    with _client(tmp_path, RAIL, YAML) as c:
        blocked = _events(c.post(CHAT, json=_ask("a secret", **asked)).text)
        passed = _events(c.post(CHAT, json=_ask("hello", **asked)).text)
        skipped = _events(
            c.post(
                CHAT, json=_ask("a secret", stream=True, rails={"options": {"rails": ["dialog"]}})
            ).text
        )
    assert blocked[-1]["choices"][0]["finish_reason"] == "content_filter"
    record = blocked[-1]["guardrails"]["rails"][0]
    assert (record["name"], record["stage"], record["ruling"]) == ("own", "input", "block")
    assert "weather" not in json.dumps(blocked)
    assert passed[-1]["choices"][0]["finish_reason"] == "stop"
    assert passed[-1]["usage"] is None  # the model streams text alone: the tokens are not known
    said = "".join(e["choices"][0]["delta"].get("content") or "" for e in skipped)
    assert said.strip() == "fine weather today"


def test_what_an_action_found_out_for_one_key_is_not_there_for_another(tmp_path: Path) -> None:
    colang = (
        'define user hi\n  "hi"\n\ndefine user again\n  "again"\n\ndefine bot hello\n  "hello"\n\ndefine bot count\n  "{{ n }}"\n\n'
        "define flow\n  user hi\n  $n = execute count_up\n  bot hello\n  user again\n  bot count\n"
    )
    yaml = "rails: {dialog: {user_messages: {embeddings_only: true}}}\ntruing: {encoder: words}\n"
    with _client(tmp_path, colang, yaml, keys=("one", "two")) as c:
        count = iter(range(1, 9))

        async def count_up() -> int:
            return next(count)

        c.app.state.chat.router.guarded["bot"].runtime.register_action(count_up, "count_up")
        second = [{"role": "assistant", "content": "hello"}, {"role": "user", "content": "again"}]
        said = []
        for messages in ([], second):
            for key in ("one", "two"):
                body = _ask("hi")
                body["messages"] += messages
                got = c.post(CHAT, json=body, headers={"authorization": f"Bearer {key}"}).json()
                said.append(got["choices"][0]["message"]["content"])
    assert said == ["hello", "hello", "1", "2"]
