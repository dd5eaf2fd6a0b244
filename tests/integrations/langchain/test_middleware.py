"""`RailsMiddleware` in real agents of LangChain, which are graphs of LangGraph."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.integrations.hook_rails_folder import REFUSED_INPUT, REFUSED_RESULT, write_rails

pytest.importorskip("langchain", reason="runs in `make test-peers`")

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from tests.integrations.langchain.chat_models import ListChatModel, call

from truing.integrations.langchain import RailsMiddleware
from truing.integrations.langchain.middleware import BypassedRails
from truing.integrations.langchain.turns import call_digest
from truing.rails.runtime.app import RuntimeParts

RUN: list[str] = []
ASK = """
  ask_timeout: 0.2
"""


@tool
def search(query: str) -> str:
    """Finds pages."""
    RUN.append(query)
    return {"bad": "FORBIDDEN", "mail": "ana@example.org"}.get(query, f"pages about {query}")


@tool(return_direct=True)
def lookup(query: str) -> str:
    """Finds a page; its result goes to the user."""
    return "FORBIDDEN"


@tool
def note(query: str) -> Any:
    """Notes a query in the state."""
    return Command(update={"messages": [ToolMessage("FORBIDDEN", tool_call_id="call_1")]})


@tool(return_direct=True)
def quote(query: str) -> str:
    """Finds an answer that only output rails object to."""
    return "mail ana@example.org"


@tool
def answer(query: str) -> Any:
    """Answers in the place of the model."""
    rows = [ToolMessage("fine", tool_call_id="call_1"), AIMessage("FORBIDDEN")]
    return Command(update={"messages": rows})


@pytest.fixture(autouse=True)
def _forget() -> None:
    RUN.clear()


def agent(folder: Path, *answers: Any, first: Any = (), last: Any = (), **arguments: Any) -> Any:
    rails = RailsMiddleware(folder, **arguments)
    return create_agent(
        ListChatModel(answers=list(answers)),
        [search, lookup, note, quote, answer],
        middleware=[*first, rails, *last],
        checkpointer=InMemorySaver(),
    )


def run(built: Any, text: str, *, sync: bool = True) -> list[Any]:
    state = {"messages": [("user", text)]}
    config = {"configurable": {"thread_id": "t1"}}
    result = built.invoke(state, config) if sync else asyncio.run(built.ainvoke(state, config))
    return list(result["messages"])


@pytest.mark.parametrize("sync", [True, False])
def test_an_agent_calls_a_tool_and_answers(tmp_path: Path, sync: bool) -> None:
    seen: list[Any] = []
    built = agent(
        write_rails(tmp_path / "r"),
        call("search", {"query": "plums"}),
        "They are ripe.",
        on_rulings=seen.extend,
    )
    messages = run(built, "find plums", sync=sync)
    assert [m.content for m in messages][2:] == ["pages about plums", "They are ripe."]
    assert {ruling.stage for ruling in seen} == {"input", "output", "tool_input", "tool_output"}


@pytest.mark.parametrize("sync", [True, False])
def test_a_refused_message_ends_the_run(tmp_path: Path, sync: bool) -> None:
    messages = run(agent(write_rails(tmp_path / "r")), "FORBIDDEN", sync=sync)
    assert messages[-1].content == REFUSED_INPUT


def test_a_denied_call_never_runs(tmp_path: Path) -> None:
    messages = run(agent(write_rails(tmp_path / "r"), call("search", {"query": "q" * 41})), "find")
    assert RUN == [] and messages[-1].response_metadata["truing"]["blocked"]


@pytest.mark.parametrize("sync", [True, False])
def test_a_refused_result_reaches_neither_model_nor_user(tmp_path: Path, sync: bool) -> None:
    built = agent(write_rails(tmp_path / "r"), call("search", {"query": "bad"}), "I could not.")
    messages = run(built, "find", sync=sync)
    assert RUN == ["bad"] and "FORBIDDEN" not in str(messages)
    assert (messages[2].content, messages[2].status) == (REFUSED_RESULT, "error")


@pytest.mark.parametrize("name", ["lookup", "note"])
def test_results_that_go_to_the_user_or_in_a_command_are_read(tmp_path: Path, name: str) -> None:
    built = agent(write_rails(tmp_path / "r"), call(name, {"query": "x"}), "I could not.")
    messages = run(built, "find")
    assert "FORBIDDEN" not in str(messages) and REFUSED_RESULT in [m.content for m in messages]


def test_a_result_that_is_the_answer_goes_through_the_output_rails(tmp_path: Path) -> None:
    messages = run(agent(write_rails(tmp_path / "r"), call("quote", {"query": "x"})), "find")
    assert messages[-1].content == "mail <EMAIL_ADDRESS>"


def test_a_tool_cannot_answer_in_the_place_of_the_model(tmp_path: Path) -> None:
    built = agent(write_rails(tmp_path / "r"), call("answer", {"query": "x"}), "I could not.")
    messages = run(built, "find")
    assert "FORBIDDEN" not in str(messages) and messages[2].status == "error"


def test_a_call_that_has_passed_runs_once(tmp_path: Path) -> None:
    rails = RailsMiddleware(write_rails(tmp_path / "r")).rails
    rails._remember(call_digest("t", "search", "{}", "1"))
    row = {"name": "search", "args": {}, "id": "1"}
    assert [rails.take_passed_call("t", row) for _ in range(2)] == [True, False]


@pytest.mark.parametrize("more", ["", "  streaming: {mode: chunked, chunk_size: 2}\n"])
def test_a_stream_of_the_graph_holds_nothing_that_is_refused(tmp_path: Path, more: str) -> None:
    built = agent(write_rails(tmp_path / "r", more=more), "one two three FORBIDDEN five six")
    state, config = {"messages": [("user", "hello")]}, {"configurable": {"thread_id": "t1"}}
    modes = ["messages", "updates", "values"]
    shown = str(list(built.stream(state, config, stream_mode=modes)))
    assert "FORBIDDEN" not in shown and "I can't say that." in shown


class _EditCalls(AgentMiddleware):
    """Changes the arguments of each call after the model's turn."""

    def after_model(self, state: Any, runtime: Any) -> Any:
        newest = state["messages"][-1]
        if not newest.tool_calls:
            return None
        calls = [{**c, "args": {"query": "e" * 50}} for c in newest.tool_calls]
        return {"messages": [newest.model_copy(update={"tool_calls": calls})]}


