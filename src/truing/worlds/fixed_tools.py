"""Tasks whose tools return fixed texts: published sets state them with their rows, without a world.

Such a tool changes nothing; what counts is which calls the agent makes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from truing.core.episodes import INJECTION_MARK, Environment, FixedTool, StateChange
from truing.core.lineage import digest
from truing.core.types import Tool
from truing.worlds.arguments import ArgumentError, read_arguments


class FixedSimulation:
    """The tools of one task."""

    def __init__(self, environment: Environment) -> None:
        self.world_name = environment.world
        self.world_hash = hash_fixed_tools(environment)
        self._environment = environment
        self._by_name = {tool.name: tool for tool in environment.tools}

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools as a model is told of them."""
        injected = find_injected_description(self._environment, list(self._by_name))
        return tuple(
            Tool(name, f"{tool.description}\n{injected.get(name, '')}".strip(), tool.parameters)
            for name, tool in self._by_name.items()
        )

    def call(self, name: str, arguments: str) -> str:
        """Returns the text of a tool, with the injection in its place; raises ArgumentError for
        arguments that are no JSON object or lack a required one.
        """
        tool = self._by_name[name]
        _require_arguments(tool, read_arguments(arguments))
        injection = self._environment.injection
        is_in_result = injection is not None and injection.place != "tool_description"
        written = injection.written if injection is not None and is_in_result else ""
        return tool.result.replace(INJECTION_MARK, written)

    def changes(self) -> tuple[StateChange, ...]:
        """Returns nothing: no tool changes anything."""
        return ()


def hash_fixed_tools(environment: Environment) -> str:
    """Returns what identifies the tools of a task, in place of a world's hash."""
    return digest("fixed tools", *(repr(tool) for tool in environment.tools))


def find_injected_description(environment: Environment | None, names: list[str]) -> dict[str, str]:
    """Returns the injected text by the name of the tool in whose description it stands: the tool
    that the task reads, else the first; empty for injections elsewhere.
    """
    injection = environment.injection if environment is not None else None
    if environment is None or injection is None or injection.place != "tool_description":
        return {}
    read = [call.name for call in environment.reads if call.name in names]
    return {(read or names)[0]: injection.written} if names else {}


def _require_arguments(tool: FixedTool, values: dict[str, Any]) -> None:
    schema = msgspec.json.decode(tool.parameters)
    missing = [name for name in schema.get("required", ()) if name not in values]
    if missing:
        raise ArgumentError(f"{tool.name} needs {', '.join(map(repr, missing))}")
