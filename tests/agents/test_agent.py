"""The loop of an agent: calls are executed and recorded, and whatever the model does ends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from truing.agents import AgentLimits, AgentModel, SimulatedTools, ToolResult
from truing.core.episodes import Environment, Episode, StateChange
from truing.core.errors import SpecError, UserError
from truing.core.ids import stream_seed
from truing.core.text_calls import read_text_calls
from truing.core.types import (
    Answer,
    Conversation,
    Message,
    Ruling,
    Sampling,
    Tool,
    ToolCall,
    Usage,
)
from truing.models.scripted import ScriptedModel
from truing.specs.resolve import resolve
from truing.worlds import load_world

ASK = Conversation.of("Which accounts are there?")
BANK = SimulatedTools(load_world("bank"))
Script = Callable[[int, Conversation], Answer]


def _calls(*calls: tuple[str, str], text: str = "") -> Answer:
    tool_calls = tuple(
        ToolCall(f"c{i}", name, arguments) for i, (name, arguments) in enumerate(calls)
    )
    return Answer(
        message=Message("assistant", text, tool_calls),
        finish_reason="tool_calls",
        usage=Usage(10, 5),
    )


def _run(script: Script, limits: AgentLimits | None = None, tools: object = BANK) -> Answer:
    turn = iter(range(1_000_000))
    model = ScriptedModel(lambda conversation, sampling: script(next(turn), conversation))
    agent = AgentModel(model, tools, limits)  # type: ignore[arg-type]
    (answer,) = asyncio.run(agent.generate(ASK, Sampling()))
    return answer


def _episode(answer: Answer) -> Episode:
    assert answer.episode is not UNSET
    return answer.episode


def test_calls_are_executed_in_order_and_recorded() -> None:
    def script(turn: int, conversation: Conversation) -> Answer:
        if turn:
            assert [m.role for m in conversation.messages[-3:]] == ["assistant", "tool", "tool"]
            return Answer.of(conversation.last.content[:8])
        pay = '{"account": "giro", "to": "nora", "amount": 50}'
        return _calls(("transfer", pay), ("list_accounts", "{}"), text="Let me pay.")

    answer = _run(script)
    episode = _episode(answer)
    assert answer.text == '[{"id":"'
    assert answer.finish_reason == "stop"
    assert [(c.name, c.status) for c in episode.calls] == [
        ("transfer", "ok"),
        ("list_accounts", "ok"),
    ]
    assert "1800.0" in episode.calls[1].result
    assert [change.table for change in episode.changes] == ["accounts", "transfers"]
    assert (episode.world, episode.stopped) == ("bank", "answered")
    assert [m.role for m in episode.messages()] == ["assistant", "tool", "tool", "assistant"]
    assert answer.usage.completion_tokens == 5


@pytest.mark.parametrize(
    ("call", "status", "result"),
    [
        (("transfer", "{"), "invalid", "no JSON"),
        (("transfer", "[" * 50_000), "invalid", "Expected `object`"),
        (("transfer", '{"account": "x"}'), "invalid", "missing required field"),
        (("cancel_standing_order", '{"id": "s9"}'), "error", "no such standing order"),
        (("make_coffee", "{}"), "unknown", "no tool 'make_coffee'"),
        (("", "{}"), "unknown", "no tool ''"),
    ],
)
def test_a_bad_call_is_answered_with_an_error(
    call: tuple[str, str], status: str, result: str
) -> None:
    answer = _run(lambda turn, _: Answer.of("sorry") if turn else _calls(call))
    (record,) = _episode(answer).calls
    assert record.status == status
    assert record.result.startswith("error: ")
    assert any(part in record.result for part in result.split("|"))
    assert _episode(answer).changes == ()


@pytest.mark.parametrize(
    ("limits", "stopped", "n_calls"),
    [
        (AgentLimits(max_turns=3), "turns", 6),
        (AgentLimits(max_calls=5), "calls", 6),
        (AgentLimits(max_tokens=11), "tokens", 6),
    ],
)
def test_an_agent_that_never_stops_is_stopped(
    limits: AgentLimits, stopped: str, n_calls: int
) -> None:
    endless = _run(lambda *_: _calls(("list_accounts", "{}"), ("list_payees", "{}")), limits)
    episode = _episode(endless)
    assert (endless.finish_reason, episode.stopped, len(episode.calls)) == (
        "length",
        stopped,
        n_calls,
    )
    assert endless.failure is None
    n_beyond = sum(call.status == "limit" for call in episode.calls)
    assert n_beyond == (1 if stopped == "calls" else 0)


class _SlowTools:
    """Tools outside of any world: one that hangs, one that returns ten million characters."""

    is_parallel = False

    name, hash = "slow", ""
    tools = (Tool("hang"), Tool("flood"))
    world = ("", "")

    async def start(self, environment: Environment | None) -> _SlowTools:
        return self

    async def call(self, name: str, arguments: str) -> ToolResult:
        if name == "hang":
            await asyncio.sleep(60)
        return ToolResult("ok", "x" * 10_000_000)

    def checks(self, answer: str) -> dict[str, bool]:
        return {}

    def changes(self) -> tuple[StateChange, ...]:
        return ()

    async def close(self) -> None: ...


def test_a_tool_that_hangs_and_one_that_floods_are_bounded() -> None:
    limits = AgentLimits(call_timeout=0.05, max_result=100)
    answer = _run(
        lambda turn, _: Answer.of("ok") if turn else _calls(("hang", ""), ("flood", "")),
        limits,
        _SlowTools(),
    )
    hung, flooded = _episode(answer).calls
    assert (hung.status, hung.result) == ("timeout", "error: no result in 0.05 s")
    assert (flooded.status, flooded.cut) == ("ok", 10_000_000)
    assert len(flooded.result) < 150


def test_a_model_that_fails_or_floods_ends_the_episode_with_what_it_did() -> None:
    first = _calls(("cancel_standing_order", '{"id": "s1"}'))
    failed = _run(lambda turn, _: Answer.failed("timeout", "gone") if turn else first)
    assert failed.failure is not None
    assert failed.failure.transient
    assert [c.row for c in _episode(failed).changes] == ["s1"]
    flood = _run(lambda turn, _: _calls(("list_accounts", "x" * 200_000)))
    assert flood.failure is not None
    assert flood.failure.kind == "too_large"


def test_a_blocked_answer_ends_the_episode_and_keeps_the_rulings() -> None:
    ruling = Ruling(name="check tool calls", stage="tool_output", ruling="block")
    blocked = Answer(
        message=Message("assistant", "No."), finish_reason="blocked", rulings=(ruling,)
    )
    answer = _run(lambda turn, _: blocked if turn else _calls(("list_payees", "{}")))
    assert (answer.finish_reason, answer.rulings) == ("blocked", (ruling,))
    assert _episode(answer).stopped == "blocked"


def test_calls_in_the_text_are_read() -> None:
    text = (
        'Yes.\n<tool_call>\n{"name": "list_accounts", "arguments": {}}\n</tool_call><tool_call>oops'
    )
    answer = _run(lambda turn, _: Answer.of("Two.") if turn else Answer.of(text))
    episode = _episode(answer)
    assert [(c.name, c.status) for c in episode.calls] == [("list_accounts", "ok"), ("", "unknown")]
    assert episode.turns[0].text == "Yes."


def test_calls_in_texts_of_any_size_are_read_in_linear_time_and_none_is_lost() -> None:
    many = "<tool_call>{}</tool_call>" * 70 + "end"
    message = read_text_calls(Message("assistant", many))
    assert len(message.tool_calls) == 65
    assert message.tool_calls[-1].arguments.count("{}") == 6
    assert message.content == "end"
    # A quadratic reader does not end.
    hostile = "<tool_call>" + " \n" * 2_000_000 + "x"
    assert read_text_calls(Message("assistant", hostile)).tool_calls[0].arguments == "x"


def test_too_long_a_text_is_not_searched_for_calls() -> None:
    text = "<tool_call>{}</tool_call>" * 10
    answer = _run(lambda turn, _: Answer.of(text), AgentLimits(max_text=100))
    assert answer.failure is not None
    assert answer.failure.kind == "too_large"
    assert not _episode(answer).calls


def test_an_episode_that_raises_ends_the_others() -> None:
    ended = []

    async def generate() -> None:
        async def script(conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
            if sampling.seed == stream_seed(0, 0):
                raise UserError("stop")
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(sampling.seed)
            return (Answer.of("late"),)

        model = ScriptedModel("x")
        model.generate = script  # type: ignore[method-assign]
        await AgentModel(model, BANK).generate(ASK, Sampling(n=3, seed=0))

    with pytest.raises(UserError, match="stop"):
        asyncio.run(generate())
    assert len(ended) == 2


def test_the_name_states_tools_and_limits() -> None:
    model = ScriptedModel("x")
    names = [
        AgentModel(model).name,
        AgentModel(model, BANK, AgentLimits(max_turns=3)).name,
        resolve("agent,of=(scripted:echo),max_text=50", "model").name,
    ]
    assert names[0] == f"agent:of=({model.name})"
    assert names[1] == f"agent:of=({model.name}),tools=bank,max_turns=3"
    assert names[2] == "agent:of=(scripted:echo),max_text=50"


def test_ids_that_a_model_repeats_do_not_meet_our_own() -> None:
    def script(turn: int, conversation: Conversation) -> Answer:
        calls = (ToolCall(i, "list_accounts", "{}") for i in ("call_1", "call_1", "call_2", ""))
        return Answer.of("Done.") if turn == 2 else _ask(*calls)

    ids = [call.id for call in _episode(_run(script)).calls]
    assert len(ids) == len(set(ids)) == 8


def _ask(*calls: ToolCall) -> Answer:
    return Answer(message=Message("assistant", "", calls), finish_reason="tool_calls")


def test_ids_of_calls_are_made_unique() -> None:
    two = Message("assistant", "", (ToolCall("", "list_payees"), ToolCall("", "list_payees")))
    turns = [Answer(message=two), Answer(message=two), Answer.of("done")]
    answer = _run(lambda turn, _: turns[turn])
    ids = [call.id for call in _episode(answer).calls]
    assert len(set(ids)) == 4


def test_several_answers_have_worlds_of_their_own() -> None:
    model = ScriptedModel(
        lambda conversation, _: (
            Answer.of("done")
            if conversation.last.role == "tool"
            else _calls(("cancel_standing_order", '{"id": "s1"}'))
        )
    )
    answers = asyncio.run(AgentModel(model, BANK).generate(ASK, Sampling(n=3)))
    assert [[c.row for c in _episode(a).changes] for a in answers] == [["s1"]] * 3


def test_without_tools_the_agent_answers_as_its_model() -> None:
    agent = AgentModel(ScriptedModel(lambda _, sampling: str((sampling.seed, sampling.tools))))
    (answer,) = asyncio.run(agent.generate(ASK, Sampling(seed=7)))
    assert answer.text == "(7, ())"


def test_specs_of_agents() -> None:
    agent = resolve("agent,of=(scripted:echo),tools=mail,max_turns=3", "model")
    assert isinstance(agent, AgentModel)
    assert agent.name == "agent:of=(scripted:echo),tools=mail,max_turns=3"
    named = resolve("agent:scripted:echo", "model")
    assert named.name == "agent:of=(scripted:echo)"
    assert named.lineage.hash != agent.lineage.hash
    for spec, fault in [
        ("agent", "of=(...) is missing"),
        ("agent:scripted:echo,of=(scripted:echo)", "the model stands twice"),
        ("agent:scripted:echo,max_turns=0", "max_turns: above 0"),
        ("agent:scripted:echo,tools=mial", "did you mean 'mail'"),
        ("agent:scripted:echo,turns=3", "unknown argument 'turns'"),
    ]:
        with pytest.raises(UserError, match=re.escape(fault)):
            resolve(spec, "model")
    with pytest.raises(SpecError, match="solve: a share, from 0 to 1"):
        resolve("scripted-agent,solve=2", "model")


_TEXTS = st.text('{}[]":ä ', max_size=20) | st.sampled_from(
    ["{}", "[", '{"id": "s1"}', "<tool_call>", "null"]
)
_NAMES = st.sampled_from(["list_accounts", "cancel_standing_order", "transfer", "no", ""])
_TURNS = st.lists(
    st.tuples(_TEXTS, st.lists(st.tuples(_NAMES, _TEXTS), max_size=3)), min_size=1, max_size=6
)


@settings(max_examples=50, deadline=None)
@given(_TURNS)
def test_whatever_a_model_writes_ends_and_is_recorded(
    turns: list[tuple[str, list[tuple[str, str]]]],
) -> None:
    def script(turn: int, conversation: Conversation) -> Answer:
        text, calls = turns[turn % len(turns)]
        return _calls(*calls, text=text)

    answer = _run(script, AgentLimits(max_turns=8, max_calls=10))
    episode = _episode(answer)
    assert len(episode.turns) <= 8
    assert sum(call.status != "limit" for call in episode.calls) <= 10
    answered = {m.tool_call_id for m in episode.messages() if m.role == "tool"}
    asked = {c.id for m in episode.messages() for c in m.tool_calls}
    assert answered == asked
