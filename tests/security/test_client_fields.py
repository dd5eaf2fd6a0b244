"""Every field by which a client's text could reach a model has a decision, and the decisions hold.

A field that is added to one of these types fails the first test until it has one.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from truing.core.types import (
    Answer,
    Conversation,
    Lineage,
    Message,
    Sampling,
    Tool,
    ToolCall,
)
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import GuardedModel
from truing.serve.openai.app import chat_app
from truing.serve.openai.model_router import ModelRouter
from truing.serve.openai.schemas import (
    ChatRequest,
    FunctionSchema,
    GuardrailsRequest,
    ToolSchema,
)

# read: the input stage (or the stage of tool results) reads it before a model sees it.
# own: the runtime puts a text of its own in its place.
# fixed: one of a fixed list of words, true or false, or a number within bounds.
# bounded: a text that no model sees as a text; its length is bounded.
# unseen: goes no further than the server.
# operator: no request can set it.
DECISIONS: dict[type, dict[str, str]] = {
    Message: {"role": "fixed", "content": "read", "tool_calls": "read", "tool_call_id": "own"},
    ToolCall: {"id": "own", "name": "read", "arguments": "read"},
    Tool: {"name": "read", "description": "read", "parameters": "read"},
    Sampling: {
        "n": "fixed",
        "max_tokens": "fixed",
        "temperature": "fixed",
        "top_p": "fixed",
        "seed": "fixed",
        "stop": "bounded",
        "tools": "read",
        "logprobs": "fixed",
        "environment": "operator",
    },
    ChatRequest: {
        "messages": "read",
        "model": "unseen",
        "n": "fixed",
        "max_tokens": "fixed",
        "max_completion_tokens": "fixed",
        "temperature": "fixed",
        "top_p": "fixed",
        "seed": "fixed",
        "stop": "bounded",
        "stream": "fixed",
        "stream_options": "unseen",
        "tools": "read",
        "logprobs": "fixed",
        "top_logprobs": "fixed",
        "guardrails": "read",
    },
    ToolSchema: {"type": "fixed", "function": "read"},
    FunctionSchema: {"name": "read", "description": "read", "parameters": "read"},
    GuardrailsRequest: {
        "config_id": "unseen",
        "config_ids": "unseen",
        "options": "fixed",
        "context": "read",
        "thread_id": "unseen",
        "state": "unseen",
    },
}


@pytest.mark.parametrize("kind", DECISIONS, ids=lambda kind: kind.__name__)
def test_every_field_has_a_decision(kind: type) -> None:
    assert set(DECISIONS[kind]) == {field.name for field in msgspec.structs.fields(kind)}


def test_no_request_sets_the_world_of_an_agent() -> None:
    body = {"messages": [], "environment": {"world": "mail"}}
    assert msgspec.convert(body, ChatRequest).sampling(100).environment is None


MARKER = "FORBIDDEN"
COLANG = 'define subflow keyword\n  if "FORBIDDEN" in $user_message\n    bot refuse to respond\n    stop\n'
# The prompt of the check shows all options of the turn, so that what a client puts there is seen.
YAML = """
passthrough: true
prompts: [{task: self_check_input, content: "CHECK {{ user_input }} {{ generation_options }}"}]
rails: {input: {flows: [keyword, self check input]}}
truing: {client_options: {rails: true, llm_params: {max_tokens: 100}, context: [topic]}}
"""


class SeeingModel:
    """Keeps all that it is given."""

    name = "seeing"
    lineage = Lineage(name="seeing")

    def __init__(self, verdict: str = "No") -> None:
        self.verdict = verdict
        self.seen: list[tuple[Conversation, Sampling]] = []

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        self.seen.append((conversation, sampling))
        is_check = conversation.last.content.startswith("CHECK")
        text = self.verdict if is_check else "fine"
        for stop in sampling.stop:
            text = text.partition(stop)[0]
        return (Answer.of(text),)

    def shows(self, marker: str) -> bool:
        """Returns whether a model was shown the marker, in any field but the stop strings."""
        return any(
            marker in str(conversation) or marker in str(msgspec.structs.replace(sampling, stop=()))
            for conversation, sampling in self.seen
        )


def body_with_marker(place: str) -> dict[str, Any]:
    """Returns a request with the marker at a place (keys and indexes with dots between them)."""
    function = {"name": "look_up", "description": "Looks.", "parameters": {"type": "object"}}
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    body: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "rain", "tool_call_id": "c1"},
            {"role": "user", "content": "so?"},
        ],
        "tools": [{"type": "function", "function": function}],
        "guardrails": {"options": {"log": {}, "rails": {}}, "context": {"topic": "tea"}},
    }
    *path, last = place.split(".")
    target: Any = body
    for key in path:
        target = target[int(key)] if key.isdigit() else target[key]
    if isinstance(target, list):
        target[int(last)] = MARKER
    else:
        target[last] = MARKER
    return body


PLACES = [
    "model",
    "user",
    "metadata",
    "response_format",
    "tool_choice",
    "prediction",
    "stop",
    "messages.0.role",
    "messages.0.content",
    "messages.1.name",
    "messages.2.content",
    "messages.2.refusal",
    "messages.2.tool_calls.0",
    "messages.2.tool_calls.0.id",
    "messages.2.tool_calls.0.type",
    "messages.2.tool_calls.0.function.name",
    "messages.2.tool_calls.0.function.arguments",
    "messages.3.content",
    "messages.3.name",
    "messages.3.tool_call_id",
    "messages.4.content",
    "tools.0.type",
    "tools.0.function.name",
    "tools.0.function.description",
    "tools.0.function.parameters.type",
    "tools.0.function.strict",
    "guardrails.config_id",
    "guardrails.options.log",
    "guardrails.options.log.activated_rails",
    "guardrails.options.log.more",
    "guardrails.options.rails",
    "guardrails.options.rails.input",
    "guardrails.options.llm_params",
    "guardrails.options.more",
    "guardrails.context.topic",
    "guardrails.context.more",
    "guardrails.thread_id",
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("fields") / "bot"
    folder.mkdir()
    (folder / "config.yml").write_text(YAML)
    (folder / "rails.co").write_text(COLANG)
    model = SeeingModel()
    with TestClient(chat_app(ModelRouter(model, {"bot": Path(folder)}))) as client:
        yield client, model


@pytest.mark.parametrize("place", PLACES)
def test_no_field_of_a_request_shows_a_model_what_no_rail_has_read(
    served: tuple[Any, SeeingModel], place: str
) -> None:
    client, model = served
    model.seen.clear()
    for path in ("/v1/chat/completions", "/v1/checks"):
        reply = client.post(path, json=body_with_marker(place))
        assert reply.status_code in (200, 400, 404)
        assert not model.shows(MARKER), (path, place)


def test_the_clients_sampling_is_not_that_of_the_rails() -> None:
    """A stop string that cuts the verdict of a check would otherwise turn it."""
    model = SeeingModel(verdict="No, block it!")
    guarded = GuardedModel(RailsConfig.from_text(YAML, COLANG), model)
    sampling = Sampling(stop=(",",), temperature=2.0, top_p=0.1, max_tokens=1, seed=7)
    answer = asyncio.run(guarded.answer(Conversation.of("hi"), sampling))
    assert answer.finish_reason == "blocked"
    (conversation, used) = model.seen[0]
    assert conversation.last.content.startswith("CHECK")
    assert (used.stop, used.top_p, used.seed) == ((), 1.0, 7)
    assert used.temperature < 0.1
    assert used.max_tokens > 1
