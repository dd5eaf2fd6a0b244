"""Simulated worlds for agents: tables of records and tools that change them, their tasks with
twins, and checks of the end state. Pure data from TOML files; nothing is executed or reached.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "agentdojo": (
            "AgentDojoSimulation DEFAULT_VERSION PREFIX find_injection_vectors list_solution "
            "load_suite"
        ),
        "arguments": "ArgumentError ArgumentSchema MAX_ARGUMENT_CHARACTERS read_arguments",
        "conditions": "find_call find_calls holds",
        "files": "AgentTask WORLD_NAMES WorldFile load_world parse_world",
        "fixed_tools": "FixedSimulation hash_fixed_tools",
        "seen_injections": "find_seen_injection shows_injection",
        "simulation": "Simulation ToolError apply_changes starting_state",
        "undone_harm": "trace_harm",
        "world": "State World WorldRow WorldTool",
    },
)
