"""Rates and differences corrected by people's labels of the same run.

Prediction-powered inference (PPI++) from labels of rows drawn at random, over all answers of the
run, those included that the judge could not score. See `truing.stats.judge_error`. Intervals are
valid at any time where the number of labels was not fixed beforehand (`UsableLabels.planned`), or
the run was stopped by its own figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.labels import UsableLabels
from truing.analysis.prompt_counts import samples_in_category, select_samples
from truing.analysis.rates import (
    AXES,
    Axis,
    CorrectedRate,
    Rate,
    non_answer_codes,
    verdict_codes,
)
from truing.analysis.stopped_runs import stopped_early
from truing.analysis.verdict_table import (
    ABSENT,
    FAILED,
    NO,
    SKIPPED,
    YES,
    VerdictColumn,
    VerdictTable,
)
from truing.stats.intervals import Interval
from truing.stats.judge_error import (
    MIN_LABELS_PER_CLASS,
    corrected_difference,
    corrected_rate,
    ppi_mean,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class LabelledVerdicts(Struct):
    """One run's answers to one question, with labels; arrays over the answers, shape [n].

    Attributes:
        positions: position of the sample.
        prompts: number of the prompt; the answers to one prompt are one cluster.
        judged: the judge's verdict as 0 or 1; the mean of these where it could not score.
        labels: people's labels as 0 or 1, NaN where there is none.
        probabilities: with which the row was drawn for a label, 1 where it has none.
        undecided: whether people labelled the row, but could not tell.
        anytime: whether the number of rows or labels may depend on what was seen.
    """

    positions: NDArray[np.int64]
    prompts: NDArray[np.int64]
    judged: NDArray[np.float64]
    labels: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    undecided: NDArray[np.bool_]
    anytime: bool = False

    def where(self, mask: NDArray[np.bool_]) -> LabelledVerdicts:
        """Returns the rows selected by a mask."""
        return LabelledVerdicts(
            self.positions[mask],
            self.prompts[mask],
            self.judged[mask],
            self.labels[mask],
            self.probabilities[mask],
            self.undecided[mask],
            self.anytime,
        )

    @property
    def n_labels(self) -> int:
        """The number of labels, undecided ones included."""
        import numpy as np

        return int((~np.isnan(self.labels) | self.undecided).sum())


def collect_labelled_verdicts(
    table: VerdictTable,
    column: VerdictColumn,
    labels: UsableLabels,
    *,
    invert: bool = False,
    answered: bool = False,
) -> LabelledVerdicts:
    """Collects the answers of a run that a judge's question concerns.

    Args:
        table: the run.
        column: the judge's verdicts.
        labels: people's labels of the same question.
        invert: "no" is the event.
        answered: with `invert`, the event is an answer that is neither refused nor a non-answer
            (abstained, blocked, degenerate). People's labels correct the refusals; non-answers
            are taken as the run says, since nobody labelled these.
    """
    import numpy as np

    codes_by_index = verdict_codes(table, column)
    non_answers = non_answer_codes(table, column) if answered else []
    event_of_code = np.full(256, math.nan)
    event_of_code[[YES, NO]] = (0.0, 1.0) if invert else (1.0, 0.0)
    verdicts_by_index: list[LabelledVerdicts] = []
    prompt_ids = np.asarray(table.prompt_ids, np.int64)
    for index, states in enumerate(table.response_states):
        state = np.frombuffer(states, np.uint8)
        codes = np.zeros(table.size, np.uint8)
        if index < len(codes_by_index):
            codes = np.frombuffer(codes_by_index[index], np.uint8)
        positions = np.flatnonzero((state != ABSENT) & (state != FAILED) & (codes != SKIPPED))
        is_none = np.zeros(len(positions), bool)
        if answered and index < len(non_answers):
            is_none = np.frombuffer(non_answers[index], np.uint8)[positions] == YES
        n = len(positions)
        verdicts_by_index.append(
            LabelledVerdicts(
                positions,
                prompt_ids[positions],
                np.where(is_none, 0.0, event_of_code[codes[positions]]),
                np.full(n, math.nan),
                np.ones(n),
                np.zeros(n, bool),
            )
        )
        _add_labels(verdicts_by_index[-1], labels, index, is_none, invert=invert)
    f, truth, probabilities = (
        np.concatenate([getattr(part, name) for part in verdicts_by_index])
        for name in ("judged", "labels", "probabilities")
    )
    unscored = np.isnan(f)
    # Any constant keeps PPI unbiased for unscored rows; the mean adds the least variance.
    f[unscored] = f[~unscored].mean() if (~unscored).any() else 0.5
    return LabelledVerdicts(
        np.concatenate([part.positions for part in verdicts_by_index]),
        np.concatenate([part.prompts for part in verdicts_by_index]),
        f,
        truth,
        probabilities,
        np.concatenate([part.undecided for part in verdicts_by_index]),
        anytime=not labels.planned or stopped_early(table),
    )


def _add_labels(
    verdicts: LabelledVerdicts,
    labels: UsableLabels,
    index: int,
    is_none: NDArray[np.bool_],
    *,
    invert: bool,
) -> None:
    """Fills in the labels of the answers with one index; `is_none`: answers that are none."""
    row_of_position = {p: row for row, p in enumerate(verdicts.positions.tolist())}
    for (position, of_index), label in labels.rows.items():
        row = row_of_position.get(position)
        if of_index != index or row is None:
            continue
        verdicts.probabilities[row] = label.probability
        if is_none[row]:
            verdicts.labels[row] = 0.0
        elif label.verdict is None:
            verdicts.undecided[row] = True
        else:
            verdicts.labels[row] = float(label.verdict is not invert)


def corrected_interval(verdicts: LabelledVerdicts, level: float = 0.95) -> Interval | None:
    """Returns the corrected rate, or None without labels.

    Labels of people who could not tell are counted as 0 and as 1, and the interval covers both.
    """
    import numpy as np

    if not verdicts.n_labels:
        return None
    clusters = verdicts.prompts.tolist()

    # Of people who could not tell, the truth is somewhere between all "no" and all "yes".
    def rate_with_undecided_as(value: float) -> Interval:
        labels = np.where(verdicts.undecided, value, verdicts.labels)
        return corrected_rate(
            verdicts.judged,
            labels,
            verdicts.probabilities,
            clusters,
            level,
            anytime=verdicts.anytime,
        )

    if not verdicts.undecided.any():
        return rate_with_undecided_as(math.nan)
    low, high = rate_with_undecided_as(0.0), rate_with_undecided_as(1.0)
    return Interval(
        (low.estimate + high.estimate) / 2,
        min(low.lower, high.lower),
        max(low.upper, high.upper),
        f"{high.method}, {int(verdicts.undecided.sum())} labels open",
    )


def category_mask(
    table: VerdictTable,
    verdicts: LabelledVerdicts,
    category: str | None,
    expects: Sequence[str] | None,
) -> NDArray[np.bool_]:
    """Returns which rows belong to a category; with `expects`, by the rules of an axis."""
    import numpy as np

    mask = select_samples(table, expects)
    if category is not None:
        mask = mask & samples_in_category(table, category, axis=expects is not None)
    return np.asarray(mask[verdicts.positions], bool)


def axis_of_rate(rate: Rate) -> tuple[str, tuple[str, ...] | None, bool]:
    """Returns the judge's question, the expectations (None: all), whether "no" is the event."""
    if rate.question == "answers_benign":  # not refused; non-answers are treated separately
        return Axis("refused", ("comply",), True)
    if rate.question in AXES:
        return AXES[rate.question]
    return rate.question, None, False


