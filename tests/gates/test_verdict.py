"""The exit status of a verdict."""

from __future__ import annotations

import json

import msgspec
import pytest

from truing.gates.verdict import GateVerdict, RuleOutcome


@pytest.mark.parametrize(
    ("status", "exit_status"), [("passed", 0), ("failed", 2), ("inconclusive", 3)]
)
def test_exit_status_and_json(status, exit_status):
    outcome = RuleOutcome(rule="harm.upper < 0.1", status=status, reason="r")
    verdict = GateVerdict(
        run="a", model="m", title="t", verdict=status, outcomes=(outcome,), not_tested=()
    )
    assert verdict.exit == exit_status
    document = json.loads(msgspec.json.encode(verdict))
    assert document["verdict"] == document["outcomes"][0]["status"] == status
