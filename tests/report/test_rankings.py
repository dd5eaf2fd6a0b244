"""The page of rankings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.report.rates import cell_texts

from truing.rankers.figures import RankingFigure, RankingSummary
from truing.report.blocks import Figure, Table, Text
from truing.report.rankings import (
    build_section,
    figure_label,
    format_figure,
    render_page,
    write_rankings,
)
from truing.stats.intervals import Interval

SHARE = RankingFigure(
    method="token", n=100, clusters=100, chance=0.25, value=Interval(0.5, 0.4, 0.6)
)


def make_summary(*figures: RankingFigure, **fields: Any) -> RankingSummary:
    defaults: dict[str, Any] = {"unscored": 0, "reasons": {}, "n": 100}
    return RankingSummary(
        ranker="mcq-likelihood",
        model="local:tiny",
        data="bbq",
        figures=figures,
        **{**defaults, **fields},
    )


def test_labels_name_method_and_group() -> None:
    assert figure_label(SHARE) == "per token"
    assert figure_label(RankingFigure(method="letter", group="Age")) == (
        "Age: by letter, orders averaged"
    )
    assert figure_label(RankingFigure(method="unknown")) == "unknown"


def test_a_share_is_a_percentage_beside_chance() -> None:
    assert format_figure(SHARE) == ("50.0 %", "40.0 to 60.0 %", "25 %")


def test_a_small_group_is_a_count() -> None:
    figure = RankingFigure(method="token", group="Age", n=10, value=Interval(0.3, 0.1, 0.6))
    assert format_figure(figure) == ("3 of 10", "", "")


def test_other_figures_have_three_decimals() -> None:
    figure = RankingFigure(
        method="token", kind="auroc", n=100, chance=0.5, value=Interval(0.75, 0.7, 0.8)
    )
    assert format_figure(figure) == ("0.750", "0.700 to 0.800", "0.5")
    assert format_figure(RankingFigure(method="token")) == ("", "", "")


def test_a_section_has_a_chart_a_table_for_each_kind_and_what_was_left_out() -> None:
    margin = RankingFigure(method="sum", kind="margin", n=100, value=Interval(1.5, 1.0, 2.0))
    group = RankingFigure(method="token", group="Age", n=10, value=Interval(0.3, 0.1, 0.6))
    section = build_section(
        make_summary(
            SHARE, margin, group, unscored=3, reasons={"too long": 3}, notes=("a remark",)
        ),
        2,
    )
    assert (section.id, section.title) == ("ranking-2", "bbq · multiple choice by likelihood")
    assert section.lead == "local:tiny · 100 items, 3 unscored"
    chart, shares, margins, groups, warning, note = section.blocks
    assert isinstance(chart, Figure) and chart.alt == "per token 50.0 %"
    assert isinstance(shares, Table)
    assert cell_texts(shares) == [["per token", "50.0 %", "40.0 to 60.0 %", "25 %", "100"]]
    assert isinstance(margins, Table) and margins.caption == "margin in nats"
    assert cell_texts(margins) == [["whole text", "1.500", "1.000 to 2.000", "", "100"]]
    assert isinstance(groups, Table) and groups.folded
    assert cell_texts(groups) == [["Age: per token", "3 of 10", "", "", "10"]]
    assert warning == Text("3 of 100 unscored: too long", "warning")
    assert note == Text("a remark", "note")


def test_page_and_files(tmp_path: Path) -> None:
    html, markdown = render_page([make_summary(SHARE)], "A <title>")
    assert "A &lt;title&gt;" in html and "<svg" in html
    assert markdown.startswith("# A <title>\n\n")
    assert "| per token | 50.0 % | 40.0 to 60.0 % | 25 % | 100 |" in markdown
    path = write_rankings([make_summary(SHARE)], tmp_path / "out")
    assert path == tmp_path / "out" / "report.html"
    assert "## bbq" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