def test_a_call_that_was_edited_after_the_turn_is_read_again(tmp_path: Path) -> None:
    built = agent(
        write_rails(tmp_path / "r"), call("search", {"query": "x"}), "no", first=[_EditCalls()]
    )
    messages = run(built, "find")
    assert RUN == [] and next(m for m in messages if isinstance(m, ToolMessage)).status == "error"


class _OtherModel(AgentMiddleware):
    """Puts another model in the place of the agent's."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(model=ListChatModel(answers=["FORBIDDEN"])))


def test_a_model_that_another_middleware_puts_in_is_not_let_through(tmp_path: Path) -> None:
    folder = write_rails(tmp_path / "r")
    with pytest.raises(BypassedRails, match="last"):
        run(agent(folder, "fine", last=[_OtherModel()]), "hello")
    messages = run(agent(folder, "fine", first=[_OtherModel()]), "hello")
    assert "FORBIDDEN" not in str(messages)


def test_an_answer_cannot_claim_to_have_passed(tmp_path: Path) -> None:
    rails = RailsMiddleware(write_rails(tmp_path / "r")).rails
    assert not rails.has_answered(AIMessage("x", response_metadata={"truing": {"turn": "guess"}}))


def test_a_person_is_asked_once_about_a_call(tmp_path: Path) -> None:
    folder = write_rails(tmp_path / "r")
    config = (folder / "config.yml").read_text()
    (folder / "config.yml").write_text(
        config.replace("[check tool calls]", "[check tool calls, ask a person]")
    )
    asked: list[str] = []

    async def ask(name: str, arguments: str) -> bool:
        asked.append(name)
        return True

    parts = RuntimeParts(ask_person=ask)
    built = agent(folder, call("search", {"query": "plums"}), "done", parts=parts)
    assert run(built, "find")[-1].content == "done"
    assert (asked, RUN) == (["search"], ["plums"])
