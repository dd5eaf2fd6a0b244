"""Documents against the schema: paths and messages of what differs."""

from __future__ import annotations

from typing import Any

import pytest

from truing.rails.config.schema import ANY_KEYS, SCHEMA, find_schema_faults

SMALL_SCHEMA = {"name": str, "items": [{"count": int, "share": float}], "extra": ANY_KEYS}


def test_a_document_that_fits_has_no_faults() -> None:
    document = {"name": "a", "items": [{"count": 1, "share": 2}], "extra": {"x": {"y": 1}}}
    assert list(find_schema_faults(document, SMALL_SCHEMA)) == []


def test_empty_values_are_accepted_everywhere() -> None:
    document = {"name": None, "items": [None, {"count": None}], "extra": None}
    assert list(find_schema_faults(document, SMALL_SCHEMA)) == []


@pytest.mark.parametrize(
    ("document", "path", "message"),
    [
        (3, (), "the document: expected a mapping, got a number"),
        ({"nam": "a"}, ("nam",), "unknown key 'nam' in the document; did you mean 'name'?"),
        ({"name": 3}, ("name",), "name: expected a string, got a number"),
        ({"items": {}}, ("items",), "items: expected a list, got a mapping"),
        (
            {"items": [{}, {"count": True}]},
            ("items", 1, "count"),
            "items.1.count: expected a whole number, got true/false",
        ),
        (
            {"items": [{"share": "x"}]},
            ("items", 0, "share"),
            "items.0.share: expected a number, got a string",
        ),
        ({"extra": []}, ("extra",), "extra: expected a mapping, got a list"),
    ],
)
def test_faults(document: Any, path: tuple[str | int, ...], message: str) -> None:
    assert list(find_schema_faults(document, SMALL_SCHEMA)) == [(path, message)]


def test_the_schema_of_config_yml() -> None:
    document = {
        "models": [{"type": "main", "engine": "openai", "model": "m", "parameters": {"x": 1}}],
        "rails": {"input": {"flows": ["a"], "paralel": True}, "config": {"gliner": {"x": 1}}},
        "truing": {"tone": {"max_words": 9}, "tools": {"arguments": {"f": {"x": "y"}}}},
    }
    ((path, _),) = find_schema_faults(document, SCHEMA)
    assert path == ("rails", "input", "paralel")
