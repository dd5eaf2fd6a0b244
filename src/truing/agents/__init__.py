"""Agents: a model in a loop with tools (`agent:`), its budgets and its record; tools that are
simulated, Python functions or an MCP server; scripted agents with known behaviour.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "agent": "AgentModel",
        "episode_run": "AgentLimits",
        "function_tools": "FunctionTools",
        "json_calls": "JsonCallModel",
        "mcp_tools": "McpTools",
        "scripted": "AgentScript ScriptedAgent",
        "toolsets": "SimulatedTools ToolResult ToolSession ToolSource",
    },
)
