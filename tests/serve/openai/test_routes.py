"""Rails over HTTP: streams that carry the decision, options, sessions by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
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
    assert blocked[-1]["choices"][0]["finish_reason"] == "content_filter"
    record = blocked[-1]["guardrails"]["rails"][0]
    assert (record["name"], record["stage"], record["ruling"]) == ("own", "input", "block")
    assert "weather" not in json.dumps(blocked)
    assert passed[-1]["choices"][0]["finish_reason"] == "stop"
    assert passed[-1]["usage"] is None  # the model streams text alone: the tokens are not known


# -- what a client may set ---------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("rails", "param"),
    [
        ({"options": {"rails": ["dialog"]}}, "guardrails.options.rails"),
        ({"options": {"rails": {"input": False}}}, "guardrails.options.rails"),
        ({"options": {"rails": []}}, "guardrails.options.rails"),
        (
            {"options": {"llm_params": {"max_tokens": 9}}},
            "guardrails.options.llm_params.max_tokens",
        ),
        ({"options": {"output_vars": True}}, "guardrails.options.output_vars"),
        ({"options": {"llm_output": True}}, "guardrails.options.llm_output"),
        ({"context": {"generation_options": {}}}, "guardrails.context.generation_options"),
        ({"context": {"skip_output_rails": True}}, "guardrails.context.skip_output_rails"),
        ({"state": {"events": []}}, "guardrails.state"),
        ({"thread_id": "t"}, "guardrails.thread_id"),
        ({"options": {"log": True}}, "guardrails.options.log"),
        ({"options": {"log": {"llm_calls": True}}}, "guardrails.options.log.llm_calls"),
    ],
)
def test_what_the_configuration_does_not_allow_is_refused(
    tmp_path: Path, rails: dict[str, Any], param: str, stream: bool
) -> None:
    with _client(tmp_path, RAIL, YAML) as c:
        chat = c.post(CHAT, json=_ask("a secret", stream=stream, rails=rails))
        check = c.post("/v1/checks", json=_ask("a secret", rails=rails))
    for reply in (chat, check):
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_wrong_shapes_are_shown_the_right_one(tmp_path: Path) -> None:
    shapes = {
        "log": (True, '{"activated_rails": true}'),
        "output_vars": ("intent", '["name of a variable"] or true'),
        "rails": ("input", '["input", "output"]'),
    }
    with _client(tmp_path, RAIL, YAML) as c:
        for name, (value, shape) in shapes.items():
            reply = c.post(CHAT, json=_ask("hello", rails={"options": {name: value}}))
            assert reply.status_code == 400 and shape in reply.json()["error"]["message"]
        body = _ask("hello")
        body["messages"].insert(0, {"role": "context", "content": "tea"})
        reply = c.post(CHAT, json=body)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "messages[0].content")


OPEN_YAML = YAML + (
    "truing: {client_options: {context: [note], output_vars: [note, mood], log: [llm_calls]}}\n"
)
MOOD = RAIL + '  $mood = "calm"\n'


def test_variables_come_as_a_message_and_go_as_output_data(tmp_path: Path) -> None:
    options = {"output_vars": True, "log": {"llm_calls": True}}
    body = _ask("hello", rails={"options": options})
    body["messages"].insert(0, {"role": "context", "content": {"note": "x"}})
    with _client(tmp_path, MOOD, OPEN_YAML) as c:
        reply = c.post(CHAT, json=body).json()["guardrails"]
        blocked = c.post(CHAT, json=_ask("a secret", rails={"options": options})).json()
        streamed = _events(c.post(CHAT, json={**body, "stream": True}).text)[-1]["guardrails"]
        other = {"options": {"output_vars": ["user_message"]}}
        refused = c.post(CHAT, json=_ask("hello", rails=other))
    for answer in (reply, streamed):
        assert answer["output_data"] == {"note": "x", "mood": "calm"}
    (call,) = reply["log"]["llm_calls"]
    assert call["prompt"].endswith("user: hello") and call["completion"] == "fine weather today"
    assert blocked["guardrails"]["output_data"] == {}
    assert refused.status_code == 400 and "client_options.output_vars" in refused.text


def test_a_state_continues_a_conversation_and_cannot_be_changed(tmp_path: Path) -> None:
    with _client(tmp_path, RAIL, YAML) as c:
        first = c.post(CHAT, json=_ask("hello", rails={"state": {}})).json()["guardrails"]["state"]
        second = c.post(CHAT, json=_ask("again", rails={"state": first})).json()
        rows = second["guardrails"]["state"]["messages"]
        changed = {**first, "messages": [{"role": "assistant", "content": "a secret"}]}
        replies = [
            c.post(CHAT, json=_ask("hello", rails={"state": state}))
            for state in (changed, {"messages": []}, {"signature": "x", "messages": [1]}, [], 3)
        ]
    assert [row["content"] for row in rows] == [
        "hello",
        "fine weather today",
        "again",
        "fine weather today",
    ]
    assert {reply.status_code for reply in replies} == {400}


def test_several_configurations_are_combined(tmp_path: Path) -> None:
    (tmp_path / "strict").mkdir()
    (tmp_path / "strict" / "config.yml").write_text(
        "rails: {input: {flows: [other]}}\ntruing: {trusted_roles: [system]}\n"
    )
    (tmp_path / "strict" / "rails.co").write_text(
        RAIL.replace("own", "other").replace("secret", "hidden")
    )
    (tmp_path / "bot").mkdir()
    (tmp_path / "bot" / "config.yml").write_text(YAML)
    (tmp_path / "bot" / "rails.co").write_text(RAIL)
    folders = {"bot": tmp_path / "bot", "strict": tmp_path / "strict"}
    router = ModelRouter(ScriptedModel("fine weather today"), folders)
    ids = {"config_id": None, "config_ids": ["bot", "strict"]}
    with TestClient(chat_app(router)) as c:
        replies = [
            c.post(CHAT, json=_ask(text, rails=ids)).json()["choices"][0]["finish_reason"]
            for text in ("hello", "a secret", "a hidden thing")
        ]
        body = _ask("hello", rails=ids)
        body["messages"].insert(0, {"role": "system", "content": "a secret"})
        of_system = c.post(CHAT, json=body).json()["choices"][0]["finish_reason"]
        unknown = c.post(CHAT, json=_ask("hi", rails={**ids, "config_ids": ["bot", "x"]}))
    assert replies == ["stop", "content_filter", "content_filter"]
    # Only `strict` trusts system messages: both together do not.
    assert of_system == "content_filter"
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (
        404,
        "guardrails.config_ids",
    )


def test_configurations_that_set_a_key_differently_are_refused(tmp_path: Path) -> None:
    folders = {}
    for name, limit in (("long", 5000), ("short", 50)):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        (folders[name] / "config.yml").write_text(f"truing: {{max_message: {limit}}}\n")
    with TestClient(chat_app(ModelRouter(ScriptedModel("fine"), folders))) as c:
        ids = {"config_id": None, "config_ids": ["long", "short"]}
        reply = c.post(CHAT, json=_ask("hello", rails=ids))
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "guardrails.config_ids")
    assert "max_message differently" in reply.json()["error"]["message"]


@pytest.mark.parametrize("role", ["context", "event", "exception"])
def test_no_message_of_a_client_sets_variables_or_events(tmp_path: Path, role: str) -> None:
    body = _ask("a secret")
    options = {"rails": {"input": False}}
    body["messages"].insert(
        0, {"role": role, "content": {"generation_options": options}, "event": {"type": "Listen"}}
    )
    with _client(tmp_path, RAIL, YAML) as c:
        assert c.post(CHAT, json=body).status_code == 400


def test_the_operator_can_let_clients_set_options(tmp_path: Path) -> None:
    yaml = YAML + (
        "truing: {client_options: {rails: true, llm_params: {max_tokens: 5}, context: [note]}}\n"
    )
    with _client(tmp_path, RAIL, yaml) as c:
        no_rails = c.post(CHAT, json=_ask("a secret", rails={"options": {"rails": ["dialog"]}}))
        few = c.post(CHAT, json=_ask("hello", rails={"options": {"llm_params": {"max_tokens": 5}}}))
        many = c.post(
            CHAT, json=_ask("hello", rails={"options": {"llm_params": {"max_tokens": 6}}})
        )
        note = c.post(CHAT, json=_ask("hello", rails={"context": {"note": "x"}}))
        bad_note = c.post(CHAT, json=_ask("hello", rails={"context": {"note": "a secret"}}))
    assert no_rails.json()["choices"][0]["message"]["content"] == "fine weather today"
    assert few.status_code == note.status_code == 200
    assert (many.status_code, "from 0 to 5" in many.text) == (400, True)
    assert bad_note.json()["choices"][0]["finish_reason"] == "content_filter"


def test_no_configuration_gives_more_tokens_than_the_server(tmp_path: Path) -> None:
    yaml = YAML + "truing: {client_options: {llm_params: {max_tokens: 100000}}}\n"
    with _client(tmp_path, RAIL, yaml) as c:
        for tokens, status in ((512, 200), (513, 400)):
            options = {"options": {"llm_params": {"max_tokens": tokens}}}
            answer = c.post(CHAT, json=_ask("hello", rails=options))
            assert answer.status_code == status
    assert answer.json()["error"]["param"] == "guardrails.options.llm_params.max_tokens"


# -- checks ------------------------------------------------------------------------------------

OUTPUT_RAIL = (
    'define subflow shown\n  if "secret" in $bot_message\n    bot refuse to respond\n    stop\n'
)
BOTH = "rails: {input: {flows: [own]}, output: {flows: [shown]}}\n"
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "secret"}'}}


@pytest.mark.parametrize(
    ("yaml", "messages", "allowed", "not_run"),
    [
        (YAML, [("user", "hi")], True, []),
        (YAML, [("user", "a secret")], False, []),
        (YAML, [("user", "a secret"), ("user", "hi")], False, []),
        (YAML, [("user", "a secret"), ("system", "x")], False, []),
        (YAML, [("system", "a secret")], False, []),
        (YAML, [("assistant", "hi")], None, ["output"]),
        (YAML, [("user", "hi"), ("assistant", "hi")], None, ["output"]),
        (YAML, [("tool", "fine")], None, ["tool_input"]),
        (YAML, [("tool", "a secret")], False, ["tool_input"]),
        (YAML, [("assistant", "a secret"), ("user", "hi")], False, ["output"]),
        (BOTH, [("assistant", "hi")], True, []),
        (BOTH, [("assistant", "a secret")], False, []),
        (BOTH, [("user", "hi"), ("assistant", "hi"), ("user", "hi")], True, []),
        (BOTH, [("user", "hi"), ("assistant", None)], False, ["tool_output"]),
        ("passthrough: true\n", [("user", "hi")], None, ["input"]),
    ],
)
def test_a_check_runs_every_stage_of_the_messages(
    tmp_path: Path, yaml: str, messages: list[tuple[str, str | None]], allowed: bool, not_run: Any
) -> None:
    rows = [
        {"role": role, "content": text, **({"tool_calls": [CALL]} if text is None else {})}
        for role, text in messages
    ]
    with _client(tmp_path, RAIL + "\n" + OUTPUT_RAIL, yaml) as c:
        body = c.post("/v1/checks", json={"messages": rows}).json()
        again = c.post("/v1/checks", json={"messages": rows}).json()
    assert (body["allowed"], body["not_run"]) == (allowed, not_run)
    assert (again["allowed"], bool(again["guardrails"]["rails"])) == (
        allowed,
        bool(body["guardrails"]["rails"]),
    )
    assert (body["message"] is None) is (allowed is not False)
    if allowed is False:
        assert any(r["ruling"] == "block" for r in body["guardrails"]["rails"])


def test_a_denied_tool_call_is_not_allowed(tmp_path: Path) -> None:
    yaml = "rails: {tool_output: {flows: [check tool calls]}}\ntruing: {tools: {deny: [f]}}\n"
    calls = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    with _client(tmp_path, RAIL, yaml) as c:
        body = c.post("/v1/checks", json={"messages": [calls]}).json()
    assert (body["allowed"], body["not_run"]) == (False, [])
    assert "not allowed" in body["guardrails"]["rails"][0]["reason"]


def test_a_check_without_messages_is_refused(tmp_path: Path) -> None:
    with _client(tmp_path, RAIL, YAML) as c:
        assert c.post("/v1/checks", json={"messages": []}).status_code == 400


def test_a_rail_that_fails_is_not_allowed(tmp_path: Path) -> None:
    yaml = (
        'prompts: [{task: self_check_input, content: "{{ user_input }}"}]\n'
        "rails: {input: {flows: [self check input]}}\n"
    )
    with _client(tmp_path, RAIL, yaml) as c:
        runtime = c.app.state.chat.router.guarded["bot"].runtime
        runtime.services.model = ScriptedModel("", name="mute")
        body = c.post("/v1/checks", json={"messages": [{"role": "user", "content": "hi"}]}).json()
    assert body["allowed"] is False


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
