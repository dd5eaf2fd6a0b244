"""Programs written for NeMo Guardrails, with the import changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from truing.core.errors import PlanError
from truing.core.types import Conversation, Sampling, Tool
from truing.integrations.nemo.llm_rails import LangChainModel, LLMRails
from truing.integrations.nemo.rails_config import RailsConfig
from truing.integrations.nemo.responses import GenerationOptions, GenerationResponse
from truing.models.scripted import ScriptedModel
from truing.rails.config.generation_options import OptionsError
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.embeddings import LexicalEncoder

COLANG = """
define subflow no secrets
  if "secret" in $user_message
    bot refuse to respond
    stop

define user ask time
  "what time is it"

define flow
  user ask time
  $time = execute read clock(zone=$zone)
  bot tell time

define bot tell time
  "It is {{ time }}."
"""
YAML = """
rails:
  input: {flows: [no secrets]}
  dialog: {user_messages: {embeddings_only: true, embeddings_only_similarity_threshold: 0.9}}
"""


def make_rails(llm: Any = None, yaml: str = YAML, colang: str = COLANG) -> LLMRails:
    config = RailsConfig.from_content(colang, yaml)
    parts = RuntimeParts(encoder=LexicalEncoder())
    rails = LLMRails(config, llm=llm or ScriptedModel("Hello."), parts=parts)
    return rails.register_action(_read_clock, "read clock")


async def _read_clock(zone: str | None = None, offset: int = 0) -> str:
    return f"{9 + offset} in {zone}"


def test_a_prompt_gives_a_text_and_messages_give_a_message() -> None:
    rails = make_rails(yaml="models: []", colang="")
    assert rails.generate(prompt="hi") == "Hello."
    messages = [{"role": "user", "content": "hi"}]
    assert rails.generate(messages=messages) == {"role": "assistant", "content": "Hello."}
    assert rails.explain().llm_calls[0].completion == "Hello."


def test_context_actions_and_their_parameters() -> None:
    rails = make_rails().register_action_param("offset", 2)
    messages = [
        {"role": "context", "content": {"zone": "Rome"}},
        {"role": "user", "content": "what time is it"},
    ]
    response = rails.generate(
        messages=messages,
        options={"output_vars": ["time"], "log": {"activated_rails": True, "llm_calls": True}},
    )
    assert isinstance(response, GenerationResponse)
    assert response.response == [{"role": "assistant", "content": "It is 11 in Rome."}]
    assert response.output_data == {"time": "11 in Rome"}
    assert response.log is not None and response.log["llm_calls"] == []
    rail = response.log["activated_rails"][-1]
    assert (rail["type"], rail["name"], rail["stop"]) == ("input", "no secrets", False)
    assert "bot tell time" in rails.explain().colang_history


def test_a_blocked_turn_refuses() -> None:
    rails = make_rails()
    response = rails.generate(prompt="a secret", options={})
    assert isinstance(response, GenerationResponse)
    assert response.response == "I'm sorry, I can't respond to that."
    assert response.rulings[-1].ruling == "block"
    assert rails.check([{"role": "user", "content": "a secret"}]).allowed is False
    assert rails.check([{"role": "user", "content": "hello"}]).allowed is True


def test_a_state_goes_on() -> None:
    rails = make_rails(yaml="models: []", colang="")
    first = rails.generate(prompt="one", state={})
    assert isinstance(first, GenerationResponse)
    second = rails.generate(prompt="two", state=first.state)
    assert isinstance(second, GenerationResponse) and second.state is not None
    assert [row["content"] for row in second.state["messages"]] == [
        "one",
        "Hello.",
        "two",
        "Hello.",
    ]


def test_streams_and_async() -> None:
    async def run() -> tuple[str, Any]:
        rails = make_rails(yaml="models: []", colang="")
        chunks = [chunk async for chunk in rails.stream_async(prompt="hi")]
        with pytest.raises(RuntimeError, match="await generate_async"):
            rails.generate(prompt="hi")
        return "".join(chunks), await rails.generate_async(prompt="hi")

    assert asyncio.run(run()) == ("Hello.", "Hello.")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, "give prompt or messages"),
        ({"prompt": "a", "messages": []}, "give prompt or messages"),
        ({"prompt": "a", "state": {"events": []}}, "state: expected"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        make_rails().generate(**arguments)


def test_wrong_options() -> None:
    with pytest.raises(OptionsError, match="options.log: expected"):
        make_rails().generate(prompt="hi", options={"log": True})
    with pytest.raises(PlanError, match="no model of type main"):
        LLMRails(RailsConfig.from_content("", YAML.replace("no secrets", "")))


class LangChainLike:
    """Has the method that truing calls of a LangChain chat model."""

    async def ainvoke(self, rows: list[tuple[str, str]], **options: Any) -> Any:
        if rows[-1][1] == "fail":
            raise TimeoutError("too slow")
        return f"{rows[-1][0]} said {rows[-1][1]}"


def test_a_langchain_model_answers() -> None:
    rails = make_rails(LangChainLike(), yaml="models: []", colang="")
    assert rails.generate(prompt="hi") == "user said hi"
    with pytest.raises(ConnectionError, match="too slow"):
        rails.generate(prompt="fail")


@pytest.mark.parametrize(
    ("reply", "text", "failure"),
    [
        (SimpleNamespace(content="hi"), "hi", None),
        (
            SimpleNamespace(
                content=[
                    "a",
                    {"type": "text", "text": "b"},
                    {"type": "reasoning", "reasoning": "r"},
                ]
            ),
            "ab",
            None,
        ),
        (SimpleNamespace(content=""), "", None),
        (SimpleNamespace(content=[]), "", None),
        (SimpleNamespace(content=[{"type": "image_url"}]), "", "model"),
        (SimpleNamespace(content=[3]), "", "model"),
        (None, "", "model"),
        (SimpleNamespace(content="", tool_calls=[{"name": "pay"}]), "", "unsupported"),
    ],
)
def test_langchain_answers_are_texts_or_failures(
    reply: Any, text: str, failure: str | None
) -> None:
    class Replying:
        async def ainvoke(self, rows: list[tuple[str, str]], **options: Any) -> Any:
            return reply

    model = LangChainModel(Replying())
    (answer,) = asyncio.run(model.generate(Conversation.of("hi"), Sampling()))
    assert answer.text == text
    assert (answer.failure.kind if answer.failure else None) == failure


def test_tools_are_not_passed_to_langchain() -> None:
    model = LangChainModel(LangChainLike())
    sampling = Sampling(tools=(Tool("pay", "Pays.", "{}"),))
    (answer,) = asyncio.run(model.generate(Conversation.of("hi"), sampling))
    assert answer.failure is not None
    assert answer.failure.kind == "unsupported"


CONFIG_PY = """
from nemoguardrails import LLMRails, RailsConfig
from nemoguardrails.actions import action


