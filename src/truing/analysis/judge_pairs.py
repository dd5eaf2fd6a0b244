"""Pairs of judges on one set: how far they agree, and how far their figures differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.judge_figures import JudgeColumn
from truing.analysis.judged_sets import NO, YES, JudgedSet, LabelColumn
from truing.stats.agreement import cohen_kappa
from truing.stats.agreement_intervals import BootstrapOptions
from truing.stats.classification import auroc, auroc_difference
from truing.stats.intervals import Interval
from truing.stats.paired import holm, paired_mean, permutation_test_from_counts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Measure = Literal["auroc", "recall", "false_alarm"]

# From this many rows on, the interval of kappa takes 100 bootstrap draws instead of 1,000: it is
# narrow by then, and each draw passes over all rows.
_MANY_ROWS = 20_000
# The smallest p value of a permutation test is 1 / (draws + 1), and Holm multiplies it by the
# number of tests on the page.
_PERMUTATION_DRAWS = 99_999


class JudgeAgreement(Struct, frozen=True, kw_only=True):
    """How far two judges agree on the `n` rows of a set that both scored, whatever the labels.

    `share` is that of rows with equal verdicts, `kappa` is Cohen's.
    """

    data: str
    question: str
    a: str
    b: str
    n: int
    share: float
    kappa: Interval | None


class JudgeDifference(Struct, frozen=True, kw_only=True):
    """A judge's figure minus the baseline's on the same `n` rows.

    Recall and false alarms are paired by prompt (the mean over the answers to each prompt), AUROC
    by row. `p_adjusted` is Holm's over all differences of the comparison.
    """

    data: str
    question: str
    measure: Measure
    judge: str
    baseline: str
    n: int
    of_judge: float
    of_baseline: float
    difference: Interval
    p: float
    p_adjusted: float = 1.0


def _is_scored(column: JudgeColumn) -> NDArray[np.bool_]:
    """Returns by row whether the judge gave a verdict."""
    verdicts = column.verdict_scores.verdicts
    scored: NDArray[np.bool_] = (verdicts == YES) | (verdicts == NO)
    return scored


def agreements_of(judged: JudgedSet, columns: Sequence[JudgeColumn]) -> Iterator[JudgeAgreement]:
    """Yields the agreement of every two judges of one question, over the rows that both scored."""
    for position, a in enumerate(columns):
        for b in columns[position + 1 :]:
            rows = _is_scored(a) & _is_scored(b)
            n = int(rows.sum())
            if not n:
                continue
            first, second = a.verdict_scores.verdicts[rows], b.verdict_scores.verdicts[rows]
            has_two_verdicts = len({*first.tolist(), *second.tolist()}) > 1
            draws = BootstrapOptions(draws=1000 if n < _MANY_ROWS else 100)
            yield JudgeAgreement(
                data=judged.spec,
                question=a.question,
                a=a.judge,
                b=b.judge,
                n=n,
                share=float((first == second).mean()),
                # Undefined where both give one and the same answer to all rows.
                kappa=cohen_kappa(first, second, judged.prompts[rows], options=draws)
                if has_two_verdicts
                else None,
            )


def differences_of(
    judged: JudgedSet, labels: LabelColumn, columns: Sequence[JudgeColumn]
) -> Iterator[JudgeDifference]:
    """Yields the differences of each judge from the first, over rows that neither learned from."""
    for column in columns[1:]:
        base = columns[0]
        rows = base.measured & column.measured & _is_scored(base) & _is_scored(column)
        pair = _Pair(judged, labels, base, column)
        for difference in (
            pair.auroc(rows),
            pair.flags("recall", rows & (labels.values == YES)),
            pair.flags("false_alarm", rows & (labels.values == NO)),
        ):
            if difference is not None:
                yield difference


class _Pair(Struct, frozen=True):
    """Two judges of one question on one set."""

    judged: JudgedSet
    labels: LabelColumn
    base: JudgeColumn
    column: JudgeColumn

    def auroc(self, rows: NDArray[np.bool_]) -> JudgeDifference | None:
        """Returns the difference of AUROC, over rows to which both give a probability.

        None unless both classes occur among them.
        """
        import numpy as np

        a, b = self.base.verdict_scores.scores, self.column.verdict_scores.scores
        rows = rows & ~np.isnan(a) & ~np.isnan(b)
        truth = self.labels.values[rows] == YES
        delong = auroc_difference(a[rows], b[rows], truth, self.judged.prompts[rows])
        if delong is None:
            return None
        of_base, of_judge = (
            auroc(scores[rows], truth, self.judged.prompts[rows]) for scores in (a, b)
        )
        assert of_base is not None and of_judge is not None  # both classes occur
        return self._difference(
            "auroc", rows, (of_base.estimate, of_judge.estimate), delong.difference, delong.p
        )

    def flags(self, measure: Measure, rows: NDArray[np.bool_]) -> JudgeDifference | None:
        """Returns the difference of the flagged shares, paired by prompt; None without rows."""
        if not rows.any():
            return None
        means = [
            _mean_by_prompt(self.judged.prompts[rows], column.verdict_scores.verdicts[rows] == YES)
            for column in (self.base, self.column)
        ]
        # Rounded, so that equal differences of shares are counted as one value.
        changes = Counter(round(b - a, 12) for a, b in zip(*means))
        return self._difference(
            measure,
            rows,
            (sum(means[0]) / len(means[0]), sum(means[1]) / len(means[1])),
            paired_mean(means[0], means[1]),
            permutation_test_from_counts(changes, draws=_PERMUTATION_DRAWS),
        )

    def _difference(
        self,
        measure: Measure,
        rows: NDArray[np.bool_],
        estimates: tuple[float, float],
        difference: Interval,
        p: float,
    ) -> JudgeDifference:
        return JudgeDifference(
            data=self.judged.spec,
            question=self.column.question,
            measure=measure,
            judge=self.column.judge,
            baseline=self.base.judge,
            n=int(rows.sum()),
            of_judge=estimates[1],
            of_baseline=estimates[0],
            difference=difference,
            p=p,
        )


def _mean_by_prompt(prompts: NDArray[np.int64], flagged: NDArray[np.bool_]) -> list[float]:
    """Returns the share of flagged rows of each prompt, in the order of the prompt numbers."""
    import numpy as np

    index = np.unique(prompts, return_inverse=True)[1]
    means: list[float] = (np.bincount(index, flagged) / np.bincount(index)).tolist()
    return means


def adjust_differences(differences: Sequence[JudgeDifference]) -> tuple[JudgeDifference, ...]:
    """Returns the differences with p values adjusted over all of them (Holm)."""
    adjusted = holm([d.p for d in differences])
    return tuple(replace(d, p_adjusted=p) for d, p in zip(differences, adjusted))
