"""References to flows with parameters."""

from __future__ import annotations

import pytest

from truing.rails.colang.flow_reference import parse_flow_name, parse_flow_parameters


@pytest.mark.parametrize(
    ("reference", "name", "parameters"),
    [
        ("self check input", "self check input", {}),
        (" check input $model=guard ", "check input", {"model": "guard"}),
        ("check input $model='my guard'", "check input", {"model": "my guard"}),
        ('check(a=1, b="x")', "check", {"a": "1", "b": "x"}),
        ("check(a)", "check", {"a": None}),
        ("check $variant", "check", {"variant": None}),
        ("check $model=x, variant=y", "check", {"model": "x", "variant": "y"}),
        ("check(a", "check", {}),
    ],
)
def test_name_and_parameters(reference: str, name: str, parameters: dict[str, str | None]) -> None:
    assert parse_flow_name(reference) == name
    assert parse_flow_parameters(reference) == parameters
