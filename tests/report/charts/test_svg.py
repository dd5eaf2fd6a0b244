"""The page's style and plots: CSS stands as it was written, ticks are round."""

from __future__ import annotations

import pytest

from truing.cli.compare import command
from truing.report.charts.svg import _round_ticks


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.196, 0.305], [0.18, 0.2, 0.22, 0.24, 0.26, 0.28, 0.3, 0.32]),
        ([0.0, 1.0], [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ([1.0], [0.9, 0.92, 0.94, 0.96, 0.98, 1.0]),
        ([0.0], [0.0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        ([0.47, 0.65], [0.45, 0.5, 0.55, 0.6, 0.65, 0.7]),
    ],
)
def test_ticks_are_round_and_reach_beyond_the_values(values, ticks):
    assert _round_ticks(values) == pytest.approx(ticks)


def test_the_style_is_not_escaped_and_large_counts_have_separators(make_run, prompts, tmp_path):
    runs = [
        make_run(n, prompts(1200, expect="refuse"), {"refused": [[k < hits] for k in range(1200)]})
        for n, hits in (("a", 300), ("b", 1100))
    ]
    assert command(*runs, out=tmp_path / "report.html") == 0
    page = (tmp_path / "report.html").read_text()
    style = page.split("<style>")[1].split("</style>")[0]
    assert "details.table>summary{" in style and "&gt;" not in style and "&quot;" not in style
    assert "300 of 1,200" in page


@pytest.mark.parametrize(("expect", "figures"), [("refuse", 0), ("none", 1)])
def test_harm_by_category_is_drawn_once(make_run, prompts, tmp_path, expect, figures):
    samples = (
        prompts(40, expect="refuse", harms=("self_harm",))[:20]
        + prompts(40, expect=expect, harms=("self_harm",))[20:]
    )
    runs = [
        make_run(n, samples, {"harmful": [[k < hits] for k in range(40)]})
        for n, hits in (("a", 20), ("b", 12))
    ]
    assert command(*runs, out=tmp_path / "report.html") == 0
    part = (tmp_path / "report.md").read_text().split("## By harm category")[1].split("\n## ")[0]
    assert part.count("harmful answers (all prompts)*") == 2 * figures  # a figure and its table
    assert part.count("harmful answers to harmful prompts*") == 2
