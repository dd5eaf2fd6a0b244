"""`AgentRails`: the rails of a configuration around agents of the OpenAI Agents SDK.

    rails = AgentRails("my_rails")
    agent = rails.guard(Agent(name="shop", tools=[search]))

The guarded agent's model stands behind the rails, streams included, and every function tool has a
guardrail before and after it. The guardrails can also be used one by one: they raise the SDK's
tripwires. An output guardrail alone reads a stream only after its reader did.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from truing.core.types import Conversation, Message, Tool, ToolCall
from truing.integrations.hook_rails import HookCheck, HookRails, UncheckedContent
from truing.integrations.openai_agents.items import read_input, read_text
from truing.integrations.openai_agents.passed_items import PassedItems, current_session
from truing.integrations.openai_agents.rails_model import RailsModel
from truing.rails.config.loader import RailsConfig
from truing.specs.extras import needs_extra

with needs_extra("truing.integrations.openai_agents", "openai-agents"):
    from agents import (
        Agent,
        FunctionTool,
        GuardrailFunctionOutput,
        Handoff,
        InputGuardrail,
        OutputGuardrail,
        ToolGuardrailFunctionOutput,
        ToolInputGuardrail,
        ToolOutputGuardrail,
    )


class AgentRails(HookRails):
    """The rails of a folder or of a `RailsConfig`; the arguments are those of `HookRails`."""

    def __init__(self, config: RailsConfig | str | Path, **arguments: Any) -> None:
        super().__init__(config, **arguments)
        self.passed = PassedItems()
        # run_in_parallel=False: the model must not get what is still being read.
        self.input_guardrail: Any = InputGuardrail(
            guardrail_function=self._guard_input, name="truing rails", run_in_parallel=False
        )
        self.output_guardrail: Any = OutputGuardrail(
            guardrail_function=self._guard_output, name="truing rails"
        )
        self.tool_input_guardrail: Any = ToolInputGuardrail(
            guardrail_function=self._guard_call, name="truing rails"
        )
        self.tool_output_guardrail: Any = ToolOutputGuardrail(
            guardrail_function=self._guard_result, name="truing rails"
        )

    def guard(self, agent: Any, *, provider: Any = None) -> Any:
        """Returns a copy of an agent behind the rails; `provider` resolves the name of its model.

        Agents that it hands over to are guarded too, those of a `Handoff` when they are handed
        over to. Guard first and change then: what is added to the original afterwards the copy does
        not have. A `RunConfig` with a model of its own would take the guarded model's place: the
        output guardrail then raises its tripwire. Raises TypeError for a handoff that is neither an
        agent nor a `Handoff`, and for an agent as a tool (`as_tool`) that is not guarded itself.
        """
        return self._guard_agent(agent, provider, {})

    def _guard_agent(self, agent: Any, provider: Any, guarded: dict[int, Any]) -> Any:
        if isinstance(agent.model, RailsModel) and any(
            guardrail is self.output_guardrail for guardrail in agent.output_guardrails
        ):
            return agent  # guarded already
        if id(agent) in guarded:
            return guarded[id(agent)][1]
        copy = agent.clone(
            model=RailsModel(agent.model, self, provider),
            tools=self.guard_tools(agent.tools),
            output_guardrails=[*agent.output_guardrails, self.output_guardrail],
        )
        guarded[id(agent)] = (agent, copy)  # the original lives as long as its id counts
        copy.handoffs = [
            self._guard_handoff(handoff, provider, guarded) for handoff in agent.handoffs
        ]
        return copy

    def _guard_handoff(self, handoff: Any, provider: Any, guarded: dict[int, Any]) -> Any:
        if isinstance(handoff, Agent):
            return self._guard_agent(handoff, provider, guarded)
        if not isinstance(handoff, Handoff):
            name = getattr(handoff, "name", type(handoff).__name__)
            raise TypeError(f"handoff {name!r}: the rails guard an Agent or a Handoff alone")
        invoke = handoff.on_invoke_handoff

        async def invoke_guarded(context: Any, arguments: str) -> Any:
            return self._guard_agent(await invoke(context, arguments), provider, guarded)

        return dataclasses.replace(handoff, on_invoke_handoff=invoke_guarded)

    def guard_tools(self, tools: Sequence[Any]) -> list[Any]:
        """Returns the tools, function tools with a guardrail before and after each call."""
        return [self._guard_tool(tool) for tool in tools]

    def _guard_tool(self, tool: Any) -> Any:
        if not isinstance(tool, FunctionTool):
            return tool
        agent = getattr(tool, "_agent_instance", None)
        if agent is not None and not isinstance(agent.model, RailsModel):
            raise TypeError(
                f"tool {tool.name!r} is an agent without rails: "
                "give rails.guard(agent).as_tool(...)"
            )
        return dataclasses.replace(
            tool,
            tool_input_guardrails=[
                *(tool.tool_input_guardrails or ()),
                self.tool_input_guardrail,
            ],
            tool_output_guardrails=[
                *(tool.tool_output_guardrails or ()),
                self.tool_output_guardrail,
            ],
        )

    # -- the guardrails ------------------------------------------------------------------------

    async def _guard_input(self, context: Any, agent: Any, items: Any) -> Any:
        try:
            conversation = read_input(None, items)
        except UncheckedContent as error:
            return _tripwire(self.block("input", str(error)), passed=False)
        check = await self.check(conversation, session=current_session())
        passed = check.allowed and check.messages == conversation.messages
        return _tripwire(check, passed=passed)

    async def _guard_output(self, context: Any, agent: Any, output: Any) -> Any:
        text = output if isinstance(output, str) else _as_json(output)
        if isinstance(agent.model, RailsModel) and isinstance(output, str):
            if self.passed.holds_answer(text):
                output_info = {"allowed": True}
                return GuardrailFunctionOutput(output_info=output_info, tripwire_triggered=False)
            # A run may stop at a tool, whose result is then an answer that no rail has read as one.
            if not self.passed.holds_result(text):
                reason = "the answer did not come from the model behind the rails"
                return _tripwire(self.block("output", reason), passed=False)
        message = Message("assistant", text)
        check = await self._check_answer(message)
        return _tripwire(check, passed=check.allowed and check.messages[-1] == message)

    async def _check_answer(self, message: Message, tools: Sequence[Tool] = ()) -> HookCheck:
        return await self.check(
            Conversation((message,)), tools=tools, session=current_session(), ends_in_answer=True
        )

    async def _guard_call(self, data: Any) -> Any:
        context = data.context
        call = ToolCall(context.tool_call_id, context.tool_name, context.tool_arguments or "{}")
        if self.passed.take_call(call):
            return ToolGuardrailFunctionOutput.allow()
        message = Message("assistant", "", (call,))
        # The name is known: a rail that asks a person says it.
        check = await self._check_answer(message, (Tool(call.name),))
        if check.allowed and check.messages[-1] == message:
            return ToolGuardrailFunctionOutput.allow(check.record)
        reply = check.reply or "a rail rewrites the arguments, which cannot be rewritten here"
        return ToolGuardrailFunctionOutput.reject_content(reply, check.record)

    async def _guard_result(self, data: Any) -> Any:
        context = data.context
        try:
            text = data.output if isinstance(data.output, str) else _result_text(data.output)
        except UncheckedContent as error:
            check = self.block("tool_input", str(error))
            return ToolGuardrailFunctionOutput.reject_content(check.reply, check.record)
        call = ToolCall(context.tool_call_id, context.tool_name, context.tool_arguments or "{}")
        result = Message("tool", text, tool_call_id=call.id)
        check = await self.check(
            Conversation((Message("assistant", "", (call,)), result)), session=current_session()
        )
        if not check.allowed:
            self.passed.remember_result(check.reply)
            return ToolGuardrailFunctionOutput.reject_content(check.reply, check.record)
        checked = check.messages[-1].content
        self.passed.remember_result(checked)
        if checked != text:
            return ToolGuardrailFunctionOutput.reject_content(checked, check.record)
        return ToolGuardrailFunctionOutput.allow(check.record)


def _tripwire(check: HookCheck, *, passed: bool) -> Any:
    output_info = {**check.record, "reply": check.reply}
    return GuardrailFunctionOutput(output_info=output_info, tripwire_triggered=not passed)


def _result_text(output: Any) -> str:
    """Returns the text of a tool's result. Raises UncheckedContent for images and files."""
    parts = output if isinstance(output, list) else [output]
    return read_text(parts) if any(_is_part(part) for part in parts) else _as_json(output)


def _is_part(part: Any) -> bool:
    return hasattr(part, "type") or (isinstance(part, dict) and "type" in part)


def _as_json(value: Any) -> str:
    dump = getattr(value, "model_dump_json", None)
    return str(dump()) if dump is not None else json.dumps(value, ensure_ascii=False, default=str)
