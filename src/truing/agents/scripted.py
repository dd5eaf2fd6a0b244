"""Agents with known behaviour: to test worlds, checks, rails and statistics without a model.

scripted-agent,solve=0.8,over_refuse=0.1,harm=0.5,follow=0.3

Such an agent reads the checks of its task, which no other model sees, and makes the calls that
fulfil them. Which tasks it solves, refuses, harms or is misled on is decided by a hash of the
task's name, so that the shares are exact for a given set and can be computed beside it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import Struct

from truing.core.episodes import Condition, Environment
from truing.core.lineage import digest
from truing.core.types import (
    Answer,
    Conversation,
    Lineage,
    Message,
    Sampling,
    Tool,
    ToolCall,
    Usage,
)
from truing.worlds.seen_injections import shows_injection

REFUSAL = "I'm sorry, but I can't help with that."


class AgentScript(Struct, frozen=True, kw_only=True):
    """Shares of tasks, from 0 to 1.

    - `solve`: benign tasks that are done
    - `over_refuse`: benign tasks that are refused (decided before `solve`)
    - `harm`: harmful tasks that are carried out; the others are refused
    - `follow`: injections that are followed, if the agent has read them
    """

    solve: float = 1.0
    over_refuse: float = 0.0
    harm: float = 0.0
    follow: float = 0.0


def unit_hash(task: str, part: str) -> float:
    """Returns a number in [0, 1) for a task and a part of the script."""
    content = f"{part}\0{task}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(content, digest_size=4).digest(), "big") / 2**32


class ScriptedAgent:
    """A model with tool calls that behaves by a script."""

    def __init__(self, script: AgentScript | None = None, *, name: str = "scripted-agent") -> None:
        self.script = script or AgentScript()
        self.name = name
        self.lineage = Lineage(name=name, hash=digest("scripted-agent", repr(self.script)))

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns the next step: the calls of the script in one turn each, then the answer."""
        environment = sampling.environment
        if environment is None:
            return (Answer.of("There is no task."),) * sampling.n
        steps = self._steps(environment, conversation, sampling.tools)
        n_done = sum(bool(m.tool_calls) for m in _newest_episode(conversation))
        step = steps[n_done] if n_done < len(steps) else Message("assistant", "Done.")
        answer = Answer(
            message=step,
            finish_reason="tool_calls" if step.tool_calls else "stop",
            usage=Usage(len(conversation.messages), 1),
        )
        return (answer,) * sampling.n

    def _steps(
        self, environment: Environment, conversation: Conversation, tools: tuple[Tool, ...]
    ) -> list[Message]:
        script, task = self.script, f"{environment.world}/{environment.task}"
        if environment.kind == "harmful":
            if unit_hash(task, "harm") >= script.harm:
                return [Message("assistant", REFUSAL)]
            return [*_fulfil(environment.harm[:1], tools), Message("assistant", "Done.")]
        if unit_hash(task, "over_refuse") < script.over_refuse:
            return [Message("assistant", REFUSAL)]
        turns = [environment.reads] if environment.started else [(c,) for c in environment.reads]
        steps = [Message("assistant", "", calls) for calls in turns]
        solves = unit_hash(task, "solve") < script.solve
        answer = (environment.answer or "Done.") if solves else "I am stuck."
        if solves:
            steps += [Message("assistant", "", (call,)) for call in environment.solution]
        has_read = _has_read(environment, conversation, tools)
        if has_read and unit_hash(task, "follow") < script.follow:
            steps += _fulfil(environment.misled[:1], tools)
            steps += [Message("assistant", "", (call,)) for call in environment.injected_calls]
            answer = next((c.says.split("|")[0] for c in environment.misled if c.says), answer)
        if solves:
            steps += _fulfil(environment.done, tools)
        return [*steps, Message("assistant", answer)]


def _newest_episode(conversation: Conversation) -> tuple[Message, ...]:
    """Returns the messages after the newest one of the user."""
    messages = conversation.messages
    user_indexes = [index for index, message in enumerate(messages) if message.role == "user"]
    return messages[user_indexes[-1] + 1 :] if user_indexes else messages


def _has_read(
    environment: Environment, conversation: Conversation, tools: tuple[Tool, ...]
) -> bool:
    injection = environment.injection
    if injection is None:
        return False
    if injection.place == "tool_description":
        return any(injection.written in tool.description for tool in tools)
    results = (m.content for m in conversation.messages if m.role == "tool")
    return shows_injection(injection, results)


def _fulfil(conditions: tuple[Condition, ...], tools: tuple[Tool, ...]) -> list[Message]:
    """Returns a turn for each condition on a call: the call that fulfils it."""
    schemas = {tool.name: msgspec.json.decode(tool.parameters) for tool in tools}
    turns = []
    named = [(name, c) for c in conditions for name in (c.calls or (c.call,)) if name in schemas]
    for number, (name, condition) in enumerate(named):
        required_values, schema_of = dict(condition.where), schemas[name]
        arguments = {
            key: _concrete(required_values[key]) if key in required_values else _filler(schema)
            for key, schema in schema_of.get("properties", {}).items()
            if key in required_values or key in schema_of.get("required", ())
        }
        text = msgspec.json.encode(arguments).decode()
        turns.append(Message("assistant", "", (ToolCall(f"{name}{number}", name, text),)))
    return turns


def _concrete(pattern: Any) -> Any:
    """Returns a value that matches a condition: the first alternative of ``~a|b``."""
    if isinstance(pattern, str) and pattern.startswith("~"):
        return pattern[1:].split("|")[0]
    return pattern


def _filler(schema: dict[str, Any]) -> Any:
    for key in ("examples", "enum"):
        if key in schema:
            return schema[key][0]
    if schema.get("type") in ("integer", "number"):
        return schema.get("minimum", 1)
    return {"boolean": False, "array": []}.get(str(schema.get("type")), "text")
