"""Rails on the calls of an agent: who may be written to, a judge, and a person who is asked.

truing:
  tools:
    recipients: {send_mail: [to], forward_mail: [to]}
    trusted_tools: [list_contacts]
    judge: "llm:harm,model=(openai:NAME)"
    ask: [transfer]
    ask_timeout: 60
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from truing.core.types import Judgement
from truing.rails.actions import RailOutcome
from truing.rails.library.judged_texts import judge_text
from truing.rails.library.texts import rail_settings
from truing.rails.library.tools import fold_key, read_arguments
from truing.rails.runtime.chat_messages import ChatMessage
from truing.rails.runtime.client_texts import name_results
from truing.rails.runtime.turn_context import EVIDENCE_CHARACTERS, TurnContext

DEFAULT_TOOL_JUDGE = "moderation:fast"
DEFAULT_ASK_TIMEOUT = 60.0
"""Seconds in which a person must allow a call; after them it is denied."""


def required_tool_judges(truing: Mapping[str, Any], rails: frozenset[str]) -> list[str]:
    """Returns the spec of the judge of calls and results, if a configured rail needs one."""
    if not rails & {"judge tool calls", "judge tool results"}:
        return []
    return [_judge_spec(truing.get("tools") or {})]


def _judge_spec(settings: Mapping[str, Any]) -> str:
    return str(settings.get("judge") or DEFAULT_TOOL_JUDGE)


class _CheckedCall(NamedTuple):
    """A tool call as the rails read it: `arguments` is JSON text, `id` may be empty."""

    name: str
    arguments: str
    id: str


def _read_calls(turn: TurnContext, calls: Any) -> Iterator[_CheckedCall]:
    """Yields the calls of a turn."""
    # A client reads the reason of a block: a name that only the model knows could say anything.
    settings = rail_settings(turn, "tools")
    known = {tool.name for tool in turn.tools}.union(
        settings.get("recipients") or (), settings.get("ask") or ()
    )
    for call in calls or ():
        if isinstance(call, Mapping):
            function = call.get("function") or {}
            name = str(function.get("name"))
            yield _CheckedCall(
                name if name in known else "(unknown)",
                str(function.get("arguments") or "{}"),
                str(call.get("id") or ""),
            )


# -- recipients: a value from a tool result may not choose one --------------------------------


async def check_tool_recipients(turn: TurnContext, calls: Any, **params: Any) -> RailOutcome:
    """Blocks a call whose recipient neither the user, nor the operator, nor a trusted tool named.

    What other tools return is written by strangers: a mail, a page, a review. A value that stands
    in no trusted text at all, and one that cannot be read, are blocked too.
    """
    settings = rail_settings(turn, "tools")
    recipients = settings.get("recipients") or {}
    if not recipients:
        turn.set_reason("no recipients are configured (truing: tools: recipients)")
        return RailOutcome.block(reason="its recipients cannot be checked")
    trusted = _trusted_text(turn.messages, settings.get("trusted_tools") or ())
    for name, arguments, call_id in _read_calls(turn, calls):
        for key in recipients.get(name) or ():
            values = read_argument_texts(arguments, str(key))
            if values is None or not all(occurs_whole(value, trusted) for value in values):
                reason = f"{key} of {name} comes from no trusted text"
                turn.set_reason(reason, score=1.0, call_id=call_id)
                return RailOutcome.block(reason=f"nobody I trust named the {key} of {name}")
    return RailOutcome.allow()


def _trusted_text(messages: Sequence[ChatMessage], trusted_tools: Sequence[str]) -> str:
    texts = [
        message.text
        for message, tool in zip(messages, name_results(messages), strict=True)
        if message.role in ("user", "system") or (tool and tool in trusted_tools)
    ]
    return "\n".join(texts)


def read_argument_texts(arguments: str, key: str) -> list[str] | None:
    """Returns the texts of one argument (of a list, each); None if they cannot be read.

    An argument that is left out has none; `read_arguments` says which cannot be read.
    """
    values = read_arguments(arguments)
    if values is None:
        return None
    value = values.get(fold_key(key))
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(item, str | int | float) for item in listed):
        return None
    return [str(item) for item in listed]


def occurs_whole(value: str, text: str) -> bool:
    """Returns whether a value stands in a text, not as a part of a longer address or number."""
    value = " ".join(value.split())
    if not value:
        return False
    # `ana@example.org` stands in "write to ana@example.org." but not in "diana@example.org.uk".
    pattern = rf"(?<![\w@+.-]){re.escape(value)}(?![\w@+-]|\.\w)"
    return re.search(pattern, " ".join(text.split()), re.IGNORECASE) is not None


# -- a judge on calls and results --------------------------------------------------------------


async def judge_tool_calls(turn: TurnContext, calls: Any, **params: Any) -> RailOutcome:
    """Asks the judge of ``truing: tools: judge:`` about each call, as an answer to the user; blocks
    one that is harmful or unscored.
    """
    for name, arguments, call_id in _read_calls(turn, calls):
        text, subject = f"{name} {arguments}", f"the call of {name}"
        outcome = await _judge(turn, "output", text, subject, call_id=call_id)
        if outcome.is_blocked:
            return outcome
    return RailOutcome.allow()


async def judge_tool_result(turn: TurnContext, name: str, text: Any, **params: Any) -> RailOutcome:
    """Asks the same judge about a result; blocks one that is harmful or unscored."""
    result_text = text if isinstance(text, str) else json.dumps(text, default=str)
    return await _judge(turn, "input", result_text, f"the result of {name}")


async def _judge(
    turn: TurnContext, source: str, text: str, subject: str, *, call_id: str = ""
) -> RailOutcome:
    spec = _judge_spec(rail_settings(turn, "tools"))
    judgement: Judgement = await judge_text(turn, turn.services.judges[spec], source, text)
    if judgement.failure is not None or judgement.verdict is None:
        # The failure may quote a model's reply, and clients see the reason.
        failure = judgement.failure.message[:EVIDENCE_CHARACTERS] if judgement.failure else None
        turn.set_reason(f"{subject} could not be judged", evidence=failure, call_id=call_id)
        return RailOutcome.block(reason=f"I could not check {subject}")
    if judgement.verdict:
        turn.set_reason(f"{spec} objects to {subject}", score=judgement.score, call_id=call_id)
        return RailOutcome.block(reason=f"{subject} could do harm")
    turn.set_reason("the judge has nothing to object", score=judgement.score)
    return RailOutcome.allow()


# -- a person ----------------------------------------------------------------------------------


async def ask_person(turn: TurnContext, calls: Any, **params: Any) -> RailOutcome:
    """Asks a person about each call of the tools under ``truing: tools: ask:`` (without the list:
    all calls). Blocks what is not allowed in time, and everything where there is nobody to ask.
    """
    settings = rail_settings(turn, "tools")
    guarded_tools = settings.get("ask")
    timeout = float(settings.get("ask_timeout") or DEFAULT_ASK_TIMEOUT)
    callback = turn.services.ask_person
    for name, arguments, call_id in _read_calls(turn, calls):
        if guarded_tools is not None and name not in guarded_tools:
            continue
        if callback is None:
            turn.set_reason(f"nobody is there to allow {name}", call_id=call_id)
            return RailOutcome.block(reason=f"nobody is there to allow {name}")
        try:
            async with asyncio.timeout(timeout):
                allowed = await callback(name, arguments)
        except TimeoutError:
            turn.set_reason(f"nobody allowed {name} in {timeout:g} s", call_id=call_id)
            return RailOutcome.block(reason=f"nobody allowed {name} in time")
        # Anything but True is no permission: a callback that returns a text has not said yes.
        if allowed is not True:
            turn.set_reason(f"a person denied {name}", call_id=call_id)
            return RailOutcome.block(reason=f"{name} was not allowed")
    return RailOutcome.allow()


ACTIONS = (check_tool_recipients, judge_tool_calls, judge_tool_result, ask_person)