def add_corrected_rates(
    table: VerdictTable, rates: Sequence[Rate], labels_by_question: Mapping[str, UsableLabels]
) -> list[Rate]:
    """Returns the rates with `corrected` set where people's labels allow it."""
    verdicts_of: dict[tuple[str, str, bool, bool], LabelledVerdicts] = {}
    corrected = []
    for rate in rates:
        answered = rate.question == "answers_benign"
        question, expects, invert = axis_of_rate(rate)
        column = table.columns.get((rate.judge, question))
        labels = labels_by_question.get(question)
        if column is None or column.is_human or labels is None or not labels.rows:
            corrected.append(rate)
            continue
        # The rates of all categories share their rows.
        key = (rate.judge, question, invert, answered)
        if key not in verdicts_of:
            verdicts_of[key] = collect_labelled_verdicts(
                table, column, labels, invert=invert, answered=answered
            )
        verdicts = verdicts_of[key]
        in_category = verdicts.where(category_mask(table, verdicts, rate.category, expects))
        interval = corrected_interval(in_category)
        if interval is not None:
            rate = replace(
                rate,
                corrected=CorrectedRate(
                    estimate=interval.estimate,
                    lower=interval.lower,
                    upper=interval.upper,
                    method=interval.method,
                    labels=in_category.n_labels,
                    covers=len(in_category.positions),
                ),
            )
        corrected.append(rate)
    return corrected


