"""How right judges are: at their own thresholds, at fixed rates of false alarms, by answering
model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from truing.analysis.judge_comparison import ComparedSet, JudgesComparison
from truing.analysis.judge_figures import FALSE_ALARM_RATES, JudgeOnSet, ModelAlarms
from truing.analysis.judged_sets import DESIGN, MACHINE, PEOPLE
from truing.report.blocks import Block, Cell, Figure, Grid, Raw, Section, Text
from truing.report.charts.svg import Mark, interval_chart, legend_html
from truing.report.formatting import format_percent, format_rate_interval
from truing.report.judge_names import judge_series, short_judge_names, short_set_names
from truing.stats.intervals import Interval

_SMALL = 30
_CHARTED_RATE = FALSE_ALARM_RATES[1]
LABEL_SOURCES = {
    PEOPLE: "people",
    MACHINE: "a machine",
    DESIGN: "what the prompts were made for",
}
_OVERVIEW_LEAD = (
    "At each judge's own threshold. Rows that a judge was trained on are struck for it, so that "
    "judges may be measured on different rows of a set; the differences below are on shared rows."
)
_RATES_LEAD = (
    "Judges have different thresholds; at the same share of false alarms on a set, how much of "
    "what is harmful do they find? The threshold is fitted on the set itself, and the interval "
    "includes that. A rate needs enough benign rows: at least 100 for 1 %."
)
_FALSE_ALARMS_INTRODUCTION = (
    "The share of benign answers that a judge flags, by the model that answered. Benign is what "
    "the labels call so; where a set has none, every answer to a benign prompt."
)


def share_cell(interval: Interval | None, title: str = "") -> Cell:
    """Returns a share with its interval as a cell."""
    if interval is None:
        return Cell("–", "quiet", title)
    text = format_rate_interval(interval.estimate, interval.lower, interval.upper)
    return Cell(text, "", title)


def number_cell(interval: Interval | None) -> Cell:
    """Returns a number between 0 and 1 with its interval as a cell."""
    if interval is None:
        return Cell("–", "quiet")
    return Cell(f"{interval.estimate:.3f} [{interval.lower:.3f}, {interval.upper:.3f}]")


def results_of(comparison: JudgesComparison, compared: ComparedSet) -> list[JudgeOnSet]:
    """Returns the results on one set, in the order of the judges."""
    return [result for result in comparison.results if result.data == compared.spec]


def legend(comparison: JudgesComparison) -> Raw:
    """Returns the judges with their colours; nothing in Markdown."""
    return Raw(legend_html(list(short_judge_names(comparison).values())))


def _bounds_title(result: JudgeOnSet, bounds: tuple[float, float] | None) -> str:
    if not result.unscored or bounds is None:
        return ""
    return f"between {100 * bounds[0]:.1f} and {100 * bounds[1]:.1f} % whatever the unscored are"


def _unscored_cell(judge_result: JudgeOnSet) -> Cell:
    if not judge_result.unscored:
        return Cell("0", "quiet")
    bounds = judge_result.recall_bounds or judge_result.false_alarm_bounds
    name = "recall" if judge_result.recall_bounds else "false alarms"
    bounds_text = f" ({name} {100 * bounds[0]:.0f} to {100 * bounds[1]:.0f} %)" if bounds else ""
    return Cell(
        f"{judge_result.unscored:,}{bounds_text}",
        "",
        "bounds with all unscored one way or the other",
    )


def _rows_cell(result: JudgeOnSet) -> Cell:
    """Returns the number of rows; struck out if the judge learned from all of them."""
    if not result.n and result.struck:
        return Cell(f"{result.struck:,}", "struck", result.struck_reason or "learned from them")
    return Cell(f"{result.n:,}", "", f"{result.struck:,} more are struck" if result.struck else "")


def _threshold_table(
    comparison: JudgesComparison, compared: ComparedSet, results: Sequence[JudgeOnSet]
) -> Block:
    names = short_judge_names(comparison)
    grid = Grid(["judge", "rows", "positive", "F1", "recall", "false alarms", "unscored"])
    for judge_result in results:
        grid.add(
            Cell(
                names[judge_result.judge],
                "",
                f"{judge_result.judge}, question {judge_result.question}",
            ),
            _rows_cell(judge_result),
            f"{judge_result.n_positive:,}" if judge_result.n else Cell("–", "quiet"),
            number_cell(judge_result.f1),
            share_cell(
                judge_result.recall, _bounds_title(judge_result, judge_result.recall_bounds)
            ),
            share_cell(
                judge_result.false_alarm,
                _bounds_title(judge_result, judge_result.false_alarm_bounds),
            ),
            _unscored_cell(judge_result),
        )
    title = f"{short_set_names(comparison)[compared.spec]}: {_describe_labels(compared)}"
    return grid.table(title, right=range(1, 7))


def _ranking_table(comparison: JudgesComparison) -> Iterable[Block]:
    sets, judges = short_set_names(comparison), short_judge_names(comparison)
    grid = Grid(["set", "judge", "AUROC", "AP", "ECE"])
    for judge_result in comparison.results:
        if judge_result.auroc is not None:
            error = (
                Cell("–", "quiet") if judge_result.ece is None else Cell(f"{judge_result.ece:.3f}")
            )
            grid.add(
                sets[judge_result.data],
                judges[judge_result.judge],
                number_cell(judge_result.auroc),
                number_cell(judge_result.ap),
                error,
            )
    if grid.rows:
        yield grid.table("How well their probabilities rank and are calibrated", right=(2, 3, 4))


def _notes(comparison: JudgesComparison) -> Iterable[Block]:
    """Yields each note of the results once, with the judges and sets that it is about."""
    sets, judges = short_set_names(comparison), short_judge_names(comparison)
    places: dict[tuple[str, str], list[str]] = {}
    for result in comparison.results:
        for note in result.notes:
            places.setdefault((result.judge, note), []).append(sets[result.data])
    for (judge, note), sets_of_note in places.items():
        n_results = sum(result.judge == judge for result in comparison.results)
        place_text = "" if len(sets_of_note) == n_results else f" on {', '.join(sets_of_note)}"
        yield Text(f"{judges[judge]}{place_text}: {note}.", "note")


def _describe_labels(compared: ComparedSet) -> str:
    return "; ".join(
        f"{labels.question} labelled by {LABEL_SOURCES[labels.source]}"
        + (f" ({', '.join(labels.raters)})" if labels.raters else "")
        for labels in compared.labels
    )


def _auroc_chart(comparison: JudgesComparison) -> list[Block]:
    names, series = short_set_names(comparison), judge_series(comparison)
    bands: list[tuple[str, list[Mark]]] = []
    for compared in comparison.sets:
        marks = [
            Mark(
                r.judge,
                r.auroc.estimate,
                r.auroc.lower,
                r.auroc.upper,
                series[r.judge],
                r.n < _SMALL,
                value=f"{r.auroc.estimate:.3f}",
            )
            for r in results_of(comparison, compared)
            if r.auroc is not None
        ]
        if marks:
            bands.append((names[compared.spec], marks))
    if not bands:
        return []
    alt = "; ".join(f"{name}: {m.label} {m.value}" for name, marks in bands for m in marks)
    caption = "Area under the ROC curve, by set (0.5 is chance)"
    return [
        legend(comparison),
        Figure(interval_chart(bands, caption, as_percent=False), caption, alt),
    ]


def build_overview(comparison: JudgesComparison) -> Section:
    """Returns the first section: what to know first, AUROC, and a table for each set."""
    blocks: list[Block] = [Text(problem + ".", "warning") for problem in comparison.problems]
    blocks += _auroc_chart(comparison)
    for compared in comparison.sets:
        blocks.append(_threshold_table(comparison, compared, results_of(comparison, compared)))
    blocks += [*_ranking_table(comparison), *_notes(comparison)]
    return Section("accuracy", "How right they are", tuple(blocks), lead=_OVERVIEW_LEAD)


def _chart(
    comparison: JudgesComparison, bands: Sequence[tuple[str, Sequence[Mark]]], caption: str
) -> list[Block]:
    """Returns a chart of shares with its legend; nothing without bands."""
    if not bands:
        return []
    alt = "; ".join(
        f"{name}: {mark.label} {format_percent(mark.estimate)}"
        for name, marks in bands
        for mark in marks
    )
    return [legend(comparison), Figure(interval_chart(bands, caption), caption, alt)]


def _recall_cells(result: JudgeOnSet) -> list[Cell]:
    by_rate = {point.rate: point for point in result.recall_at}
    return [
        share_cell(by_rate[rate].recall, f"threshold {by_rate[rate].threshold:.3g}")
        if rate in by_rate
        else Cell("–", "quiet", "too few benign rows for this rate")
        for rate in FALSE_ALARM_RATES
    ]


def build_fixed_rates(comparison: JudgesComparison) -> Section | None:
    """Returns recall at fixed rates of false alarms; None if no judge gives probabilities."""
    ranked = [judge_result for judge_result in comparison.results if judge_result.recall_at]
    if not ranked:
        return None
    sets, judges = short_set_names(comparison), short_judge_names(comparison)
    series = judge_series(comparison)
    rates = [f"recall at {100 * rate:g} % false alarms" for rate in FALSE_ALARM_RATES]
    grid = Grid(["set", "judge", *rates])
    bands: dict[str, list[Mark]] = {}
    for judge_result in ranked:
        grid.add(sets[judge_result.data], judges[judge_result.judge], *_recall_cells(judge_result))
        for point in judge_result.recall_at:
            if point.rate == _CHARTED_RATE:
                recall = point.recall
                bands.setdefault(sets[judge_result.data], []).append(
                    Mark(
                        judge_result.judge,
                        recall.estimate,
                        recall.lower,
                        recall.upper,
                        series[judge_result.judge],
                    )
                )
    caption = f"Recall at {100 * _CHARTED_RATE:g} % false alarms, by set"
    table = grid.table("Recall at fixed rates of false alarms", right=range(2, 5))
    blocks = [*_chart(comparison, list(bands.items()), caption), table]
    return Section("rates", "Recall at the same false alarms", tuple(blocks), lead=_RATES_LEAD)


def _alarm_cell(alarms: ModelAlarms | None) -> Cell:
    if alarms is None:
        return Cell("–", "quiet")
    title = f"{alarms.events:,} of {alarms.n - alarms.unscored:,} scored"
    if alarms.unscored:
        low, high = alarms.bounds
        title += f"; {alarms.unscored:,} unscored: between {100 * low:.1f} and {100 * high:.1f} %"
    if alarms.rate is None:
        return Cell(f"unscored ({alarms.n:,})", "quiet", title)
    if alarms.n < _SMALL:
        return Cell(f"{alarms.events} of {alarms.n}", "", title)
    return share_cell(alarms.rate, title)


def _alarm_mark(judge: str, alarms: ModelAlarms, series: int) -> Mark | None:
    rate = alarms.rate
    if rate is None:
        return None
    note = f", {alarms.events} of {alarms.n - alarms.unscored}"
    return Mark(judge, rate.estimate, rate.lower, rate.upper, series, alarms.n < _SMALL, note)


def build_alarms(comparison: JudgesComparison) -> Section | None:
    """Returns the false alarms by answering model; None if no set has a benign row."""
    judges, sets = short_judge_names(comparison), short_set_names(comparison)
    series = judge_series(comparison)
    judge_names = [j.name for j in comparison.judges]
    grid = Grid(["set", "answers of", "benign rows", *(judges[name] for name in judge_names)])
    bands: list[tuple[str, list[Mark]]] = []
    for compared in comparison.sets:
        by_judge = {
            r.judge: {a.model: a for a in r.alarms} for r in results_of(comparison, compared)
        }
        models = dict.fromkeys(model for alarms in by_judge.values() for model in alarms)
        for model in models:
            of_judges = [by_judge.get(name, {}).get(model) for name in judge_names]
            n = max(alarms.n for alarms in of_judges if alarms is not None)
            cells = [_alarm_cell(alarms) for alarms in of_judges]
            grid.add(sets[compared.spec], model or "not named", f"{n:,}", *cells)
            marks = [
                mark
                for name, a in zip(judge_names, of_judges)
                if a is not None and (mark := _alarm_mark(name, a, series[name])) is not None
            ]
            if marks:
                bands.append((model or sets[compared.spec], marks))
    if not grid.rows:
        return None
    caption = "False alarms on benign answers, by answering model"
    table = grid.table("False alarms by answering model", right=range(2, 3 + len(judge_names)))
    blocks = [*_chart(comparison, bands, caption), table]
    return Section(
        "alarms", "False alarms, by who answered", tuple(blocks), lead=_FALSE_ALARMS_INTRODUCTION
    )
