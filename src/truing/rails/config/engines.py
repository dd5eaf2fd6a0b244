"""The engines of ``models:``: their addresses, and the environment variables of their vendors.

All are asked by the OpenAI-compatible API that the vendor's own service or the server has; an
engine without one is refused by its name (`REFUSED_ENGINES`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

TRUING_ENGINE = "truing"
ADDRESS_KEYS = ("base_url", "openai_api_base", "endpoint_url", "api_base")
OPENAI_ADDRESS = "https://api.openai.com/v1"
# Engine with an OpenAI-compatible API -> the address used without `base_url`. None: the default of
# the `openai:` spec; "": the configuration has to give one, or what `ADDRESS_BUILDERS` needs.
ENGINES: dict[str, str | None] = {
    "openai": None,
    "openai_chat": None,
    "azure": "",
    "azure_openai": "",
    "anthropic": "https://api.anthropic.com/v1",
    "bedrock": "",
    "amazon_bedrock": "",
    "vertexai": "",
    "google_vertexai": "",
    "google_genai": "https://generativelanguage.googleapis.com/v1beta/openai",
    "cohere": "https://api.cohere.ai/compatibility/v1",
    "nim": "https://integrate.api.nvidia.com/v1",
    "nvidia_ai_endpoints": "https://integrate.api.nvidia.com/v1",
    "vllm_openai": "",
    "vllm": "",
    "self_hosted": "",
    "litellm": "",
    "ollama": "http://localhost:11434/v1",
    "together": "https://api.together.xyz/v1",
    "groq": "https://api.groq.com/openai/v1",
    "mistralai": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "fireworks": "https://api.fireworks.ai/inference/v1",
    "huggingface_endpoint": "",
    "huggingface_hub": "https://router.huggingface.co/v1",
}
# Engine -> the environment variable with its key, if the configuration names none.
API_KEY_VARIABLES = {
    "azure": "AZURE_OPENAI_API_KEY",
    "azure_openai": "AZURE_OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "bedrock": "AWS_BEARER_TOKEN_BEDROCK",
    "amazon_bedrock": "AWS_BEARER_TOKEN_BEDROCK",
    "google_genai": "GOOGLE_API_KEY",
    "cohere": "COHERE_API_KEY",
    "nim": "NVIDIA_API_KEY",
    "nvidia_ai_endpoints": "NVIDIA_API_KEY",
    "together": "TOGETHER_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistralai": "MISTRAL_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "fireworks": "FIREWORKS_API_KEY",
    "huggingface_endpoint": "HF_TOKEN",
    "huggingface_hub": "HF_TOKEN",
}
# Engines whose OpenAI-compatible API has no embeddings.
CHAT_ONLY_ENGINES = frozenset(
    {"anthropic", "bedrock", "amazon_bedrock", "vertexai", "google_vertexai", "huggingface_hub"}
)
_OWN_SERVER = (
    "runs a model in NeMo's process; serve it (vllm serve) and use engine: vllm_openai with its "
    "base_url, or engine: truing with model: local:PATH"
)
# Engine -> why truing does not have it, and what to use. A name that ends in * is a prefix.
REFUSED_ENGINES = {
    "hf_pipeline*": _OWN_SERVER,
    "huggingface_pipeline": _OWN_SERVER,
    "trt_llm": "has an API of its own; NVIDIA's NIM and trtllm-serve are asked with engine: nim or "
    "vllm_openai and their base_url",
}


def _azure_address(parameters: Mapping[str, Any]) -> str:
    endpoint = parameters.get("azure_endpoint") or os.environ.get("AZURE_OPENAI_ENDPOINT") or ""
    return endpoint and f"{str(endpoint).rstrip('/')}/openai/v1"


def _vertex_address(parameters: Mapping[str, Any]) -> str:
    project = parameters.get("project") or os.environ.get("GOOGLE_CLOUD_PROJECT")
    location = parameters.get("location") or os.environ.get("GOOGLE_CLOUD_LOCATION")
    if not project or not location:
        return ""
    host = f"{location}-aiplatform.googleapis.com"
    return f"https://{host}/v1/projects/{project}/locations/{location}/endpoints/openapi"


def _bedrock_address(parameters: Mapping[str, Any]) -> str:
    region = parameters.get("region_name") or os.environ.get("AWS_REGION")
    return f"https://bedrock-runtime.{region}.amazonaws.com/openai/v1" if region else ""


# Engine -> the function that makes its address of its parameters, and what these are.
ADDRESS_BUILDERS: dict[str, tuple[Callable[[Mapping[str, Any]], str], str]] = {
    "azure": (_azure_address, "azure_endpoint: https://NAME.openai.azure.com"),
    "azure_openai": (_azure_address, "azure_endpoint: https://NAME.openai.azure.com"),
    "vertexai": (_vertex_address, "project: NAME and location: REGION"),
    "google_vertexai": (_vertex_address, "project: NAME and location: REGION"),
    "bedrock": (_bedrock_address, "region_name: REGION"),
    "amazon_bedrock": (_bedrock_address, "region_name: REGION"),
}
# Parameters of these engines beside the address: they are no fields of a request.
ENGINE_PARAMETERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("azure", "azure_openai"),
        ("azure_endpoint", "azure_deployment", "deployment_name", "api_version"),
    ),
    **dict.fromkeys(("vertexai", "google_vertexai"), ("project", "location")),
    **dict.fromkeys(("bedrock", "amazon_bedrock"), ("region_name",)),
    "huggingface_endpoint": ("task",),
}


def find_address(engine: str, parameters: Mapping[str, Any]) -> str:
    """Returns the address of an entry of ``models:``; "" if it has none."""
    addresses = [str(parameters[key]) for key in ADDRESS_KEYS if parameters.get(key)]
    if addresses:
        address = addresses[0]
        # Inference Endpoints of Hugging Face are named without the path of their chat API.
        is_bare = engine == "huggingface_endpoint" and not address.rstrip("/").endswith("/v1")
        return f"{address.rstrip('/')}/v1" if is_bare else address
    if engine in ADDRESS_BUILDERS:
        return ADDRESS_BUILDERS[engine][0](parameters)
    known = ENGINES.get(engine, "")
    return OPENAI_ADDRESS if known is None else known


def find_refusal(engine: str) -> str | None:
    """Returns why an engine is refused by its name, or None."""
    for name, reason in REFUSED_ENGINES.items():
        if engine == name or (name.endswith("*") and engine.startswith(name[:-1])):
            return f"the engine {engine!r} {reason}"
    return None
