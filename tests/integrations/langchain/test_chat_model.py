"""`GuardedChatModel` with the real LangChain: what models see, what callers get, streams."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.integrations.hook_rails_folder import REFUSED_INPUT, REFUSED_OUTPUT, write_rails

pytest.importorskip("langchain", reason="runs in `make test-peers`")

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from tests.integrations.langchain.chat_models import ListChatModel, call

from truing.integrations.langchain import GuardedChatModel
from truing.integrations.langchain.turns import ChatRails

CHUNKED = "  streaming: {mode: chunked, chunk_size: 2}\n"


@tool
def search(query: str) -> str:
    """Finds pages."""
    return f"pages about {query}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_rails(tmp_path / "rails")


def guard(folder: Path, *answers: Any, **arguments: Any) -> tuple[Any, ListChatModel]:
    model = ListChatModel(answers=list(answers))
    return GuardedChatModel(model, ChatRails(folder, **arguments)), model


def test_an_answer_comes_with_the_decisions_of_the_rails(folder: Path) -> None:
    guarded, model = guard(folder, "fine")
    answer = guarded.invoke("hello")
    assert (answer.content, answer.response_metadata["finish_reason"]) == ("fine", "stop")
    record = answer.response_metadata["truing"]
    assert record["blocked"] is False
    assert {rail["stage"] for rail in record["rails"]} == {"input", "output"}
    assert model.seen[0][0].content == "hello"


def test_the_model_does_not_see_a_refused_message(folder: Path) -> None:
    guarded, model = guard(folder, "never given")
    answer = guarded.invoke("FORBIDDEN")
    assert (answer.content, model.seen) == (REFUSED_INPUT, [])
    assert answer.response_metadata["finish_reason"] == "content_filter"
    assert answer.response_metadata["truing"]["blocked"] is True


def test_nobody_gets_a_refused_answer_or_the_metadata_that_quote_it(folder: Path) -> None:
    quoted = AIMessage(
        "FORBIDDEN", response_metadata={"logprobs": ["FORBIDDEN"], "model_name": "m"}
    )
    guarded, _ = guard(folder, quoted)
    answer = guarded.invoke("hello")
    assert answer.content == REFUSED_OUTPUT and "FORBIDDEN" not in str(answer)
    assert answer.response_metadata["model_name"] == "m"


def test_rails_rewrite_what_the_model_sees_and_what_it_says(folder: Path) -> None:
    guarded, model = guard(folder, "I wrote to ben@example.org")
    answer = guarded.invoke([SystemMessage("Be brief."), HumanMessage("Mail ana@example.org")])
    assert answer.content == "I wrote to <EMAIL_ADDRESS>"
    assert [m.content for m in model.seen[0]] == ["Be brief.", "Mail <EMAIL_ADDRESS>"]


def test_messages_that_no_rail_changes_reach_the_model_as_they_are(folder: Path) -> None:
    guarded, model = guard(folder, "done")
    called = call("search", {"query": "plums"}, "toolu_01")
    rows = [HumanMessage("find"), called, ToolMessage("ripe", tool_call_id="toolu_01")]
    guarded.invoke(rows)
    assert model.seen[0] == rows and model.seen[0][1] is called


def test_what_no_rail_reads_of_a_message_does_not_reach_the_model(folder: Path) -> None:
    guarded, model = guard(folder, "done")
    reasoning = [{"type": "thinking", "thinking": "UNREAD"}, {"type": "text", "text": "yes"}]
    named = HumanMessage("hi", name="UNREAD", additional_kwargs={"audio": "UNREAD"})
    guarded.invoke([named, AIMessage(reasoning), HumanMessage("hi")])
    assert [m.content for m in model.seen[0]] == ["hi", "yes", "hi"]
    assert "UNREAD" not in str(model.seen)


def test_arguments_of_a_call_are_read_or_refused(folder: Path) -> None:
    guarded, model = guard(folder, "fine")
    definition = {
        "type": "function",
        "function": {"name": "f", "description": "FORBIDDEN", "parameters": {}},
    }
    for arguments in ({"tools": [definition]}, {"functions": [{"name": "f"}]}):
        answer = guarded.bind(**arguments).invoke("hello")
        assert answer.response_metadata["truing"]["blocked"] and model.seen == []
    assert guarded.bind(temperature=0.5).invoke("hello").content == "fine"


def test_a_tool_result_in_the_history_is_read(folder: Path) -> None:
    guarded, model = guard(folder, "done")
    rows = [HumanMessage("find"), call("search", {"query": "plums"})]
    answer = guarded.invoke([*rows, ToolMessage("FORBIDDEN", tool_call_id="call_1")])
    assert answer.response_metadata["truing"]["blocked"] and model.seen == []


def test_calls_of_offered_tools_pass_and_denied_ones_do_not(folder: Path) -> None:
    guarded, model = guard(
        folder, call("search", {"query": "plums"}), call("drop_table", {"name": "users"})
    )
    bound = guarded.bind_tools([search])
    answer = bound.invoke("find plums")
    assert [c["name"] for c in answer.tool_calls] == ["search"] and model.tools == [["search"]]
    refused = bound.invoke("drop it")
    assert refused.tool_calls == [] and refused.response_metadata["truing"]["blocked"]


@pytest.mark.parametrize("part", [{"type": "image_url", "image_url": {"url": "data:x"}}, 7])
def test_what_no_rail_reads_is_blocked_as_unchecked(folder: Path, part: Any) -> None:
    guarded, model = guard(folder, "never given")
    message = HumanMessage.model_construct(content=[{"type": "text", "text": "look"}, part])
    if part == 7:
        message = HumanMessage([{"type": "text", "text": "look"}, {"type": "audio"}])
    answer = guarded.invoke([message])
    assert answer.response_metadata["truing"]["blocked"] and model.seen == []
    parts = list(guarded.stream([message]))
    assert "".join(str(p.content) for p in parts) == answer.content


def test_an_exception_of_the_model_is_raised_as_it_is(folder: Path) -> None:
    guarded, _ = guard(folder, TimeoutError("late"))
    with pytest.raises(TimeoutError, match="late"):
        guarded.invoke("hello")


def test_a_rail_that_fails_blocks(tmp_path: Path) -> None:
    folder = write_rails(tmp_path / "rails")
    (folder / "rails.co").write_text(
        "define subflow no forbidden input\n  $x = execute no_such_action\n\n"
        "define subflow no forbidden output\n  pass\n\ndefine subflow no forbidden result\n  pass\n"
    )
    guarded, model = guard(folder, "never given")
    answer = guarded.invoke("hello")
    assert answer.response_metadata["truing"]["blocked"] and model.seen == []


def test_reasoning_is_left_out_unless_it_is_asked_for(folder: Path) -> None:
    parts = [{"type": "thinking", "thinking": "unread"}, {"type": "text", "text": "fine"}]
    guarded, _ = guard(folder, AIMessage(parts))
    assert guarded.invoke("hello").content == "fine"
    keeping, _ = guard(folder, AIMessage(parts), keep_reasoning=True)
    assert keeping.invoke("hello").content == parts


def test_it_is_a_runnable_of_a_chain(folder: Path) -> None:
    guarded, _ = guard(folder, "fine", "FORBIDDEN")
    chain = ChatPromptTemplate.from_template("Say {word}") | guarded | StrOutputParser()
    assert chain.invoke({"word": "hello"}) == "fine"
    assert asyncio.run(chain.ainvoke({"word": "hello"})) == REFUSED_OUTPUT


@pytest.mark.parametrize("more", ["", CHUNKED])
def test_a_stream_holds_nothing_that_the_rails_refuse(tmp_path: Path, more: str) -> None:
    folder = write_rails(tmp_path / "rails", more=more)
    text = "one two three four FORBIDDEN six seven"
    guarded, _ = guard(folder, text, text)
    shown = "".join(str(part.content) for part in guarded.stream("hello"))
    assert "FORBIDDEN" not in shown and shown.endswith(REFUSED_OUTPUT)
    assert ("one" in shown) is bool(more)  # hold is the default

    async def read() -> str:
        return "".join([str(part.content) async for part in guarded.astream("hello")])

    assert asyncio.run(read()) == shown


@pytest.mark.parametrize("more", ["", CHUNKED])
def test_events_show_no_token_of_the_model_inside(tmp_path: Path, more: str) -> None:
    folder = write_rails(tmp_path / "rails", more=more)
    guarded, _ = guard(folder, "one two FORBIDDEN four")

    async def read() -> list[Any]:
        return [event async for event in guarded.astream_events("hello", version="v2")]

    events = asyncio.run(read())
    assert "FORBIDDEN" not in str(events)
    assert {event["name"] for event in events} == {"GuardedChatModel"}


def test_a_stream_ends_with_calls_and_decisions(folder: Path) -> None:
    guarded, _ = guard(folder, call("search", {"query": "plums"}))
    parts = list(guarded.bind_tools([search]).stream("find plums"))
    whole = parts[0]
    for part in parts[1:]:
        whole += part
    assert whole.tool_calls[0]["args"] == {"query": "plums"}
    assert whole.response_metadata["truing"]["rails"]
