"""Spec arguments of the commands."""

from __future__ import annotations

import pytest

from truing.cli.parameters import resolve_all
from truing.core.errors import PlanError


def test_objects_come_in_order_and_none_stays_none() -> None:
    model, attack, judge = resolve_all(
        [("scripted:mixed", "model"), (None, "attack"), ("rules:refusal", "judge")]
    )
    assert (model.name, attack, judge.name) == ("scripted:mixed", None, "rules:refusal")


def test_all_faults_are_raised_together() -> None:
    with pytest.raises(PlanError) as caught:
        resolve_all([("scripted:mixd", "model"), ("rules:refsal", "judge")])
    assert len(caught.value.faults) == 2
    assert "did you mean 'mixed'" in caught.value.faults[0]
    assert "did you mean 'refusal'" in caught.value.faults[1]
