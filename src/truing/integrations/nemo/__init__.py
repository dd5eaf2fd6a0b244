"""NeMo Guardrails' Python classes on truing's runtime: change the import, keep the program.

`llm_rails.LLMRails` generates, streams, checks and explains; `rails_config.RailsConfig` loads;
`responses` holds what they return.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "llm_rails": "LLMRails",
        "rails_config": "RailsConfig",
        "responses": "ExplainInfo GenerationLog GenerationOptions GenerationResponse LLMCallInfo",
        "runnable_rails": "RunnableRails",
    },
)
