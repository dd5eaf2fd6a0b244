"""Adapters to the tools that people work in; each needs its own extra, or none.

nemo: NeMo Guardrails' `LLMRails` and `RailsConfig` on truing's runtime.
langchain: rails in agents, chains and graphs of LangChain and LangGraph.
hook_rails: what the hooks share: the same runtime and decisions as `truing serve`.
notebook, notebook_tables: how runs, summaries and comparisons show themselves in Jupyter.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "langchain": "GuardedChatModel RailsMiddleware",
        "litellm": "RailsGuardrail",
        "litellm.inputs": "GuardrailDecision GuardrailInputs check_inputs",
        "nemo": "LLMRails RailsConfig",
        "notebook": "register_formatters",
        "notebook_tables": "summary_html",
        "openai_agents": "AgentRails",
    },
)
