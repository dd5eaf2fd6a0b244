"""Entries of `models:` and `prompts:`."""

from __future__ import annotations

from typing import Any

import pytest

from truing.rails.config.entries import (
    DEFAULT_CACHE_SIZE,
    ModelEntry,
    PromptEntry,
    parse_model_entry,
    parse_prompt_entry,
)


def test_a_model_may_be_named_in_its_parameters() -> None:
    raw = {"type": "main", "engine": "openai", "parameters": {"model_name": "m", "seed": 1}}
    entry, fault = parse_model_entry(raw)
    assert fault is None
    assert entry == ModelEntry("main", "openai", "m", {"seed": 1})
    assert raw["parameters"] == {"model_name": "m", "seed": 1}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"engine": "openai", "model": "m"}, "needs type and engine"),
        ({"type": "main", "model": "m"}, "needs type and engine"),
        ({"type": "main", "engine": "openai"}, "needs a name"),
        ({"type": "main", "engine": "openai", "model": " "}, "needs a name"),
        (
            {"type": "main", "engine": "openai", "model": "m", "parameters": {"model": "n"}},
            "is set twice",
        ),
        (
            {
                **{"type": "main", "engine": "openai", "model": "m"},
                "cache": {"enabled": True, "maxsize": 0},
            },
            "cache.maxsize is at least 1",
        ),
    ],
)
def test_faults_of_models(raw: dict[str, Any], message: str) -> None:
    _, fault = parse_model_entry(raw)
    assert fault is not None
    assert message in fault


@pytest.mark.parametrize(
    ("cache", "size"),
    [
        (None, 0),
        ({"maxsize": 5}, 0),
        ({"enabled": True}, DEFAULT_CACHE_SIZE),
        ({"enabled": True, "maxsize": 5}, 5),
        ({"enabled": False, "maxsize": 0}, 0),
    ],
)
def test_the_size_of_a_cache(cache: dict[str, Any] | None, size: int) -> None:
    raw = {"type": "main", "engine": "openai", "model": "m", "cache": cache}
    entry, fault = parse_model_entry(raw)
    assert (entry.cache_size, fault) == (size, None)


def test_messages_of_a_prompt_are_texts_or_typed() -> None:
    raw = {"task": "general", "messages": ["{{ history }}", {"type": "system", "content": "Hi"}]}
    assert parse_prompt_entry(raw) == PromptEntry(
        "general", messages=(("", "{{ history }}"), ("system", "Hi"))
    )


@pytest.mark.parametrize(
    "raw",
    [
        {"content": "x"},
        {"task": "general"},
        {"task": "general", "content": "x", "messages": ["y"]},
    ],
)
def test_a_prompt_needs_a_task_and_one_kind_of_text(raw: dict[str, Any]) -> None:
    assert parse_prompt_entry(raw) is None