async def read_clock(zone=None):
    return "noon"


def init(app: LLMRails):
    app.register_action(read_clock, "read clock")
"""


def test_code_of_a_folder_runs_unchanged_where_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(YAML)
    (tmp_path / "rails.co").write_text(COLANG)
    (tmp_path / "config.py").write_text(CONFIG_PY)
    with pytest.raises(PlanError, match="config.py:1: Python code"):
        LLMRails(RailsConfig.from_path(tmp_path), llm=ScriptedModel("x"))
    config = RailsConfig.from_path(tmp_path, trust_code=True)
    parts = RuntimeParts(encoder=LexicalEncoder())
    rails = LLMRails(config, llm=ScriptedModel("x"), parts=parts)
    assert rails.generate(prompt="what time is it") == "It is noon."
    (tmp_path / "config.py").write_text("def init(app):\n    raise KeyError('x')\n")
    with pytest.raises(PlanError, match="config.py:2: KeyError"):
        LLMRails(RailsConfig.from_path(tmp_path, trust_code=True), llm=ScriptedModel("x"))


def test_configurations_add_up() -> None:
    first = RailsConfig.from_content("", "rails: {input: {flows: [a]}}")
    second = RailsConfig.from_content("", config={"rails": {"input": {"flows": ["b"]}}})
    assert (first + second).rails.input.flows == ["b", "a"]


def test_the_log_has_the_attributes_of_nemo(capsys: pytest.CaptureFixture[str]) -> None:
    rails = make_rails()
    options = GenerationOptions(log={"activated_rails": True, "llm_calls": True})
    response = rails.generate(prompt="a secret", options=options)
    assert isinstance(response, GenerationResponse) and response.log is not None
    (rail,) = response.log.activated_rails
    assert (rail.type, rail.name, rail.stop) == ("input", "no secrets", True)
    assert response.log.stats.llm_calls_count == 0 and response.log.llm_calls == []
    assert response.log.colang_history is None  # not asked for
    with pytest.raises(AttributeError, match="activated_reals"):
        _ = response.log.activated_reals
    response.log.print_summary()
    assert "input: no secrets: block" in capsys.readouterr().out
    assert response.model_dump()["log"]["activated_rails"][0]["name"] == "no secrets"


def test_options_may_be_an_object_of_pydantic() -> None:
    class Options:
        def model_dump(self, exclude_unset: bool) -> dict[str, Any]:
            assert exclude_unset
            return {"log": {"activated_rails": True}}

    response = make_rails().generate(prompt="a secret", options=Options())
    assert isinstance(response, GenerationResponse) and response.log is not None
    assert response.log.activated_rails[0].name == "no secrets"


def test_events_go_in_and_out_with_their_uid() -> None:
    rails = make_rails(yaml=YAML + "event_source_uid: bot-1\n")
    question = {"type": "UtteranceUserActionFinished", "uid": "event-1"}
    events = rails.generate_events([{**question, "final_transcript": "a secret"}])
    (said,) = [event for event in events if event["type"] == "StartUtteranceBotAction"]
    assert said["script"] == "I'm sorry, I can't respond to that."
    assert len({event["uid"] for event in events}) == len(events) > 1
    assert {event["source_uid"] for event in events} == {"bot-1"}
    assert all(event["event_created_at"] for event in events)
    context = {"type": "ContextUpdate", "data": {"zone": "Rome"}}
    produced, state = rails.process_events([context], None)
    asked = {**question, "final_transcript": "what time is it"}
    produced, state = rails.process_events([asked], state)
    texts = [event["script"] for event in produced if event["type"] == "StartUtteranceBotAction"]
    assert texts == ["It is 9 in Rome."]
    assert state["events"][0]["type"] == "ContextUpdate"


def test_the_model_can_be_replaced_and_a_stream_continues_a_state() -> None:
    rails = make_rails(yaml="models: []", colang="")
    first = rails.generate(prompt="one", state={})
    assert isinstance(first, GenerationResponse)
    before = rails.guarded.lineage
    rails.update_llm("scripted:echo")
    assert rails.guarded.model.name in rails.guarded.name == rails.guarded.lineage.name
    assert rails.guarded.lineage.hash != before.hash
    assert rails.generate(prompt="two") == "two"

    async def run() -> list[Any]:
        stream = rails.stream_async(
            prompt="three", state=first.state, include_generation_metadata=True
        )
        return [chunk async for chunk in stream]

    chunks = asyncio.run(run())
    assert "".join(chunk["text"] for chunk in chunks) == "three"
    assert all(chunk["generation_info"] == {} for chunk in chunks)


def test_a_filter_is_refused_with_what_to_do() -> None:
    with pytest.raises(PlanError, match=r"register_filter\('shout'\): .*register_prompt_context"):
        make_rails().register_filter(str.upper, "shout")


def test_the_public_names_of_nemo_are_there() -> None:
    """The methods of LLMRails in nemoguardrails 0.17.0."""
    names = (
        *("generate", "generate_async", "generate_events", "generate_events_async", "stream_async"),
        *("process_events", "process_events_async", "explain", "update_llm", "register_action"),
        *("register_action_param", "register_filter", "register_output_parser"),
        *("register_prompt_context", "register_embedding_search_provider"),
        "register_embedding_provider",
    )
    assert [name for name in names if not callable(getattr(LLMRails, name, None))] == []
