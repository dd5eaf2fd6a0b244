"""Whether the rails allow a conversation, without an answer: every stage that it contains is run.

What a user, a system message, a name, a tool definition or a variable says belongs to the input
stage, an assistant's text to the output stage, its tool calls to tool_output, tool results to
tool_input, and chunks in the context to the retrieval stage. A whole check takes nothing from
memory and reads all of the text; a check of what is new (`NewTexts`) is what the hooks of other
frameworks run at each step of a conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from truing.core.errors import TruingError
from truing.core.messages import decode_tool_calls
from truing.core.types import Failure, MessageFormatError, Ruling, ToolCall
from truing.rails.runtime.chat_messages import ChatMessage
from truing.rails.runtime.checked_texts import CheckedTexts
from truing.rails.runtime.client_texts import readable_arguments
from truing.rails.runtime.conversation_state import ConversationState
from truing.rails.runtime.input_gate import InputGate, StateAfterMessages
from truing.rails.runtime.output_gate import (
    BLOCKED_MESSAGE,
    OutputGate,
    texts_of_call,
    with_call_text,
)
from truing.rails.runtime.stage_runner import Stage, StageOutcome, run_stage, stage_flows
from truing.rails.runtime.turn_context import TurnContext
from truing.rails.runtime.turn_result import TurnOutput


class NoStageError(TruingError):
    """A conversation without any text that a stage of rails reads."""


class CheckResult(Struct, frozen=True, kw_only=True):
    """Whether a conversation is allowed.

    `allowed` is True if every stage of the conversation ran whole and none objected, False if one
    objected, failed or was incomplete, None if none objected but some, `not_run`, have no rails.
    `message` is what the rail that objected says, as the output rails leave it. `messages` are
    those of the conversation as the rails leave them, one for each, unless one objected.
    """

    allowed: bool | None
    not_run: tuple[str, ...] = ()
    message: str | None = None
    rulings: tuple[Ruling, ...] = ()
    messages: tuple[ChatMessage, ...] = ()


class NewTexts(Struct, frozen=True):
    """Limits a check to what the rails have not read yet in a session.

    `gate` remembers the texts of clients that have passed. Assistant's messages are what a client
    says about the past, as in a turn, and pass the input stage unless they were answers of this
    runtime. Only where the caller has the last one from a model (`ends_in_answer`) is it an answer:
    it goes through the output stages, and is remembered.
    """

    gate: InputGate
    session: str = ""
    ends_in_answer: bool = False


class ConversationCheck:
    """One check: the texts of the conversation by stage, and the outcomes so far."""

    def __init__(
        self,
        turn: TurnContext,
        state_after: StateAfterMessages,
        output_gate: OutputGate,
        new_texts: NewTexts | None = None,
    ) -> None:
        self.turn, self.messages, self.state_after = turn, list(turn.messages), state_after
        self.config, self.output_gate = turn.services.config, output_gate
        self.new_texts = new_texts
        self.gate = new_texts.gate if new_texts else InputGate(self.config, CheckedTexts())
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
        for index, message in enumerate(self.messages):
            if message.role == "assistant":
                if self._is_answer(index):
                    await self._check_answer(index, state)
            elif _chunks(message) is not None:
                await self._run("retrieval", _chunks(message), state)
        not_run = tuple(stage for stage in stages if not stage_flows(self.config, stage))
        allowed = False if self.objected else (None if not_run else True)
        reply = await self._release_objection(state) if self.objected else None
        messages = () if self.objected else tuple(self.messages)
        if self.new_texts is not None and messages and self._is_answer(len(messages) - 1):
            self._remember_answer(messages[-1], self.new_texts)
        return CheckResult(
            allowed=allowed,
            not_run=not_run,
            message=reply,
            rulings=tuple(self.rulings),
            messages=messages,
        )

    def _is_answer(self, index: int) -> bool:
        """Returns whether an assistant's message goes through the output stages."""
        if self.messages[index].role != "assistant":
            return False
        if self.new_texts is None:
            return True
        return self.new_texts.ends_in_answer and index == len(self.messages) - 1

    def _remember_answer(self, message: ChatMessage, new_texts: NewTexts) -> None:
        """Remembers an answer that has passed, as the runtime remembers its own."""
        texts = [message.text]
        for call in message.tool_calls:
            texts += [call.name, readable_arguments(call.arguments)]
        for text in texts:
            new_texts.gate.remember_answer(new_texts.session, text)

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
        for index, message in enumerate(self.messages):
            if message.role == "tool":
                present.add("tool_input")
            elif message.role == "assistant":
                if not self._is_answer(index):
                    present.add("input")
                    continue
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
        if messages and self._is_answer(len(messages) - 1):
            answer.append(messages.pop())  # an answer, not a text that a model is to read
        reading = await self.gate.read(
            self.turn,
            messages,
            self.new_texts.session if self.new_texts else "",
            self.state_after,
            includes_newest=True,
            withholds_refused=self.new_texts is not None,
            # A model's own answer to the messages; in a whole check a client may have split a text.
            answer=answer if self.new_texts is None else (),
        )
        self.messages = [*reading.messages, *answer]
        self.rulings += reading.rulings
        if reading.objection is not None:
            self.objected = True
            self.objection = reading.objection.reply
            if reading.failure is not None:
                self._add_block("input", reading.failure.message)
        elif self._has_only_empty_input(stages):
            await self._run("input", "", self.state_after(0))

    def _has_only_empty_input(self, stages: Sequence[Stage]) -> bool:
        """Returns whether the input stage has read nothing, not even earlier."""
        if "input" not in stages or any(r.stage == "input" for r in self.rulings):
            return False
        return self.new_texts is None or not any(m.text for m in self._input_messages())

    async def _check_answer(self, index: int, state: ConversationState) -> None:
        message = self.messages[index]
        calls = message.tool_calls
        if calls:
            rows = [call.to_openai() for call in calls]
            content = await self._run("tool_output", rows, state)
            if content != rows:
                self._replace_calls(index, content)
            if not stage_flows(self.config, "tool_output"):
                await self._check_calls_as_text(index, state)
        if message.content or not calls:
            text = await self._run("output", message.text, state)
            if text != message.text:
                self.messages[index] = replace(self.messages[index], content=str(text or ""))

    async def _check_calls_as_text(self, index: int, state: ConversationState) -> None:
        """Runs the output stage over tool calls, for which the configuration has no rails."""
        calls = self.messages[index].tool_calls
        if self.new_texts is None:
            for call in calls:
                await self._run("output", _text_of_call(call), state)
            return
        rows: list[Any] = [call.to_openai() for call in calls]
        for number, row in enumerate(rows):
            for part, text in texts_of_call(self.turn, row):
                rewritten = await self._run("output", text, state)
                rows[number] = with_call_text(rows[number], part, text, rewritten)
                if rows[number] is None:
                    self._refuse_rewrite("output")
                    return
        self._replace_calls(index, rows)

    def _replace_calls(self, index: int, content: Any) -> None:
        """Puts the calls as a rail rewrote them; another number of calls is an objection."""
        message = self.messages[index]
        try:
            calls = decode_tool_calls(content, "tool_calls")
        except MessageFormatError:
            calls = ()
        if len(calls) != len(message.tool_calls):
            self._refuse_rewrite("tool_output")
        else:
            self.messages[index] = replace(message, tool_calls=calls)

    def _refuse_rewrite(self, stage: Stage) -> None:
        """Objects to tool calls that a rail would change to what is no list of the same calls."""
        if not self.objected:
            self.objected = True
            self._add_block(stage, "a rail would rewrite a tool call, which cannot be rewritten")

    async def _run(self, stage: Stage, content: Any, state: ConversationState) -> Any:
        """Runs a stage; returns the content as its rails leave it."""
        try:
            outcome = await run_stage(self.turn, state, stage, content)
        except TruingError as error:
            outcome = StageOutcome(stage, content, failure=Failure("rail", "failed", str(error)))
        self.rulings += outcome.rulings
        if outcome.passed:
            return outcome.content
        self.objected = True
        self.objection = self.objection or outcome.reply
        if not any(r.ruling == "block" for r in outcome.rulings):
            self._add_block(stage, outcome.reason)
        return content

    def _add_block(self, stage: Stage, reason: str) -> None:
        self.rulings.append(Ruling(name="runtime", stage=stage, ruling="block", reason=reason))


def _chunks(message: ChatMessage) -> str | None:
    """Returns the retrieved chunks that a message of role context sets, or None."""
    chunks = message.variables.get("relevant_chunks")
    return chunks if isinstance(chunks, str) else None


def _text_of_call(call: ToolCall) -> str:
    return f"{call.name} {readable_arguments(call.arguments)}"
