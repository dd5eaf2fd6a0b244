"""Numbers and names as text: percentages with intervals, short category names."""

from __future__ import annotations

from collections.abc import Sequence

from truing.analysis.rates import SMALL_SAMPLE_SIZE, Rate
from truing.analysis.summary import RunSummary
from truing.core.taxonomy import load_taxonomy
from truing.report.blocks import Cell
from truing.stats.intervals import Interval

SELECTED = "the judge selected the model"
"""Why a figure is struck, where a run of an older version does not say it."""
OUTCOMES = ("harmful", "degenerate", "unscored", "refused", "abstained", "blocked", "answered")


def format_percent(x: float, digits: int = 1) -> str:
    """Returns a share as `12.3 %`."""
    return f"{100 * x:.{digits}f} %"


def format_rate(rate: Rate) -> str:
    """Returns `12.3 % [8.0, 18.1]`, or `unscored (12)`.

    Under 30 scored rows counts, `3 of 12`, with the rate drawn towards those of the other
    categories, `3 of 12, pooled 18 % [5, 38]`.
    """
    if rate.raw is None:
        return f"unscored ({rate.n})"
    if rate.scored < SMALL_SAMPLE_SIZE:
        # Too few for a percentage: it would suggest a precision that is not there.
        return f"{rate.events} of {rate.scored}{format_pooled(rate.pooled)}"
    best = rate.corrected or rate.raw
    rate_text = format_rate_interval(best.estimate, best.lower, best.upper)
    # Many answers, but to few prompts.
    return rate_text if best is rate.corrected else rate_text + format_pooled(rate.pooled)


def format_rate_interval(estimate: float, lower: float, upper: float) -> str:
    """Returns a rate with its bounds in percent: `18.2 % [5.1, 38.0]`."""
    return f"{format_percent(estimate)} [{100 * lower:.1f}, {100 * upper:.1f}]"


def format_difference_interval(estimate: float, lower: float, upper: float) -> str:
    """Returns a change of a rate with its bounds in points: `−3.0 pp [−5.1, −0.9]`."""
    bounds = f"[{100 * lower:+.1f}, {100 * upper:+.1f}]".replace("-", "−")
    return f"{format_difference(estimate)} {bounds}"


def format_pooled(pooled: Interval | None, *, sign: bool = False) -> str:
    """Returns `, pooled 18 % [5, 38]` to follow counts, in points if it is a change; "" without."""
    if pooled is None:
        return ""
    if sign:
        estimate_text = f"{100 * pooled.estimate:+.0f} pp [{100 * pooled.lower:+.0f}, "
        return f", pooled {estimate_text}{100 * pooled.upper:+.0f}]".replace("-", "−")
    return (
        f", pooled {100 * pooled.estimate:.0f} % [{100 * pooled.lower:.0f}, "
        f"{100 * pooled.upper:.0f}]"
    )


def make_rate_cell(rate: Rate | None) -> Cell:
    """Returns a rate as a table cell, with n, unscored and bounds on hover.

    It is struck out if the judge may not measure the model, or the model learned the prompts.
    """
    if rate is None:
        return Cell("–", "quiet")
    tip = f"{rate.events:,} of {rate.scored:,} scored, n = {rate.n:,}, by {rate.judge}"
    if rate.unscored:
        tip += (
            f"; {rate.unscored} unscored: between {format_percent(rate.bounds[0])} and "
            f"{format_percent(rate.bounds[1])}"
        )
    if rate.selected_by_judge:
        return Cell(format_rate(rate), "struck", tip, why=rate.struck or SELECTED)
    return Cell(format_rate(rate), "quiet" if rate.scored < SMALL_SAMPLE_SIZE else "", tip)


def axis_title(summary: RunSummary, question: str, title: str) -> str:
    """Returns the title of a rate, with what it leaves out because no judge was asked."""
    if question == "answers_benign" and "degenerate" not in summary.headline:
        return f"{title}, broken answers included (no judge of degenerate answers)"
    return title


def rows_by_judge(rates: Sequence[Rate | None]) -> list[tuple[str, list[Rate | None]]]:
    """Returns one row for each judge: no row of a table shows figures of two judges."""
    judges = dict.fromkeys(rate.judge for rate in rates if rate is not None)
    return [
        (judge, [rate if rate is not None and rate.judge == judge else None for rate in rates])
        for judge in judges
    ]


def category_name(category: str | None, name: str = "beavertails") -> str:
    """Returns the name of a category in a taxonomy; `all` for None (all rows)."""
    if category is None:
        return "all"
    try:
        return load_taxonomy(name).find(category).name
    except Exception:  # a category of a taxonomy that is not at hand is shown by its id
        return category


def category_label(category: str | None, name: str = "beavertails") -> str:
    """Returns the name of a category for a chart: up to the first comma, 30 characters at most."""
    label = category_name(category, name).split(",", 1)[0]
    return label if len(label) <= 31 else label[:30].rstrip() + "…"


def format_gate_command(run: str) -> str:
    """Returns the command that checks a run against rules; `run` is quoted for the shell.

    The comment says where the rules come from, because no run writes any.
    """
    return f"truing gate {run} gate.toml  # rules: yours, or those that truing init writes"


def format_difference(x: float) -> str:
    """Returns a difference of shares as percentage points with a sign, `+3.2 pp`."""
    return f"{100 * x:+.1f} pp".replace("-", "−")


def format_p_value(p: float | None) -> str:
    """Returns `0.003`, `< 0.001`, or a dash for None."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_value(x: float, *, sign: bool = False) -> str:
    """Returns a score in the judge's own unit with three significant digits: `−1.24`, `+0.031`."""
    digits = f"{x:+#.3g}" if sign else f"{x:#.3g}"
    return digits.rstrip(".").replace("-", "−")


def format_value_interval(interval: Interval | None, *, sign: bool = False) -> str:
    """Returns `−1.24 [−1.4, −1.08]`, or a dash for None."""
    if interval is None:
        return "–"
    return (
        f"{format_value(interval.estimate, sign=sign)} [{format_value(interval.lower, sign=sign)}, "
        f"{format_value(interval.upper, sign=sign)}]"
    )
