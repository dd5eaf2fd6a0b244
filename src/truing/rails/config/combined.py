"""Several configurations as one, as NeMo's server combines the `config_ids` of a request.

The rails of all of them run, those of the later configuration first. What clients may do is what
every one of them allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from truing.core.errors import PlanError
from truing.rails.colang.tokenizer import ANONYMOUS_PREFIX
from truing.rails.config.client_settings import ClientSettings
from truing.rails.config.entries import RailStages
from truing.rails.config.loader import RailsConfig, iterate_stages


def combine_configs(configs: Sequence[RailsConfig]) -> RailsConfig:
    """Returns the configuration that holds all of the given ones; the later ones take precedence.

    Raises PlanError where two of them name different models for one task, or define one flow
    differently.
    """
    combined = configs[0]
    for config in configs[1:]:
        combined = _combine(combined, config)
    return combined


def _combine(base: RailsConfig, later: RailsConfig) -> RailsConfig:
    faults = [*_find_other_models(base, later), *_find_other_flows(base, later)]
    if faults:
        raise PlanError(*faults)
    settings = ClientSettings.of(base.truing).intersect(ClientSettings.of(later.truing))
    truing = {**base.truing, **later.truing, **settings.to_truing()}
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
        prompts=[*base.prompts, *later.prompts],  # of equals the last one is used
        rails=_combine_stages(base, later),
        single_call=base.single_call or later.single_call,
        embeddings_only=base.embeddings_only or later.embeddings_only,
        enable_rails_exceptions=base.enable_rails_exceptions or later.enable_rails_exceptions,
        passthrough=base.passthrough and later.passthrough,
        custom_data={**base.custom_data, **later.custom_data},
        truing=truing,
        raw={**_join_raw(base.raw, later.raw), "truing": truing},
        code=[*base.code, *(file for file in later.code if file not in base.code)],
        locations={**base.locations, **later.locations},
        notes=[*base.notes, *later.notes],
        trust_code=base.trust_code and later.trust_code,
        key_variables=tuple(set(base.key_variables) & set(later.key_variables)),
        outside=[*base.outside, *later.outside],
    )


def _find_other_models(base: RailsConfig, later: RailsConfig) -> list[str]:
    known = {entry.type: entry for entry in base.models}
    return [
        f"the configurations name different models of the type {entry.type!r}"
        for entry in later.models
        if entry.type in known
        and (entry.engine, entry.model) != (known[entry.type].engine, known[entry.type].model)
    ]


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
    return later
