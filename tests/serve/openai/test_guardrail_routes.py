"""LiteLLM's Generic Guardrail API: requests as LiteLLM 1.110 sends them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient
from tests.integrations.hook_rails_folder import REFUSED_INPUT, REFUSED_OUTPUT, write_rails

from truing.models.scripted import ScriptedModel
from truing.serve.openai.app import chat_app
from truing.serve.openai.guardrail_routes import count_held_characters
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter

PATH = "/beta/litellm_basic_guardrail_api"
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "search", "arguments": '{"query": "plums"}'},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = write_rails(tmp_path_factory.mktemp("rails") / "words")
    model = ScriptedModel(lambda conversation, sampling: "fine")
    app = chat_app(
        ModelRouter(model, {"words": folder}),
        keys=["k"],
        limits=ServerLimits(messages=20, message_characters=500),
    )
    with TestClient(app) as test_client:
        test_client.headers["x-api-key"] = "k"
        yield test_client


def ask(client: Any, input_type: str = "request", **fields: Any) -> dict[str, Any]:
    body = {
        "input_type": input_type,
        "request_data": {"user_api_key_hash": "h"},
        "request_headers": {"host": "x"},
        "litellm_version": "1.110.2",
        "litellm_call_id": "1",
        "litellm_trace_id": None,
        "images": None,
        "tools": None,
        "tool_calls": None,
        "structured_messages": None,
        "additional_provider_specific_params": {},
        "model": "gpt",
        **fields,
    }
    response = client.post(PATH, json=body)
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()
    return result


def test_a_request_passes_with_the_decisions(client: Any) -> None:
    result = ask(
        client, texts=["hello"], structured_messages=[{"role": "user", "content": "hello"}]
    )
    assert result["action"] == "NONE" and "texts" not in result
    assert result["guardrails"]["rails"][0]["stage"] == "input"


def test_a_refused_request_has_the_reason_of_the_rail(client: Any) -> None:
    result = ask(client, texts=["FORBIDDEN"])
    assert (result["action"], result["blocked_reason"]) == ("BLOCKED", REFUSED_INPUT)


def test_texts_come_back_rewritten_each_at_its_place(client: Any) -> None:
    rows = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "mail ana@example.org"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "ripe"},
    ]
    texts = ["Be brief.", "mail ana@example.org", "ripe"]
    result = ask(client, texts=texts, structured_messages=rows, tool_calls=[CALL])
    assert result["action"] == "GUARDRAIL_INTERVENED"
    assert result["texts"] == ["Be brief.", "mail <EMAIL_ADDRESS>", "ripe"]


def test_a_tool_result_is_read_by_the_rails_of_results(client: Any) -> None:
    rows = [
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "FORBIDDEN"},
    ]
    result = ask(client, texts=["", "FORBIDDEN"], structured_messages=rows)
    assert result["action"] == "BLOCKED"


def test_texts_without_their_messages_are_the_users(client: Any) -> None:
    rows = [{"role": "assistant", "content": "another text"}]
    result = ask(client, texts=["FORBIDDEN"], structured_messages=rows)
    assert result["blocked_reason"] == REFUSED_INPUT


def test_each_choice_of_a_response_is_an_answer(client: Any) -> None:
    assert ask(client, "response", texts=["fine", "good"])["action"] == "NONE"
    refused = ask(client, "response", texts=["fine", "FORBIDDEN"])
    assert refused["blocked_reason"] == REFUSED_OUTPUT


def test_calls_of_a_response_are_checked(client: Any) -> None:
    assert ask(client, "response", texts=[], tool_calls=[CALL])["action"] == "NONE"
    denied = {"id": "c", "type": "function", "function": {"name": "drop_table", "arguments": "{}"}}
    assert ask(client, "response", texts=["ok"], tool_calls=[denied])["action"] == "BLOCKED"


def test_a_streamed_text_stays_back_whole(client: Any) -> None:
    """What is refused or masked may be a phrase: nothing of it leaves before its end is known."""
    result = ask(client, "response", texts=["write to ana@exam", "one two "])
    assert result["stream_holdback_chars"] == [len("write to ana@exam"), len("one two ")]


def test_with_streams_in_chunks_the_words_of_the_overlap_stay_back(tmp_path: Path) -> None:
    folder = write_rails(tmp_path / "chunks")
    config = folder / "config.yml"
    overlap = "  output: {streaming: {enabled: true, stream_first: false, context_size: 2}, flows:"
    config.write_text(config.read_text().replace("  output: {flows:", overlap))
    app = chat_app(ModelRouter(ScriptedModel("hello"), {"chunks": folder}))
    with TestClient(app) as client:
        result = ask(client, "response", texts=["write to ana soon ", "short"])
    assert result["stream_holdback_chars"] == [len("ana soon "), len("short")]


@pytest.mark.parametrize(
    ("text", "words", "held"),
    [
        ("a b c", 0, 0),
        ("a b c", 1, 1),
        ("a b c ", 2, 4),
        ("a b", 2, 3),
        ("", 3, 0),
        ("ab", None, 2),
    ],
)
def test_the_characters_that_stay_back(text: str, words: int | None, held: int) -> None:
    assert count_held_characters(text, words) == held


def test_without_a_key_of_the_proxy_nothing_is_remembered(client: Any) -> None:
    """Users that nothing tells apart must not vouch for each other's texts."""
    answer: dict[str, Any] = {"input_type": "response", "texts": ["my number is 4"]}
    history: dict[str, Any] = {
        "texts": ["my number is 4", "hi"],
        "structured_messages": [
            {"role": "assistant", "content": "my number is 4"},
            {"role": "user", "content": "hi"},
        ],
    }

    def count_input_rails(key: dict[str, Any]) -> int:
        ask(client, **answer, request_data=key)
        result = ask(client, "request", **history, request_data=key)
        return sum(rail["stage"] == "input" for rail in result["guardrails"]["rails"])

    of_nobody = count_input_rails({})
    of_somebody = count_input_rails({"user_api_key_hash": "a1"})
    assert of_nobody > of_somebody > 0


