"""No key of NeMo's configuration is without an effect, a named difference or a refusal."""

from __future__ import annotations

from collections.abc import Iterator
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
from truing.rails.config.schema import OPEN, SCHEMA


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
        ("tracing: {enabled: true}", 1, "tracing.enabled: truing writes no spans"),
        (
            "knowledge_base:\n  embedding_search_provider:\n    parameters:\n"
            "      embedding_model: text-embedding-3-small",
            4,
            "its own encoder",
        ),
        ("models:\n  - {type: embeddings, engine: cohere, model: ada}", 2, "ada: truing finds"),
        (
            "rails:\n  config:\n    content_safety: {multilingual: {enabled: true}}",
            3,
            "refusals are in the language",
        ),
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
        "    gliner: {server: x}\n"
    )
    unused = dict(find_unused_keys(RailsConfig.from_text(yaml)))
    assert list(unused) == ["config.yml:1", "config.yml:4", "config.yml:6"]
    assert "the key is not known" in unused["config.yml:4"]
