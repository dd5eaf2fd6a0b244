"""The bounds of a decoded request: each is refused with its field, and what is within passes."""

from __future__ import annotations

from typing import Any

import pytest
from litestar.testing import TestClient

from truing.models.scripted import ScriptedModel
from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.app import chat_app
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter
from truing.serve.openai.request_checks import check_moderation_request, read_chat_request
from truing.serve.openai.schemas import ChatRequest, GuardrailsRequest, ModerationRequest

LIMITS = ServerLimits(
    messages=3,
    message_characters=20,
    name_characters=5,
    tools=2,
    tool_bytes=300,
    stop_strings=2,
    stop_characters=4,
    moderation_texts=2,
    max_tokens=10,
    choices=4,
)
USER = {"role": "user", "content": "hi"}


def call(name: str = "f", call_id: str = "1", arguments: str = "{}") -> dict[str, Any]:
    """An assistant message with a tool call."""
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"id": call_id, "function": function}]}


def tool(name: str = "f", **more: Any) -> dict[str, Any]:
    """A tool of a request."""
    return {"type": "function", "function": {"name": name, **more}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [USER] * 4}, "messages"),
        ({"messages": [USER, {"role": "user", "content": "x" * 21}]}, "messages[1].content"),
        ({"messages": [call(arguments="x" * 21)]}, "messages[0].content"),
        ({"messages": [call(name="x" * 6)]}, "messages[0].tool_calls[0].function.name"),
        ({"messages": [call(call_id="x" * 6)]}, "messages[0].tool_calls[0].id"),
        ({"messages": [{**USER, "tool_call_id": "x" * 6}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "tool", "content": {}}]}, "messages[0].content"),
        ({"messages": [USER], "model": "x" * 6}, "model"),
        ({"messages": [USER], "stop": ["a"] * 3}, "stop"),
        ({"messages": [USER], "stop": "x" * 5}, "stop"),
        ({"messages": [USER], "tools": [tool()] * 3}, "tools"),
        ({"messages": [USER], "tools": [tool("x" * 6)]}, "tools[0].function.name"),
        ({"messages": [USER], "tools": [tool(description="x" * 300)]}, "tools"),
        ({"messages": [USER], "tools": [{**tool(), "type": "web"}]}, "tools[0].type"),
        ({"messages": [USER], "guardrails": {"config_id": "x" * 6}}, "guardrails.config_id"),
        ({"messages": [USER], "n": 33}, "n"),
        ({"messages": [USER], "n": 5}, "n"),
        ({"messages": [USER], "guardrails": {"config_ids": ["x" * 6]}}, "guardrails.config_ids"),
        ({"messages": [USER], "n": 2, "stream": True}, "n"),
        ({"messages": [USER], "temperature": "warm"}, "temperature"),
    ],
)
def test_a_field_beyond_its_bound_is_400_and_named(fields: dict[str, Any], param: str) -> None:
    with TestClient(chat_app(ModelRouter(ScriptedModel("fine")), limits=LIMITS)) as client:
        response = client.post("/v1/chat/completions", json=fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert len(error["message"]) < 200


def test_what_is_within_the_bounds_passes() -> None:
    request = ChatRequest(
        [{"role": "user", "content": "x" * 20}, call("x" * 5, "x" * 5, "x" * 20), USER],
        model="x" * 5,
        stop=["x" * 4, "y"],
        guardrails=GuardrailsRequest("x" * 5),
    )
    conversation, sampling = read_chat_request(request, LIMITS)
    assert len(conversation.messages) == 3 and sampling.stop == ("xxxx", "y")


@pytest.mark.parametrize(
    ("asked", "tokens"), [({}, 10), ({"max_tokens": 4}, 4), ({"max_tokens": 100_000}, 10)]
)
def test_the_operators_tokens_are_an_upper_bound(asked: dict[str, int], tokens: int) -> None:
    assert read_chat_request(ChatRequest([USER], **asked), LIMITS)[1].max_tokens == tokens


def test_moderation_texts_are_bounded() -> None:
    assert check_moderation_request(ModerationRequest("x"), LIMITS) == ["x"]
    for wrong in ([], ["x"] * 3, ["x", "y" * 21]):
        with pytest.raises(RequestRefused, match="input"):
            check_moderation_request(ModerationRequest(wrong), LIMITS)


@pytest.mark.parametrize("field", ServerLimits.__struct_fields__)
def test_a_limit_is_positive(field: str) -> None:
    for value in (-1, float("nan")):
        with pytest.raises(ValueError, match=field):
            ServerLimits(**{field: value})
    if field in ("per_minute", "waiting"):
        assert getattr(ServerLimits(**{field: 0}), field) == 0
    else:
        with pytest.raises(ValueError, match=field):
            ServerLimits(**{field: 0})
