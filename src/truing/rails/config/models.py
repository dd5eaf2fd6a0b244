"""The models that a configuration names, as specs: `models:` with type main, and those of single tasks.

Engines with an OpenAI-compatible API become `openai:` specs; the engine `truing` takes a spec string as its model
(``engine: truing``, ``model: local:smollm2``). Keys stay in the environment: `api_key_env_var` names the variable.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from truing.core.errors import PlanError, did_you_mean
from truing.core.protocols import Model
from truing.rails.config.loader import ModelEntry, RailsConfig
from truing.rails.config.parameters import ADDRESSES, body, configured, faults
from truing.specs.parser import Spec
from truing.specs.resolve import resolve

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
    "nim": "NVIDIA_API_KEY",
    "nvidia_ai_endpoints": "NVIDIA_API_KEY",
    "together": "TOGETHER_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistralai": "MISTRAL_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "fireworks": "FIREWORKS_API_KEY",
}
# what people write where no key is needed
_NO_KEY = frozenset({"none", "empty", "not-needed", "not needed", "dummy", "no-key"})


def task_models(config: RailsConfig, given: Collection[str] = ()) -> dict[str, Model]:
    """Task -> model for the entries whose type is a task (``self_check_input``, ``content_safety``, ...), save for those given."""
    return {
        m.type: model_of(m, config)
        for m in config.models
        if m.type not in ("main", "embeddings") and m.type not in given
    }


def model_of(entry: ModelEntry, config: RailsConfig) -> Model:
    """The model of an entry of `models:`, with its parameters."""
    made: Model = resolve(spec_of(entry, config), "model")
    return configured(made, entry.parameters)


def parameter_faults(entry: ModelEntry, config: RailsConfig) -> Iterator[tuple[str, str]]:
    """(place, what is wrong) with an entry's parameters."""
    at = f"models.{config.models.index(entry)}"
    for key, what in faults(entry.parameters, entry.engine):
        inner = ("key", f"{at}.parameters.{key}")
        yield config.place(*(inner if inner in config.places else ("key", at))), what
    key = str(entry.parameters.get("api_key") or "none")
    if key.lower() not in _NO_KEY:
        yield (
            config.place("key", f"{at}.parameters.api_key"),
            "a secret stands in the configuration; use api_key_env_var: NAME",
        )


def engine_fault(entry: ModelEntry) -> str | None:
    """What is wrong with an entry's engine: not known, or without the address that it needs."""
    if entry.engine == "truing":
        return None
    if entry.engine not in ENGINES:
        hint = did_you_mean(entry.engine, (*ENGINES, "truing"))
        return (
            f"the engine {entry.engine!r} is not known{hint} (engine: truing takes any truing spec)"
        )
    if ENGINES[entry.engine] == "" and not any(entry.parameters.get(key) for key in ADDRESSES):
        return f"the engine {entry.engine!r} needs parameters: base_url: http://HOST:PORT/v1"
    return None


def spec_of(entry: ModelEntry, config: RailsConfig) -> Spec | str:
    """The spec of an entry of `models:`; PlanError with what is wrong with its engine and parameters."""
    engine = engine_fault(entry)
    wrong = (
        [f"{config.place('key', f'models.{config.models.index(entry)}')}: {engine}"]
        if engine
        else []
    )
    if engine is None or entry.engine in ENGINES:
        wrong += [f"{place}: {what}" for place, what in parameter_faults(entry, config)]
    if wrong:
        raise PlanError(*wrong)
    if entry.engine == "truing":
        return entry.model
    given = entry.parameters
    args: dict[str, Any] = {}
    address = next((str(given[key]) for key in ADDRESSES if given.get(key)), ENGINES[entry.engine])
    if address is not None:
        args["base_url"] = address
    if entry.api_key_env_var or (entry.engine in _KEYS and "api_key" not in given):
        args["api_key_env"] = entry.api_key_env_var or _KEYS[entry.engine]
    for name, key in (
        ("timeout", "timeout"),
        ("request_timeout", "timeout"),
        ("max_retries", "retries"),
    ):
        if given.get(name) is not None:
            args[key] = str(given[name])
    extra = body(given)
    if extra:
        args["body"] = json.dumps(extra, sort_keys=True)
    return Spec("openai", entry.model, args)
