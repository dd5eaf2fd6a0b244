"""`AgentRails` with the real OpenAI Agents SDK: agents, tools, handoffs, streams, tripwires."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.integrations.hook_rails_folder import (
    REFUSED_INPUT,
    REFUSED_OUTPUT,
    REFUSED_RESULT,
    write_rails,
)

pytest.importorskip("agents", reason="runs in `make test-peers`")

from agents.testing import ScriptedModel, assistant_message, function_call

from agents import (
    Agent,
    InputGuardrailTripwireTriggered,
    OutputGuardrailTripwireTriggered,
    RunConfig,
    Runner,
    function_tool,
    handoff,
    set_tracing_disabled,
    trace,
)
from truing.core.types import Message, ToolCall
from truing.integrations.openai_agents import AgentRails, RailsModel
from truing.integrations.openai_agents.passed_items import PassedItems
from truing.rails.runtime.app import RuntimeParts

set_tracing_disabled(True)
RAN: list[str] = []


@function_tool
def search(query: str) -> str:
    """Finds pages."""
    RAN.append(query)
    return {"bad": "FORBIDDEN", "mail": "ana@example.org"}.get(query, f"pages about {query}")


@pytest.fixture
def rails(tmp_path: Path) -> AgentRails:
    RAN.clear()
    return AgentRails(write_rails(tmp_path / "rails"))


def say(text: str) -> Any:
    return [assistant_message(text)]


def call(query: str, name: str = "search") -> Any:
    return [function_call(name, {"query": query}, call_id=f"call_{query}"[:60])]


def agent(*steps: Any, **fields: Any) -> tuple[Any, ScriptedModel]:
    model = ScriptedModel(list(steps))
    return Agent(
        name="shop", instructions="Be brief.", model=model, tools=[search], **fields
    ), model


def run(guarded: Any, text: Any, **arguments: Any) -> Any:
    return asyncio.run(Runner.run(guarded, text, **arguments))


def test_an_agent_calls_a_tool_and_answers(rails: AgentRails) -> None:
    seen: list[Any] = []
    rails.on_rulings = seen.extend
    inner, model = agent(call("plums"), say("They are ripe."))
    result = run(rails.guard(inner), "find plums")
    assert (result.final_output, RAN) == ("They are ripe.", ["plums"])
    assert {ruling.stage for ruling in seen} == {"input", "output", "tool_input", "tool_output"}
    assert model.first_call.system_instructions == "Be brief."


def test_a_refused_message_does_not_reach_the_model(rails: AgentRails) -> None:
    inner, model = agent(say("never given"))
    assert run(rails.guard(inner), "FORBIDDEN").final_output == REFUSED_INPUT
    assert model.calls == ()


def test_a_refused_answer_is_replaced_and_texts_are_rewritten(rails: AgentRails) -> None:
    inner, model = agent(say("FORBIDDEN"), say("to ben@example.org"))
    guarded = rails.guard(inner)
    assert run(guarded, "hello").final_output == REFUSED_OUTPUT
    assert run(guarded, "mail ana@example.org").final_output == "to <EMAIL_ADDRESS>"
    assert "ana@" not in str(model.last_call.input)


def test_a_denied_call_never_runs(rails: AgentRails) -> None:
    inner, _ = agent(call("q" * 41))
    result = run(rails.guard(inner), "find")
    assert RAN == [] and "won't do that" in result.final_output


def test_a_refused_or_rewritten_result_reaches_the_model_as_the_rails_leave_it(
    rails: AgentRails,
) -> None:
    inner, model = agent(call("bad"), say("I could not."))
    assert run(rails.guard(inner), "find").final_output == "I could not."
    assert RAN == ["bad"] and REFUSED_RESULT in str(model.last_call.input)
    assert "FORBIDDEN" not in str(model.last_call.input)


def test_a_stream_shows_nothing_that_is_refused(rails: AgentRails) -> None:
    inner, _ = agent(say("one FORBIDDEN two"), say("to ben@example.org"), say("fine"))
    guarded = rails.guard(inner)

    async def read(text: str) -> tuple[str, Any]:
        result = Runner.run_streamed(guarded, text)
        events = [event async for event in result.stream_events()]
        return str(events), result.final_output

    shown, output = asyncio.run(read("hello"))
    assert "FORBIDDEN" not in shown and output == REFUSED_OUTPUT
    shown, output = asyncio.run(read("hello again"))
    assert "ben@" not in shown and output == "to <EMAIL_ADDRESS>"
    assert asyncio.run(read("and again"))[1] == "fine"
    shown, output = asyncio.run(read("FORBIDDEN"))
    assert output == REFUSED_INPUT


def test_images_are_blocked_as_unchecked(rails: AgentRails) -> None:
    inner, model = agent(say("never given"))
    parts = [{"type": "input_image", "image_url": "data:x", "detail": "auto"}]
    run(rails.guard(inner), [{"role": "user", "content": parts}])
    assert model.calls == ()


def test_agents_that_are_handed_over_to_are_guarded(rails: AgentRails) -> None:
    other, _ = agent(say("FORBIDDEN"))
    other.name = "other"
    first, _ = agent([function_call("transfer_to_other", {}, call_id="h1")], handoffs=[other])
    assert run(rails.guard(first), "hello").final_output == REFUSED_OUTPUT


def test_handoffs_of_the_usual_form_are_guarded_and_others_refused(rails: AgentRails) -> None:
    other, _ = agent(say("FORBIDDEN"))
    other.name = "other"
    call_other = [function_call("transfer_to_other", {}, call_id="h1")]
    first, _ = agent(call_other, handoffs=[handoff(other)])
    assert run(rails.guard(first), "hello").final_output == REFUSED_OUTPUT
    with pytest.raises(TypeError, match="handoff"):
        rails.guard(agent(handoffs=["other"])[0])
    with pytest.raises(TypeError, match="without rails"):
        rails.guard_tools([other.as_tool("ask", "Asks.")])


def test_items_that_no_rail_reads_do_not_reach_the_model(rails: AgentRails) -> None:
    inner, model = agent(say("never given"))
    screenshot = {"type": "computer_screenshot", "image_url": "data:image/png;base64,AAAA"}
    unread = {"type": "computer_call_output", "call_id": "c", "output": screenshot}
    run(rails.guard(inner), [{"role": "user", "content": "hi"}, unread])
    assert model.calls == ()


def test_reasoning_of_a_client_is_dropped_and_an_answer_of_its_own_is_read(
    rails: AgentRails,
) -> None:
    inner, model = agent(say("fine"), say("never given"))
    reasoning = {"type": "reasoning", "id": "r", "summary": [{"type": "s", "text": "UNREAD"}]}
    user = {"role": "user", "content": "hi", "name": "UNREAD"}
    run(rails.guard(inner), [reasoning, user])
    assert "UNREAD" not in str(model.last_call.input)
    prefill = {"role": "assistant", "content": "FORBIDDEN"}
    assert run(rails.guard(inner), [user, prefill]).final_output == REFUSED_INPUT
    assert len(model.calls) == 1


def test_a_stream_releases_only_what_its_checked_response_holds(rails: AgentRails) -> None:
    model = RailsModel(ScriptedModel([say("never given")]), rails)

    async def release(kind: str) -> str:
        response = SimpleNamespace(output=[assistant_message("one"), assistant_message("two")])
        response.model_copy = lambda update: SimpleNamespace(**update)
        end = SimpleNamespace(type=kind, response=response)
        end.model_copy = lambda update: SimpleNamespace(type=kind, **update)
        return str(await model._release((), end, ()))

    assert "'two'" in asyncio.run(release("response.completed"))
    assert "'two'" not in asyncio.run(release("response.failed"))


def test_texts_that_are_split_over_items_are_read_as_one(rails: AgentRails) -> None:
    inner, _ = agent([assistant_message("one FORB"), assistant_message("IDDEN two")])
    assert run(rails.guard(inner), "hello").final_output == REFUSED_OUTPUT


def test_a_result_that_is_the_answer_goes_through_the_output_rails(rails: AgentRails) -> None:
    inner, _ = agent(call("mail"), tool_use_behavior="stop_on_first_tool")
    with pytest.raises(OutputGuardrailTripwireTriggered):
        run(rails.guard(inner), "find")
    inner, _ = agent(call("plums"), tool_use_behavior="stop_on_first_tool")
    assert run(rails.guard(inner), "find").final_output == "pages about plums"


def test_runs_share_nothing_and_a_call_runs_once() -> None:
    passed = PassedItems()
    told = ToolCall("call_0", "transfer", "{}")
    with trace("one", disabled=True):
        passed.remember_message(Message("assistant", "yes", (told,)))
        assert passed.holds_answer("yes")
        assert [passed.take_call(told) for _ in range(2)] == [True, False]
        passed.remember_message(Message("assistant", "", (told,)))
    with trace("two", disabled=True):
        assert not passed.holds_answer("yes") and not passed.take_call(told)


def test_a_model_of_the_run_does_not_get_around_the_rails(rails: AgentRails) -> None:
    inner, _ = agent(say("fine"))
    config = RunConfig(model=ScriptedModel([say("unread")]))
    with pytest.raises(OutputGuardrailTripwireTriggered):
        run(rails.guard(inner), "hello", run_config=config)


def test_the_guardrails_raise_tripwires_by_themselves(rails: AgentRails) -> None:
    guards = {
        "input_guardrails": [rails.input_guardrail],
        "output_guardrails": [rails.output_guardrail],
    }
    inner, model = agent(say("FORBIDDEN"), say("fine"), **guards)
    with pytest.raises(OutputGuardrailTripwireTriggered) as stopped:
        run(inner, "hello")
    assert stopped.value.guardrail_result.output.output_info["reply"] == REFUSED_OUTPUT
    assert run(inner, "hello").final_output == "fine"
    with pytest.raises(InputGuardrailTripwireTriggered):
        run(inner, "FORBIDDEN")
    with pytest.raises(InputGuardrailTripwireTriggered):
        run(inner, "mail ana@example.org")  # a guardrail cannot rewrite
    assert len(model.calls) == 2


def test_a_person_is_asked_once_about_a_call(tmp_path: Path) -> None:
    folder = write_rails(tmp_path / "asks")
    config = folder / "config.yml"
    text = config.read_text()
    config.write_text(text.replace("[check tool calls]", "[check tool calls, ask a person]"))
    asked: list[str] = []

    async def ask(name: str, arguments: str) -> bool:
        asked.append(name)
        return True

    rails = AgentRails(folder, parts=RuntimeParts(ask_person=ask))
    inner, _ = agent(call("plums"), say("done"))
    assert run(rails.guard(inner), "find").final_output == "done"
    assert asked == ["search"]
