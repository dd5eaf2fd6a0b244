"""The input stage for every text of a client, before any model sees the conversation.

The flows run the input rails on the newest message of the user. All other texts, whatever role
they claim, are read here: each once, as `CheckedTexts` remembers; and the borders between the
messages that the runtime has not answered itself, over which a text may be split.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from truing.core.errors import TruingError
from truing.core.types import Failure, Ruling
from truing.rails.config.client_settings import ClientSettings
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.checked_texts import AS_IT_IS, CheckedTexts, TextVerdict
from truing.rails.runtime.client_texts import (
    WITHHELD_TEXT,
    ClientText,
    Row,
    collect_client_texts,
    is_live,
    join_over_borders,
    with_text,
)
from truing.rails.runtime.conversation_state import ConversationState, content_text
from truing.rails.runtime.llm_client import LlmError
from truing.rails.runtime.stage_runner import StageOutcome, run_stage, stage_flows
from truing.rails.runtime.turn_context import TurnContext
from truing.rails.runtime.turn_result import TurnOutput, TurnResult

PARALLEL_CHECKS = 8
OWN_STAGE = "own answer"  # in place of a stage, in the keys of answers of the runtime
StateOf = Callable[[int], ConversationState]  # number of messages -> the state after them


class InputReading(Struct, frozen=True):
    """The conversation after the input stage: its messages with what the rails made of them.

    `objection` is the verdict on the first text that did not pass, which ends the turn; `failure`
    says that a rail did not finish. `rulings` are the decisions on the texts that were read anew.
    """

    rows: list[Row]
    rulings: tuple[Ruling, ...] = ()
    objection: TextVerdict | None = None
    failure: Failure | None = None


class InputGate:
    """Reads the texts of conversations by the input rails of a configuration."""

    def __init__(self, config: RailsConfig, memory: CheckedTexts) -> None:
        self.config, self.memory = config, memory
        self.trusted = ClientSettings.of(config.truing).trusted_roles

    def texts_to_read(
        self, turn: TurnContext, rows: Sequence[Row], *, is_live_included: bool = False
    ) -> list[ClientText]:
        """Returns the texts that a stage with rails must read, in the order of the messages."""
        stages = {
            stage: bool(stage_flows(self.config, stage)) and turn.is_stage_on(stage)
            for stage in ("input", "tool_input")
        }
        has_tool_rails = bool(stage_flows(self.config, "tool_input"))
        texts = collect_client_texts(
            rows,
            turn.tools,
            has_tool_rails=has_tool_rails,
            trusted=self.trusted,
            is_live_included=is_live_included,
        )
        return [text for text in texts if stages[text.stage]]

    async def read(
        self,
        turn: TurnContext,
        rows: list[Row],
        session: str,
        state_after: StateOf,
        *,
        is_live_included: bool = False,
        withholds_refused: bool = True,
    ) -> InputReading:
        """Runs the input stage over all texts, that of a live last message only if asked to.

        `withholds_refused`: a refused message that was followed by its refusal is not an objection,
        but is withheld.
        """
        texts = self.texts_to_read(turn, rows, is_live_included=is_live_included)
        rows = list(rows)
        rulings: list[Ruling] = []
        for start in range(0, len(texts), PARALLEL_CHECKS):
            batch = texts[start : start + PARALLEL_CHECKS]
            readings = await asyncio.gather(
                *(self._read_text(turn, text, session, state_after) for text in batch),
                return_exceptions=True,
            )
            for text, reading in zip(batch, readings, strict=True):
                if isinstance(reading, BaseException):
                    raise reading
                verdict, failure = reading
                if verdict.text is not None:
                    rulings += verdict.rulings
                    if verdict.text != text.text:
                        rows[text.index] = with_text(rows[text.index], text.part, verdict.text)
                elif withholds_refused and failure is None and _was_refused(rows, text, verdict):
                    rows[text.index] = with_text(rows[text.index], "content", WITHHELD_TEXT)
                else:
                    return InputReading(rows, (*rulings, *verdict.rulings), verdict, failure)
        reading_so_far = InputReading(rows, tuple(rulings))
        return await self._read_borders(turn, reading_so_far, session, state_after)

    # -- single texts ----------------------------------------------------------------------------

    def _key(self, session: str, text: ClientText) -> bytes:
        rails = stage_flows(self.config, text.stage)
        # The name of its tool is a part of what tool rails decide on.
        role = f"{text.role}/{text.name}" if text.stage == "tool_input" else text.role
        return self.memory.key(session, text.stage, rails, role, text.text)

    async def _read_text(
        self, turn: TurnContext, text: ClientText, session: str, state_after: StateOf
    ) -> tuple[TextVerdict, Failure | None]:
        """Returns the verdict on a text, remembered or new, and the failure behind a new one."""
        if text.role == "assistant" and self.memory.get(self._own_key(session, text.text)):
            return TextVerdict(text.text), None
        key = self._key(session, text)
        known = self.memory.get(key)
        if known is not None:
            return TextVerdict(text.text) if known.is_unchanged else known, None
        verdict, failure = await self._run_rails(turn, text, state_after(max(text.index, 0)))
        if failure is None:
            self._remember_verdict(key, text.text, verdict)
        return verdict, failure

    def _remember_verdict(self, key: bytes, text: str, verdict: TextVerdict) -> None:
        if verdict.text is None:
            self.memory.put(key, verdict)
        else:
            # The rulings on a text that passed are a record of this turn alone.
            is_unchanged = verdict.text == text
            self.memory.put(key, AS_IT_IS if is_unchanged else TextVerdict(verdict.text))

    async def _run_rails(
        self, turn: TurnContext, text: ClientText, state: ConversationState
    ) -> tuple[TextVerdict, Failure | None]:
        try:
            outcome = await run_stage(
                turn, state, text.stage, text.text, name=text.name, call_id=text.call_id
            )
        except LlmError as error:
            if turn.is_stage_check:
                return TextVerdict(None), error.failure
            raise
        except TruingError as error:
            return TextVerdict(None), Failure("rail", "flow", str(error))
        return _verdict_of(text, outcome)

    # -- borders ---------------------------------------------------------------------------------

    async def _read_borders(
        self, turn: TurnContext, reading: InputReading, session: str, state_after: StateOf
    ) -> InputReading:
        """Reads the borders between the messages that follow each other without an own answer."""
        if not (stage_flows(self.config, "input") and turn.is_stage_on("input")):
            return reading
        rows = reading.rows
        objection = await self._find_border_objection(turn, rows, session, state_after)
        if objection is not None and objection[1] is not None and is_live(rows[-1]):
            # A rail would rewrite the live message, which the flows have not let it do yet.
            live = ClientText(len(rows) - 1, "content", "user", content_text(_content_of(rows[-1])))
            verdict, failure = await self._read_text(turn, live, session, state_after)
            if failure is None and verdict.text not in (None, live.text):
                rows = [*rows[:-1], {"role": "user", "content": verdict.text}]
                objection = await self._find_border_objection(turn, rows, session, state_after)
        if objection is None:
            return reading
        verdict, failure = objection
        rulings = (*reading.rulings, *verdict.rulings)
        return InputReading(reading.rows, rulings, verdict, failure)

    async def _find_border_objection(
        self, turn: TurnContext, rows: Sequence[Row], session: str, state_after: StateOf
    ) -> tuple[TextVerdict, Failure | None] | None:
        for joined in self._joined_texts(rows, session):
            text = ClientText(len(rows) - 1, "border", "joined", joined, can_rewrite=False)
            verdict, failure = await self._read_text(turn, text, session, state_after)
            if verdict.text is None:
                return verdict, failure
        return None

    def _joined_texts(self, rows: Sequence[Row], session: str) -> list[str]:
        joined: list[str] = []
        run: list[str] = []
        has_tool_rails = bool(stage_flows(self.config, "tool_input"))
        for row in rows:
            role = "system" if row.get("role") == "developer" else row.get("role")
            text = content_text(_content_of(row))
            is_read_elsewhere = role in self.trusted or (role == "tool" and has_tool_rails)
            if not text or role in ("context", "exception") or is_read_elsewhere:
                continue
            if role == "assistant" and self.memory.get(self._own_key(session, text)):
                joined += join_over_borders(run)
                run = []
            else:
                run.append(text)
        return [*joined, *join_over_borders(run)]

    # -- what the runtime said and read itself ---------------------------------------------------

    def _own_key(self, session: str, text: str) -> bytes:
        return self.memory.key(session, OWN_STAGE, (), "assistant", text)

    def remember_answer(self, session: str, text: str) -> None:
        """Remembers an answer that has passed the output stage."""
        if text:
            self.memory.put(self._own_key(session, text), AS_IT_IS)

    def remember_turn(self, turn: TurnContext, row: Row, session: str, result: TurnResult) -> None:
        """Remembers what the input rails decided on the live message of a finished turn."""
        text = content_text(_content_of(row))
        if not text or not turn.required_input or turn.failure is not None:
            return
        key = self._key(session, ClientText(0, "content", "user", text))
        if not turn.missing_input_rails:
            rewritten = turn.state.context.get("user_message")
            if isinstance(rewritten, str):
                self._remember_verdict(key, text, TextVerdict(rewritten))
        elif any(r.stage == "input" and r.ruling == "block" for r in result.rulings):
            rulings = tuple(r for r in result.rulings if r.stage == "input")
            self.memory.put(key, TextVerdict(None, shown_text(result.message), rulings))


def shown_text(message: dict[str, Any]) -> str:
    """Returns the text of a message of the runtime as clients see it."""
    content = message["content"]
    return content if isinstance(content, str) else str(content.get("message") or "")


def needs_live_input(turn: TurnContext, rows: Sequence[Row]) -> bool:
    """Returns whether the flows have to run the input rails on the last message."""
    return bool(rows) and is_live(rows[-1]) and turn.is_stage_on("input")


def refusal_output(reading: InputReading, default: str) -> TurnOutput:
    """Returns the output of a turn that the input stage ends."""
    objection = reading.objection
    reply = objection.reply if objection is not None and reading.failure is None else ""
    return TurnOutput(texts=[reply or default])


def _verdict_of(text: ClientText, outcome: StageOutcome) -> tuple[TextVerdict, Failure | None]:
    rulings = outcome.rulings
    if not outcome.passed:
        failure = outcome.failure
        if failure is None and not outcome.objected:
            failure = Failure("rail", "unchecked", outcome.reason)
        return TextVerdict(None, outcome.reply, rulings), failure
    content = outcome.content
    if content == text.text:
        return TextVerdict(text.text, rulings=rulings), None
    if not text.can_rewrite or not isinstance(content, str):
        rails = ", ".join(r.name for r in rulings if r.ruling == "rewrite")
        reason = f"{rails} would rewrite a {text.role} text ({text.part}) that cannot be rewritten"
        return TextVerdict(None, rulings=rulings), Failure("rail", "rewrite", reason)
    return TextVerdict(content, rulings=rulings), None


def _was_refused(rows: Sequence[Row], text: ClientText, verdict: TextVerdict) -> bool:
    """Returns whether the next message is the refusal that answered this one.

    Then the conversation goes on without the refused text, which the model does not see.
    """
    if text.part != "content" or not 0 <= text.index < len(rows) - 1:
        return False
    answer = rows[text.index + 1]
    if answer.get("role") == "exception":
        return True
    return (
        answer.get("role") == "assistant"
        and bool(verdict.reply)
        and (answer.get("content") == verdict.reply)
    )


def _content_of(row: Row) -> Any:
    if row.get("role") == "event":
        event = row.get("event")
        return (event.get("final_transcript") if isinstance(event, dict) else None) or ""
    return row.get("content") or ""
