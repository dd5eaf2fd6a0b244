"""The engines of ``models:``: their addresses, and the environment variables of their vendors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRUING_ENGINE = "truing"
ADDRESS_KEYS = ("base_url", "openai_api_base", "endpoint_url", "api_base")
OPENAI_ADDRESS = "https://api.openai.com/v1"
# Engine with an OpenAI-compatible API -> the address used without `base_url`. None: the default of
# the `openai:` spec; "": the configuration has to give one.
ENGINES: dict[str, str | None] = {
    "openai": None,
    "openai_chat": None,
    "nim": "https://integrate.api.nvidia.com/v1",
    "nvidia_ai_endpoints": "https://integrate.api.nvidia.com/v1",
    "vllm_openai": "",
    "vllm": "",
    "self_hosted": "",
    "ollama": "http://localhost:11434/v1",
    "together": "https://api.together.xyz/v1",
    "groq": "https://api.groq.com/openai/v1",
    "mistralai": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "fireworks": "https://api.fireworks.ai/inference/v1",
}
# Engine -> the environment variable with its key, if the configuration names none.
API_KEY_VARIABLES = {
    "nim": "NVIDIA_API_KEY",
    "nvidia_ai_endpoints": "NVIDIA_API_KEY",
    "together": "TOGETHER_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistralai": "MISTRAL_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "fireworks": "FIREWORKS_API_KEY",
}


def find_address(engine: str, parameters: Mapping[str, Any]) -> str:
    """Returns the address of an entry of ``models:``; "" if it has none."""
    addresses = [str(parameters[key]) for key in ADDRESS_KEYS if parameters.get(key)]
    if addresses:
        return addresses[0]
    known = ENGINES.get(engine, "")
    return OPENAI_ADDRESS if known is None else known
