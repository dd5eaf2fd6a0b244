"""Rates that allow for the judge's errors: corrected by labels of this run, or transported from a card.

*Corrected*: prediction-powered (PPI++) from labels drawn at random in this run, over all its answers, those included
that the judge could not score. *Transported*: from a card made on other data or models, in a band over its sensitivity
and specificity; it "assumes transport", and is refused where the raw rate contradicts the card. Raw stays beside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.judge_card import JudgeCard, read_card
from truing.analysis.labels import UsableLabels, read_labels
from truing.analysis.rates import (
    AXES,
    CorrectedRate,
    Rate,
    TransportedRate,
    count_non_answers,
    non_answer_codes,
    verdict_codes,
)
from truing.analysis.rates import RateCounts as Tally
from truing.analysis.verdict_table import (
    ABSENT,
    EXPECTS,
    FAILED,
    NO,
    SKIPPED,
    YES,
    VerdictColumn,
    VerdictTable,
)
from truing.core.errors import DataError
from truing.runs.folder import JudgeRecord
from truing.stats.intervals import Interval, wilson
from truing.stats.judge_error import (
    MIN_LABELS_PER_CLASS,
    JudgeErrorRates,
    corrected_difference,
    corrected_rate,
    ppi_mean,
    transported_rate,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DELTA = 0.05
"""Half-width of the band over a card's sensitivity and specificity."""


class LabelledVerdicts(Struct):
    """One run's answers for one question: positions, the judge's 0/1 (its mean where unscored), labels, probabilities.

    `labels` is NaN where there is none; `untold` marks labels of people who could not tell.
    """

    at: NDArray[np.int64]
    judged: NDArray[np.float64]
    labels: NDArray[np.float64]
    chance: NDArray[np.float64]
    untold: NDArray[np.bool_]

    def where(self, keep: NDArray[np.bool_]) -> LabelledVerdicts:
        """The rows that are kept."""
        return LabelledVerdicts(
            self.at[keep],
            self.judged[keep],
            self.labels[keep],
            self.chance[keep],
            self.untold[keep],
        )

    @property
    def known(self) -> int:
        """The number of labels, those of people who could not tell included."""
        import numpy as np

        return int((~np.isnan(self.labels) | self.untold).sum())


def collect_labelled_verdicts(
    columns: VerdictTable,
    column: VerdictColumn,
    labels: UsableLabels,
    *,
    invert: bool = False,
    answered: bool = False,
) -> LabelledVerdicts:
    """The rows of a run for a judge's question; `invert` = "no" is the event.

    `answered`: the event is an answer that is neither refused nor spoilt (abstained, blocked, degenerate). People's
    labels correct the refusals; what is spoilt is taken as the run says.
    """
    import numpy as np

    at, judged, truth, chance, untold = [], [], [], [], []
    layers = verdict_codes(columns, column)
    spoilt = non_answer_codes(columns, column) if answered else []
    value = {YES: 0.0, NO: 1.0} if invert else {YES: 1.0, NO: 0.0}
    for index, states in enumerate(columns.response_states):
        marks = layers[index] if index < len(layers) else bytes(columns.size)
        for position, (state, mark) in enumerate(zip(states, marks)):
            if state in (ABSENT, FAILED) or mark == SKIPPED:
                continue
            label = labels.rows.get((position, index))
            bad = answered and spoilt[index][position] == YES
            told = label is not None and (bad or label.verdict is not None)
            at.append(position)
            judged.append(0.0 if bad else value.get(mark, math.nan))
            truth.append(
                float((not bad and label.verdict is not invert) if label and told else math.nan)
            )
            chance.append(label.probability if label is not None else 1.0)
            untold.append(label is not None and not told)
    made = np.asarray(judged, float)
    blank = np.isnan(made)
    made[blank] = made[~blank].mean() if (~blank).any() else 0.5
    return LabelledVerdicts(
        np.asarray(at, np.int64),
        made,
        np.asarray(truth, float),
        np.asarray(chance, float),
        np.asarray(untold, bool),
    )


