"""`RunnableRails` with the real LangChain: models, chains, forms of input, streams."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.integrations.hook_rails_folder import REFUSED_INPUT, REFUSED_OUTPUT, write_rails

pytest.importorskip("langchain", reason="runs in `make test-peers`")

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from tests.integrations.langchain.chat_models import ListChatModel, call

from truing.integrations.nemo import RailsConfig
from truing.integrations.nemo.runnable_rails import RunnableRails


@tool
def search(query: str) -> str:
    """Finds pages."""
    return f"pages about {query}"


@pytest.fixture
def config(tmp_path: Path) -> RailsConfig:
    return RailsConfig.from_path(write_rails(tmp_path / "rails"))


def test_rails_around_a_model_in_a_chain(config: RailsConfig) -> None:
    model = ListChatModel(answers=["fine", "FORBIDDEN"])
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "{question}")])
    chain = prompt | (RunnableRails(config) | model) | StrOutputParser()
    assert chain.invoke({"question": "write to a@b.org"}) == "fine"
    assert [message.type for message in model.seen[0]] == ["system", "human"]
    assert "a@b.org" not in model.seen[0][1].content
    assert chain.invoke({"question": "hi"}) == REFUSED_OUTPUT
    assert chain.invoke({"question": "FORBIDDEN"}) == REFUSED_INPUT
    assert len(model.seen) == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hi", "fine"),
        (HumanMessage("hi"), AIMessage("fine")),
        ([HumanMessage("hi")], AIMessage("fine")),
        ({"input": "hi"}, {"output": "fine"}),
        ({"input": [{"role": "user", "content": "hi"}]}, {"output": {"role": "assistant"}}),
        ({"input": HumanMessage("hi")}, {"output": AIMessage("fine")}),
    ],
)
def test_the_answer_has_the_form_of_the_input(
    config: RailsConfig, value: Any, expected: Any
) -> None:
    rails = RunnableRails(config, llm=ListChatModel(answers=["fine"]))
    answer = rails.invoke(value)
    parts = [(answer, expected)]
    if isinstance(expected, dict):
        assert set(answer) == {"output"}
        parts = [(answer["output"], expected["output"])]
    for part, wanted in parts:
        assert type(part) is type(wanted)
        text = part["content"] if isinstance(part, dict) else getattr(part, "content", part)
        assert text == "fine"


@pytest.mark.parametrize("value", [3, {}, {"other": "x"}, [], {"input": "x", "context": "y"}])
def test_other_forms_are_refused(config: RailsConfig, value: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        RunnableRails(config, llm=ListChatModel(answers=["fine"])).invoke(value)


def test_a_model_with_tools_keeps_its_calls(config: RailsConfig) -> None:
    class BindingModel(ListChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self.bind(
                tools=[{"type": "function", "function": {"name": t.name}} for t in tools]
            )

    model = BindingModel(answers=[call("search", {"query": "x"}), call("drop_table", {})])
    rails = RunnableRails(config) | model.bind_tools([search])
    assert rails.invoke([HumanMessage("find x")]).tool_calls[0]["name"] == "search"
    assert rails.invoke([HumanMessage("drop it")]).tool_calls == []


def test_a_chain_gets_what_the_input_rails_left(config: RailsConfig) -> None:
    seen: list[Any] = []

    def answer(value: dict[str, Any]) -> dict[str, Any]:
        seen.append(value)
        return {"output": f"about {value['input']}", "sources": [1]}

    rails = RunnableRails(config) | RunnableLambda(answer)
    assert rails.invoke({"input": "hi", "user": 7}) == {"output": "about hi", "sources": [1]}
    assert rails.invoke({"input": "FORBIDDEN"}) == {"output": REFUSED_INPUT}
    rails.invoke({"input": "write a@b.org"})
    assert seen[0] == {"input": "hi", "user": 7}
    assert len(seen) == 2 and "a@b.org" not in seen[1]["input"]


def test_a_chain_of_texts_and_one_that_raises(config: RailsConfig) -> None:
    rails = RunnableRails(config, runnable=RunnableLambda(lambda text: text.replace("x", "y")))
    assert rails.invoke("x") == "y"

    def fail(text: str) -> str:
        raise KeyError("of the chain")

    with pytest.raises(KeyError, match="of the chain"):
        RunnableRails(config, runnable=RunnableLambda(fail)).invoke("x")


def test_what_is_streamed_has_passed(config: RailsConfig) -> None:
    rails = RunnableRails(config) | ListChatModel(answers=["a b c", "well FORBIDDEN word"])

    async def collect() -> str:
        return "".join([chunk async for chunk in rails.astream("hi")])

    assert asyncio.run(collect()).split() == ["a", "b", "c"]
    assert "".join(rails.stream("hi")) == REFUSED_OUTPUT


def test_without_a_model(config: RailsConfig) -> None:
    with pytest.raises(ValueError, match="has no model"):
        RunnableRails(config).invoke("hi")
