"""Builds the models that a configuration names: type "main", and the models of single tasks.

An engine with an OpenAI-compatible API becomes an `openai:` spec. ``engine: truing`` takes a spec
string as its model (``model: local:smollm2``). API keys stay in the environment: `api_key_env_var`
names the variable.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from truing.core.errors import PlanError, did_you_mean
from truing.core.protocols import Model
from truing.rails.config.entries import ModelEntry
from truing.rails.config.loader import RailsConfig
from truing.rails.config.parameters import (
    ADDRESS_KEYS,
    build_request_body,
    find_parameter_faults,
    with_default_sampling,
)
from truing.specs.parser import Spec
from truing.specs.resolve import resolve

TRUING_ENGINE = "truing"
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
_API_KEY_VARIABLES = {
    "nim": "NVIDIA_API_KEY",
    "nvidia_ai_endpoints": "NVIDIA_API_KEY",
    "together": "TOGETHER_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistralai": "MISTRAL_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "fireworks": "FIREWORKS_API_KEY",
}
# Values of `api_key` for servers that need no key; anything else is taken for a secret.
_PLACEHOLDER_KEYS = frozenset({"none", "empty", "not-needed", "not needed", "dummy", "no-key"})
# Parameter -> argument of the `openai:` spec.
_SPEC_ARGUMENTS = (
    ("timeout", "timeout"),
    ("request_timeout", "timeout"),
    ("max_retries", "retries"),
)


def build_task_models(config: RailsConfig, excluded: Collection[str] = ()) -> dict[str, Model]:
    """Builds the models whose type is a task (``self_check_input``, ...), by task.

    Tasks in `excluded` are left out: their models come from elsewhere.
    """
    return {
        entry.type: build_model(entry, config)
        for entry in config.models
        if entry.type not in ("main", "embeddings") and entry.type not in excluded
    }


def build_model(entry: ModelEntry, config: RailsConfig) -> Model:
    """Builds the model of an entry of `models:`, with its parameters as default sampling."""
    model: Model = resolve(build_model_spec(entry, config), "model")
    return with_default_sampling(model, entry.parameters)


def find_entry_faults(entry: ModelEntry, config: RailsConfig) -> Iterator[tuple[str, str]]:
    """Yields (place, message) for what is wrong with an entry's parameters."""
    entry_key = f"models.{config.models.index(entry)}"
    for name, message in find_parameter_faults(entry.parameters, entry.engine):
        key = f"{entry_key}.parameters.{name}"
        has_line = ("key", key) in config.locations
        yield config.locate("key", key if has_line else entry_key), message
    api_key = str(entry.parameters.get("api_key") or "none")
    if api_key.lower() not in _PLACEHOLDER_KEYS:
        yield (
            config.locate("key", f"{entry_key}.parameters.api_key"),
            "the configuration contains a secret; use api_key_env_var: NAME",
        )


def find_engine_fault(entry: ModelEntry) -> str | None:
    """Returns what is wrong with an entry's engine: unknown, or without the address it needs."""
    if entry.engine == TRUING_ENGINE:
        return None
    if entry.engine not in ENGINES:
        hint = did_you_mean(entry.engine, (*ENGINES, TRUING_ENGINE))
        return (
            f"the engine {entry.engine!r} is not known{hint} (engine: truing takes any truing spec)"
        )
    has_address = any(entry.parameters.get(key) for key in ADDRESS_KEYS)
    if ENGINES[entry.engine] == "" and not has_address:
        return f"the engine {entry.engine!r} needs parameters: base_url: http://HOST:PORT/v1"
    return None


def build_model_spec(entry: ModelEntry, config: RailsConfig) -> Spec | str:
    """Returns the spec of an entry; PlanError if its engine or parameters are wrong."""
    faults: list[str] = []
    engine_fault = find_engine_fault(entry)
    if engine_fault:
        place = config.locate("key", f"models.{config.models.index(entry)}")
        faults.append(f"{place}: {engine_fault}")
    # The parameters of an unknown engine are not known either.
    if engine_fault is None or entry.engine in ENGINES:
        faults += [f"{place}: {message}" for place, message in find_entry_faults(entry, config)]
    if faults:
        raise PlanError(*faults)
    if entry.engine == TRUING_ENGINE:
        return entry.model
    return Spec("openai", entry.model, _build_endpoint_arguments(entry))


def _build_endpoint_arguments(entry: ModelEntry) -> dict[str, Any]:
    """Returns the arguments of the `openai:` spec of an entry without faults."""
    parameters = entry.parameters
    arguments: dict[str, Any] = {}
    addresses = [str(parameters[key]) for key in ADDRESS_KEYS if parameters.get(key)]
    address = addresses[0] if addresses else ENGINES[entry.engine]
    if address is not None:
        arguments["base_url"] = address
    if entry.api_key_env_var:
        arguments["api_key_env"] = entry.api_key_env_var
    elif entry.engine in _API_KEY_VARIABLES and "api_key" not in parameters:
        arguments["api_key_env"] = _API_KEY_VARIABLES[entry.engine]
    for parameter, argument in _SPEC_ARGUMENTS:
        if parameters.get(parameter) is not None:
            arguments[argument] = str(parameters[parameter])
    body = build_request_body(parameters)
    if body:
        arguments["body"] = json.dumps(body, sort_keys=True)
    return arguments
