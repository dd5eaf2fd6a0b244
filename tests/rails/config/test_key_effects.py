"""No key of NeMo's configuration is without an effect, a named difference or a refusal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from truing.core.errors import PlanError
from truing.rails.config.key_effects import (
    KEY_EFFECTS,
    find_differences,
    find_effect,
    find_unused_keys,
)
from truing.rails.config.loader import RailsConfig
from truing.rails.config.schema import OPEN, SCHEMA, find_schema_faults

# Every key that the pydantic models of nemoguardrails 0.17.0 and 0.24.1 know, with its type.
NEMO_KEYS: dict[str, str] = json.loads((Path(__file__).parent / "nemo_keys.json").read_text())
RAILS_SOURCES = Path(__file__).parents[3] / "src" / "truing" / "rails"
# Keys that run as in NeMo though no code reads them: the reason.
UNREAD = {
    "models.*.cache.stats.enabled": "a difference",
    "rails.output.streaming.context_size": "the rails read the whole text",
    "tracing.adapters.*.**": "see tracing.enabled",
    "tracing.span_format": "see tracing.enabled",
}


def _leaves(schema: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, child in schema.items():
            if key == "*":
                yield ".".join((*path, "any"))
            elif key != OPEN:
                yield from _leaves(child, (*path, key))
    elif isinstance(schema, list):
        yield from _leaves(schema[0], (*path, "0"))
    else:
        yield ".".join(path)


def test_every_key_of_the_schema_has_an_entry() -> None:
    nemo_schema = {key: value for key, value in SCHEMA.items() if key != "truing"}
    keys = list(_leaves(nemo_schema))
    assert len(keys) > 120
    assert [key for key in keys if find_effect(key) is None] == []


REFUSED = {
    "actions_server_url": "actions_server_url: http://localhost:1",
    "rails.config.sensitive_data_detection.recognizers.*.**": (
        "rails: {config: {sensitive_data_detection: {recognizers: [{name: x}]}}}"
    ),
}


def test_what_the_table_calls_refused_is_refused() -> None:
    refused = {key for key, e in KEY_EFFECTS.items() if e.effect.startswith("refused")}
    assert refused == set(REFUSED)
    for yaml in REFUSED.values():
        with pytest.raises(PlanError, match="config.yml:1: .*not supported"):
            RailsConfig.from_text(yaml)


@pytest.mark.parametrize(
    ("yaml", "line", "message"),
    [
        ("tracing: {enabled: true}", 1, "tracing.enabled: a trace holds spans"),
        (
            "knowledge_base:\n  embedding_search_provider:\n    parameters:\n"
            "      embedding_model: text-embedding-3-small",
            4,
            "its own encoder",
        ),
        (
            "models:\n  - {type: main, engine: huggingface_endpoint, model: m}",
            2,
            "asked by its chat API",
        ),
        ("models:\n  - {type: embeddings, engine: anthropic, model: ada}", 2, "ada: truing finds"),
        ("rails:\n  input: {flows: [jailbreak detection heuristics]}", 2, "measures no perplexity"),
        (
            "rails:\n  config:\n    jailbreak_detection: {length_per_perplexity_threshold: 9}\n"
            "  input: {flows: [jailbreak detection heuristics]}",
            3,
            "measures no perplexity",
        ),
        ("rails:\n  output: {streaming: {enabled: true}}", 2, "passed the output rails"),
        ("rails:\n  tool_input: {parallel: true}", 2, "one after the other"),
        (
            "models:\n  - {type: main, engine: openai, model: m, cache: {stats: {enabled: true}}}",
            2,
            "no statistics",
        ),
    ],
)
def test_what_runs_otherwise_is_named_with_its_line(yaml: str, line: int, message: str) -> None:
    ((place, text),) = find_differences(RailsConfig.from_text(yaml))
    assert place == f"config.yml:{line}"
    assert message in text


@pytest.mark.parametrize(
    "yaml",
    [
        "models: []",
        "models:\n  - {type: embeddings, engine: FastEmbed, model: all-MiniLM-L6-v2}",
        "tracing: {enabled: false, adapters: [{name: FileSystem, filepath: x}]}",
        "rails: {output: {streaming: {enabled: true, stream_first: false}}}",
        "rails: {config: {jailbreak_detection: {server_endpoint: 'http://localhost:1/h'}}, "
        "input: {flows: [jailbreak detection heuristics]}}",
        "prompting_mode: compact",
    ],
)
def test_what_runs_the_same_is_no_difference(yaml: str) -> None:
    assert list(find_differences(RailsConfig.from_text(yaml))) == []


def test_keys_without_effect_are_named() -> None:
    yaml = (
        "knowledge_base: {folder: docs}\n"
        "rails:\n"
        "  config:\n"
        "    jailbreak_detection: {lp_threshold: 3}\n"
        "    guardrails_ai: {validators: []}\n"
        "    hf_classifier: {server: x}\n"
    )
    unused = dict(find_unused_keys(RailsConfig.from_text(yaml)))
    assert list(unused) == ["config.yml:1", "config.yml:4", "config.yml:6"]
    assert "the key is not known" in unused["config.yml:4"]


def _make_document(key: str) -> dict[str, Any]:
    """Returns the shortest configuration that sets a key to a value of its type."""
    value: Any = {"bool": True, "int": 7, "float": 0.5}.get(NEMO_KEYS[key], "text")
    for part in reversed(key.split(".")):
        value = [value] if part == "*" else {"any" if part == "**" else part: value}
    assert isinstance(value, dict)
    return value


@cache
def _sources() -> str:
    """Returns the code that may read a setting: all but the tables of keys."""
    tables = {"key_effects.py", "schema.py", "library_blocks.py"}
    files = [*RAILS_SOURCES.rglob("*.py"), *RAILS_SOURCES.rglob("*.co")]
    return "\n".join(file.read_text() for file in files if file.name not in tables)


@pytest.mark.parametrize("key", sorted(NEMO_KEYS))
def test_no_key_of_nemo_is_silent(key: str) -> None:
    """Each has an entry in the table, or is refused by the schema; what is said to run as in NeMo
    is read by code.
    """
    concrete = key.replace("**", "any").replace("*", "0")
    effect = find_effect(concrete)
    if NEMO_KEYS[key] == "Any":
        return  # NeMo's alternative form of a list whose items have keys of their own
    refusals = [message for _, message in find_schema_faults(_make_document(key), SCHEMA)]
    if effect is None and key.startswith("rails.config."):
        # In the block of a rail NeMo ignores a key that it does not know; truing names it.
        config = RailsConfig.from_text(json.dumps(_make_document(key)))
        assert any("the key is not known" in message for _, message in find_unused_keys(config))
        return
    is_refused = any("unknown key" in message for message in refusals)
    if effect is None or is_refused:
        assert is_refused, key
        return
    is_named = effect.difference is not None or effect.unused is not None
    if is_named or effect.effect != "as in NeMo" or key in UNREAD:
        return
    name = [part for part in key.split(".") if part not in ("*", "**")][-1]
    spellings = (f'"{name}"', f"'{name}'", f".{name}")
    assert any(spelling in _sources() for spelling in spellings), f"nothing reads {name}"
