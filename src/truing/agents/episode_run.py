"""One episode of an agent: the model is called, its tool calls are executed, until it answers.

Whatever the model writes is bounded and recorded, never raised: arguments that are no JSON, tools
that do not exist, calls without end, results of any length, tools that hang.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from msgspec import UNSET, Struct
from msgspec.structs import replace

from truing.agents.toolsets import ToolResult, ToolSession
from truing.core.episodes import WITHHELD_RESULT, AgentTurn, CallRecord, Episode, StopReason
from truing.core.ids import stream_seed
from truing.core.protocols import Model, PrefixAware, iterate_models
from truing.core.text_calls import read_text_calls
from truing.core.types import Answer, Conversation, Message, Ruling, Sampling, ToolCall, Usage

OnBlock = Literal["end", "continue"]
"""What a block by rails does: it ends the episode, or the model is told and goes on."""


class AgentLimits(Struct, frozen=True, kw_only=True):
    """The budgets of one episode.

    - `max_turns`: answers of the model
    - `max_calls`: tool calls
    - `max_tokens`: completion tokens in all; `Sampling.max_tokens` bounds each answer
    - `max_result`: characters of a result that the model reads and the record keeps
    - `max_text`: characters of one answer or of one call's arguments; more ends the episode
    - `call_timeout`: seconds
    """

    max_turns: int = 12
    max_calls: int = 40
    max_tokens: int = 20_000
    max_result: int = 20_000
    max_text: int = 100_000
    call_timeout: float = 30.0


class EpisodeRun:
    """One episode: the conversation so far, and what it has used."""

    def __init__(
        self,
        model: Model,
        session: ToolSession,
        limits: AgentLimits,
        sampling: Sampling,
        on_block: OnBlock = "end",
    ) -> None:
        self._model, self._session, self._limits = model, session, limits
        self._on_block = on_block
        self._sampling = replace(sampling, tools=session.tools)
        self._tool_names = {tool.name for tool in session.tools}
        self._turns: list[AgentTurn] = []
        self._rulings: list[Ruling] = []
        self._usage = Usage()
        self._n_calls = 0
        self._call_ids: set[str] = set()
        # Rails read the calls in the texts of the model below them. A call in a text that comes
        # out of them has been read by no rail on calls (a flow may repeat what the user wrote).
        self._reads_text_calls = not any(isinstance(m, PrefixAware) for m in iterate_models(model))

    async def run(self, conversation: Conversation) -> Answer:
        """Returns the last answer with the episode; a failed one if the model fails."""
        environment = self._sampling.environment
        if environment is not None and environment.started:
            opening = Message("assistant", "", environment.reads)
            conversation = await self._execute_calls(conversation, opening)
        for turn in range(self._limits.max_turns):
            answer = await self._ask_model(conversation, turn)
            if answer.failure is not None:
                return self._finish(answer, "failed")
            if answer.finish_reason in ("blocked", "abstained", "content_filter"):
                with_denial = self._tell_of_block(conversation, answer)
                if with_denial is None or self._find_reached_limit() is not None:
                    return self._finish(answer, "blocked")
                conversation = with_denial
                continue
            message = answer.message
            fault = self._find_size_fault(message)
            if fault is None and self._reads_text_calls:
                message = read_text_calls(message)
            if fault is not None:
                return self._finish(Answer.failed("too_large", fault), "failed")
            if not message.tool_calls:
                return self._finish(replace(answer, message=message), "answered")
            conversation = await self._execute_calls(conversation, message)
            stopped = self._find_reached_limit()
            if stopped is not None:
                return self._finish(replace(answer, message=_text_only(message)), stopped)
        last = self._turns[-1].text if self._turns else ""
        return self._finish(Answer.of(last), "turns")

    async def _ask_model(self, conversation: Conversation, turn: int) -> Answer:
        # The first turn has the seed of the sample, so that an agent that calls no tool answers
        # as its model does.
        seed = stream_seed(self._sampling.seed, turn) if turn else self._sampling.seed
        (answer, *_) = await self._model.generate(
            conversation, replace(self._sampling, n=1, seed=seed)
        )
        usage = answer.usage
        self._usage = Usage(
            self._usage.prompt_tokens + usage.prompt_tokens,
            self._usage.completion_tokens + usage.completion_tokens,
            self._usage.cached_tokens + usage.cached_tokens,
        )
        self._rulings += answer.rulings
        return answer

    def _find_size_fault(self, message: Message) -> str | None:
        limit = self._limits.max_text
        longest = max(len(t) for t in (message.content, *(c.arguments for c in message.tool_calls)))
        return f"the agent wrote {longest:,} characters at once" if longest > limit else None

    def _find_reached_limit(self) -> StopReason | None:
        if self._n_calls >= self._limits.max_calls:
            return "calls"
        return "tokens" if self._usage.completion_tokens >= self._limits.max_tokens else None

    async def _execute_calls(self, conversation: Conversation, message: Message) -> Conversation:
        """Executes the calls of a turn and returns the conversation with their results."""
        calls = [self._with_own_id(call) for call in message.tool_calls]
        message = replace(message, tool_calls=tuple(calls))
        if self._session.is_parallel:
            records = await self._execute_together(calls)
        else:
            # One after the other, in the order of the message: calls that change the same world in
            # parallel would make an episode depend on the timing.
            records = [await self._execute_call(call) for call in calls]
        return self._add_turn(conversation, message, records)

    def _add_turn(
        self, conversation: Conversation, message: Message, records: list[CallRecord]
    ) -> Conversation:
        self._turns.append(AgentTurn(text=message.content, calls=tuple(records)))
        results = (Message("tool", record.result, (), record.id) for record in records)
        return Conversation((*conversation.messages, message, *results))

    async def _execute_together(self, calls: list[ToolCall]) -> list[CallRecord]:
        """Executes calls at the same time, each with its own time-out; the results are in the order
        of the message.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._execute_call(call)) for call in calls]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return [task.result() for task in tasks]

    def _tell_of_block(self, conversation: Conversation, answer: Answer) -> Conversation | None:
        """Records what rails blocked; returns the conversation with a denial of the calls, or
        without the results that the rails objected to. None where the block ends the episode.
        """
        if answer.finish_reason != "blocked":
            return None
        blocks = [ruling for ruling in answer.rulings if ruling.ruling == "block"]
        reason = next((ruling.reason for ruling in blocks if ruling.reason), "not allowed")
        continued = None
        if answer.blocked_calls:
            continued = self._deny_calls(conversation, answer, blocks, reason)
        elif blocks and all(ruling.stage == "tool_input" for ruling in blocks):
            continued = self._withhold_results(conversation, blocks, reason)
        return continued if self._on_block == "continue" else None

    def _deny_calls(
        self,
        conversation: Conversation,
        answer: Answer,
        blocks: list[Ruling],
        reason: str,
    ) -> Conversation | None:
        """Returns the conversation with the blocked calls and their denials; None if they are too
        long to be recorded. None of a turn's calls is executed, whichever of them a rail is about.
        """
        blocked = answer.blocked_calls
        if self._find_size_fault(Message("assistant", "", blocked)) is not None:
            return None
        calls = tuple(self._with_own_id(call) for call in blocked)
        self._name_own_ids(blocked, calls, len(answer.rulings))
        self._n_calls += len(calls)
        named = _named_calls(blocks)
        records = [
            _deny(own, reason if not named or call.id in named else _OTHER_CALL_BLOCKED)
            for call, own in zip(blocked, calls, strict=True)
        ]
        return self._add_turn(conversation, Message("assistant", "", calls), records)

    def _name_own_ids(
        self, blocked: tuple[ToolCall, ...], calls: tuple[ToolCall, ...], n_rulings: int
    ) -> None:
        """Writes the episode's own ids of calls into the rulings of the newest answer."""
        own_ids: dict[str, list[str]] = {}
        for call, own in zip(blocked, calls, strict=True):
            own_ids.setdefault(call.id, []).append(own.id)
        # Earlier rulings may name the same id of the model, for another call.
        first = len(self._rulings) - n_rulings
        self._rulings[first:] = [
            replace(r, call_ids=tuple(own for i in r.call_ids for own in own_ids.get(i, [i])))
            if r.call_ids is not UNSET and r.stage == "tool_output"
            else r
            for r in self._rulings[first:]
        ]

    def _withhold_results(
        self, conversation: Conversation, blocks: list[Ruling], reason: str
    ) -> Conversation | None:
        """Returns the conversation with a note in place of the results that the blocks name; of all
        results of the newest turn if one of them names none. None if these have been withheld
        before.
        """
        last = self._turns[-1] if self._turns else AgentTurn()
        named = _named_calls(blocks) or {call.id for call in last.calls}
        withheld = {
            call.id
            for call in last.calls
            if call.id in named and not call.withheld and call.status != "denied"
        }
        if not withheld:
            return None
        calls = tuple(
            replace(call, withheld=True) if call.id in withheld else call for call in last.calls
        )
        self._turns[-1] = replace(last, calls=calls)
        note = f"{WITHHELD_RESULT}: {reason}"
        return Conversation(
            tuple(
                replace(m, content=note) if m.role == "tool" and m.tool_call_id in withheld else m
                for m in conversation.messages
            )
        )

    def _with_own_id(self, call: ToolCall) -> ToolCall:
        # Servers leave ids out, and models repeat them; a result must name one call.
        if call.id and call.id not in self._call_ids:
            self._call_ids.add(call.id)
            return call
        number = len(self._call_ids)
        while (call_id := f"call_{number}") in self._call_ids:
            number += 1
        self._call_ids.add(call_id)
        return replace(call, id=call_id)

    async def _execute_call(self, call: ToolCall) -> CallRecord:
        tool_result = await self._find_result(call)
        text, limit = tool_result.text, self._limits.max_result
        cut = len(text) if len(text) > limit else None
        if cut is not None:
            text = f"{text[:limit]}\n[cut: {cut:,} characters]"
        return CallRecord(
            id=call.id,
            name=call.name,
            arguments=call.arguments,
            status=tool_result.status,
            result=text,
            cut=cut,
        )

    async def _find_result(self, call: ToolCall) -> ToolResult:
        if self._n_calls >= self._limits.max_calls:
            return ToolResult("limit", f"error: at most {self._limits.max_calls} calls are allowed")
        self._n_calls += 1
        if call.name not in self._tool_names:
            return ToolResult("unknown", f"error: there is no tool {call.name[:100]!r}")
        try:
            async with asyncio.timeout(self._limits.call_timeout):
                return await self._session.call(call.name, call.arguments)
        except TimeoutError:
            return ToolResult("timeout", f"error: no result in {self._limits.call_timeout:g} s")

    def _finish(self, answer: Answer, stopped: StopReason) -> Answer:
        """Returns the answer with the record of the episode."""
        if stopped in ("answered", "blocked"):
            self._turns.append(AgentTurn(text=answer.text))
        world, world_hash = self._session.world
        episode = Episode(
            turns=tuple(self._turns),
            changes=self._session.changes(),
            stopped=stopped,
            world=world,
            world_hash=world_hash,
            checks=self._session.checks(answer.text),
        )
        at_limit = stopped in ("turns", "calls", "tokens")
        return replace(
            answer,
            finish_reason="length" if at_limit else answer.finish_reason,
            usage=self._usage,
            rulings=tuple(self._rulings),
            logprobs=None,
            episode=episode,
        )


_OTHER_CALL_BLOCKED = "another call of the same turn is not allowed"


def _named_calls(blocks: list[Ruling]) -> set[str]:
    """Returns the ids of the calls that blocks are about; none if one of them is about all."""
    if any(ruling.call_ids is UNSET for ruling in blocks):
        return set()
    return {i for ruling in blocks if ruling.call_ids is not UNSET for i in ruling.call_ids}


def _deny(call: ToolCall, reason: str) -> CallRecord:
    return CallRecord(
        id=call.id,
        name=call.name,
        arguments=call.arguments,
        status="denied",
        result=f"denied: {reason}",
    )


def _text_only(message: Message) -> Message:
    return Message("assistant", message.content)
