"""An agent as a model: `agent:MODEL,tools=...` calls a model in a loop, executes its tool calls,
and returns the last answer with the record of the episode.

    agent = AgentModel(model, SimulatedTools(load_world("mail")))
    (answer,) = await agent.generate(Conversation.of("Which mails are there?"), Sampling())
    answer.episode.calls
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar

from msgspec.structs import replace

from truing.agents.episode_run import AgentLimits, EpisodeRun, OnBlock
from truing.agents.toolsets import SimulatedTools, ToolSource
from truing.core.errors import PlanError
from truing.core.ids import stream_seed
from truing.core.lineage import digest
from truing.core.model_parts import iterate_parts
from truing.core.protocols import Closeable, Model
from truing.core.types import Answer, Conversation, Sampling

MAX_NESTED_AGENTS = 4
"""Agents that run within each other, each in a tool of the one before: one that calls itself would
not end otherwise."""

_depth: ContextVar[int] = ContextVar("agent_depth", default=0)


class AgentModel:
    """A model with tools; `limits` are its budgets, `on_block` says what a block by rails does.

    Raises PlanError around another agent.
    """

    def __init__(
        self,
        model: Model,
        tools: ToolSource | None = None,
        limits: AgentLimits | None = None,
        *,
        on_block: OnBlock = "end",
    ) -> None:
        inner = next((part for part in iterate_parts(model) if isinstance(part, AgentModel)), None)
        if inner is not None:
            raise PlanError(f"agent: {inner.name} is an agent already; its own tools would be lost")
        self.model = model
        self.tools = tools or SimulatedTools()
        self.limits = limits or AgentLimits()
        self.on_block: OnBlock = on_block
        self.name: str = self._describe()
        settings = [model.lineage.hash, self.tools.hash, repr(self.limits)]
        if on_block != "end":
            settings.append(on_block)
        self.lineage = replace(model.lineage, name=self.name, hash=digest("agent", *settings))

    def _describe(self) -> str:
        arguments = [f"agent:of=({self.model.name})"]
        if not (isinstance(self.tools, SimulatedTools) and self.tools.is_of_sample):
            arguments.append(f"tools={self.tools.name}")
        defaults = AgentLimits()
        for name in AgentLimits.__struct_fields__:
            value = getattr(self.limits, name)
            if value != getattr(defaults, name):
                arguments.append(f"{name}={value:g}")
        if self.on_block != "end":
            arguments.append(f"on_block={self.on_block}")
        return ",".join(arguments)

    @property
    def real_tools(self) -> str:
        """The name of tools that act outside of a simulated world; "" if there are none."""
        return str(getattr(self.tools, "real_tools", ""))

    def around_model(self, wrap: Callable[[Model], Model]) -> AgentModel:
        """Returns the agent with `wrap` around each call of its model: a guard reads what the model
        reads, and the calls that it makes, before they are executed.
        """
        return AgentModel(wrap(self.model), self.tools, self.limits, on_block=self.on_block)

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers, each from an episode with a world of its own."""
        if sampling.n == 1:
            return (await self._answer(conversation, sampling),)
        seeds = [stream_seed(sampling.seed, index) for index in range(sampling.n)]
        # An episode that raises ends the others: none acts on after the call has failed.
        try:
            async with asyncio.TaskGroup() as episodes:
                tasks = [
                    episodes.create_task(self._answer(conversation, replace(sampling, n=1, seed=s)))
                    for s in seeds
                ]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return tuple(task.result() for task in tasks)

    async def _answer(self, conversation: Conversation, sampling: Sampling) -> Answer:
        depth = _depth.get()
        if depth >= MAX_NESTED_AGENTS:
            reason = f"more than {MAX_NESTED_AGENTS} agents called each other as tools"
            return Answer.failed("recursion", reason)
        token = _depth.set(depth + 1)
        try:
            session = await self.tools.start(sampling.environment)
            episode = EpisodeRun(self.model, session, self.limits, sampling, self.on_block)
            return await episode.run(conversation)
        finally:
            _depth.reset(token)

    async def close(self) -> None:
        """Closes the model and the tools."""
        await self.tools.close()
        if isinstance(self.model, Closeable):
            await self.model.close()
