"""An agent as a model: `agent:MODEL,tools=...` calls a model in a loop, executes its tool calls,
and returns the last answer with the record of the episode.

    agent = AgentModel(model, SimulatedTools(load_world("mail")))
    (answer,) = await agent.generate(Conversation.of("Which mails are there?"), Sampling())
    answer.episode.calls

Whatever the model writes is bounded and recorded, never raised: arguments that are no JSON, tools
that do not exist, calls without end, results of any length, tools that hang.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from truing.agents.toolsets import SimulatedTools, ToolResult, ToolSession, ToolSource
from truing.core.episodes import AgentTurn, CallRecord, Episode, StopReason
from truing.core.ids import stream_seed
from truing.core.lineage import digest
from truing.core.protocols import Closeable, Model, PrefixAware, iterate_models
from truing.core.text_calls import read_text_calls
from truing.core.types import Answer, Conversation, Message, Ruling, Sampling, ToolCall, Usage


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


class AgentModel:
    """A model with tools; `limits` are its budgets."""

    def __init__(
        self, model: Model, tools: ToolSource | None = None, limits: AgentLimits | None = None
    ) -> None:
        self.model = model
        self.tools = tools or SimulatedTools()
        self.limits = limits or AgentLimits()
        self.name = self._describe()
        self.lineage = replace(
            model.lineage,
            name=self.name,
            hash=digest("agent", model.lineage.hash, self.tools.hash, repr(self.limits)),
        )

    def _describe(self) -> str:
        parts = [f"agent:of=({self.model.name})"]
        if not (isinstance(self.tools, SimulatedTools) and self.tools.is_of_sample):
            parts.append(f"tools={self.tools.name}")
        defaults = AgentLimits()
        for name in AgentLimits.__struct_fields__:
            value = getattr(self.limits, name)
            if value != getattr(defaults, name):
                parts.append(f"{name}={value:g}")
        return ",".join(parts)

    @property
    def real_tools(self) -> str:
        """The name of tools that act outside of a simulated world; "" if there are none."""
        return str(getattr(self.tools, "real_tools", ""))

    def around_model(self, wrap: Callable[[Model], Model]) -> AgentModel:
        """Returns the agent with `wrap` around each call of its model: a guard reads what the model
        reads, and the calls that it makes, before they are executed.
        """
        return AgentModel(wrap(self.model), self.tools, self.limits)

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers, each from an episode with a world of its own."""
        if sampling.n == 1:
            return (await self._answer(conversation, sampling),)
        seeds = [stream_seed(sampling.seed, index) for index in range(sampling.n)]
        # An episode that raises ends the others: none acts on after the call has failed.
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._answer(conversation, replace(sampling, n=1, seed=s)))
                    for s in seeds
                ]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return tuple(task.result() for task in tasks)

    async def _answer(self, conversation: Conversation, sampling: Sampling) -> Answer:
        session = await self.tools.start(sampling.environment)
        return await _EpisodeRun(self.model, session, self.limits, sampling).run(conversation)

    async def close(self) -> None:
        """Closes the model and the tools."""
        await self.tools.close()
        if isinstance(self.model, Closeable):
            await self.model.close()


class _EpisodeRun:
    """One episode: the conversation so far, and what it has used."""

    def __init__(
        self, model: Model, session: ToolSession, limits: AgentLimits, sampling: Sampling
    ) -> None:
        self._model, self._session, self._limits = model, session, limits
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
        for turn in range(self._limits.max_turns):
            answer = await self._ask_model(conversation, turn)
            if answer.failure is not None:
                return self._finish(answer, "failed")
            if answer.finish_reason in ("blocked", "abstained", "content_filter"):
                return self._finish(answer, "blocked")
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
        # One after the other, in the order of the message: calls that change the same world in
        # parallel would make an episode depend on the timing.
        records = [await self._execute_call(call) for call in calls]
        self._turns.append(AgentTurn(text=message.content, calls=tuple(records)))
        results = (Message("tool", record.result, (), record.id) for record in records)
        return Conversation((*conversation.messages, message, *results))

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
        result = await self._find_result(call)
        text, limit = result.text, self._limits.max_result
        cut = len(text) if len(text) > limit else None
        if cut is not None:
            text = f"{text[:limit]}\n[cut: {cut:,} characters]"
        return CallRecord(
            id=call.id,
            name=call.name,
            arguments=call.arguments,
            status=result.status,
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


def _text_only(message: Message) -> Message:
    return Message("assistant", message.content)
