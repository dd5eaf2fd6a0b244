"""The input stage for every text of a client, before any model sees the conversation.

The flows run the input rails on the newest message of the user. All other texts, whatever role
they claim, are read here: each once, as `CheckedTexts` remembers; and then joined to those beside
them, since a text may be split over several (`joined_texts`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from truing.core.errors import TruingError
from truing.core.types import Failure, Ruling
from truing.rails.config.client_settings import ClientSettings
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.chat_messages import ChatMessage
from truing.rails.runtime.checked_texts import UNCHANGED, CheckedTexts, TextVerdict
from truing.rails.runtime.client_texts import (
    WITHHELD_TEXT,
    ClientText,
    TextStage,
    collect_client_texts,
    with_text,
)
from truing.rails.runtime.conversation_state import ConversationState
from truing.rails.runtime.joined_texts import (
    RunSettings,
    TextPart,
    TextRun,
    collect_runs,
    collect_tool_runs,
    ends_of_refused,
    group_texts,
    join_group,
    join_parts,
    shorten_text,
)
from truing.rails.runtime.llm_client import LlmError
from truing.rails.runtime.operator_prefix import OperatorPrefixes
from truing.rails.runtime.stage_runner import run_stage, stage_flows
from truing.rails.runtime.text_verdicts import (
    TextReading,
    name_source,
    read_verdict,
    was_refused,
)
from truing.rails.runtime.turn_context import TurnContext
from truing.rails.runtime.turn_result import TurnOutput, TurnResult

PARALLEL_CHECKS = 8
StateAfterMessages = Callable[[int], ConversationState]  # number of messages -> the state then
ReadText = Callable[[ClientText], Awaitable[TextReading]]


class InputReading(Struct, frozen=True):
    """The conversation after the input stage: its messages, as the rails have rewritten them.

    `objection` is the verdict on the first text that did not pass, which ends the turn; `failure`
    says that a rail did not finish. `rulings` are the decisions on texts without a cached verdict.
    `objects_to_newest`: the rails object to the newest message, and the flows have to refuse it.
    """

    messages: list[ChatMessage]
    rulings: tuple[Ruling, ...] = ()
    objection: TextVerdict | None = None
    failure: Failure | None = None
    objects_to_newest: bool = False


class InputGate:
    """Reads the texts of conversations by the input rails of a configuration."""

    def __init__(self, config: RailsConfig, memory: CheckedTexts) -> None:
        self.config, self.memory = config, memory
        settings = ClientSettings.of(config.truing)
        self.trusted, self.joins_turns = settings.trusted_roles, settings.joins_turns
        self.prefixes = OperatorPrefixes()
        self._running: dict[bytes, asyncio.Future[TextReading | None]] = {}

    def texts_to_read(
        self, turn: TurnContext, messages: Sequence[ChatMessage], *, includes_newest: bool = False
    ) -> list[ClientText]:
        """Returns the texts that a stage with rails must read, in the order of the messages."""
        stages = {stage: self._is_stage_on(turn, stage) for stage in ("input", "tool_input")}
        has_tool_rails = bool(stage_flows(self.config, "tool_input"))
        operator_messages = self.prefixes.find(messages)
        texts = collect_client_texts(
            messages,
            turn.tools,
            has_tool_rails=has_tool_rails,
            trusted=self.trusted,
            includes_newest=includes_newest,
        )
        return [t for t in texts if stages[t.stage] and t.index not in operator_messages]

    async def read(
        self,
        turn: TurnContext,
        messages: list[ChatMessage],
        session: str,
        state_after: StateAfterMessages,
        *,
        includes_newest: bool = False,
        withholds_refused: bool = True,
        answer: Sequence[ChatMessage] = (),
    ) -> InputReading:
        """Runs the input stage over all texts, that of a last message which the flows read only
        with `includes_newest`.

        `withholds_refused`: a refused message that was followed by its refusal is not an objection,
        but is withheld. `answer` follows the messages; only what joins them is read.
        """

        async def read_text(text: ClientText) -> TextReading:
            return await self._read_text(turn, text, session, state_after)

        texts = self.texts_to_read(turn, messages, includes_newest=includes_newest)
        messages = list(messages)
        rulings: list[Ruling] = []
        for start in range(0, len(texts), PARALLEL_CHECKS):
            batch = texts[start : start + PARALLEL_CHECKS]
            readings = await self._read_batch(batch, session, read_text)
            for text, reading in zip(batch, readings, strict=True):
                if isinstance(reading, BaseException):
                    raise reading
                verdict, failure = reading
                if verdict.text is not None:
                    rulings += verdict.rulings
                    if verdict.text != text.text:
                        messages[text.index] = with_text(
                            messages[text.index], text.part, verdict.text
                        )
                elif withholds_refused and failure is None and was_refused(messages, text, verdict):
                    messages[text.index] = with_text(messages[text.index], "content", WITHHELD_TEXT)
                else:
                    rulings += name_source(text, verdict.rulings)
                    return InputReading(messages, tuple(rulings), verdict, failure)
        reading_so_far = InputReading(messages, tuple(rulings))
        return await self._read_joined(turn, reading_so_far, read_text, session, answer)

    # -- single texts ----------------------------------------------------------------------------

    async def _read_batch(
        self, texts: Sequence[ClientText], session: str, read: ReadText
    ) -> list[TextReading | BaseException]:
        """Returns the readings of texts, new ones in parallel, or the errors in their place."""
        # Most texts of a long conversation are remembered: they need no task.
        remembered = [self._recall(session, text) for text in texts]
        new_texts = [
            text for text, reading in zip(texts, remembered, strict=True) if reading is None
        ]
        new_readings = iter(await asyncio.gather(*map(read, new_texts), return_exceptions=True))
        return [next(new_readings) if reading is None else reading for reading in remembered]

    def _recall(self, session: str, text: ClientText) -> TextReading | None:
        """Returns the remembered verdict on a text, or None if it is new."""
        if text.role == "assistant":
            answer_key = self.memory.answer_key(session, text.text)
            if self.memory.get(answer_key) is not None:
                return TextVerdict(text.text), None
        known = self.memory.get(self._key(session, text))
        if known is None:
            return None
        if known.is_unchanged:
            return TextVerdict(text.text), None
        # Where an equal text was rewritten, this one cannot be: the rails decide on it anew.
        return (known, None) if known.text is None or text.can_rewrite else None

    def _key(self, session: str, text: ClientText) -> bytes:
        rails = stage_flows(self.config, text.stage)
        # The name of its tool is a part of what tool rails decide on.
        role = f"{text.role}/{text.name}" if text.stage == "tool_input" else text.role
        return self.memory.key(session, text.stage, rails, role, text.text)

    async def _read_text(
        self, turn: TurnContext, text: ClientText, session: str, state_after: StateAfterMessages
    ) -> TextReading:
        """Returns the verdict on a text, remembered or new, and the failure behind a new one."""
        known = self._recall(session, text)
        if known is not None:
            return known
        key = self._key(session, text)
        running = self._running.get(key)
        if running is not None and running.get_loop() is asyncio.get_running_loop():
            # Another answer to the same conversation, or another client of the session.
            shared = await asyncio.shield(running)
            if shared is not None:
                if shared[0].text == text.text:
                    return TextVerdict(text.text), None
                if shared[0].text is None or text.can_rewrite:
                    return shared
        return await self._read_new_text(turn, text, key, state_after)

    async def _read_new_text(
        self, turn: TurnContext, text: ClientText, key: bytes, state_after: StateAfterMessages
    ) -> TextReading:
        """Runs the rails over a text; concurrent calls for the same text share the result."""
        reading: TextReading | None = None
        shared = asyncio.get_running_loop().create_future()
        self._running[key] = shared
        try:
            reading = await self._run_rails(turn, text, state_after(max(text.index, 0)))
        finally:
            if self._running.get(key) is shared:
                del self._running[key]
            # None after an error: each waiting call then runs the rails itself.
            shared.set_result(reading)
        verdict, failure = reading
        if failure is None:
            self._remember_verdict(key, text.text, verdict)
        return verdict, failure

    def _remember_verdict(self, key: bytes, text: str, verdict: TextVerdict) -> None:
        if verdict.text is None:
            self.memory.put(key, verdict)
        else:
            # The rulings on a text that passed are a record of this turn alone.
            is_unchanged = verdict.text == text
            self.memory.put(key, UNCHANGED if is_unchanged else TextVerdict(verdict.text))

    async def _run_rails(
        self, turn: TurnContext, text: ClientText, state: ConversationState
    ) -> TextReading:
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
        return read_verdict(text, outcome)

    # -- joined texts ----------------------------------------------------------------------------

    async def _read_joined(
        self,
        turn: TurnContext,
        reading: InputReading,
        read: ReadText,
        session: str,
        answer: Sequence[ChatMessage],
    ) -> InputReading:
        """Reads the texts that lie beside each other, joined."""
        messages = reading.messages
        find_objection = partial(self._find_joined_objection, turn, read=read, session=session)
        objection = await find_objection([*messages, *answer])
        if objection is not None and needs_flow_rails(turn, messages):
            newest = ClientText(len(messages) - 1, "content", "user", messages[-1].text)
            verdict, failure = await read(newest)
            if failure is None and verdict.text is None:
                # The newest message alone is refused, so nothing was split: the flows refuse it,
                # with their own message or an exception.
                return replace(reading, objects_to_newest=True)
            if failure is None and objection[1] is not None and verdict.text != newest.text:
                # A rail may have tried to rewrite the joined text. The flows, which run later, will
                # rewrite the newest message: check the joined texts again with it rewritten.
                rewritten = ChatMessage(role="user", content=verdict.text or "")
                objection = await find_objection([*messages[:-1], rewritten, *answer])
        if objection is None:
            return reading
        verdict, failure = objection
        source = ClientText(len(messages) - 1, "joined", "joined", "")
        rulings = (*reading.rulings, *name_source(source, verdict.rulings))
        return InputReading(messages, rulings, verdict, failure)

    async def _find_joined_objection(
        self, turn: TurnContext, messages: Sequence[ChatMessage], *, read: ReadText, session: str
    ) -> TextReading | None:
        has_tool_rails = bool(stage_flows(self.config, "tool_input"))
        settings = RunSettings(
            is_own_answer=lambda text: (
                self.memory.get(self.memory.answer_key(session, text)) is not None
            ),
            skipped=self.prefixes.find(messages),
            trusted=self.trusted,
            has_tool_rails=has_tool_rails,
            joins_turns=self.joins_turns,
        )
        stage_runs: list[tuple[TextStage, TextRun]] = []
        if self._is_stage_on(turn, "input"):
            stage_runs += [("input", run) for run in collect_runs(messages, turn.tools, settings)]
        if self._is_stage_on(turn, "tool_input"):
            tool_runs = collect_tool_runs(messages, self.trusted, joins_turns=self.joins_turns)
            stage_runs += [("tool_input", run) for run in tool_runs]
        await self._read_together(stage_runs, len(messages) - 1, read, session)
        for stage, run in stage_runs:
            objection = await self._read_run(run, stage, len(messages) - 1, read)
            if objection is not None:
                return objection
        return None

    def _is_stage_on(self, turn: TurnContext, stage: TextStage) -> bool:
        return bool(stage_flows(self.config, stage)) and turn.is_stage_on(stage)

    async def _read_together(
        self,
        stage_runs: Sequence[tuple[TextStage, TextRun]],
        index: int,
        read: ReadText,
        session: str,
    ) -> None:
        """Reads the new joined texts of all runs in as few texts as possible.

        So a rail that asks an LLM is asked once in most turns. What passes counts as read; what
        does not is read text by text afterwards, and decided then.
        """
        new_texts: dict[ClientText, dict[str, bytes]] = {}
        for stage, run in stage_runs:
            together = _joined_text(run, stage, index)
            for text in join_parts(run):
                key = self._key(session, replace(together, text=text))
                if self.memory.get(key) is None:
                    new_texts.setdefault(together, {})[text] = key
        for together, keys in new_texts.items():
            for group in group_texts(keys):
                if len(group) == 1:
                    continue
                verdict, failure = await read(replace(together, text=join_group(group)))
                if failure is None and verdict.text is not None:
                    for text in group:
                        self.memory.put(keys[text], UNCHANGED)

    async def _read_run(
        self, run: TextRun, stage: TextStage, index: int, read: ReadText
    ) -> TextReading | None:
        """Returns the objection to the joined texts of a run, or None.

        A text that another stage has let pass is that stage's to decide: if these rails object to
        it alone, the run is joined again without it, and its ends are joined to their neighbours.
        """
        joined = _joined_text(run, stage, index)

        async def read_as(text: str, name: str) -> TextReading:
            return await read(replace(joined, text=text, name=name))

        async def find_objection(parts: Sequence[TextPart]) -> tuple[TextReading, str] | None:
            for text in join_parts(parts):
                reading = await read_as(text, joined.name)
                if reading[0].text is None:
                    return reading, text
            return None

        refused: set[TextPart] = set()
        while True:
            objection = await find_objection([part for part in run if part not in refused])
            if objection is None:
                break
            reading, text = objection
            suspects = [
                part
                for part in run
                if part.is_read_elsewhere
                and part not in refused
                and shorten_text(part.text) in text
            ]
            newly = [p for p in suspects if (await read_as(p.text, p.name))[0].text is None]
            if not newly:
                return reading
            refused.update(newly)
        for side in ends_of_refused(run, refused):
            for end in side.ends:
                objection = await find_objection([*side.before, end, *side.after])
                if objection is None:
                    break
                # A shorter end is tried where the rails object to this one alone.
                if (await read_as(end.text, end.name))[0].text is not None:
                    return objection[0]
        return None

    # -- what the runtime said and read itself ---------------------------------------------------

    def remember_answer(self, session: str, text: str) -> None:
        """Remembers an answer that has passed the output stage."""
        if text:
            self.memory.put(self.memory.answer_key(session, text), UNCHANGED)

    def remember_turn(
        self, turn: TurnContext, message: ChatMessage, session: str, result: TurnResult
    ) -> None:
        """Remembers what the input rails decided on the newest message of a finished turn."""
        text = message.text
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


def needs_flow_rails(turn: TurnContext, messages: Sequence[ChatMessage]) -> bool:
    """Returns whether the flows have to run the input rails on the last message."""
    return bool(messages) and messages[-1].is_read_by_flows and turn.is_stage_on("input")


def refusal_output(reading: InputReading, default: str) -> TurnOutput:
    """Returns the output of a turn that the input stage ends."""
    objection = reading.objection
    reply = objection.reply if objection is not None and reading.failure is None else ""
    return TurnOutput(texts=[reply or default])


def _joined_text(run: TextRun, stage: TextStage, index: int) -> ClientText:
    """Returns the joined text of a run, still without its text."""
    names = ", ".join(dict.fromkeys(part.name for part in run))
    return ClientText(index, "joined", "joined", "", stage, names, can_rewrite=False)