def corrected_interval(arm: LabelledVerdicts, level: float = 0.95) -> Interval | None:
    """The corrected rate of an arm; labels of people who could not tell are taken both ways. None without labels."""
    import numpy as np

    if not arm.known:
        return None
    got = []
    for value in (0.0, 1.0) if arm.untold.any() else (math.nan,):
        truth = np.where(arm.untold, value, arm.labels)
        got.append(corrected_rate(arm.judged, truth, arm.chance, arm.at.tolist(), level))
    if len(got) == 1:
        return got[0]
    method = f"{got[1].method}, {int(arm.untold.sum())} labels open"
    return Interval(
        (got[0].estimate + got[1].estimate) / 2,
        min(g.lower for g in got),
        max(g.upper for g in got),
        method,
    )


def category_mask(
    columns: VerdictTable,
    arm: LabelledVerdicts,
    category: str | None,
    expects: Sequence[str] | None,
) -> NDArray[np.bool_]:
    """Rows of a category (axes: twins under that of their pair, and only prompts of these expectations)."""
    import numpy as np

    axis = expects is not None
    where = columns.pair_category_ids if axis else columns.category_ids
    keep = [
        (expects is None or EXPECTS[columns.expect_ids[p]] in expects)
        and (
            category is None
            or (
                category in columns.category_sets[where[p]]
                and (axis or EXPECTS[columns.expect_ids[p]] != "comply")
            )
        )
        for p in range(columns.size)
    ]
    return np.asarray(np.asarray(keep, bool)[arm.at], bool)


def axis_of_rate(rate: Rate) -> tuple[str, tuple[str, ...] | None, bool]:
    """The question behind a rate, the expectations that it concerns (none = all), whether "no" is its event."""
    if (
        rate.question == "answers_benign"
    ):  # not refused (and not spoilt, which needs no judge of refusals)
        return "refused", ("comply",), True
    if rate.question in AXES:
        question, expects, invert = AXES[rate.question]
        return question, expects, invert
    return rate.question, None, False


def _corrected(
    columns: VerdictTable, rates: Sequence[Rate], labels: Mapping[str, UsableLabels]
) -> list[Rate]:
    arms: dict[tuple[str, str, bool, bool], LabelledVerdicts] = {}
    out = []
    for rate in rates:
        answered = rate.question == "answers_benign"
        question, expects, invert = axis_of_rate(rate)
        column = columns.columns.get((rate.judge, question))
        usable = labels.get(question)
        if column is None or usable is None or not usable.rows or rate.judge.startswith("human:"):
            out.append(rate)
            continue
        key = (rate.judge, question, invert, answered)
        if key not in arms:
            arms[key] = collect_labelled_verdicts(
                columns, column, usable, invert=invert, answered=answered
            )
        arm = arms[key]
        part = arm.where(category_mask(columns, arm, rate.category, expects))
        made = corrected_interval(part)
        if made is None:
            out.append(rate)
            continue
        corrected = CorrectedRate(
            estimate=made.estimate,
            lower=made.lower,
            upper=made.upper,
            method=made.method,
            labels=part.known,
            covers=len(part.at),
        )
        out.append(replace(rate, corrected=corrected))
    return out


def _spoilt(rate: Rate, cells: Mapping[str | None, Tally]) -> int:
    found = cells.get(rate.category) if rate.question == "answers_benign" else None
    return found.events if found is not None else 0


def check_card_matches(card: JudgeCard, record: JudgeRecord, path: object) -> None:
    """DataError if a card is of another version of the judge."""
    if card.judge_hash != record.lineage.hash:
        raise DataError(
            f"{path}: the card is of another version of {record.name} ({card.judge_hash or 'no hash'}, the run has "
            f"{record.lineage.hash or 'none'}); make one with: truing card JUDGE --data SPEC"
        )
    if card.against and card.against not in card.questions:
        raise DataError(
            f"{path}: the card says how {record.name} goes with labels of {card.against!r}, which corrects no rate of "
            f"{', '.join(map(repr, card.questions))}; make one without --against"
        )


