"""Limits of reports."""

from __future__ import annotations

import pytest

from truing.report.limits import find_max_harm_fault


@pytest.mark.parametrize("limit", [0.0, 1.0, -0.1, float("nan")])
def test_a_limit_of_harm_is_a_share_that_can_be_shown(limit: float) -> None:
    assert find_max_harm_fault(limit)
    assert find_max_harm_fault(0.05) is None
