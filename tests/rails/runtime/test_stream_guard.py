"""The helpers of the stream guard; whole streams are tested in tests/rails/test_guarded.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.types import Answer
from truing.rails.runtime.stream_guard import (
    CHUNK_CHARACTERS,
    _is_stage_off,
    _without_output_rails,
    split_text,
    unsent_text,
)


@given(st.text(max_size=300))
def test_a_split_text_is_the_text(text: str) -> None:
    chunks = split_text(text)
    assert "".join(chunks) == text
    assert all(len(chunk) >= CHUNK_CHARACTERS for chunk in chunks[:-1])
    assert all(chunk.startswith(" ") for chunk in chunks[1:])


@pytest.mark.parametrize(
    ("sent", "text", "unsent"),
    [
        ("", "Hello", "Hello"),
        ("Hel", "Hello", "lo"),
        ("Hello ", "Hello", ""),
        (" Hel", "Hello", "lo"),
        ("Hello", "Another answer", "\nAnother answer"),
        ("One. Hello and more", "Hello", ""),
    ],
)
def test_the_rest_of_an_answer(sent: str, text: str, unsent: str) -> None:
    assert unsent_text(sent, Answer.of(text)) == unsent


def test_a_failed_answer_has_nothing_more_to_send() -> None:
    assert unsent_text("Hel", Answer.failed("http", "500")) == ""


def test_stages_are_switched_off_by_list_or_mapping() -> None:
    assert not _is_stage_off(None, "output")
    assert _is_stage_off({"rails": ["input"]}, "output")
    assert _is_stage_off({"rails": {"output": False}}, "output")
    assert not _is_stage_off({"rails": {"input": False}}, "output")
    assert _without_output_rails({"rails": {"input": False}, "log": {}}) == {
        "rails": ["retrieval", "dialog", "tool_output", "tool_input"],
        "log": {},
    }