def transport_rate(
    rate: Rate, card: JudgeCard, *, delta: float = DELTA, spoilt: int = 0
) -> TransportedRate | None:
    """A raw rate read through a card; none if nothing was scored or the card does not know the question.

    `spoilt` of the scored answers are none, whatever the judge of refusals says of them (``answers_benign``): the card
    is applied to the others, and the share of those multiplies it.
    """
    question, _, invert = axis_of_rate(rate)
    about = card.questions.get(question)
    if rate.raw is None or about is None:
        return None
    name = f"{card.judge} on {card.data}"
    if about.sensitivity is None or about.specificity is None:
        lacks = "positive" if about.sensitivity is None else "negative"
        return TransportedRate(
            estimate=None,
            lower=None,
            upper=None,
            method="none",
            card=name,
            refused=f"the card has no {lacks} labels",
        )
    error = JudgeErrorRates(
        sensitivity=about.sensitivity.estimate,
        specificity=about.specificity.estimate,
        positives=about.n_positive,
        negatives=about.n - about.n_positive,
    )
    if invert:
        error = JudgeErrorRates(
            sensitivity=error.specificity,
            specificity=error.sensitivity,
            positives=error.negatives,
            negatives=error.positives,
        )
    whole = rate.scored - spoilt
    prompts = (
        min(rate.scored, rate.prompts) if rate.prompts else rate.scored
    )  # n answers of a prompt count as one
    rows = prompts * whole / rate.scored
    if not rows:
        return TransportedRate(
            estimate=None,
            lower=None,
            upper=None,
            method="none",
            card=name,
            refused="no whole answer",
        )
    made = transported_rate(rate.events / whole * rows, rows, error, delta=delta)
    if made.interval is None or made.band is None:
        return TransportedRate(
            estimate=None, lower=None, upper=None, method="none", card=name, refused=made.refused
        )
    ends, band, method = (
        made.interval,
        Interval(made.interval.estimate, *made.band, ""),
        made.interval.method,
    )
    if spoilt:
        share = wilson(rows, prompts)
        ends, band, method = (
            _product(share, ends),
            _product(share, band),
            f"{method}, times the share of whole answers",
        )
    return TransportedRate(
        estimate=ends.estimate,
        lower=ends.lower,
        upper=ends.upper,
        method=method,
        card=name,
        band=(band.lower, band.upper),
    )


def _product(a: Interval, b: Interval) -> Interval:
    """The product of two independent rates: distances of the logarithms, squared and added (Zou & Donner 2008)."""
    estimate = a.estimate * b.estimate
    if estimate <= 0:
        return Interval(0.0, 0.0, a.upper * b.upper, "")
    lower = 0.0
    if a.lower > 0 and b.lower > 0:
        lower = estimate * math.exp(
            -math.hypot(math.log(a.estimate / a.lower), math.log(b.estimate / b.lower))
        )
    upper = estimate * math.exp(
        math.hypot(math.log(a.upper / a.estimate), math.log(b.upper / b.estimate))
    )
    return Interval(estimate, lower, min(1.0, upper), "")


def add_corrections(
    columns: VerdictTable, rates: Sequence[Rate], cards: Mapping[str, Path]
) -> tuple[list[Rate], list[str]]:
    """The rates with what labels and cards (judge name -> card.json) say of them, and what was left out."""
    labels = read_labels(columns)
    out = _corrected(columns, rates, labels)
    notes = [
        f"{n} labels of {question!r} {why} do not enter a correction"
        for question, of in labels.items()
        for why, n in of.ignored.items()
    ]
    for name, path in cards.items():
        card = read_card(path)
        record = next((r for r in columns.manifest.judges if r.name == name), None)
        if record is None:
            raise DataError(f"{path}: the card is of {name}, which did not judge this run")
        check_card_matches(card, record, path)
        refused = columns.columns.get((name, "refused"))
        spoilt = count_non_answers(columns, refused) if refused is not None else {}
        out = [
            replace(r, transported=transport_rate(r, card, spoilt=_spoilt(r, spoilt)))
            if r.judge == name
            else r
            for r in out
        ]
    return out, notes


