"""`on_block=continue`: a blocked call is denied, a blocked result withheld, and the agent goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec import UNSET

from truing.agents import AgentLimits, AgentModel, SimulatedTools
from truing.core.episodes import Episode
from truing.core.errors import PlanError, SpecError
from truing.core.types import Answer, Conversation, Message, Sampling, ToolCall
from truing.models.pool import ModelPool, PoolOptions
from truing.models.scripted import ScriptedModel
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import guard_model
from truing.specs.parser import parse_spec
from truing.specs.resolve import resolve
from truing.worlds import load_world

ASK = Conversation.of("Pay nora 5 euros.")
BANK = SimulatedTools(load_world("bank"))
Script = Callable[[Conversation], Answer]


def _config(folder: Path, rails: dict[str, Any], tools: dict[str, Any] | None = None) -> Path:
    content = {"passthrough": True, "rails": rails, "truing": {"tools": tools or {}}}
    folder.mkdir(exist_ok=True)
    (folder / "config.yml").write_text(yaml.safe_dump(content))
    return folder


def _call(name: str, arguments: str = "{}") -> Answer:
    message = Message("assistant", "", (ToolCall("c", name, arguments),))
    return Answer(message=message, finish_reason="tool_calls")


def _run(
    folder: Path, script: Script, on_block: Any = "continue", limits: AgentLimits | None = None
) -> tuple[Answer, Episode, list[Conversation]]:
    seen: list[Conversation] = []

    def answer(conversation: Conversation, sampling: Sampling) -> Answer:
        seen.append(conversation)
        return script(conversation)

    agent = AgentModel(ScriptedModel(answer), BANK, limits, on_block=on_block)
    guarded = guard_model(agent, RailsConfig.load(folder))
    (final,) = asyncio.run(guarded.generate(ASK, Sampling()))
    assert final.episode is not UNSET
    return final, final.episode, seen


def _deny_list(tmp_path: Path) -> Path:
    rails = {"tool_output": {"flows": ["check tool calls"]}}
    return _config(tmp_path / "rails", rails, {"deny": ["transfer"]})


PAY = '{"account": "giro", "to": "nora", "amount": 5}'


def _pay_then_look(conversation: Conversation) -> Answer:
    results = [m.content for m in conversation.messages if m.role == "tool"]
    if not results:
        return _call("transfer", PAY)
    return _call("list_accounts") if len(results) == 1 else Answer.of("I may not pay.")


def test_a_blocked_call_is_denied_and_the_agent_goes_on(tmp_path: Path) -> None:
    answer, episode, seen = _run(_deny_list(tmp_path), _pay_then_look)
    assert (answer.text, answer.finish_reason) == ("I may not pay.", "stop")
    assert [(call.name, call.status) for call in episode.calls] == [
        ("transfer", "denied"),
        ("list_accounts", "ok"),
    ]
    assert episode.calls[0].result.startswith("denied: ")
    assert episode.changes == (), "nothing of a denied call is executed"
    assert any(ruling.ruling == "block" for ruling in answer.rulings)
    assert seen[1].messages[-1].content == episode.calls[0].result
    assert seen[1].messages[-2].tool_calls[0].arguments == PAY


def test_without_it_the_block_ends_the_episode(tmp_path: Path) -> None:
    answer, episode, _ = _run(_deny_list(tmp_path), _pay_then_look, "end")
    assert (answer.finish_reason, episode.stopped) == ("blocked", "blocked")
    assert [(call.name, call.status) for call in episode.calls] == [("transfer", "denied")]
    assert episode.changes == ()


def test_a_block_names_the_call_that_it_is_about(tmp_path: Path) -> None:
    def script(conversation: Conversation) -> Answer:
        if any(m.role == "tool" for m in conversation.messages):
            return Answer.of("I may not pay.")
        # Models repeat ids, and leave them out; the record has its own.
        calls = (ToolCall("c", "list_accounts", "{}"), ToolCall("d", "transfer", PAY))
        return Answer(message=Message("assistant", "", calls), finish_reason="tool_calls")

    answer, episode, _ = _run(_deny_list(tmp_path), script)
    looked, paid = episode.calls
    assert (looked.status, paid.status) == ("denied", "denied")
    assert "the tool transfer is not allowed here" in paid.result
    assert looked.result == "denied: another call of the same turn is not allowed"
    (block,) = [ruling for ruling in answer.rulings if ruling.ruling == "block"]
    assert (block.stage, block.call_ids) == ("tool_output", (paid.id,))


def test_only_the_result_that_a_rail_objects_to_is_withheld(tmp_path: Path) -> None:
    rails = {"tool_input": {"flows": ["check tool results"]}}
    folder = _config(tmp_path / "rails", rails, {"results": {"max_characters": 150}})

    def script(conversation: Conversation) -> Answer:
        results = [m.content for m in conversation.messages if m.role == "tool"]
        if results:
            return Answer.of(" | ".join(results))
        calls = (ToolCall("", "get_rate", "{}"), ToolCall("", "list_payments", "{}"))
        return Answer(message=Message("assistant", "", calls), finish_reason="tool_calls")

    answer, episode, seen = _run(folder, script)
    short, long = episode.calls
    assert (short.withheld, long.withheld) == (False, True)
    assert short.result in answer.text
    assert long.result not in str(seen)
    (block,) = [ruling for ruling in answer.rulings if ruling.ruling == "block"]
    assert (block.stage, block.call_ids) == ("tool_input", (long.id,))


def test_an_agent_that_insists_ends_at_its_limits(tmp_path: Path) -> None:
    folder = _deny_list(tmp_path)
    limits = AgentLimits(max_turns=4)
    answer, episode, seen = _run(folder, lambda c: _call("transfer", PAY), limits=limits)
    assert (len(seen), episode.stopped) == (4, "turns")
    assert {call.status for call in episode.calls} == {"denied"}
    call_ids = [call.id for call in episode.calls]
    assert len(set(call_ids)) == 4
    # Each ruling names its own call, although the model gave them all one id.
    named = [r.call_ids for r in answer.rulings if r.ruling == "block" and r.stage == "tool_output"]
    assert named == [(call_id,) for call_id in call_ids]
    limits = AgentLimits(max_calls=2)
    answer, episode, seen = _run(folder, lambda c: _call("transfer", PAY), limits=limits)
    assert (answer.finish_reason, len(seen), len(episode.calls)) == ("blocked", 2, 2)


def test_a_blocked_result_is_withheld_and_kept_in_the_record(tmp_path: Path) -> None:
    rails = {"tool_input": {"flows": ["check tool results"]}}
    folder = _config(tmp_path / "rails", rails, {"results": {"max_characters": 150}})

    def script(conversation: Conversation) -> Answer:
        results = [m.content for m in conversation.messages if m.role == "tool"]
        return Answer.of(results[-1]) if results else _call("list_payments")

    answer, episode, seen = _run(folder, script)
    (call,) = episode.calls
    assert (call.status, call.withheld) == ("ok", True)
    shown = [m.content for m in episode.messages() if m.role == "tool"]
    assert shown == ["the result was withheld"]
    assert "amount" in call.result, "the record keeps what the model did not read"
    assert answer.text.startswith("the result was withheld: ")
    assert "amount" not in str(seen)


def test_a_block_of_the_prompt_ends_the_episode(tmp_path: Path) -> None:
    folder = _config(tmp_path / "rails", {"input": {"flows": ["refuse all"]}})
    flow = "define subflow refuse all\n  bot refuse to respond\n  stop\n"
    (folder / "flows.co").write_text(flow)
    answer, episode, seen = _run(folder, _pay_then_look)
    assert (answer.finish_reason, episode.stopped, seen) == ("blocked", "blocked", [])


def test_the_option_of_the_spec(tmp_path: Path) -> None:
    agent = resolve("agent,of=(scripted-agent),on_block=continue", "model")
    assert agent.on_block == "continue"
    assert agent.name.endswith(",on_block=continue")
    assert agent.lineage.hash != resolve("agent,of=(scripted-agent)", "model").lineage.hash
    with pytest.raises(SpecError, match="on_block=stop: end or continue"):
        resolve("agent,of=(scripted-agent),on_block=stop", "model")


def test_a_pool_of_agents_is_refused_behind_rails(tmp_path: Path) -> None:
    pool = ModelPool(parse_spec("agent,of=(scripted-agent)"), PoolOptions(copies=2))
    with pytest.raises(PlanError, match="put the rails directly around the agent"):
        guard_model(pool, _deny_list(tmp_path))
