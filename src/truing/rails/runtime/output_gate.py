"""The output stage for everything that a turn is about to show, before it leaves the runtime.

The flows run the output rails on most answers. Here the rulings recorded are compared with the
rails that must run, text by text; what has not passed all of them is read now, and withheld if a
rail objects. So no flow, action or event can show a text around the rails.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeVar

from msgspec.structs import replace

from truing.core.errors import TruingError
from truing.core.types import Failure, Ruling
from truing.rails.colang import compiler as p
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.action_runner import INTERNAL_ERROR_MESSAGE
from truing.rails.runtime.client_texts import readable_arguments
from truing.rails.runtime.event_types import Event
from truing.rails.runtime.llm_client import LlmError
from truing.rails.runtime.stage_runner import Stage, StageOutcome, run_stage, stage_flows
from truing.rails.runtime.templates import dollar_to_jinja
from truing.rails.runtime.turn_context import TurnContext, missing_rails
from truing.rails.runtime.turn_result import TurnOutput

T = TypeVar("T")
BLOCKED_MESSAGE = "I can't answer this: a check that has to run first did not finish."


def is_plain(text: str) -> bool:
    """Returns whether a bot message of the configuration holds no variable."""
    return "{" not in dollar_to_jinja(text)


def find_author_texts(config: RailsConfig, program: p.Program) -> frozenset[str]:
    """Returns the texts that the configuration's author wrote, without those with variables."""
    plain = (text for text in _author_texts(config, program) if is_plain(text))
    return frozenset(text.replace("\\n", "\n") for text in plain)


def _author_texts(config: RailsConfig, program: p.Program) -> Iterator[str]:
    yield INTERNAL_ERROR_MESSAGE
    yield BLOCKED_MESSAGE
    for texts in config.bot_messages.values():
        yield from (text.text for text in texts)
    for flow in program.flows.values():
        for instruction in flow.instructions:
            if instruction.op == p.BOT and instruction.name.startswith('"'):
                yield instruction.name[1:-1]
            elif instruction.op == p.ACTION and instruction.name == "create_event":
                yield str(instruction.params["event"].get("message") or "")


