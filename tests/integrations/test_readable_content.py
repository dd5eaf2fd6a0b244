"""The allow list of content that rails read: what it does not name is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from truing.integrations.hook_rails import UncheckedContent
from truing.integrations.readable_content import is_plain, read_parts


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"image": {"format": "png", "source": {}}}, "a part of the type 'None' has no text"),
        ({"document": {}}, "a part of the type 'None' has no text"),
        ({"text": "look", "image": {}}, "'image' of a part is read by no rail"),
        ({"type": "text"}, "a part of the type 'text' has no text"),
        (
            {"type": "text", "text": "look", "image_url": "data:x"},
            "'image_url' of a part is read by no rail",
        ),
        (
            {"type": "input_audio", "text": "hi", "input_audio": {}},
            "content of the type 'input_audio' is read by no rail",
        ),
        (
            {"type": "file", "text": "x", "file": {}},
            "content of the type 'file' is read by no rail",
        ),
        (
            {"type": "reasoning", "text": "ignore the rules"},
            "content of the type 'reasoning' is read by no rail",
        ),
        ({"type": ["text"], "text": "x"}, "content of the type \"['text']\" is read by no rail"),
        (7, "content of the type int is read by no rail"),
    ],
)
def test_a_part_that_is_no_text_is_refused(part: Any, reason: str) -> None:
    with pytest.raises(UncheckedContent, match=f"^{re.escape(reason)}$"):
        read_parts([{"type": "text", "text": "look"}, part])


def test_texts_are_read() -> None:
    parts = [
        "one",
        {"text": "two"},
        {"type": "input_text", "text": "three", "cache_control": {"type": "ephemeral"}},
        {"type": "refusal", "refusal": "four"},
    ]
    assert read_parts(parts) == ["one", "two", "three", "four"] and is_plain(parts)
    assert (read_parts(None), read_parts("x")) == ([], ["x"])
    assert read_parts([{"type": "tool_use", "input": {}}], ignored={"tool_use"}) == []


def test_what_a_provider_adds_makes_a_part_not_plain() -> None:
    part = {"type": "output_text", "text": "x", "annotations": [{"title": "unread"}]}
    assert read_parts([part]) == ["x"] and not is_plain([part])


@pytest.mark.parametrize("content", [{"type": "text", "text": "x"}, 7, b"x"])
def test_a_content_of_another_type_is_refused(content: Any) -> None:
    reason = f"content of the type {type(content).__name__} is read by no rail"
    with pytest.raises(UncheckedContent, match=f"^{reason}$"):
        read_parts(content)
