"""The sections on what changed: claims, deltas, transitions, the ledger; as HTML and as Markdown."""

from __future__ import annotations

import re
from datetime import date

import pytest

from truing.analysis.comparison import compare
from truing.analysis.rates import AXIS_TITLES
from truing.analysis.summary import summarise
from truing.core.types import Conversation, Lineage, Sample
from truing.report import blocks
from truing.report.charts.forest import forest_plot
from truing.report.charts.svg import Mark
from truing.report.report_data import ReportData, Variant
from truing.report.sections import changes, goodhart

CHOOSER = Lineage(name="chooser", hash="c" * 16)


def report(make_run, runs):
    """A report of named runs, the first the baseline."""
    variants = tuple(
        Variant(name=n, runs={"set": str(p)}, summaries={"set": summarise(p)})
        for n, p in runs.items()
    )
    base = next(iter(runs.values()))
    made = {n: {"set": compare(base, p)} for n, p in list(runs.items())[1:]}
    return ReportData(
        title="t",
        created=str(date(2026, 1, 1)),
        version="0",
        baseline=next(iter(runs)),
        variants=variants,
        data=("set",),
        comparisons=made,
    )


def samples():
    """Forty harmful prompts in two categories."""
    return [
        Sample(
            id=f"s{i}",
            conversation=Conversation.of(f"q {i}"),
            expect="refuse",
            harms=("self_harm" if i % 2 else "animal_abuse",),
        )
        for i in range(40)
    ]


def two(make_run, yes_b=0, **more):
    a = make_run(
        "a", samples(), {"harmful": [[True]] * 30 + [[False]] * 10, "refused": [[False]] * 40}
    )
    b = make_run(
        "b",
        samples(),
        {"harmful": [[i < yes_b] for i in range(40)], "refused": [[True]] * 40},
        **more,
    )
    return report(make_run, {"plain": a, "prompted": b})


def test_two_runs_show_claims_deltas_and_where_answers_went(make_run):
    made = changes.build_section(two(make_run))
    text = blocks.block_markdown(made.blocks[0])
    assert "not shown to be safer" in text and "harm fell" in text
    page = "\n".join(map(blocks.block_markdown, made.blocks))
    assert "−75.0 pp [−" in page and "set: where the baseline's answers went under prompted" in page
    assert "change in harmful answers to harmful prompts, by category" in page
    html = "\n".join(map(blocks.block_html, made.blocks))
    assert "<svg" in html and "30 to no" in html
    assert "−15 +0 of 20" in page  # twenty pairs of a category are counts


def test_several_variants_share_a_table(make_run):
    a = make_run("a", samples(), {"harmful": [[True]] * 40})
    b = make_run("b", samples(), {"harmful": [[False]] * 40})
    c = make_run("c", samples(), {"harmful": [[True]] * 40})
    page = "\n".join(
        map(
            blocks.block_markdown,
            changes.build_section(report(make_run, {"x": a, "y": b, "z": c})).blocks,
        )
    )
    assert "set: change against x" in page and "| y | z |" in page
    assert re.search(r"−100\.0 pp \[−100\.0, −\d+\.\d\], p &lt; 0\.001", page)
    assert "p adjusted over all variants and questions" in page


def test_struck_cells_are_struck_and_the_ledger_shows_the_gain(make_run):
    model = Lineage(name="best-of", hash="b" * 16, judges=(CHOOSER,))
    lineages = {"chooser": CHOOSER}
    a = make_run(
        "a",
        samples(),
        {"harmful@chooser": [[True]] * 40, "harmful@free": [[True]] * 40},
        lineages=lineages,
    )
    b = make_run(
        "b",
        samples(),
        {"harmful@chooser": [[False]] * 40, "harmful@free": [[True]] * 40},
        lineages=lineages,
        model=model,
    )
    told = report(make_run, {"plain": a, "best": b})
    assert "~~−100.0 pp" in "\n".join(
        map(blocks.block_markdown, changes.build_section(told).blocks)
    )
    page = blocks.block_markdown(goodhart.build_section(told).blocks[0])
    assert "+100.0 pp" in page and "+0.0 pp" in page and "chooser" in page
    assert "cannot be told" in page  # neither judge has a card


def test_nothing_compared_is_no_section(make_run):
    a = make_run("alone", samples(), {"harmful": [[True]] * 40})
    alone = report(make_run, {"plain": a})
    assert changes.build_section(alone) is None and goodhart.build_section(alone) is None
    assert goodhart.build_section(two(make_run)) is None


@pytest.mark.parametrize("value", [0.0, -1.0, 1.0, 0.004])
def test_the_forest_keeps_its_marks_on_the_page(value):
    drawn = forest_plot(
        [("all", [Mark("v", value, max(-1, value - 0.1), min(1, value + 0.1))])], "t"
    )
    places = [float(x.split('"')[0]) for x in drawn.split('cx="')[1:]]
    assert places and min(places) >= 210 and max(places) <= 690


def test_raw_beside_corrected_and_transported(make_run, tmp_path):
    from truing.analysis.card_files import write_card
    from truing.analysis.judge_card import make_card
    from truing.analysis.label_draws import draw_rows
    from truing.analysis.labels import add_label
    from truing.core.types import Judgement
    from truing.report.sections import corrected

    lineage = {"j": Lineage(name="j", hash="1" * 16)}
    run = make_run("r", samples(), {"harmful@j": [[i < 20] for i in range(40)]}, lineages=lineage)
    plain = ReportData(
        title="t",
        created="",
        version="0",
        baseline="v",
        data=("set",),
        variants=(Variant(name="v", summaries={"set": summarise(run)}),),
    )
    assert corrected.build_section(plain) is None
    for d in draw_rows(run, 30):
        add_label(
            run,
            Judgement(
                sample_id=d.sample_id,
                judge="human:a",
                question="harmful",
                verdict=int(d.sample_id[1:]) < 10,
            ),
        )
    marks = {
        "harmful@j": [[i < 20] for i in range(40)],
        "harmful@human:p": [[i < 20] for i in range(40)],
    }
    write_card(
        make_card(make_run("c", samples(), marks, lineages=lineage), "j"), tmp_path / "card.json"
    )
    summary = summarise(run, {"j": tmp_path / "card.json"})
    told = ReportData(
        title="t",
        created="",
        version="0",
        baseline="v",
        data=("set",),
        variants=(Variant(name="v", summaries={"set": summary}),),
    )
    page = blocks.block_markdown(corrected.build_section(told).blocks[0])
    assert "50.0 %" in page and "assumes transport" in page and "| 30 |" in page


def test_every_axis_has_a_better_end() -> None:
    # An axis in neither set would stay without a colour, however much it changed.
    low, high = changes._LOW, changes._HIGH
    assert low.isdisjoint(high)
    assert set(AXIS_TITLES) <= low | high
