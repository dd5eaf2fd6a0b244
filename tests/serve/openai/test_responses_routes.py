"""/v1/responses with OpenAI's own client against a live server: text, tools, streams, threads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import openai
import pytest
from hypothesis import strategies as st
from litestar.testing import TestClient
from tests.integrations.hook_rails_folder import REFUSED_INPUT, REFUSED_OUTPUT, write_rails
from tests.serve.openai.live import free_port, running_server

from truing.core.types import Answer, Conversation, Message, Sampling, ToolCall
from truing.models.scripted import ScriptedModel
from truing.serve.openai.app import chat_app, keep_threads
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.memory_threads import MemoryThreads
from truing.serve.openai.model_router import ModelRouter

SEEN: list[Conversation] = []
SEARCH = {
    "type": "function",
    "name": "search",
    "description": "Finds pages.",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
}
LIMITS = ServerLimits(messages=20, message_characters=2_000, tools=4, max_tokens=50)


def reply(conversation: Conversation, sampling: Sampling) -> Answer | str:
    SEEN.append(conversation)
    prompt = conversation.prompt
    if conversation.last.role == "tool":
        return f"found: {conversation.last.content}"
    if "find" in prompt and sampling.tools:
        call = ToolCall("call_7", "search", '{"query": "plums"}')
        return Answer(message=Message("assistant", "", (call,)), finish_reason="tool_calls")
    if "fail" in prompt:
        return Answer.failed("http", "503: the upstream is down")
    return {"bad": "one FORBIDDEN two", "mail": "to ana@example.org"}.get(prompt, f"you: {prompt}")


def make_app(folder: Path, *, threads: bool = True) -> Any:
    app = chat_app(
        ModelRouter(ScriptedModel(reply), {"words": folder}), keys=["k", "other"], limits=LIMITS
    )
    if threads:
        keep_threads(app, MemoryThreads())
    return app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rails(tmp_path_factory.mktemp("rails") / "words")


@pytest.fixture(scope="module")
def base_url(folder: Path) -> Iterator[str]:
    port = free_port()
    with running_server(make_app(folder), port, LIMITS):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    SEEN.clear()
    with openai.OpenAI(base_url=base_url, api_key="k", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[Any]:
    with TestClient(make_app(folder, threads=False)) as test_client:
        test_client.headers["authorization"] = "Bearer k"
        yield test_client


def test_a_text_is_answered_behind_the_rails(client: openai.OpenAI) -> None:
    log = {"options": {"log": {"activated_rails": True}}}
    response = client.responses.create(
        model="m", input="hello", instructions="Be brief.", extra_body={"guardrails": log}
    )
    assert (response.status, response.output_text) == ("completed", "you: hello")
    assert response.id.startswith("resp_") and response.model == "m"
    rails = response.model_extra["guardrails"]["rails"]
    assert {rail["stage"] for rail in rails} == {"input", "output"}
    assert "Be brief." in [message.content for message in SEEN[0].messages]


@pytest.mark.parametrize(("text", "shown"), [("FORBIDDEN", REFUSED_INPUT), ("bad", REFUSED_OUTPUT)])
def test_a_blocked_turn_is_incomplete_with_the_refusal(
    client: openai.OpenAI, text: str, shown: str
) -> None:
    response = client.responses.create(model="m", input=text)
    assert response.status == "incomplete" and response.incomplete_details is not None
    assert response.incomplete_details.reason == "content_filter"
    assert response.output_text == shown


def test_tools_are_called_and_their_results_read(client: openai.OpenAI) -> None:
    items: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": "find plums"}]}]
    first = client.responses.create(model="m", input=items, tools=[SEARCH])
    call = first.output[0]
    assert call.type == "function_call" and json.loads(call.arguments) == {"query": "plums"}
    items += [item.model_dump() for item in first.output]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "ripe"}
    done = client.responses.create(model="m", input=[*items, output], tools=[SEARCH])
    assert done.output_text == "found: ripe"
    refused = client.responses.create(
        model="m", input=[*items, {**output, "output": "FORBIDDEN"}], tools=[SEARCH]
    )
    assert refused.status == "incomplete" and "FORBIDDEN" not in refused.output_text


def test_a_response_goes_on_after_another_of_the_same_key(
    client: openai.OpenAI, base_url: str
) -> None:
    first = client.responses.create(model="m", input="hello", instructions="Be brief.")
    SEEN.clear()
    second = client.responses.create(model="m", input="go on", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    texts = [message.content for message in SEEN[0].messages]
    assert texts[-3:] == ["hello", "you: hello", "go on"] and "Be brief." not in texts
    unstored = client.responses.create(model="m", input="hello", store=False)
    with openai.OpenAI(base_url=base_url, api_key="other", max_retries=0) as stranger:
        for asking, known in ((stranger, first), (client, unstored)):
            with pytest.raises(openai.BadRequestError, match="no such response") as caught:
                asking.responses.create(model="m", input="x", previous_response_id=known.id)
            assert caught.value.param == "previous_response_id"


@pytest.mark.parametrize("stream", [False, True])
def test_a_stored_response_is_read_again_and_deleted_by_its_key_alone(
    client: openai.OpenAI, base_url: str, stream: bool
) -> None:
    if stream:
        events = list(client.responses.create(model="m", input="hello", stream=True))
        response: Any = events[-1].response  # type: ignore[union-attr]
    else:
        response = client.responses.create(model="m", input="hello")
    again = client.responses.retrieve(response.id)
    assert again.to_dict() == response.to_dict()
    with openai.OpenAI(base_url=base_url, api_key="other", max_retries=0) as other:
        for call in (other.responses.retrieve, other.responses.delete):
            with pytest.raises(openai.NotFoundError):
                call(response.id)
    client.responses.delete(response.id)
    for call in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            call(response.id)
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(model="m", input="and?", previous_response_id=response.id)


def test_a_thread_of_the_chat_route_is_no_response(folder: Path) -> None:
    app = chat_app(ModelRouter(ScriptedModel(reply), {"response": folder}), limits=LIMITS)
    keep_threads(app, MemoryThreads())
    thread_id = "thread_of_the_chat_route"
    with TestClient(app) as client:
        body = {
            "messages": [{"role": "user", "content": "hello"}],
            "guardrails": {"config_id": "response", "thread_id": thread_id},
        }
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        assert client.get(f"/v1/responses/{thread_id}").status_code == 404
        assert client.delete(f"/v1/responses/{thread_id}").status_code == 404
        again = {"input": "hello", "previous_response_id": thread_id}
        assert client.post("/v1/responses", json=again).status_code == 400


def test_what_is_not_stored_is_not_found(plain: Any, client: openai.OpenAI) -> None:
    response = client.responses.create(model="m", input="hello", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    # This server has no store at all.
    for method in (plain.get, plain.delete):
        assert "--threads" in method("/v1/responses/resp_1").json()["error"]["message"]
    assert client.responses.with_raw_response.create(model="m", input="x").status_code == 200


def test_variables_stay_with_the_conversation(tmp_path: Path) -> None:
    folder = write_rails(
        tmp_path / "notes", more="  client_options: {context: [note], output_vars: [note]}\n"
    )
    app = chat_app(ModelRouter(ScriptedModel("fine"), {"notes": folder}))
    keep_threads(app, MemoryThreads())
    with TestClient(app) as client:

        def read_note(
            fields: Any, earlier: str | None = None, **guardrails: Any
        ) -> tuple[str, Any]:
            asked = {**guardrails, "options": {"output_vars": True}}
            body = {"input": fields, "previous_response_id": earlier, "guardrails": asked}
            response = client.post("/v1/responses", json=body).json()
            return response["id"], response["guardrails"]["output_data"]["note"]

        first, note = read_note("hello", context={"note": "Ana"})
        assert note == "Ana"
        second, note = read_note("and?", first)
        assert note == "Ana"
        by_role = [{"role": "context", "content": {"note": "Bo"}}, {"role": "user", "content": "?"}]
        _, note = read_note(by_role, second)
        assert note == "Bo"
        wrong = {"input": [{"role": "context", "content": "Bo"}]}
        error = client.post("/v1/responses", json=wrong).json()["error"]
    assert error["param"] == "input[0].content" and "name" in error["message"]


def test_a_stream_has_the_events_of_the_api(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="m", input="hello there", stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "you: hello there" == events[-1].response.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_stream_shows_nothing_that_is_refused(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="m", input="bad", stream=True))
    assert events[-1].type == "response.incomplete" and "FORBIDDEN" not in str(events)
    assert events[-1].response.output_text == REFUSED_OUTPUT
    with client.responses.stream(model="m", input="mail") as stream:
        assert stream.get_final_response().output_text == "to <EMAIL_ADDRESS>"


def test_calls_and_failures_stream_too(client: openai.OpenAI) -> None:
    with client.responses.stream(model="m", input="find plums", tools=[SEARCH]) as stream:
        kinds = [event.type for event in stream]
        output = stream.get_final_response().output
    assert "response.function_call_arguments.done" in kinds
    assert [item.type for item in output] == ["function_call"]
    events = list(client.responses.create(model="m", input="fail", stream=True))
    assert events[-1].type == "error" and events[-1].code == "upstream_error"
    with pytest.raises(openai.InternalServerError):
        client.responses.create(model="m", input="fail")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": "x" * 2_001}, "input[0].content"),
        ({"input": [{"role": "root", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, None),
        ({"input": [{"role": "user", "content": "x"}] * 21}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "call_id": "c"}]}, "input[0]"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"instructions": "x" * 2_001}, "instructions"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [SEARCH] * 5}, "tools"),
        ({"tools": [{**SEARCH, "name": "n" * 300}]}, "tools[0].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"previous_response_id": "resp_x"}, "previous_response_id"),
        ({"guardrails": {"thread_id": "t" * 20}}, "guardrails.thread_id"),
        ({"guardrails": {"config_id": "none"}}, "guardrails.config_id"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"model": "m" * 300}, "model"),
    ],
)
def test_what_is_wrong_or_not_supported_is_named(
    plain: Any, fields: dict[str, Any], param: str | None
) -> None:
    response = plain.post("/v1/responses", json={"input": "hello", **fields})
    assert response.status_code in (400, 404), response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert param is None or error["param"] == param, error


def test_the_fault_of_an_earlier_response_or_item_is_named_by_its_place(plain: Any) -> None:
    items = [
        {"role": "user", "content": "x"},
        {"type": "reasoning"},
        {"role": "user", "content": {"text": "y"}},
    ]
    response = plain.post("/v1/responses", json={"input": items, "instructions": "Be brief."})
    assert response.json()["error"]["param"] == "input[2].content"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)
_FIELDS = (
    *("input", "instructions", "tools", "tool_choice", "stream", "store", "text", "metadata"),
    *("previous_response_id", "max_output_tokens", "temperature", "top_p", "guardrails", "model"),
)
_ITEM_FIELDS = ("type", "role", "content", "call_id", "output", "name", "arguments")
_TYPES = st.sampled_from(["message", "function_call", "function_call_output", "reasoning"])
_ITEMS = st.lists(
    st.dictionaries(st.sampled_from(_ITEM_FIELDS), _JSON | _TYPES, max_size=5), max_size=3
)


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=4), st.none() | _JSON | _ITEMS
)
def test_no_body_is_a_fault_of_the_server(plain: Any, fields: dict[str, Any], items: Any) -> None:
    body = {"input": "hello", **fields, **({} if items is None else {"input": items})}
    response = plain.post("/v1/responses", content=json.dumps(body))
    assert response.status_code < 500 or response.status_code in (502, 504), body
    if response.status_code >= 400:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
