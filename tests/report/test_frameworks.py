"""Frameworks: those that ship are sound, and faults of one are reported together."""

from __future__ import annotations

import pytest

from truing.core.errors import PlanError
from truing.report.frameworks import list_frameworks, load_framework, parse_framework

SIZES = {
    "ailuminate": 12,
    "eu-gpai": 13,
    "mitre-atlas": 7,
    "nist": 12,
    "owasp-agents": 10,
    "owasp-llm": 10,
    "system-card": 9,
}


def test_the_frameworks_that_ship_have_all_their_items() -> None:
    assert {name: len(load_framework(name).item) for name in list_frameworks()} == SIZES


def test_an_unknown_framework_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(PlanError, match="did you mean 'nist'"):
        load_framework("nits")


def test_all_faults_of_a_framework_are_reported_together() -> None:
    text = """
name = "x"
title = "X"
[[item]]
id = "1"
name = "One"
categories = ["privcy_violation"]
[[item]]
id = "1"
name = "Two"
facts = ["lineag"]
[[item]]
id = "3"
name = "Three"
"""
    with pytest.raises(PlanError) as caught:
        parse_framework(text, "x.toml")
    faults = "\n".join(caught.value.faults)
    assert "1: no category 'privcy_violation'; did you mean 'privacy_violation'" in faults
    assert "1: no fact 'lineag'; did you mean 'lineage'" in faults
    assert "3: neither evidence nor a reason for none" in faults
    assert "two items have the same id" in faults


@pytest.mark.parametrize("text", ["name = ", "name = 1\ntitle = 'X'", "nam = 'x'\ntitle = 'X'"])
def test_what_is_no_framework_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match=r"x\.toml"):
        parse_framework(text, "x.toml")