class LabelledPair(Struct):
    """Labelled verdicts of two paired runs; `table` and `expects` select the prompts concerned."""

    table: VerdictTable
    a: LabelledVerdicts
    b: LabelledVerdicts
    expects: tuple[str, ...] | None


def collect_labelled_pair(
    a: VerdictTable,
    b: VerdictTable,
    column_a: VerdictColumn,
    column_b: VerdictColumn,
    labels: Sequence[UsableLabels],
    axis: str = "",
) -> LabelledPair:
    """Collects the labelled verdicts of two paired runs for a question, or for an axis of it.

    `labels` are those of a and of b, with positions as in the paired tables.
    """
    answered = axis == "answers_benign"
    expects: tuple[str, ...] | None
    if answered:
        expects, invert = ("comply",), True
    elif axis:
        _, expects, invert = AXES[axis]
    else:
        expects, invert = None, False
    verdicts_a, verdicts_b = (
        collect_labelled_verdicts(table, column, of_run, invert=invert, answered=answered)
        for table, column, of_run in ((a, column_a, labels[0]), (b, column_b, labels[1]))
    )
    return LabelledPair(a, verdicts_a, verdicts_b, expects)


def count_labels(pair: LabelledPair) -> tuple[int, int]:
    """Returns how many labels of the prompts concerned both runs have."""
    counts = [
        verdicts.where(category_mask(pair.table, verdicts, None, pair.expects)).n_labels
        for verdicts in (pair.a, pair.b)
    ]
    return counts[0], counts[1]


def corrected_difference_interval(
    pair: LabelledPair, category: str | None, level: float = 0.95
) -> Interval | None:
    """Returns the difference of two corrected rates, b minus a; None unless both have labels.

    With enough labels of both kinds in both runs: PPI++ by prompt. With few: the two intervals,
    their distances squared and added (Zou & Donner 2008), without credit for the pairing.
    """
    import numpy as np

    runs = [
        verdicts.where(category_mask(pair.table, verdicts, category, pair.expects))
        for verdicts in (pair.a, pair.b)
    ]
    # Influence values are paired by prompt, so both runs need exactly the same prompts.
    shared = np.intersect1d(runs[0].positions, runs[1].positions)
    a, b = (run.where(np.isin(run.positions, shared)) for run in runs)
    if not len(shared) or not a.n_labels or not b.n_labels:
        return None
    if _has_enough_labels(a) and _has_enough_labels(b):
        ppi_a, ppi_b = (
            ppi_mean(
                run.judged,
                run.labels,
                run.probabilities,
                run.prompts.tolist(),
                weights=_equal_prompt_weights(run.prompts),
            )
            for run in (a, b)
        )
        return corrected_difference(ppi_a, ppi_b, level, anytime=a.anytime or b.anytime)
    rate_a, rate_b = corrected_interval(a, level), corrected_interval(b, level)
    if rate_a is None or rate_b is None:
        return None
    difference = rate_b.estimate - rate_a.estimate
    below = math.hypot(rate_b.estimate - rate_b.lower, rate_a.upper - rate_a.estimate)
    above = math.hypot(rate_b.upper - rate_b.estimate, rate_a.estimate - rate_a.lower)
    return Interval(
        difference,
        max(-1.0, difference - below),
        min(1.0, difference + above),
        f"square-and-add of {rate_a.method}",
    )


def _equal_prompt_weights(prompts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns weights of rows with which every prompt counts the same, as in a raw delta."""
    import numpy as np

    _, number, rows = np.unique(prompts, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / rows[number])


def _has_enough_labels(verdicts: LabelledVerdicts) -> bool:
    """Returns whether the asymptotic interval may be used."""
    import numpy as np

    # NaN marks rows without a label.
    positives = float(np.nansum(verdicts.labels))
    negatives = verdicts.n_labels - positives
    return not verdicts.undecided.any() and min(positives, negatives) >= MIN_LABELS_PER_CLASS
