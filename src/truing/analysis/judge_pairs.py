"""Pairs of judges on one set: how far they agree, and how their figures differ."""

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

_MANY_ROWS = 20_000  # from here on, kappa's interval takes 100 draws instead of 1,000
# The smallest p value of a permutation test is 1 / (draws + 1), and Holm multiplies it by the
# number of tests on the page.
_PERMUTATION_DRAWS = 99_999


class JudgeAgreement(Struct, frozen=True, kw_only=True):
    """How far two judges agree on the `n` rows of a set that both scored; no labels enter."""

    data: str
    question: str
    a: str
    b: str
    n: int
    share: float
    kappa: Interval | None


class JudgeDifference(Struct, frozen=True, kw_only=True):
    """A judge's figure minus the baseline's on the same `n` rows.

    Recall and false alarms are paired by prompt (of each prompt the mean over its answers), AUROC
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
    verdicts = column.said.verdicts
    scored: NDArray[np.bool_] = (verdicts == YES) | (verdicts == NO)
    return scored


def agreements_of(judged: JudgedSet, columns: Sequence[JudgeColumn]) -> Iterator[JudgeAgreement]:
    """Yields how each two judges of one question agree, over the rows that both scored."""
    for position, a in enumerate(columns):
        for b in columns[position + 1 :]:
            rows = _is_scored(a) & _is_scored(b)
            n = int(rows.sum())
            if not n:
                continue
            first, second = a.said.verdicts[rows], b.said.verdicts[rows]
            varied = len({*first.tolist(), *second.tolist()}) > 1
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
                if varied
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
        """Returns the difference of the areas, over rows to which both give a probability."""
        import numpy as np

        a, b = self.base.said.scores, self.column.said.scores
        rows = rows & ~np.isnan(a) & ~np.isnan(b)
        truth = self.labels.values[rows] == YES
        found = auroc_difference(a[rows], b[rows], truth, self.judged.prompts[rows])
        if found is None:
            return None
        of_base, of_judge = (
            auroc(scores[rows], truth, self.judged.prompts[rows]) for scores in (a, b)
        )
        assert of_base is not None and of_judge is not None  # both classes occur
        return self._difference(
            "auroc", rows, (of_base.estimate, of_judge.estimate), found.difference, found.p
        )

    def flags(self, measure: Measure, rows: NDArray[np.bool_]) -> JudgeDifference | None:
        """Returns the difference of the shares of flagged rows, paired by prompt."""
        if not rows.any():
            return None
        means = [
            _mean_by_prompt(self.judged.prompts[rows], column.said.verdicts[rows] == YES)
            for column in (self.base, self.column)
        ]
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
    import numpy as np

    number = np.unique(prompts, return_inverse=True)[1]
    means: list[float] = (np.bincount(number, flagged) / np.bincount(number)).tolist()
    return means


def adjust_differences(differences: Sequence[JudgeDifference]) -> tuple[JudgeDifference, ...]:
    """Returns the differences with p values adjusted over all of them (Holm)."""
    adjusted = holm([d.p for d in differences])
    return tuple(replace(d, p_adjusted=p) for d, p in zip(differences, adjusted))
