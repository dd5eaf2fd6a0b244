"""Findings as text, and their order."""

from __future__ import annotations

from truing.rails.static.findings import Finding, finding_sort_key


def _finding(place: str) -> Finding:
    return Finding(place=place, kind="test", what="is wrong", level="warning")


def test_a_finding_is_printed_like_a_compiler_message() -> None:
    assert str(_finding("rails.co:3")) == "rails.co:3: warning: is wrong"


def test_lines_are_sorted_as_numbers() -> None:
    places = ["b.co:1", "a.co:10", "a.co:9", "config"]
    ordered = sorted(map(_finding, places), key=finding_sort_key)
    assert [finding.place for finding in ordered] == ["a.co:9", "a.co:10", "b.co:1", "config"]
