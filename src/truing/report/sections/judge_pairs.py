"""Judges against each other: paired differences from the first, and agreement."""

from __future__ import annotations

from collections.abc import Sequence

from truing.analysis.judge_comparison import JudgesComparison
from truing.analysis.judge_pairs import JudgeAgreement, JudgeDifference
from truing.report.blocks import Block, Cell, Grid, Section, Text
from truing.report.formatting import format_p_value
from truing.report.judge_names import short_judge_names, short_set_names

_MEASURES = {"auroc": "AUROC", "recall": "recall", "false_alarm": "false alarms"}
_DIFFERENCES_LEAD = (
    "Each judge minus the first one, on rows that both scored and neither learned from. Recall and "
    "false alarms are paired by prompt, AUROC by row (DeLong). p is adjusted for all differences "
    "of this page (Holm)."
)
_AGREEMENT_LEAD = (
    "Cohen's kappa on the rows that both scored: 1 is full agreement, 0 what chance gives. No "
    "labels enter: two judges may agree and both be wrong."
)


def _difference_cell(difference: JudgeDifference) -> Cell:
    interval = difference.difference
    scale, digits = (1, 3) if difference.measure == "auroc" else (100, 1)
    estimate, lower, upper = (
        scale * x for x in (interval.estimate, interval.lower, interval.upper)
    )
    text = f"{estimate:+.{digits}f} [{lower:+.{digits}f}, {upper:+.{digits}f}]"
    if difference.p_adjusted >= 0.05:
        return Cell(text.replace("-", "−"), "quiet")
    is_better = (
        interval.estimate > 0 if difference.measure != "false_alarm" else interval.estimate < 0
    )
    return Cell(text.replace("-", "−"), "good" if is_better else "bad")


def _level(value: float, difference: JudgeDifference) -> str:
    return f"{value:.3f}" if difference.measure == "auroc" else f"{100 * value:.1f} %"


def build_differences(comparison: JudgesComparison) -> Section | None:
    """Returns the differences from the first judge; None with a single judge."""
    if not comparison.differences:
        return None
    judges, sets = short_judge_names(comparison), short_set_names(comparison)
    blocks: list[Block] = []
    for measure, title in _MEASURES.items():
        of_measure = [
            difference for difference in comparison.differences if difference.measure == measure
        ]
        if not of_measure:
            continue
        unit = "" if measure == "auroc" else ", percentage points"
        grid = Grid(["set", "judge", "rows", "baseline", "judge's", f"difference{unit}", "p adj."])
        for difference in of_measure:
            grid.add(
                sets[difference.data],
                judges[difference.judge],
                f"{difference.n:,}",
                Cell(_level(difference.of_baseline, difference), "", difference.baseline),
                _level(difference.of_judge, difference),
                _difference_cell(difference),
                format_p_value(difference.p_adjusted),
            )
        baselines = ", ".join(
            dict.fromkeys(judges[difference.baseline] for difference in of_measure)
        )
        blocks.append(grid.table(f"{title}, against {baselines}", right=range(2, 7)))
    return Section(
        "differences", "Differences from the first judge", tuple(blocks), lead=_DIFFERENCES_LEAD
    )


def _kappa_cell(agreement: JudgeAgreement | None) -> Cell:
    if agreement is None:
        return Cell("", "quiet")
    share = f"{100 * agreement.share:.1f} % of {agreement.n:,} rows alike"
    kappa = agreement.kappa
    if kappa is None:
        return Cell("–", "quiet", f"{share}; both give one answer to all rows")
    text = f"{kappa.estimate:.2f} [{kappa.lower:.2f}, {kappa.upper:.2f}]"
    return Cell(text.replace("-", "−"), "", share)


def _agreement_table(
    comparison: JudgesComparison, spec: str, question: str, agreements: Sequence[JudgeAgreement]
) -> Block:
    judges = short_judge_names(comparison)
    by_pair = {frozenset((a.a, a.b)): a for a in agreements}
    compared_judges = [
        j.name for j in comparison.judges if any(j.name in (a.a, a.b) for a in agreements)
    ]
    grid = Grid(["", *(judges[name] for name in compared_judges[1:])])
    # The upper half of the matrix: kappa is symmetric.
    for row, first in enumerate(compared_judges[:-1]):
        cells = [
            _kappa_cell(by_pair.get(frozenset((first, second)))) if column > row else Cell("")
            for column, second in enumerate(compared_judges[1:], 1)
        ]
        grid.add(judges[first], *cells)
    title = f"{short_set_names(comparison)[spec]}: {question}"
    return grid.table(title, right=range(1, len(compared_judges)))


def build_agreement(comparison: JudgesComparison) -> Section | None:
    """Returns a matrix of kappas for each set; None with a single judge."""
    keys = dict.fromkeys((a.data, a.question) for a in comparison.agreements)
    if not keys:
        return None
    blocks: list[Block] = [
        _agreement_table(
            comparison,
            spec,
            question,
            [a for a in comparison.agreements if (a.data, a.question) == (spec, question)],
        )
        for spec, question in keys
    ]
    if any(a.kappa is None for a in comparison.agreements):
        blocks.append(Text("– : both judges give one answer to all rows.", "note"))
    return Section("agreement", "Agreement with each other", tuple(blocks), lead=_AGREEMENT_LEAD)