@pytest.mark.parametrize(
    "fields",
    [
        {"texts": ["look"], "images": ["https://example.org/a.png"]},
        {
            "texts": ["look"],
            "structured_messages": [
                {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "file"}]}
            ],
        },
        {"texts": ["x"], "tool_calls": [{"id": 1}]},
    ],
)
def test_what_no_rail_reads_is_blocked(client: Any, fields: dict[str, Any]) -> None:
    assert ask(client, **fields)["action"] == "BLOCKED"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"input_type": "other", "texts": []}, 400),
        ({"input_type": "request", "texts": "hello"}, 400),
        ({"input_type": "request", "texts": [1]}, 400),
        ({"input_type": "request", "texts": ["x"] * 21}, 400),
        ({"input_type": "request", "texts": ["x" * 501]}, 400),
        (
            {
                "input_type": "request",
                "texts": ["x"],
                "additional_provider_specific_params": {"config_id": 7},
            },
            400,
        ),
        (
            {
                "input_type": "request",
                "texts": ["x"],
                "additional_provider_specific_params": {"config_id": "none"},
            },
            404,
        ),
    ],
)
def test_a_body_of_another_form_is_refused(client: Any, body: Any, status: int) -> None:
    response = client.post(PATH, json=body)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_it_needs_a_key_and_rails(client: Any, tmp_path: Path) -> None:
    body = {"input_type": "request", "texts": ["hello"]}
    assert client.post(PATH, json=body, headers={"x-api-key": "no"}).status_code == 401
    plain = chat_app(ModelRouter(ScriptedModel(lambda conversation, sampling: "fine")))
    with TestClient(plain) as without_rails:
        assert without_rails.post(PATH, json=body).status_code == 404
