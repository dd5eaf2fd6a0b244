"""Entries of `models:` and `prompts:`."""

from __future__ import annotations

from typing import Any

import pytest

from truing.rails.config.entries import (
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
    ],
)
def test_faults_of_models(raw: dict[str, Any], message: str) -> None:
    _, fault = parse_model_entry(raw)
    assert fault is not None
    assert message in fault


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
