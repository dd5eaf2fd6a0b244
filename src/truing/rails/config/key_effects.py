"""What truing does with each key of NeMo Guardrails' ``config.yml``; no key is ignored silently.

Every key of the schema has an entry in `KEY_EFFECTS`. A key that runs otherwise than in NeMo
Guardrails is a *difference*; one without effect is *unused* (here alone, or in NeMo as well).
`find_differences` and `find_unused_keys` list them for a configuration, with file and line; a key
that neither has an entry nor stands in the schema is refused when the configuration is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from truing.rails.config.embedding_models import SAME_EMBEDDING_MODELS, Place, find_embedding_model
from truing.rails.config.library_blocks import LIBRARY_BLOCKS, UNSUPPORTED_BLOCKS
from truing.rails.config.loader import RailsConfig, list_rail_flow_names
from truing.rails.config.vendor_addresses import read_block

_Condition = Callable[[Any, RailsConfig], bool]
_SAME_BOTH = "has no effect, here as in NeMo Guardrails"


class KeyEffect(Struct, frozen=True):
    """What a key does: `effect` for the documentation, and how it differs from NeMo, if it does.

    `difference` holds where `applies` is true of the key's value.
    """

    effect: str = "as in NeMo"
    difference: str | None = None
    applies: _Condition | None = None
    unused: str | None = None


def _same(effect: str = "as in NeMo") -> KeyEffect:
    return KeyEffect(effect)


def _differs(difference: str, applies: _Condition | None = None) -> KeyEffect:
    return KeyEffect("differs", difference, applies)


def _unused(reason: str = _SAME_BOTH) -> KeyEffect:
    return KeyEffect("none", unused=reason)


def _is_true(value: Any, config: RailsConfig) -> bool:
    return value is True


def _is_other_encoder(value: Any, config: RailsConfig) -> bool:
    if str(value).lower() in SAME_EMBEDDING_MODELS:
        return False
    models = [find_embedding_model(config, place) for place in _PLACES]
    return all(model is None or model.model != value for model in models)


def _has_no_prompt_of_mode(mode: Any, config: RailsConfig) -> bool:
    """Returns whether NeMo ships prompts of the mode for the main model, which truing does not."""
    main = next((entry for entry in config.models if entry.type == "main"), None)
    has_own = any(prompt.mode == mode for prompt in config.prompts)
    has_nemo_prompts = main is not None and (
        main.engine in ("openai", "azure")
        and main.model.startswith(("gpt-3.5-turbo", "gpt-4"))
        and "instruct" not in main.model
    )
    return mode != "standard" and not has_own and has_nemo_prompts


def _streams_first(value: Any, config: RailsConfig) -> bool:
    return value is True and config.rails.output.streaming.stream_first


def _uses_rail(*names: str) -> _Condition:
    return lambda value, config: bool(set(names) & list_rail_flow_names(config))


def _sensitive_rails(value: Any, config: RailsConfig) -> bool:
    return any("sensitive data" in name for name in list_rail_flow_names(config))


_PLACES: tuple[Place, ...] = ("core", "knowledge_base")
_ENCODER = "truing finds examples and chunks with its own encoder, all-MiniLM-L6-v2, instead"
_PROVIDER_KEYS: dict[str, KeyEffect] = {
    "name": _same("default, or a provider that code registers"),
    "parameters.embedding_model": _differs(_ENCODER, _is_other_encoder),
    "parameters.embedding_engine": _same("the engine does not change the embeddings of a model"),
    "parameters.use_batching": _same("truing encodes in batches"),
    "parameters.max_batch_size": _same("truing chooses the size"),
    "parameters.max_batch_hold": _same("truing waits for no batch"),
    "parameters.**": _same("given to the endpoint's engine, or to a registered provider"),
    "cache.enabled": _same("truing caches embeddings in memory"),
    "cache.key_generator": _unused("has no effect: truing caches embeddings in memory"),
    "cache.store": _unused("has no effect: truing caches embeddings in memory"),
    "cache.store_config.**": _unused("has no effect: truing caches embeddings in memory"),
}

_GENERAL: dict[str, KeyEffect] = {
    "models.*.type": _same(),
    "models.*.engine": _same(),
    "models.*.model": _same(),
    "models.*.api_key_env_var": _same(),
    "models.*.parameters.**": _same("as in NeMo; unknown ones are refused"),
    "models.*.mode": _same("text asks the endpoint for completions"),
    "models.*.reasoning_config.remove_reasoning_traces": _same("thinking is not shown"),
    "models.*.reasoning_config.remove_thinking_traces": _same("the older name of the same"),
    "models.*.reasoning_config.start_token": _differs(
        "thinking is recognised between <think> and </think> only",
        lambda value, config: value != "<think>",
    ),
    "models.*.reasoning_config.end_token": _differs(
        "thinking is recognised between <think> and </think> only",
        lambda value, config: value != "</think>",
    ),
    "models.*.cache.enabled": _same("verdicts of guard models are cached"),
    "models.*.cache.maxsize": _same(),
    "models.*.cache.stats.**": _differs("truing logs no statistics of its caches"),
    "instructions.*.type": _same(),
    "instructions.*.content": _same(),
    "sample_conversation": _same(),
    "docs.*.format": _same(),
    "docs.*.content": _same(),
    "prompts.*.**": _same(),
    "prompting_mode": _differs(
        "truing ships no prompts of this mode and uses the standard ones", _has_no_prompt_of_mode
    ),
    "user_messages.**": _same(),
    "bot_messages.**": _same(),
    "flows.*.**": _same(),
    "actions_server_url": _same("refused: truing has no actions server"),
    "import_paths.*": _same(),
    "lowest_temperature": _same(),
    "enable_multi_step_generation": _same(),
    "colang_version": _same(),
    "custom_data.**": _same(),
    "knowledge_base.folder": _unused(_SAME_BOTH + ": the documents are those of kb/"),
    "streaming": _same("a request decides whether it streams"),
    "enable_rails_exceptions": _same(),
    "passthrough": _same(),
    "raw_llm_call_action": _unused(),
    "event_source_uid": _same("source_uid of the events of generate_events"),
    "tracing.enabled": _differs(
        "a trace holds spans of the turn, its rails and its LLM calls, and none of actions",
        _is_true,
    ),
    "tracing.adapters.*.**": _same("see tracing.enabled"),
    "tracing.span_format": _differs(
        "traces are written in the form of OpenTelemetry",
        lambda value, config: value != "opentelemetry",
    ),
    "tracing.enable_content_capture": _differs(
        "spans never hold text", lambda value, config: value is True
    ),
    "metrics.enabled": _differs("truing serve has its own figures at /metrics", _is_true),
    "rails.input.flows.*": _same(),
    "rails.input.parallel": _same(),
    "rails.input.speculative_generation": _same(),
    "rails.output.flows.*": _same(),
    "rails.output.parallel": _same(),
    "rails.output.apply_to_reasoning_traces": _differs(
        "the output rails always read thinking that is shown",
        lambda value, config: value is False,
    ),
    "rails.output.streaming.enabled": _differs(
        "a chunk is sent when it has passed the output rails, not before (stream_first: false)",
        _streams_first,
    ),
    "rails.output.streaming.chunk_size": _same(),
    "rails.output.streaming.context_size": _same("not needed: the rails read the whole text"),
    "rails.output.streaming.stream_first": _same("see rails.output.streaming.enabled"),
    "rails.retrieval.flows.*": _same(),
    "rails.dialog.single_call.enabled": _same(),
    "rails.dialog.single_call.fallback_to_multiple_calls": _unused(),
    "rails.dialog.user_messages.embeddings_only": _same(),
    "rails.dialog.user_messages.embeddings_only_similarity_threshold": _same(),
    "rails.dialog.user_messages.embeddings_only_fallback_intent": _same(),
    "rails.actions.instant_actions.*": _unused(_SAME_BOTH + " with Colang 1.0"),
    "rails.tool_output.flows.*": _same(),
    "rails.tool_output.parallel": _differs("tool rails run one after the other", _is_true),
    "rails.tool_input.flows.*": _same(),
    "rails.tool_input.parallel": _differs("tool rails run one after the other", _is_true),
}

_SENSITIVE_SOURCES = ("input", "output", "retrieval")
_BLOCKS: dict[str, KeyEffect] = {
    "sensitive_data_detection.recognizers.*.**": _same("refused: truing has its own recognisers"),
    **{
        f"sensitive_data_detection.{source}.{key}": effect
        for source in _SENSITIVE_SOURCES
        for key, effect in (
            (
                "entities.*",
                _differs(
                    "entities with a pattern are found by truing's recognisers (with checksums), "
                    "the others by Presidio",
                    _sensitive_rails,
                ),
            ),
            ("mask_token", _unused()),
            ("score_threshold", _same("for the entities that Presidio finds")),
        )
    },
    "injection_detection.injections.*": _differs(
        "these rules are truing's own: they match statements and constructs, not single words",
        lambda value, config: _uses_own_rules(config),
    ),
    "injection_detection.yara_path": _same("relative to the configuration's folder"),
    "jailbreak_detection.embedding": _unused(),
    "jailbreak_detection.length_per_perplexity_threshold": _differs(
        "without server_endpoint, truing looks for the forms of known jailbreaks and measures no "
        "perplexity",
        lambda value, config: _measures_no_perplexity(config),
    ),
    "jailbreak_detection.prefix_suffix_perplexity_threshold": _differs(
        "without server_endpoint, truing looks for the forms of known jailbreaks and measures no "
        "perplexity",
        lambda value, config: _measures_no_perplexity(config),
    ),
    **{
        f"{block}.fail_open": _differs("a service that cannot tell blocks", _is_true)
        for block in ("f5", "ai_defense")
    },
    **{
        f"f5.{key}": _differs("truing repeats a request once, and only within the time-out")
        for key in ("max_retries", "max_retry_after_seconds", "retry_backoff_seconds")
    },
    "crowdstrike_aidr.timeout": _same("seconds; 10 where none is named (NeMo: 30)"),
    "ai_defense.timeout": _same("seconds; 10 where none is named (NeMo: 30)"),
    "content_safety.multilingual.enabled": _same("refusals are in the user's language"),
    "content_safety.multilingual.refusal_messages.**": _same("in place of NeMo's messages"),
}


def _uses_own_rules(config: RailsConfig) -> bool:
    block = read_block(config, "injection_detection")
    is_used = "injection detection" in list_rail_flow_names(config)
    return is_used and not block.get("yara_rules") and not block.get("yara_path")


def _measures_no_perplexity(config: RailsConfig) -> bool:
    block = ((config.raw.get("rails") or {}).get("config") or {}).get("jailbreak_detection") or {}
    uses_heuristics = "jailbreak detection heuristics" in list_rail_flow_names(config)
    return uses_heuristics and not block.get("server_endpoint")


def _list_leaves(schema: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields the pattern of each key that holds a value in a schema."""
    if isinstance(schema, dict):
        if "*" in schema:
            yield ".".join((*path, "**"))
            return
        for key, child in schema.items():
            yield from _list_leaves(child, (*path, key))
    elif isinstance(schema, list):
        yield from _list_leaves(schema[0], (*path, "*"))
    else:
        yield ".".join(path)


