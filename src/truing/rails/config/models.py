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
from truing.rails.config.engines import (
    ADDRESS_BUILDERS,
    ADDRESS_KEYS,
    API_KEY_VARIABLES,
    ENGINES,
    OPENAI_ADDRESS,
    TRUING_ENGINE,
    find_address,
    find_refusal,
)
from truing.rails.config.entries import ModelEntry
from truing.rails.config.loader import RailsConfig
from truing.rails.config.parameters import (
    build_request_body,
    find_parameter_faults,
    with_default_sampling,
)
from truing.rails.config.trust import resolve_configured_spec
from truing.rails.config.verdict_cache import VerdictCache
from truing.specs.keys import is_vendor_address
from truing.specs.parser import Spec

# Values of `api_key` for servers that need no key; anything else is taken for a secret.
_PLACEHOLDER_KEYS = frozenset({"none", "empty", "not-needed", "not needed", "dummy", "no-key"})
_TEXT_MODELS = ("gpt-3.5-turbo-instruct", "davinci-002", "babbage-002")
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
    """Builds the model of an entry of `models:`, with its parameters as default sampling.

    Raises PlanError if the configuration is not trusted with what it does.
    """
    model: Model = resolve_configured_spec(config, build_model_spec(entry, config), "model")
    if entry.cache_size and entry.type != "main":
        model = VerdictCache(model, entry.cache_size)
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
    refusal = find_refusal(entry.engine)
    if refusal is not None:
        return refusal
    if entry.engine not in ENGINES:
        hint = did_you_mean(entry.engine, (*ENGINES, TRUING_ENGINE))
        return (
            f"the engine {entry.engine!r} is not known{hint} (engine: truing takes any truing spec)"
        )
    if not find_address(entry.engine, entry.parameters):
        if entry.engine in ADDRESS_BUILDERS:
            needed = ADDRESS_BUILDERS[entry.engine][1]
            return f"the engine {entry.engine!r} needs parameters: {needed} (or base_url)"
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
    parameters = entry.parameters
    # Azure's API names the model by its deployment.
    deployment = parameters.get("azure_deployment") or parameters.get("deployment_name")
    return Spec("openai", str(deployment or entry.model), _build_endpoint_arguments(entry))


def is_text_model(entry: ModelEntry) -> bool:
    """Returns whether an entry names a model of OpenAI's that has no chat API."""
    is_openai = entry.engine == "openai" and not has_address(entry)
    return is_openai and entry.model.startswith(_TEXT_MODELS)


def has_address(entry: ModelEntry) -> bool:
    """Returns whether the entry's parameters give an address."""
    return any(entry.parameters.get(key) for key in ADDRESS_KEYS)


def _build_endpoint_arguments(model_entry: ModelEntry) -> dict[str, Any]:
    """Returns the arguments of the `openai:` spec of an entry without faults."""
    parameters = model_entry.parameters
    arguments: dict[str, Any] = {}
    address = find_address(model_entry.engine, parameters)
    if ENGINES[model_entry.engine] is not None or address != OPENAI_ADDRESS:
        arguments["base_url"] = address
    # The vendor's own variable goes to the vendor alone, whatever address the configuration names.
    default_variable = API_KEY_VARIABLES.get(model_entry.engine, "")
    if model_entry.api_key_env_var:
        arguments["api_key_env"] = model_entry.api_key_env_var
    elif "api_key" not in parameters and is_vendor_address(default_variable, address):
        arguments["api_key_env"] = default_variable
    for parameter, argument in _SPEC_ARGUMENTS:
        if parameters.get(parameter) is not None:
            arguments[argument] = str(parameters[parameter])
    if model_entry.mode == "text" or is_text_model(model_entry):
        arguments["api"] = "completions"
    if parameters.get("allow_http"):
        arguments["allow_http"] = "true"
    body = build_request_body(parameters)
    if body:
        arguments["body"] = json.dumps(body, sort_keys=True)
    return arguments
