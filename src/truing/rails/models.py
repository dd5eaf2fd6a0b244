"""The models that a configuration names, as specs: `models:` with type main, and those of single tasks.

Engines with an OpenAI-compatible API become `openai:` specs; the engine `truing` takes a spec string as its model
(``engine: truing``, ``model: local:smollm2``). Keys stay in the environment: `api_key_env_var` names the variable.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from truing.errors import PlanError, nearest
from truing.protocols import Model
from truing.rails.config import ModelEntry, RailsConfig
from truing.registry import Spec, resolve

# Engines whose servers speak the OpenAI chat API -> the address used where the configuration gives none.
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
_KEYS = {
    "nim": "NVIDIA_API_KEY", "nvidia_ai_endpoints": "NVIDIA_API_KEY", "together": "TOGETHER_API_KEY",
    "groq": "GROQ_API_KEY", "mistralai": "MISTRAL_API_KEY", "deepseek": "DEEPSEEK_API_KEY",
    "openrouter": "OPENROUTER_API_KEY", "fireworks": "FIREWORKS_API_KEY",
}  # fmt: skip
_ADDRESSES = ("base_url", "openai_api_base", "endpoint_url", "api_base")
# what people write where no key is needed
_NO_KEY = frozenset({"none", "empty", "not-needed", "not needed", "dummy", "no-key"})
_SAMPLING = frozenset({"max_tokens", "temperature", "top_p", "stop", "seed", "n", "streaming", "stream"})
_BODY = frozenset({"frequency_penalty", "presence_penalty", "logit_bias", "reasoning_effort", "extra_body", "model_kwargs"})


def task_models(config: RailsConfig, given: Collection[str] = ()) -> dict[str, Model]:
    """Task -> model for the entries whose type is a task (``self_check_input``, ``content_safety``, ...), save for those given."""
    return {
        m.type: resolve(spec_of(m, config), "model")
        for m in config.models if m.type not in ("main", "embeddings") and m.type not in given
    }  # fmt: skip


def spec_of(entry: ModelEntry, config: RailsConfig) -> Spec | str:
    """The spec of an entry of `models:`."""
    place = config.place("key", f"models.{config.models.index(entry)}")
    if entry.engine == "truing":
        return entry.model
    if entry.engine not in ENGINES:
        hint = nearest(entry.engine, (*ENGINES, "truing"))
        raise PlanError(f"{place}: the engine {entry.engine!r} is not known{hint} (engine: truing takes any truing spec)")
    given = dict(entry.parameters)
    args: dict[str, Any] = {}
    address = next((str(given.pop(key)) for key in _ADDRESSES if given.get(key)), ENGINES[entry.engine])
    if address == "":
        raise PlanError(f"{place}: the engine {entry.engine!r} needs parameters: base_url: http://HOST:PORT/v1")
    if address is not None:
        args["base_url"] = address
    if entry.api_key_env_var or (entry.engine in _KEYS and "api_key" not in given):
        args["api_key_env"] = entry.api_key_env_var or _KEYS[entry.engine]
    key = str(given.pop("api_key", "none") or "none")
    if key.lower() not in _NO_KEY:
        raise PlanError(f"{place}: a secret stands in the configuration; use api_key_env_var: NAME")
    for name, key in (("timeout", "timeout"), ("request_timeout", "timeout"), ("max_retries", "retries")):
        if given.get(name) is not None:
            args[key] = str(given.pop(name))
    body = _body(given, place)
    if body:
        args["body"] = json.dumps(body, sort_keys=True)
    return Spec("openai", entry.model, args)


def _body(given: dict[str, Any], place: str) -> dict[str, Any]:
    """The parameters that go into every request as they are; what cannot be passed on is a fault, not dropped silently."""
    body: dict[str, Any] = {}
    for key, value in given.items():
        if key in ("extra_body", "model_kwargs") and isinstance(value, dict):
            body.update(value)
        elif key in _BODY:
            body[key] = value
        elif key not in _SAMPLING and key not in (*_ADDRESSES, "timeout", "request_timeout", "max_retries"):
            raise PlanError(f"{place}: the parameter {key!r} of the model is not known"
                            f"{nearest(key, (*_SAMPLING, *_BODY, *_ADDRESSES, 'timeout', 'max_retries'))}")  # fmt: skip
    return body
