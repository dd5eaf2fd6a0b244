"""Depth of JSON texts, and errors of those that are none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.core.json_text import is_nested_deeper, parse_json


def measure_depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(measure_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(measure_depth, value), default=0)
    return 0


json_values = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}"\\\\ab', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=30,
)


@settings(max_examples=50)
@given(json_values, st.integers(0, 6))
def test_the_depth_is_that_of_the_value(value: Any, depth: int) -> None:
    text = json.dumps(value)
    assert is_nested_deeper(text.encode(), depth) is (measure_depth(value) > depth)
    assert parse_json(text) == value


@pytest.mark.parametrize("text", ["[" * 5000, "]" * 5000, '{"a":' * 5000, '"' + "[" * 5000 + '"'])
def test_unbalanced_texts_and_brackets_in_strings(text: str) -> None:
    assert is_nested_deeper(text.encode(), 100) is (text[0] in "[{")