def _build_table() -> dict[str, KeyEffect]:
    table = dict(_GENERAL)
    for place in ("knowledge_base", "core"):
        for key, effect in _PROVIDER_KEYS.items():
            table[f"{place}.embedding_search_provider.{key}"] = effect
    for name, schema in LIBRARY_BLOCKS.items():
        for leaf in _list_leaves(schema, (name,)):
            table[f"rails.config.{leaf}"] = _BLOCKS.get(leaf, _same())
    for name in UNSUPPORTED_BLOCKS:
        table[f"rails.config.{name}.**"] = _unused("has no effect: no rail of this block is used")
    return table


KEY_EFFECTS: Mapping[str, KeyEffect] = _build_table()
"""Pattern of a key -> its effect. `*` stands for an index, `**` for all keys below."""

_PATTERNS = [
    (re.compile(re.escape(pattern).replace(r"\*\*", r".+").replace(r"\*", r"\d+")), effect)
    for pattern, effect in sorted(KEY_EFFECTS.items(), key=lambda item: "**" in item[0])
]


def find_effect(key: str) -> KeyEffect | None:
    """Returns the effect of a key such as ``models.0.type``; None for a key that has no entry."""
    return next((effect for pattern, effect in _PATTERNS if pattern.fullmatch(key)), None)