class LabelledPair(Struct):
    """Both arms of one question over the same prompts, ready for differences by category."""

    columns: VerdictTable
    a: LabelledVerdicts
    b: LabelledVerdicts
    expects: tuple[str, ...] | None


def collect_labelled_pair(
    a: VerdictTable,
    b: VerdictTable,
    column: VerdictColumn,
    other: VerdictColumn,
    labels: Sequence[UsableLabels],
    axis: str = "",
) -> LabelledPair:
    """Arms of two paired runs; `labels` are those of each, by position in the paired columns."""
    if axis == "answers_benign":
        first = collect_labelled_verdicts(a, column, labels[0], invert=True, answered=True)
        return LabelledPair(
            a,
            first,
            collect_labelled_verdicts(b, other, labels[1], invert=True, answered=True),
            ("comply",),
        )
    _, expects, invert = AXES[axis] if axis else ("", None, False)
    return LabelledPair(
        a,
        collect_labelled_verdicts(a, column, labels[0], invert=invert),
        collect_labelled_verdicts(b, other, labels[1], invert=invert),
        expects,
    )


def corrected_difference_interval(
    arms: LabelledPair, category: str | None, level: float = 0.95
) -> Interval | None:
    """The difference of two corrected rates, b minus a; none unless both arms have labels there.

    Enough labels of both kinds in both: PPI++ by prompt. Few: the two intervals, squared and added (Zou & Donner 2008),
    with no credit for the pairing.
    """
    import numpy as np

    parts = [
        arm.where(category_mask(arms.columns, arm, category, arms.expects))
        for arm in (arms.a, arms.b)
    ]
    if not all(p.known for p in parts):
        return None
    shared = np.intersect1d(parts[0].at, parts[1].at)
    parts = [p.where(np.isin(p.at, shared)) for p in parts]
    if not len(shared) or not all(p.known for p in parts):
        return None

    def many(p: LabelledVerdicts) -> bool:
        yes = float(np.nansum(p.labels))
        return not p.untold.any() and min(yes, p.known - yes) >= MIN_LABELS_PER_CLASS

    if all(map(many, parts)):
        made = [ppi_mean(p.judged, p.labels, p.chance, p.at.tolist()) for p in parts]
        return corrected_difference(made[0], made[1], level)
    a, b = (corrected_interval(p, level) for p in parts)
    if a is None or b is None:
        return None
    d = b.estimate - a.estimate
    below = math.hypot(b.estimate - b.lower, a.upper - a.estimate)
    above = math.hypot(b.upper - b.estimate, a.estimate - a.lower)
    return Interval(d, max(-1.0, d - below), min(1.0, d + above), f"square-and-add of {a.method}")


def transport_difference(
    raw: Interval, card: JudgeCard, question: str, *, delta: float = DELTA
) -> Interval | None:
    """A raw difference read through a card: divided by sensitivity + specificity - 1, over the band of both."""
    about = card.questions.get(question)
    if about is None or about.sensitivity is None or about.specificity is None:
        return None
    youden = about.sensitivity.estimate + about.specificity.estimate - 1
    ends = [
        min(1.0, max(0.0, se)) + min(1.0, max(0.0, sp)) - 1
        for se in (
            min(about.sensitivity.lower, about.sensitivity.estimate - delta),
            max(about.sensitivity.upper, about.sensitivity.estimate + delta),
        )
        for sp in (
            min(about.specificity.lower, about.specificity.estimate - delta),
            max(about.specificity.upper, about.specificity.estimate + delta),
        )
    ]
    if min(ends) <= 0.1:
        return None
    lower, upper = min(raw.lower / e for e in ends), max(raw.upper / e for e in ends)
    return Interval(
        max(-1.0, min(1.0, raw.estimate / youden)),
        max(-1.0, lower),
        min(1.0, upper),
        "raw / youden, in a band",
    )
