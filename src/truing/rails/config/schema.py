"""The keys of ``config.yml``: NeMo's, and ours under ``truing:``. Unknown ones are faults with the nearest name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from truing.core.errors import did_you_mean

Path = tuple[str | int, ...]
ANY: dict[str, Any] = {"*": None}  # any keys
_PROVIDER = {
    "name": str,
    "parameters": ANY,
    "cache": {"enabled": bool, "key_generator": str, "store": str, "store_config": ANY},
}
_FLOWS = {"flows": [str], "parallel": bool}

# The library blocks under rails.config that truing reads; the others of NeMo call services or models that it has not.
OWN_BLOCKS = (
    "sensitive_data_detection",
    "jailbreak_detection",
    "regex_detection",
    "injection_detection",
    "fact_checking",
    "content_safety",
    "context_bloat_detection",
)
FOREIGN_BLOCKS = (
    "activefence",
    "ai_defense",
    "autoalign",
    "clavata",
    "cleanlab",
    "crowdstrike_aidr",
    "f5",
    "fiddler",
    "gcp_moderate_text",
    "gliner",
    "guardrails_ai",
    "hf_classifier",
    "pangea",
    "patronus",
    "policyai",
    "polygraf",
    "privateai",
    "private_ai_detection",
    "prompt_security",
    "trend_micro",
    "topic_safety",
    "llama_guard",
)

_MODERATION: dict[str, Any] = {
    "judge": str,
    "threshold": float,
    "thresholds": ANY,
    "alternative": str,
}
_STAGES: dict[str, Any] = {"stages": [str]}
TRUING: dict[str, Any] = {
    "intent_margin": float,
    "generated_messages": bool,
    "generated_intents": bool,
    "encoder": str,
    "intent_threshold": float,
    "concurrent": bool,
    "speculative": bool,
    "streaming": {"mode": str, "chunk_size": int, "context_size": int},
    "action_timeout": float,
    "llm_timeout": float,
    "max_message": int,
    "seed": int,
    "tone": {
        "policy": str,
        "avoid": [str],
        "exclamation_marks": int,
        "emoji": bool,
        "capitals": bool,
        "max_words": int,
        "rudeness": bool,
        "rewrites": int,
    },
    "self_harm": {"message": str, "help": str, "encoder": bool, "judge": str, "threshold": float},
    "moderation": {**_MODERATION, "input": _MODERATION, "output": _MODERATION},
    "topic": {"allow": [str], "deny": [str], "threshold": float, "alternative": str},
    "injection": {"threshold": float},
    "tools": {
        "allow": [str],
        "deny": [str],
        "max_calls": int,
        "arguments": {"*": {"*": None}},
        "results": {"max_characters": int, "injection": bool},
    },
    "secrets": {"action": str, **_STAGES},
    "urls": {"allow": [str], "action": str, **_STAGES},
    "invisible": {"action": str, **_STAGES},
    "length": {"max_characters": int, "max_words": int, **_STAGES},
    "repetition": {"max_share": float, "min_words": int, **_STAGES},
    "language": {"allow": [str], "min_words": int, **_STAGES},
    "sensitive": {"entities": [str]},
    "library": {"nemo_alias": bool},
    "models": ANY,
    "bad_input": ANY,
}

SCHEMA: dict[str, Any] = {
    "models": [
        {
            "type": str,
            "engine": str,
            "model": str,
            "api_key_env_var": str,
            "parameters": ANY,
            "mode": str,
            "cache": {
                "enabled": bool,
                "maxsize": int,
                "stats": {"enabled": bool, "log_interval": float},
            },
        }
    ],
    "instructions": [{"type": str, "content": str}],
    "sample_conversation": str,
    "docs": [{"format": str, "content": str}],
    "prompts": [
        {
            "task": str,
            "content": str,
            "messages": [object],
            "models": [str],
            "output_parser": str,
            "max_length": int,
            "mode": str,
            "stop": [str],
            "max_tokens": int,
        }
    ],
    "prompting_mode": str,
    "user_messages": ANY,
    "bot_messages": ANY,
    "flows": [
        {
            "id": str,
            "elements": [object],
            "priority": float,
            "is_extension": bool,
            "is_interruptible": bool,
            "is_subflow": bool,
            "allow_multiple": bool,
        }
    ],
    "actions_server_url": str,
    "import_paths": [str],
    "lowest_temperature": float,
    "enable_multi_step_generation": bool,
    "colang_version": object,
    "custom_data": ANY,
    "knowledge_base": {"folder": str, "embedding_search_provider": _PROVIDER},
    "core": {"embedding_search_provider": _PROVIDER},
    "rails": {
        "config": dict.fromkeys((*OWN_BLOCKS, *FOREIGN_BLOCKS), ANY),
        "input": {**_FLOWS, "speculative_generation": bool},
        "output": {
            **_FLOWS,
            "streaming": {
                "enabled": bool,
                "chunk_size": int,
                "context_size": int,
                "stream_first": bool,
            },
        },
        "retrieval": {"flows": [str]},
        "dialog": {
            "single_call": {"enabled": bool, "fallback_to_multiple_calls": bool},
            "user_messages": {
                "embeddings_only": bool,
                "embeddings_only_similarity_threshold": float,
                "embeddings_only_fallback_intent": str,
            },
        },
        "actions": {"instant_actions": [str]},
        "tool_output": _FLOWS,
        "tool_input": _FLOWS,
    },
    "streaming": bool,
    "enable_rails_exceptions": bool,
    "passthrough": bool,
    "raw_llm_call_action": str,
    "event_source_uid": str,
    "tracing": {
        "enabled": bool,
        "adapters": [ANY],
        "span_format": str,
        "enable_content_capture": bool,
    },
    "metrics": {"enabled": bool},
    "truing": TRUING,
}

_WORDS = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "keys",
}


def faults(value: Any, schema: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """The places at which a document differs from the schema, and what is wrong there."""
    if value is None or schema is object or schema is None:
        return
    where = ".".join(str(p) for p in path) or "the document"
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            yield path, f"{where}: expected keys, got {_kind(value)}"
            return
        for key, inner in value.items():
            here = (*path, str(key))
            if "*" in schema:
                continue
            if key not in schema:
                yield here, f"unknown key {str(key)!r} in {where}{did_you_mean(str(key), schema)}"
            else:
                yield from faults(inner, schema[key], here)
        return
    if isinstance(schema, list):
        if not isinstance(value, list):
            yield path, f"{where}: expected a list, got {_kind(value)}"
            return
        for at, inner in enumerate(value):
            yield from faults(inner, schema[0], (*path, at))
        return
    good = (
        isinstance(value, (int, float)) and not isinstance(value, bool)
        if schema is float
        else type(value) is schema
    )
    if not good:
        yield path, f"{where}: expected {_WORDS[schema]}, got {_kind(value)}"


def _kind(value: Any) -> str:
    return {
        str: "a text",
        bool: "true/false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "keys",
    }.get(type(value), type(value).__name__)
