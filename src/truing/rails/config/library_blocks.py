"""The blocks under ``rails.config``: NeMo's settings of its library rails, with their keys.

A block whose keys are listed is read by the rails of the same name. NeMo Guardrails ignores keys
that it does not know; so does truing in these blocks, and `key_effects` says which.
"""

from __future__ import annotations

from typing import Any

_ANY: dict[str, Any] = {"*": None}
_ENTITIES = {"entities": [str]}
_SENSITIVE = {**_ENTITIES, "mask_token": str, "score_threshold": float}
_PATTERNS = {"patterns": [str], "case_insensitive": bool}

# Name of a block -> the schema of its known keys (as in `schema.SCHEMA`).
LIBRARY_BLOCKS: dict[str, dict[str, Any]] = {
    "sensitive_data_detection": {
        "recognizers": [_ANY],
        "input": _SENSITIVE,
        "output": _SENSITIVE,
        "retrieval": _SENSITIVE,
    },
    "jailbreak_detection": {
        "embedding": str,
        "server_endpoint": str,
        "length_per_perplexity_threshold": float,
        "prefix_suffix_perplexity_threshold": float,
        "nim_base_url": str,
        "nim_server_endpoint": str,
        "api_key": str,
        "api_key_env_var": str,
        "nim_url": str,
        "nim_port": int,
    },
    "regex_detection": {"input": _PATTERNS, "output": _PATTERNS, "retrieval": _PATTERNS},
    "injection_detection": {
        "injections": [str],
        "action": str,
        "yara_path": str,
        "yara_rules": _ANY,
    },
    "fact_checking": {"parameters": {"endpoint": str}, "fallback_to_self_check": bool},
    "content_safety": {
        "multilingual": {"enabled": bool, "refusal_messages": _ANY},
        "reasoning": {"enabled": bool},
    },
    "autoalign": {
        "parameters": {
            "endpoint": str,
            "fact_check_endpoint": str,
            "groundedness_check_endpoint": str,
            "multi_language": bool,
        },
        "input": {"guardrails_config": _ANY},
        "output": {"guardrails_config": _ANY},
    },
    "clavata": {
        "server_endpoint": str,
        "policies": _ANY,
        "label_match_logic": str,
        "input": {"policy": str, "labels": [str]},
        "output": {"policy": str, "labels": [str]},
    },
    "fiddler": {
        "fiddler_endpoint": str,
        "safety_threshold": float,
        "faithfulness_threshold": float,
    },
    "pangea": {"input": {"recipe": str}, "output": {"recipe": str}},
    "patronus": {
        "input": {"evaluate_config": {"success_strategy": str, "params": _ANY}},
        "output": {"evaluate_config": {"success_strategy": str, "params": _ANY}},
    },
    "privateai": {
        "server_endpoint": str,
        "input": _ENTITIES,
        "output": _ENTITIES,
        "retrieval": _ENTITIES,
    },
    "trend_micro": {
        "v1_url": str,
        "api_key_env_var": str,
        "application_name": str,
        "detailed_response": bool,
    },
    "gliner": {
        "server_endpoint": str,
        "model": str,
        "api_key_env_var": str,
        "threshold": float,
        "chunk_length": int,
        "overlap": int,
        "flat_ner": bool,
        "input": _ENTITIES,
        "output": _ENTITIES,
        "retrieval": _ENTITIES,
    },
    "crowdstrike_aidr": {"timeout": float},
    "f5": {
        "api_url": str,
        "fail_open": bool,
        "max_retries": int,
        "max_retry_after_seconds": float,
        "retry_backoff_seconds": float,
    },
    "ai_defense": {"timeout": float, "fail_open": bool},
}
# Blocks of rails that need a service, a model or a package that truing does not have. A rail of
# theirs is refused; without one, the block has no effect, here as in NeMo.
UNSUPPORTED_BLOCKS = (
    "activefence",
    "cleanlab",
    "context_bloat_detection",
    "gcp_moderate_text",
    "guardrails_ai",
    "hf_classifier",
    "llama_guard",
    "policyai",
    "polygraf",
    "private_ai_detection",
    "prompt_security",
    "topic_safety",
)