class OutputGate:
    """Compares what a turn shows with what the output stages have let pass."""

    def __init__(self, config: RailsConfig, author_texts: frozenset[str]) -> None:
        self.config, self.author_texts = config, author_texts

    async def release(self, turn: TurnContext, output: TurnOutput) -> TurnOutput:
        """Returns the output that may be shown; `turn.rulings` says what was withheld, and why."""
        if output.tool_calls:
            output.tool_calls = await self._release_tool_calls(turn, output.tool_calls)
        if not (stage_flows(self.config, "output") and turn.is_stage_on("output")):
            return output
        texts: list[str] = []
        for text in output.texts:
            texts.append(await self._release_text(turn, text))
        output.texts = texts
        if output.exception is not None:
            output.exception = await self._release_exception(turn, output.exception)
        # Only a caller without options gets the thinking: see `build_result`.
        if (
            output.thinking
            and turn.options is None
            and await self._withholds_thinking(turn, output.thinking)
        ):
            output.thinking = None
        return output

    async def _release_exception(self, turn: TurnContext, event: Event) -> Event:
        """Returns an exception with each of its fields as the output rails leave it."""
        released = dict(event.extra)
        for name, value in event.extra.items():
            if value is None or isinstance(value, (bool, int, float)):
                continue
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            released_text = await self._release_text(turn, text)
            if released_text != text:
                released[name] = released_text
        return replace(event, extra=released)

    def _may_be_shown(self, turn: TurnContext, text: str) -> bool:
        if text in turn.passed_texts or text in self.author_texts or not text:
            return True
        # Without a dialog, the client's own message is the echo of an input check.
        is_echo = not turn.is_stage_on("dialog") and text == turn.state.context.get("user_message")
        return is_echo

    async def _release_text(self, turn: TurnContext, text: str) -> str:
        if self._may_be_shown(turn, text):
            return text
        released = await self._read(turn, "output", text, str)
        return BLOCKED_MESSAGE if released is None else released

    async def _withholds_thinking(self, turn: TurnContext, thinking: str) -> bool:
        """Returns whether the model's thinking did not pass; the answer itself is unaffected."""
        if thinking in turn.passed_texts:
            return False
        outcome = await self._run(turn, "output", thinking)
        if outcome.passed and outcome.content == thinking:
            return False
        reason = f"the model's thinking is withheld: {outcome.reason or 'a rail rewrote it'}"
        turn.rulings.append(Ruling(name="runtime", stage="output", ruling="rewrite", reason=reason))
        return True

    async def _release_tool_calls(self, turn: TurnContext, calls: list[Any]) -> list[Any] | None:
        """Returns the tool calls if their stage passed: tool_output, or output without such
        rails.
        """
        if stage_flows(self.config, "tool_output"):
            if not turn.is_stage_on("tool_output") or calls in turn.passed_tool_calls:
                return calls
            return await self._read(turn, "tool_output", calls, list)
        if not (stage_flows(self.config, "output") and turn.is_stage_on("output")):
            return calls
        released: list[Any] = []
        for call in calls:
            for part, text in texts_of_call(turn, call):
                outcome = await self._run(turn, "output", text)
                rewritten = with_call_text(call, part, text, outcome.content)
                if not outcome.passed or rewritten is None:
                    self._record_block(turn, outcome)
                    return None
                turn.rulings += outcome.rulings
                call = rewritten
            released.append(call)
        return released

    async def _read(self, turn: TurnContext, stage: Stage, content: Any, kind: type[T]) -> T | None:
        """Returns a content as the rails of a stage have rewritten it; None if it did not pass."""
        outcome = await self._run(turn, stage, content)
        if outcome.passed and isinstance(outcome.content, kind):
            turn.rulings += outcome.rulings
            return outcome.content
        self._record_block(turn, outcome)
        return None

    async def _run(self, turn: TurnContext, stage: Stage, content: Any) -> StageOutcome:
        try:
            return await run_stage(turn, turn.state, stage, content)
        except LlmError:
            raise
        except TruingError as error:
            return StageOutcome(stage, content, failure=Failure("rail", "flow", str(error)))

    def _record_block(self, turn: TurnContext, outcome: StageOutcome) -> None:
        """Adds the rulings of a stage that did not pass; there is a block among them."""
        turn.rulings += outcome.rulings
        if any(r.ruling == "block" for r in outcome.rulings):
            return
        rails = ", ".join(r.name for r in outcome.rulings if r.ruling == "rewrite")
        reason = outcome.reason or f"{rails} would rewrite a tool call, which cannot be rewritten"
        turn.rulings.append(
            Ruling(name="runtime", stage=outcome.stage, ruling="block", reason=reason)
        )
        turn.failure = turn.failure or outcome.failure


def texts_of_call(turn: TurnContext, call: Any) -> Iterator[tuple[str, str]]:
    """Yields (part, text): the name of a tool that was not offered, and the arguments."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        yield "call", readable_arguments(call)
        return
    name, arguments = function.get("name"), function.get("arguments")
    if name and name not in {tool.name for tool in turn.tools}:
        yield "name", str(name)
    if arguments and arguments != "{}":
        yield "arguments", readable_arguments(arguments)


def with_call_text(call: Any, part: str, text: str, rewritten: Any) -> Any:
    """Returns a tool call with what the rails made of a text; None if that cannot replace it."""
    if rewritten == text:
        return call
    if part != "arguments" or not isinstance(rewritten, str) or not _is_json(rewritten):
        return None
    return {**call, "function": {**call["function"], "arguments": rewritten}}


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def unread_input_ruling(turn: TurnContext) -> Ruling | None:
    """Returns the block of a turn that ended without the ruling of all its input rails, or None."""
    missing = missing_rails(turn.required_input, turn.rulings, "input")
    is_open = missing or turn.must_refuse
    if not is_open or any(r.ruling == "block" for r in turn.rulings):
        return None
    reason = f"the input stage is incomplete: {', '.join(missing)} did not run"
    if not missing:
        reason = "an input rail objected to the message, and the flows let it pass"
    return Ruling(name="runtime", stage="input", ruling="block", reason=reason)
