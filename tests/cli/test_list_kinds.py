"""`truing list models|judges|attacks|data|rails`."""

from __future__ import annotations

import json

import pytest
from tests.cli.command_line import run_truing

from truing.rails.library.catalog import RAIL_TITLES, library_flow_names
from truing.specs.builders import BUILDERS


@pytest.mark.parametrize("role", ["model", "judge", "attack"])
def test_every_kind_is_listed_with_its_example(role: str) -> None:
    rows = json.loads(run_truing(f"list {role}s --json"))
    assert {row["kind"] for row in rows} >= set(BUILDERS[role])
    table = run_truing(f"list {role}s")
    assert all(row["example"] in table for row in rows)


def test_rails_are_those_of_the_library() -> None:
    rows = json.loads(run_truing("list rails --json"))
    assert {row["name"] for row in rows} == set(RAIL_TITLES) <= library_flow_names()
    assert "self check input" in run_truing("list rails")


def test_data_sets_are_listed() -> None:
    assert "builtin" in run_truing("list data")
