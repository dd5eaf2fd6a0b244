"""Rails in the OpenAI Agents SDK (the `openai-agents` extra): `AgentRails`, whose `guard(agent)`
returns an agent behind rails, and whose guardrails can be used one by one.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "agent_rails": "AgentRails",
        "rails_model": "RailsModel",
    },
)
