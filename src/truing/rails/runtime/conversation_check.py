"""Whether the rails allow a conversation, without an answer: every stage that it contains is run.

What a user, a system message, a name, a tool definition or a variable says belongs to the input
stage, an assistant's text to the output stage, its tool calls to tool_output, tool results to
tool_input, and chunks in the context to the retrieval stage. Nothing is taken from memory: a check
reads all of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from truing.core.errors import TruingError
from truing.core.types import Failure, Ruling, ToolCall
from truing.rails.runtime.chat_messages import ChatMessage
from truing.rails.runtime.checked_texts import CheckedTexts
from truing.rails.runtime.client_texts import readable_arguments
from truing.rails.runtime.conversation_state import ConversationState
from truing.rails.runtime.input_gate import InputGate, StateAfterMessages
from truing.rails.runtime.output_gate import BLOCKED_MESSAGE, OutputGate
from truing.rails.runtime.stage_runner import Stage, StageOutcome, run_stage, stage_flows
from truing.rails.runtime.turn_context import TurnContext
from truing.rails.runtime.turn_result import TurnOutput


class NoStageError(TruingError):
    """A conversation without any text that a stage of rails reads."""


class CheckResult(Struct, frozen=True, kw_only=True):
    """Whether a conversation is allowed.

    `allowed` is True if every stage of the conversation ran whole and none objected, False if one
    objected, failed or was incomplete, None if none objected but some, `not_run`, have no rails.
    `message` is what the rail that objected says, as the output rails leave it.
    """

    allowed: bool | None
    not_run: tuple[str, ...] = ()
    message: str | None = None
    rulings: tuple[Ruling, ...] = ()


class ConversationCheck:
    """One check: the texts of the conversation by stage, and the outcomes so far."""

    def __init__(
        self, turn: TurnContext, state_after: StateAfterMessages, output_gate: OutputGate
    ) -> None:
        self.turn, self.messages, self.state_after = turn, turn.messages, state_after
        self.config, self.output_gate = turn.services.config, output_gate
        self.gate = InputGate(self.config, CheckedTexts())
        self.rulings: list[Ruling] = []
        self.objection = ""
        self.objected = False

    async def run(self) -> CheckResult:
        """Runs all stages; raises NoStageError if the conversation has none."""
        stages = self._stages()
        if not stages:
            raise NoStageError("messages: they contain no text that a stage of rails reads")
        await self._check_input(stages)
        state = self.state_after(len(self.messages))
        for message in self.messages:
            if message.role == "assistant":
                await self._check_answer(message, state)
            elif _chunks(message) is not None:
                await self._run("retrieval", _chunks(message), state)
        not_run = tuple(stage for stage in stages if not stage_flows(self.config, stage))
        allowed = False if self.objected else (None if not_run else True)
        reply = await self._release_objection(state) if self.objected else None
        return CheckResult(
            allowed=allowed, not_run=not_run, message=reply, rulings=tuple(self.rulings)
        )

    async def _release_objection(self, state: ConversationState) -> str:
        """Returns the refusal for the client: a rail's message passes the output stage too."""
        self.turn.state = state
        refusal = TurnOutput(texts=[self.objection or BLOCKED_MESSAGE])
        released = await self.output_gate.release(self.turn, refusal)
        self.rulings += self.turn.rulings
        return "\n".join(released.texts)

    def _stages(self) -> list[Stage]:
        """Returns the stages that the conversation contains, in the order of a turn."""
        present: set[Stage] = {"input"} if self._input_messages() or self.turn.tools else set()
        for message in self.messages:
            if message.role == "tool":
                present.add("tool_input")
            elif message.role == "assistant":
                if message.tool_calls:
                    present.add("tool_output")
                if message.content or not message.tool_calls:
                    present.add("output")
            elif _chunks(message) is not None:
                present.add("retrieval")
        order: tuple[Stage, ...] = ("input", "retrieval", "tool_output", "tool_input", "output")
        return [stage for stage in order if stage in present]

    def _input_messages(self) -> list[ChatMessage]:
        """Returns the messages whose texts belong to the input stage first of all."""
        roles = {"user", "system", "context"} - self.gate.trusted
        return [message for message in self.messages if message.role in roles]

    async def _check_input(self, stages: Sequence[Stage]) -> None:
        messages, answer = list(self.messages), list[ChatMessage]()
        if messages and messages[-1].role == "assistant":
            answer.append(messages.pop())  # an answer, not a text that a model is to read
        reading = await self.gate.read(
            self.turn,
            messages,
            "",
            self.state_after,
            includes_newest=True,
            withholds_refused=False,
            answer=answer,
        )
        self.rulings += reading.rulings
        if reading.objection is not None:
            self.objected = True
            self.objection = reading.objection.reply
            if reading.failure is not None:
                self._add_block("input", reading.failure.message)
        elif "input" in stages and not any(r.stage == "input" for r in self.rulings):
            await self._run("input", "", self.state_after(0))  # there are only empty texts

    async def _check_answer(self, message: ChatMessage, state: ConversationState) -> None:
        calls = message.tool_calls
        if calls:
            await self._run("tool_output", [call.to_openai() for call in calls], state)
            if not stage_flows(self.config, "tool_output"):
                for call in calls:
                    await self._run("output", _text_of_call(call), state)
        if message.content or not calls:
            await self._run("output", message.text, state)

    async def _run(self, stage: Stage, content: Any, state: ConversationState) -> None:
        try:
            outcome = await run_stage(self.turn, state, stage, content)
        except TruingError as error:
            outcome = StageOutcome(stage, content, failure=Failure("rail", "failed", str(error)))
        self.rulings += outcome.rulings
        if outcome.passed:
            return
        self.objected = True
        self.objection = self.objection or outcome.reply
        if not any(r.ruling == "block" for r in outcome.rulings):
            self._add_block(stage, outcome.reason)

    def _add_block(self, stage: Stage, reason: str) -> None:
        self.rulings.append(Ruling(name="runtime", stage=stage, ruling="block", reason=reason))


def _chunks(message: ChatMessage) -> str | None:
    """Returns the retrieved chunks that a message of role context sets, or None."""
    chunks = message.variables.get("relevant_chunks")
    return chunks if isinstance(chunks, str) else None


def _text_of_call(call: ToolCall) -> str:
    return f"{call.name} {readable_arguments(call.arguments)}"
