"""Several configurations as one, as NeMo's server combines the `config_ids` of a request.

The rails of all of them run, those of the later configuration first. What clients may do is what
every one of them allows. A setting that one of them leaves out is that of the other; two that set
it differently cannot be combined, for then the rails of one would run with the limits of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from truing.core.errors import PlanError
from truing.rails.colang.tokenizer import ANONYMOUS_PREFIX
from truing.rails.config.client_settings import ClientSettings
from truing.rails.config.entries import RailStages
from truing.rails.config.loader import RailsConfig, iterate_stages

_BLOCK = "truing"  # the key of truing's own settings
# Lists by which a configuration forbids or asks for a check: what one of them names counts.
_RESTRICTING_LISTS = frozenset({"ask", "avoid", "deny", "entities", "injections", "patterns"})
# Lists by which a configuration does without a check: only what both name counts.
_TRUSTING_LISTS = frozenset({f"{_BLOCK}.tools.trusted_tools"})
# Mappings whose entries are wholes: half a service of one and half of the other is neither.
_MAPPINGS_OF_WHOLES = frozenset({f"{_BLOCK}.services", f"{_BLOCK}.models"})
# Field of `RailsConfig` -> its key in the YAML.
_SINGLE_SETTINGS = {
    "instructions": "instructions",
    "sample_conversation": "sample_conversation",
    "prompting_mode": "prompting_mode",
    "lowest_temperature": "lowest_temperature",
    "multi_step": "enable_multi_step_generation",
    "embeddings_threshold": "rails.dialog.user_messages.embeddings_only_similarity_threshold",
    "embeddings_fallback": "rails.dialog.user_messages.embeddings_only_fallback_intent",
}


def combine_configs(configs: Sequence[RailsConfig]) -> RailsConfig:
    """Returns the configuration that holds all of the given ones; the rails of later ones go first.

    Raises PlanError, with all faults, where two of them have different models or prompts of one
    task, define one flow differently, or set one key differently.
    """
    combined = configs[0]
    for config in configs[1:]:
        combined = _combine(combined, config)
    return combined


def _combine(base: RailsConfig, later: RailsConfig) -> RailsConfig:
    faults = [
        *_find_other_models(base, later),
        *_find_other_prompts(base, later),
        *_find_other_flows(base, later),
        *_find_two_scripts(base, later),
    ]
    single_settings = _combine_single_settings(base, later, faults)
    truing = _combine_truing(base, later, faults)
    custom_data = _merge_settings(base.custom_data, later.custom_data, "custom_data", faults)
    # Of the blocks of rails only the faults are needed: `_join_raw` joins those that agree.
    _merge_settings(_rail_blocks(base), _rail_blocks(later), "rails.config", faults)
    if faults:
        raise PlanError(*faults)
    model_types = {entry.type for entry in later.models}
    flow_names = {flow.name for flow in later.flows}
    return replace(
        later,
        path=base.path,
        models=[*later.models, *(e for e in base.models if e.type not in model_types)],
        user_messages=_join_lists(later.user_messages, base.user_messages),
        bot_messages=_join_lists(later.bot_messages, base.bot_messages),
        flows=[*later.flows, *(flow for flow in base.flows if flow.name not in flow_names)],
        docs=[*later.docs, *(text for text in base.docs if text not in later.docs)],
        prompts=[*base.prompts, *(entry for entry in later.prompts if entry not in base.prompts)],
        rails=_combine_stages(base, later),
        single_call=base.single_call or later.single_call,
        embeddings_only=base.embeddings_only or later.embeddings_only,
        enable_rails_exceptions=base.enable_rails_exceptions or later.enable_rails_exceptions,
        passthrough=base.passthrough and later.passthrough,
        custom_data=custom_data,
        truing=truing,
        raw={**_join_raw(base.raw, later.raw), "truing": truing},
        code=[*base.code, *(file for file in later.code if file not in base.code)],
        locations={**base.locations, **later.locations},
        notes=[*base.notes, *later.notes],
        trust_code=base.trust_code and later.trust_code,
        key_variables=tuple(set(base.key_variables) & set(later.key_variables)),
        outside=[*base.outside, *later.outside],
        translated=[*base.translated, *later.translated],
        script=later.script or base.script,
        **single_settings,
    )


def _find_two_scripts(base: RailsConfig, later: RailsConfig) -> Iterator[str]:
    """Yields a fault where both have flows of Colang 2 that react to exact words."""
    if base.script is not None and later.script is not None:
        place = later.path or "config"
        yield f"{place}: the Colang 2 flows of two configurations cannot be combined"


def _combine_single_settings(
    base: RailsConfig, later: RailsConfig, faults: list[str]
) -> dict[str, Any]:
    """Returns each setting of one value from the configuration in which it is not the default."""
    defaults = RailsConfig()
    settings: dict[str, Any] = {}
    for name, key in _SINGLE_SETTINGS.items():
        default, of_base, of_later = (getattr(c, name) for c in (defaults, base, later))
        settings[name] = of_base if of_later == default else of_later
        if of_base not in (default, settings[name]):
            faults.append(_describe_conflict(key))
    return settings


def _combine_truing(base: RailsConfig, later: RailsConfig, faults: list[str]) -> dict[str, Any]:
    """Returns the block `truing` of both; what concerns clients is what both let them do."""
    client_settings = ClientSettings.of(base.truing).intersect(ClientSettings.of(later.truing))
    of_clients = client_settings.to_truing()
    of_base, of_later = (
        {key: value for key, value in config.truing.items() if key not in of_clients}
        for config in (base, later)
    )
    return {**_merge_settings(of_base, of_later, _BLOCK, faults), **of_clients}


def _rail_blocks(config: RailsConfig) -> Any:
    return (config.raw.get("rails") or {}).get("config")


def _merge_settings(base: Any, later: Any, key: str, faults: list[str]) -> Any:
    """Returns the values of both under a key; adds a fault for each that both set differently."""
    if key in _TRUSTING_LISTS:
        return [item for item in later or () if item in (base or ())]
    parent, _, name = key.rpartition(".")
    holds_mapping = isinstance(base, dict) or isinstance(later, dict)
    if holds_mapping and parent not in _MAPPINGS_OF_WHOLES:
        # An empty mapping in place of a missing one, so that `_TRUSTING_LISTS` are read in it too.
        of_base, of_later = ({} if value is None else value for value in (base, later))
        if isinstance(of_base, dict) and isinstance(of_later, dict):
            return {
                child: _merge_settings(
                    of_base.get(child), of_later.get(child), f"{key}.{child}", faults
                )
                for child in {**of_base, **of_later}
            }
    if later is None or base == later:
        return base
    if base is None:
        return later
    if isinstance(base, list) and isinstance(later, list) and name in _RESTRICTING_LISTS:
        return _join_raw(base, later)
    faults.append(_describe_conflict(key))
    return later


def _describe_conflict(key: str) -> str:
    return f"the configurations set {key} differently"


def _find_other_models(base: RailsConfig, later: RailsConfig) -> Iterator[str]:
    for name in dict.fromkeys(entry.type for entry in later.models):
        of_base = [entry for entry in base.models if entry.type == name]
        if of_base and of_base != [entry for entry in later.models if entry.type == name]:
            yield (
                f"the configurations name different models of the type {name!r} (engine, model, "
                "parameters, api_key_env_var, mode, cache and reasoning_config have to agree)"
            )


def _find_other_prompts(base: RailsConfig, later: RailsConfig) -> Iterator[str]:
    for task in dict.fromkeys(entry.task for entry in later.prompts):
        of_base = [entry for entry in base.prompts if entry.task == task]
        if of_base and of_base != [entry for entry in later.prompts if entry.task == task]:
            yield f"the configurations have different prompts of the task {task!r}"


def _find_other_flows(base: RailsConfig, later: RailsConfig) -> list[str]:
    sources = {flow.name: flow.source for flow in base.flows}
    return [
        f"the configurations define the flow {flow.name!r} differently"
        for flow in later.flows
        if not flow.name.startswith(ANONYMOUS_PREFIX)
        and flow.name in sources
        and flow.source != sources[flow.name]
    ]


def _join_lists(first: dict[str, list[Any]], second: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Joins lists by key; equal items stand once."""
    joined = {name: list(items) for name, items in first.items()}
    for name, items in second.items():
        known = joined.setdefault(name, [])
        known += [item for item in items if item not in known]
    return joined


def _combine_stages(base: RailsConfig, later: RailsConfig) -> RailStages:
    stages = RailStages()
    of_base, of_later = dict(iterate_stages(base)), dict(iterate_stages(later))
    combined = RailsConfig(rails=stages)
    for name, stage in iterate_stages(combined):
        flows = [*of_later[name].flows, *of_base[name].flows]
        stage.flows = list(dict.fromkeys(flows))
        stage.parallel = of_later[name].parallel or of_base[name].parallel
    streaming = later.rails.output.streaming
    stages.output.streaming = streaming if streaming.enabled else base.rails.output.streaming
    return stages


def _join_raw(base: Any, later: Any) -> Any:
    """Joins documents as NeMo does: mappings by key, lists with the later items first."""
    if isinstance(base, dict) and isinstance(later, dict):
        joined = dict(base)
        for key, value in later.items():
            joined[key] = _join_raw(base[key], value) if key in base else value
        return joined
    if isinstance(base, list) and isinstance(later, list):
        return [*later, *(item for item in base if item not in later)]
    return base if later is None else later
