"""The keys of ``config.yml`` with their types: NeMo's, and truing's own under ``truing:``.

A schema is a type (str, bool, int, float; object accepts anything), a list with the schema of its
items, or a dictionary from keys to schemas. With the key `OPEN`, unknown keys are accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from truing.core.errors import did_you_mean
from truing.rails.config.library_blocks import LIBRARY_BLOCKS, UNSUPPORTED_BLOCKS
from truing.rails.yaml_lines import KeyPath

ANY_KEYS: dict[str, Any] = {"*": None}
OPEN = "..."
_EMBEDDING_PROVIDER = {
    "name": str,
    "parameters": ANY_KEYS,
    "cache": {"enabled": bool, "key_generator": str, "store": str, "store_config": ANY_KEYS},
}
_RAIL_STAGE = {"flows": [str], "parallel": bool}

_MODERATION: dict[str, Any] = {
    "judge": str,
    "threshold": float,
    "thresholds": ANY_KEYS,
    "alternative": str,
}


def _open_schema(schema: Any) -> Any:
    """Returns a schema whose mappings accept unknown keys, at every depth."""
    if isinstance(schema, dict):
        return {OPEN: None, **{key: _open_schema(child) for key, child in schema.items()}}
    return schema


_STAGES: dict[str, Any] = {"stages": [str]}
TRUING_SCHEMA: dict[str, Any] = {
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
    "jailbreak": {"judge": str},
    "tools": {
        "allow": [str],
        "deny": [str],
        "max_calls": int,
        "arguments": {"*": ANY_KEYS},
        "results": {"max_characters": int, "injection": bool},
        "recipients": {"*": [str]},
        "trusted_tools": [str],
        "judge": str,
        "ask": [str],
        "ask_timeout": float,
    },
    "secrets": {"action": str, **_STAGES},
    "urls": {"allow": [str], "action": str, **_STAGES},
    "invisible": {"action": str, **_STAGES},
    "length": {"max_characters": int, "max_words": int, **_STAGES},
    "repetition": {"max_share": float, "min_words": int, **_STAGES},
    "language": {"allow": [str], "min_words": int, **_STAGES},
    "sensitive": {"entities": [str]},
    "library": {"nemo_alias": bool},
    "services": ANY_KEYS,
    "gliner": {"path": str},
    "models": ANY_KEYS,
    "bad_input": ANY_KEYS,
    "trusted_roles": [str],
    "join_turns": bool,
    "client_options": {
        "rails": bool,
        "llm_params": ANY_KEYS,
        "context": [str],
        "output_vars": [str],
        "log": [str],
    },
}

SCHEMA: dict[str, Any] = {
    "models": [
        {
            "type": str,
            "engine": str,
            "model": str,
            "api_key_env_var": str,
            "parameters": ANY_KEYS,
            "mode": str,
            "cache": {
                "enabled": bool,
                "maxsize": int,
                "stats": {"enabled": bool, "log_interval": float},
            },
            "reasoning_config": {
                "remove_reasoning_traces": bool,
                "remove_thinking_traces": bool,
                "start_token": str,
                "end_token": str,
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
    "user_messages": ANY_KEYS,
    "bot_messages": ANY_KEYS,
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
    "custom_data": ANY_KEYS,
    "knowledge_base": {"folder": str, "embedding_search_provider": _EMBEDDING_PROVIDER},
    "core": {"embedding_search_provider": _EMBEDDING_PROVIDER},
    "rails": {
        "config": {
            **{name: _open_schema(block) for name, block in LIBRARY_BLOCKS.items()},
            **dict.fromkeys(UNSUPPORTED_BLOCKS, ANY_KEYS),
        },
        "input": {**_RAIL_STAGE, "speculative_generation": bool},
        "output": {
            **_RAIL_STAGE,
            "apply_to_reasoning_traces": bool,
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
        "tool_output": _RAIL_STAGE,
        "tool_input": _RAIL_STAGE,
    },
    "streaming": bool,
    "enable_rails_exceptions": bool,
    "passthrough": bool,
    "raw_llm_call_action": str,
    "event_source_uid": str,
    "tracing": {
        "enabled": bool,
        "adapters": [ANY_KEYS],
        "span_format": str,
        "enable_content_capture": bool,
    },
    "metrics": {"enabled": bool},
    "truing": TRUING_SCHEMA,
}

_TYPE_NAMES = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a mapping",
}
# The type of a value that YAML has read.
_VALUE_NAMES = {
    str: "a string",
    bool: "true/false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a mapping",
}


def find_schema_faults(
    value: Any, schema: Any, path: KeyPath = ()
) -> Iterator[tuple[KeyPath, str]]:
    """Yields (path, message) for every place where a document differs from its schema.

    An empty value is accepted everywhere, as in NeMo.
    """
    if value is None or schema is object or schema is None:
        return
    where = ".".join(str(key) for key in path) or "the document"
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            yield path, f"{where}: expected a mapping, got {_describe_type(value)}"
            return
        if "*" in schema:
            return
        for key, child in value.items():
            child_path = (*path, str(key))
            if key in schema and key != OPEN:
                yield from find_schema_faults(child, schema[key], child_path)
            elif OPEN not in schema:
                hint = did_you_mean(str(key), schema)
                yield child_path, f"unknown key {str(key)!r} in {where}{hint}"
    elif isinstance(schema, list):
        if not isinstance(value, list):
            yield path, f"{where}: expected a list, got {_describe_type(value)}"
            return
        for index, item in enumerate(value):
            yield from find_schema_faults(item, schema[0], (*path, index))
    elif not _has_type(value, schema):
        yield path, f"{where}: expected {_TYPE_NAMES[schema]}, got {_describe_type(value)}"


def _has_type(value: Any, expected: type) -> bool:
    if expected is float:
        # YAML reads 1 as an int; bool is a subclass of int.
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is expected


def _describe_type(value: Any) -> str:
    return _VALUE_NAMES.get(type(value), type(value).__name__)
