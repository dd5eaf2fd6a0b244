"""The HTML page of a run: axes, curves, warnings, threshold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from truing.train.rl.training_page import _axis_ticks, render_page, write_training_page


@pytest.mark.parametrize(
    ("low", "high"),
    [(-1.91, 2.31), (0.0625, 0.5), (2.45, 3.43), (-0.5, 0.5), (1e-9, 3e-9), (28.2, 39.6), (0, 1)],
)
def test_ticks_are_round_numbers_around_the_range(low: float, high: float) -> None:
    ticks = _axis_ticks(low, high)
    step = ticks[1] - ticks[0]
    assert 2 <= len(ticks) <= 6
    assert low - step < ticks[0] <= low + 1e-9 * step
    assert high - 1e-9 * step <= ticks[-1] < high + step
    assert float(f"{step:.0e}") == pytest.approx(step)  # one digit


def test_the_page_shows_curves_warnings_and_the_threshold() -> None:
    rows = [
        {
            "step": k,
            "reward_mean": k / 2,
            "cost_mean": 1 - k / 9,
            "episode_cost": 1.0,
            "violation": 0.75,
            "lambda": 1.0 + k,
            "warning": "λ <is> at its bound" if k == 3 else "",
            "seconds": 2.0 * k,
        }
        for k in range(1, 6)
    ]
    page = render_page(rows, title="a <run>")
    assert "a &lt;run&gt;" in page
    assert "step 3: λ &lt;is&gt; at its bound" in page
    assert page.count("<path") == 1 + 2 + 1  # reward, cost and its window, λ
    assert ">threshold 0.25</text>" in page
    assert "Entropy" not in page  # no data, no plot


def test_the_page_loads_nothing_from_the_network() -> None:
    page = render_page([{"step": 1, "reward_mean": 2.0}], title="one")
    assert page.count("<path") == 1
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)


def test_values_that_are_not_numbers_are_left_out() -> None:
    rows = [{"step": 1, "entropy": "nan"}, {"step": 2, "entropy": 1.0}]
    assert "M46.0,89.0" in render_page(rows, title="run")  # one point, in the middle


def test_a_run_without_steps_has_no_page(tmp_path: Path) -> None:
    assert write_training_page(tmp_path) is None
    assert not (tmp_path / "training.html").exists()
