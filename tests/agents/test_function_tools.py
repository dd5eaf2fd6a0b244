"""Python functions as tools: schemas from annotations, errors as results, and never a simulated task."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from msgspec import UNSET, Meta

from truing.agents.agent import MAX_NESTED_AGENTS, AgentModel
from truing.agents.episode_run import AgentLimits
from truing.agents.function_tools import FunctionTools
from truing.core.episodes import CallRecord
from truing.core.errors import PlanError, UserError
from truing.core.types import Answer, Conversation, Message, Sampling, ToolCall
from truing.evaluation.evaluate import evaluate, find_real_tools, judge_run
from truing.evaluation.options import EvaluateOptions
from truing.models.pool import ModelPool
from truing.models.scripted import ScriptedModel
from truing.specs.parser import parse_spec
from truing.specs.resolve import resolve


def add(
    a: Annotated[int, Meta(ge=0)], b: int = 1, unit: Literal["m", "cm"] = "m"
) -> dict[str, object]:
    """Adds two lengths.

    What follows is not for the model.
    """
    return {"sum": a + b, "unit": unit}


async def shout(text: str) -> str:
    """Returns a text in capitals."""
    return text.upper()


def fail(text: str) -> str:
    """Fails."""
    raise OSError(f"no {text}")


def hang() -> None:
    """Hangs."""
    time.sleep(5)


TOOLS = FunctionTools([add, shout, fail, hang], allow=["add", "shout", "fail", "hang"])


def _call(name: str, arguments: str) -> CallRecord:
    def script(conversation: Conversation, sampling: Sampling) -> Answer:
        if conversation.last.role == "tool":
            return Answer.of("done")
        return Answer(message=Message("assistant", "", (ToolCall("c", name, arguments),)))

    agent = AgentModel(ScriptedModel(script), TOOLS, AgentLimits(call_timeout=0.2))
    (answer,) = asyncio.run(agent.generate(Conversation.of("Go."), Sampling()))
    assert answer.episode is not UNSET
    return answer.episode.calls[0]


@pytest.mark.parametrize(
    ("name", "arguments", "status", "result"),
    [
        ("add", '{"a": 2}', "ok", '{"sum":3,"unit":"m"}'),
        ("add", '{"a": "2", "b": 5, "unit": "cm"}', "ok", '{"sum":7,"unit":"cm"}'),
        ("add", '{"a": -1}', "invalid", "error: Expected `int` >= 0 - at `$.a`"),
        (
            "add",
            '{"a": 1, "unit": "km"}',
            "invalid",
            "error: Invalid enum value 'km' - at `$.unit`",
        ),
        ("shout", '{"text": "hi"}', "ok", "HI"),
        ("fail", '{"text": "file"}', "error", "error: OSError: no file"),
        ("hang", "{}", "timeout", "error: no result in 0.2 s"),
    ],
)
def test_calls_and_their_results(name: str, arguments: str, status: str, result: str) -> None:
    record = _call(name, arguments)
    assert (record.status, record.result) == (status, result)


def test_the_schema_comes_from_the_annotations() -> None:
    tool = TOOLS.tools[0]
    assert (tool.name, tool.description) == ("add", "Adds two lengths.")
    schema = json.loads(tool.parameters)
    assert schema["required"] == ["a"]
    assert schema["properties"]["unit"]["enum"] == ["cm", "m"]
    assert schema["additionalProperties"] is False


def test_tools_without_allow_list_or_annotations_are_errors() -> None:
    with pytest.raises(UserError, match="real tools need an allow list; there is add"):
        FunctionTools([add], allow=[])
    with pytest.raises(UserError, match="no function 'ad'; did you mean 'add'"):
        FunctionTools([add], allow=["ad"])
    with pytest.raises(UserError, match="the parameter 'x' has no annotation"):
        FunctionTools([lambda x: x], allow=["<lambda>"])


def test_simulated_tasks_and_runs_without_authorisation_are_refused(tmp_path: Path) -> None:
    agent = AgentModel(ScriptedModel("done"), TOOLS)
    judges = [resolve("rules:refusal", "judge")]
    chat = resolve("builtin:support", "data")
    with pytest.raises(PlanError, match="functions are real tools: .*--authorised"):
        evaluate(agent, chat, judges, tmp_path / "a")
    options = EvaluateOptions(authorised="the owner", limit=2)
    run = evaluate(agent, chat, judges, tmp_path / "b", options=options)
    assert run.manifest.notes["authorised"] == "the owner"
    tasks = resolve("builtin:agents,world=mail", "data")
    with pytest.raises(
        UserError, match="is for the simulated world 'mail'; it does not run with real"
    ):
        evaluate(agent, tasks, judges, tmp_path / "c", options=options)


AGENT_SPEC = (
    "agent,of=(scripted:echo),tools=python:truing.core.text:ends_sentence,allow=ends_sentence"
)


class _ThirdPartyWrapper:
    def __init__(self, model: object) -> None:
        self.inner = model


def test_real_tools_are_found_in_pools_judges_and_other_wrappers(tmp_path: Path) -> None:
    pool = ModelPool(parse_spec(f"prompted:hhh,of=({AGENT_SPEC})"))
    prompted = resolve(f"prompted:hhh,of=({AGENT_SPEC})", "model")
    judge = resolve(f"llm:harm,model=({AGENT_SPEC})", "judge")
    for whole in (pool, prompted, judge, _ThirdPartyWrapper(prompted)):
        assert find_real_tools(whole) == "python:truing.core.text:ends_sentence"
    assert find_real_tools(resolve("agent,of=(scripted:echo),tools=mail", "model")) == ""
    chat = resolve("builtin:support", "data")
    with pytest.raises(PlanError, match="are real tools: .*--authorised"):
        evaluate(ScriptedModel("hi"), chat, [judge], tmp_path / "a")
    evaluate(
        ScriptedModel("hi"),
        chat,
        [resolve("rules:refusal", "judge")],
        tmp_path / "b",
        options=EvaluateOptions(limit=1),
    )
    with pytest.raises(PlanError, match="are real tools"):
        judge_run(tmp_path / "b", judge)


def test_the_hash_covers_what_a_function_says_and_does() -> None:
    def build(about: str, factor: int) -> str:
        names: dict[str, Any] = {}
        source = f"def scale(x: int) -> int:\n    {about!r}\n    return x * y{factor}\n"
        exec(source, names)
        return FunctionTools([names["scale"]], allow=["scale"]).hash

    assert build("Scales.", 1) == build("Scales.", 1)
    assert len({build("Scales.", 1), build("Doubles.", 1), build("Scales.", 2)}) == 3


@pytest.mark.parametrize("runs_in_thread", [False, True])
def test_an_agent_that_calls_itself_as_a_tool_ends(runs_in_thread: bool) -> None:
    n_asked = 0

    def call_once(conversation: Conversation, sampling: Sampling) -> Answer:
        nonlocal n_asked
        n_asked += 1
        results = [m.content for m in conversation.messages if m.role == "tool"]
        if results:
            return Answer.of(f"It said: {results[-1]}")
        call = ToolCall("", "ask_agent", '{"question": "and then?"}')
        return Answer(message=Message("assistant", "", (call,)), finish_reason="tool_calls")

    async def generate(question: str) -> str:
        (answer,) = await agent.generate(Conversation.of(question), Sampling())
        return answer.text if answer.failure is None else answer.failure.message

    async def ask_agent(question: str) -> str:
        """Asks the agent."""
        return await generate(question)

    def ask_agent_in_thread(question: str) -> str:
        """Asks the agent."""
        return asyncio.run(generate(question))

    ask_agent_in_thread.__name__ = "ask_agent"
    function = ask_agent_in_thread if runs_in_thread else ask_agent
    agent = AgentModel(ScriptedModel(call_once), FunctionTools([function], allow=["ask_agent"]))
    (answer,) = asyncio.run(agent.generate(Conversation.of("Begin."), Sampling()))
    said = "It said: " * MAX_NESTED_AGENTS
    assert answer.text == f"{said}more than {MAX_NESTED_AGENTS} agents called each other as tools"
    assert n_asked == 2 * MAX_NESTED_AGENTS


def test_an_agent_around_an_agent_is_refused() -> None:
    with pytest.raises(PlanError, match="is an agent already"):
        resolve("agent,of=(prompted:hhh,of=(agent:scripted:echo))", "model")


def test_functions_by_spec() -> None:
    agent = resolve(AGENT_SPEC, "model")
    assert agent.name == "agent:of=(scripted:echo),tools=python:truing.core.text:ends_sentence"
    assert agent.tools.name == "python:truing.core.text:ends_sentence"
    with pytest.raises(UserError, match="real tools need an allow list"):
        resolve(AGENT_SPEC.rsplit(",", 1)[0], "model")


def test_calls_of_a_turn_run_together_each_with_its_own_time_out() -> None:
    started = asyncio.Event()

    async def wait_for_other() -> str:
        """Returns when the other function has begun: one after the other, it never would."""
        await started.wait()
        return "met"

    async def begin_and_hang() -> str:
        """Begins, and never returns."""
        started.set()
        await asyncio.Event().wait()
        return ""

    calls = (ToolCall("1", "wait_for_other"), ToolCall("2", "begin_and_hang"))
    replies = iter([Answer(message=Message("assistant", "", calls)), Answer.of("Done.")])
    tools = FunctionTools(
        [wait_for_other, begin_and_hang], allow=["wait_for_other", "begin_and_hang"]
    )
    agent = AgentModel(
        ScriptedModel(lambda conversation, sampling: next(replies)),
        tools,
        AgentLimits(call_timeout=0.5),
    )
    (answer,) = asyncio.run(agent.generate(Conversation.of("Go."), Sampling()))
    assert answer.episode is not UNSET
    assert [(call.id, call.status) for call in answer.episode.calls] == [
        ("1", "ok"),
        ("2", "timeout"),
    ]
