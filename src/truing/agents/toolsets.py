"""The tools of an agent: what a session of them is, and the simulated ones."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from truing.core.episodes import CallStatus, Environment, StateChange
from truing.core.types import Tool
from truing.worlds.agentdojo import PREFIX as AGENTDOJO_PREFIX
from truing.worlds.agentdojo import AgentDojoSimulation
from truing.worlds.arguments import ArgumentError
from truing.worlds.files import WorldFile, load_world
from truing.worlds.fixed_tools import FixedSimulation
from truing.worlds.simulation import Simulation, ToolError


class ToolResult(NamedTuple):
    """What a call gave: its status, and the text that the model reads."""

    status: CallStatus
    text: str


class ToolSession(Protocol):
    """The tools of one episode; `is_parallel` says that calls of one turn may run together."""

    @property
    def is_parallel(self) -> bool:
        """Whether the calls of one turn are executed at the same time."""
        ...

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools as the model is told of them."""
        ...

    @property
    def world(self) -> tuple[str, str]:
        """Name and hash of the simulated world; empty texts for real tools."""
        ...

    async def call(self, name: str, arguments: str) -> ToolResult:
        """Executes one call; errors are results. `name` is one of the session's tools."""
        ...

    def changes(self) -> tuple[StateChange, ...]:
        """Returns what the calls have changed in a simulated world."""
        ...

    def checks(self, answer: str) -> dict[str, bool]:
        """Returns the verdicts of a world with checks of its own, by question; others have none."""
        ...


class ToolSource(Protocol):
    """Where the tools of an agent come from."""

    @property
    def name(self) -> str:
        """The name in specs and reports; contains no secret."""
        ...

    @property
    def hash(self) -> str:
        """Identifies the tools in the lineage of the agent."""
        ...

    async def start(self, environment: Environment | None) -> ToolSession:
        """Returns a session for one episode; raises UserError if there can be none."""
        ...

    async def close(self) -> None:
        """Releases processes and connections."""
        ...


class SimulatedTools:
    """The tools of the world that a sample names, or of `world_file` where it names none."""

    def __init__(self, world_file: WorldFile | None = None) -> None:
        self._world_file = world_file
        self.name = world_file.world.name if world_file is not None else "of the sample"
        self.hash = world_file.world.hash if world_file is not None else ""
        self.is_of_sample = world_file is None

    async def start(self, environment: Environment | None) -> ToolSession:
        """Returns a copy of the world; one without tools if neither sample nor source has any."""
        if environment is not None and (environment.tools or not environment.world):
            return _SimulatedSession(FixedSimulation(environment))
        if environment is not None and environment.world.startswith(AGENTDOJO_PREFIX):
            return _SimulatedSession(AgentDojoSimulation(environment))
        if environment is not None:
            world = load_world(environment.world, environment.seed).world
            return _SimulatedSession(Simulation(world, environment))
        if self._world_file is None:
            return NoTools()
        return _SimulatedSession(Simulation(self._world_file.world))

    async def close(self) -> None:
        """There is nothing to release."""


class _SimulatedSession:
    """One copy of a world, or the fixed tools of a task."""

    is_parallel = False

    def __init__(self, simulation: Simulation | FixedSimulation | AgentDojoSimulation) -> None:
        self._simulation = simulation
        self.tools = simulation.tools
        self.world = (simulation.world_name, simulation.world_hash)

    async def call(self, name: str, arguments: str) -> ToolResult:
        try:
            return ToolResult("ok", self._simulation.call(name, arguments))
        except ArgumentError as error:
            return ToolResult("invalid", f"error: {error}")
        except ToolError as error:
            return ToolResult("error", f"error: {error}")

    def changes(self) -> tuple[StateChange, ...]:
        return self._simulation.changes()

    def checks(self, answer: str) -> dict[str, bool]:
        if isinstance(self._simulation, AgentDojoSimulation):
            return self._simulation.checks(answer)
        return {}


class NoTools:
    """A session without tools: the agent is a chat model then."""

    is_parallel = False
    tools: tuple[Tool, ...] = ()
    world = ("", "")

    async def call(self, name: str, arguments: str) -> ToolResult:
        """Says that there is no such tool."""
        return ToolResult("unknown", f"error: there is no tool {name!r}")

    def changes(self) -> tuple[StateChange, ...]:
        """Returns no changes."""
        return ()

    def checks(self, answer: str) -> dict[str, bool]:
        """Returns none."""
        return {}
