"""Rails in the LiteLLM proxy (the `litellm` extra): `RailsGuardrail`, a custom guardrail class.

`inputs` reads what LiteLLM gives to guardrails; `truing serve` answers LiteLLM's Generic Guardrail
API with it, without LiteLLM installed.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "guardrail": "RailsGuardrail",
        "inputs": "GuardrailDecision GuardrailInputs check_inputs",
    },
)
