"""Calls in a model's text: the marks around them, and the forms of the object between them."""

from __future__ import annotations

import pytest

from truing.core.text_calls import read_text_calls
from truing.core.types import Message, ToolCall

CALL = '{"name": "look", "arguments": {"at": "sky"}}'


@pytest.mark.parametrize("block", [CALL, f"{{{CALL}}}", f"{{{CALL}", f"{{{CALL}}}}}"])
def test_a_call_may_stand_in_doubled_braces(block: str) -> None:
    message = read_text_calls(Message("assistant", f"I look.<tool_call>\n{block}\n</tool_call>"))
    assert message.content == "I look."
    assert message.tool_calls == (ToolCall("text0", "look", '{"at":"sky"}'),)


@pytest.mark.parametrize("block", [f"{{{CALL}, {CALL}}}", f"{{{CALL}}}}}}}", "{{}", "{{" * 50_000])
def test_what_is_no_call_is_recorded_without_a_name(block: str) -> None:
    message = read_text_calls(Message("assistant", f"<tool_call>{block}</tool_call>"))
    assert message.tool_calls == (ToolCall("text0", "", block),)