def iterate_values(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yields (key, value) of each value in a document; empty mappings and lists hold none."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from iterate_values(child, (*path, str(key)))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from iterate_values(child, (*path, str(index)))
    elif value is not None:
        yield ".".join(path), value


def _iterate_nemo_values(config: RailsConfig) -> Iterator[tuple[str, Any]]:
    documents = {key: value for key, value in config.raw.items() if key not in ("truing", "docs")}
    yield from iterate_values(documents)


def find_differences(config: RailsConfig) -> Iterator[tuple[str, str]]:
    """Yields (place, message) for each setting that runs otherwise than in NeMo Guardrails."""
    for key, value in _iterate_nemo_values(config):
        effect = find_effect(key)
        if effect is None or effect.difference is None:
            continue
        if effect.applies is None or effect.applies(value, config):
            yield _locate(config, key), f"{_short_key(key)}: {effect.difference}"
    yield from config.translated
    yield from _find_other_embeddings(config)
    yield from _find_default_differences(config)


def find_unused_keys(config: RailsConfig) -> Iterator[tuple[str, str]]:
    """Yields (place, message) for each key of NeMo's that has no effect."""
    for key, _ in _iterate_nemo_values(config):
        effect = find_effect(key)
        if effect is None:
            yield _locate(config, key), f"{_short_key(key)}: {_SAME_BOTH}: the key is not known"
        elif effect.unused is not None:
            yield _locate(config, key), f"{_short_key(key)}: {effect.unused}"


def _find_other_embeddings(config: RailsConfig) -> Iterator[tuple[str, str]]:
    """Yields an entry of ``models:`` of the type embeddings that is another model than truing's."""
    for index, entry in enumerate(config.models):
        if entry.type == "embeddings" and _is_other_encoder(entry.model, config):
            yield config.locate("key", f"models.{index}"), f"{entry.model}: {_ENCODER}"


def _find_default_differences(config: RailsConfig) -> Iterator[tuple[str, str]]:
    """Yields what differs by the use of a rail or an engine, though no key says so."""
    for index, entry in enumerate(config.models):
        if entry.engine == "huggingface_endpoint":
            yield (
                config.locate("key", f"models.{index}"),
                "huggingface_endpoint: asked by its chat API, where NeMo sends plain text",
            )
    for index, rail in enumerate(config.rails.output.flows):
        if rail in ("autoalign groundedness output", "autoalign factcheck output"):
            yield (
                config.locate("key", f"rails.output.flows.{index}"),
                f"{rail}: blocks an answer with a score below 0.5, which NeMo only computes",
            )
    stage = config.rails.input.flows
    block = ((config.raw.get("rails") or {}).get("config") or {}).get("jailbreak_detection") or {}
    thresholds = [key for key in block if key.endswith("perplexity_threshold")]
    if _measures_no_perplexity(config) and not thresholds:
        index = next(i for i, rail in enumerate(stage) if rail == "jailbreak detection heuristics")
        yield (
            config.locate("key", f"rails.input.flows.{index}"),
            "jailbreak detection heuristics: without server_endpoint, truing looks for the forms "
            "of known jailbreaks and measures no perplexity",
        )


def _short_key(key: str) -> str:
    """Returns a key without the indices of lists."""
    return ".".join(part for part in key.split(".") if not part.isdigit())


def _locate(config: RailsConfig, key: str) -> str:
    while key and ("key", key) not in config.locations:
        key = key.rpartition(".")[0]
    return config.locate("key", key)
