"""`AgentRails`: the rails of a configuration around agents of the OpenAI Agents SDK.

    rails = AgentRails("my_rails")
    agent = rails.guard(Agent(name="shop", tools=[search]))

The guarded agent's model stands behind the rails, streams included, and every function tool has a
guardrail before and after it. The guardrails can also be used one by one: they raise the SDK's
tripwires. An output guardrail alone reads a stream only after its reader did.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from truing.core.types import Conversation, Message, Tool, ToolCall
from truing.integrations.hook_rails import HookCheck, HookRails, UncheckedContent
from truing.integrations.openai_agents.items import read_input, read_text
from truing.integrations.openai_agents.rails_model import RailsModel
from truing.rails.config.loader import RailsConfig
from truing.specs.extras import needs_extra

with needs_extra("truing.integrations.openai_agents", "openai-agents"):
    from agents import (
        Agent,
        FunctionTool,
        GuardrailFunctionOutput,
        InputGuardrail,
        OutputGuardrail,
        ToolGuardrailFunctionOutput,
        ToolInputGuardrail,
        ToolOutputGuardrail,
    )

MAX_REMEMBERED = 10_000


class AgentRails(HookRails):
    """The rails of a folder or of a `RailsConfig`; the arguments are those of `HookRails`."""

    def __init__(self, config: RailsConfig | str | Path, **arguments: Any) -> None:
        super().__init__(config, **arguments)
        self._passed: OrderedDict[bytes, None] = OrderedDict()
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

        Agents that it hands over to are guarded too. A `RunConfig` with a model of its own would
        take the guarded model's place: the output guardrail then raises its tripwire.
        """
        return self._guard_agent(agent, provider, {})

    def _guard_agent(self, agent: Any, provider: Any, guarded: dict[int, Any]) -> Any:
        if id(agent) in guarded:
            return guarded[id(agent)]
        copy = agent.clone(
            model=RailsModel(agent.model, self, provider, self.remember),
            tools=self.guard_tools(agent.tools),
            output_guardrails=[*agent.output_guardrails, self.output_guardrail],
        )
        guarded[id(agent)] = copy
        copy.handoffs = [
            self._guard_agent(handoff, provider, guarded) if isinstance(handoff, Agent) else handoff
            for handoff in agent.handoffs
        ]
        return copy

    def guard_tools(self, tools: Sequence[Any]) -> list[Any]:
        """Returns the tools, function tools with a guardrail before and after each call."""
        return [
            dataclasses.replace(
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
            if isinstance(tool, FunctionTool)
            else tool
            for tool in tools
        ]

    # -- the guardrails ------------------------------------------------------------------------

    async def _guard_input(self, context: Any, agent: Any, items: Any) -> Any:
        try:
            conversation = read_input(None, items)
        except UncheckedContent as error:
            return _tripwire(self.block("input", str(error)), passed=False)
        check = await self.check(conversation)
        passed = check.allowed and check.messages == conversation.messages
        return _tripwire(check, passed=passed)

    async def _guard_output(self, context: Any, agent: Any, output: Any) -> Any:
        text = output if isinstance(output, str) else _as_json(output)
        if isinstance(agent.model, RailsModel) and isinstance(output, str):
            if self._was_passed(_digest("text", text)):
                passed = {"allowed": True}
                return GuardrailFunctionOutput(output_info=passed, tripwire_triggered=False)
            reason = "the answer did not come from the model behind the rails"
            return _tripwire(self.block("output", reason), passed=False)
        message = Message("assistant", text)
        check = await self.check(Conversation((message,)))
        return _tripwire(check, passed=check.allowed and check.messages[-1] == message)

    async def _guard_call(self, data: Any) -> Any:
        context = data.context
        call = ToolCall(context.tool_call_id, context.tool_name, context.tool_arguments or "{}")
        if self._was_passed(_call_digest(call)):
            return ToolGuardrailFunctionOutput.allow()
        message = Message("assistant", "", (call,))
        # The name is known: a rail that asks a person says it.
        check = await self.check(Conversation((message,)), tools=(Tool(call.name),))
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
        check = await self.check(Conversation((Message("assistant", "", (call,)), result)))
        if not check.allowed:
            self.remember(Message("assistant", check.reply))
            return ToolGuardrailFunctionOutput.reject_content(check.reply, check.record)
        checked = check.messages[-1].content
        # An agent may stop at a tool, whose result is then the answer.
        self.remember(Message("assistant", checked))
        if checked != text:
            return ToolGuardrailFunctionOutput.reject_content(checked, check.record)
        return ToolGuardrailFunctionOutput.allow(check.record)

    # -- what has passed -----------------------------------------------------------------------

    def remember(self, message: Message) -> None:
        """Remembers the text and the calls of a message that has passed."""
        digests = [_call_digest(call) for call in message.tool_calls]
        if message.content:
            digests.append(_digest("text", message.content))
        for digest in digests:
            self._passed[digest] = None
        while len(self._passed) > MAX_REMEMBERED:
            self._passed.popitem(last=False)

    def _was_passed(self, digest: bytes) -> bool:
        return digest in self._passed


def _tripwire(check: HookCheck, *, passed: bool) -> Any:
    info = {**check.record, "reply": check.reply}
    return GuardrailFunctionOutput(output_info=info, tripwire_triggered=not passed)


def _result_text(output: Any) -> str:
    """Returns the text of a tool's result. Raises UncheckedContent for images and files."""
    parts = output if isinstance(output, list) else [output]
    return read_text(parts) if any(_is_part(part) for part in parts) else _as_json(output)


def _is_part(part: Any) -> bool:
    return hasattr(part, "type") or (isinstance(part, dict) and "type" in part)


def _as_json(value: Any) -> str:
    dump = getattr(value, "model_dump_json", None)
    return str(dump()) if dump is not None else json.dumps(value, ensure_ascii=False, default=str)


def _call_digest(call: ToolCall) -> bytes:
    return _digest("call", call.id, call.name, call.arguments)


def _digest(*parts: str) -> bytes:
    text = json.dumps(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=20).digest()
