"""Rates and differences transported from a judge card made on other data or models.

A transported figure "assumes transport": that the judge's sensitivity and specificity are the same
here. It is shown in a band around both, and refused where the raw rate contradicts the card.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from truing.analysis.card_files import read_card
from truing.analysis.corrections import axis_of_rate
from truing.analysis.judge_card import JudgeCard, QuestionCard
from truing.analysis.prompt_counts import RateCounts
from truing.analysis.rates import Rate, TransportedRate, count_non_answers
from truing.analysis.stopped_runs import stopped_early
from truing.analysis.verdict_table import VerdictTable
from truing.core.errors import DataError
from truing.runs.folder import JudgeRecord
from truing.stats.intervals import Interval, wilson
from truing.stats.judge_error import MIN_YOUDEN, JudgeErrorRates, transported_rate

BAND_HALF_WIDTH = 0.05
"""Half-width of the band around a card's sensitivity and specificity."""


def check_card_matches(card: JudgeCard, record: JudgeRecord, path: object) -> None:
    """Raises DataError if a card is of another version of the judge, or of another question.

    `path` is named in the error.
    """
    if card.judge_hash != record.lineage.hash:
        raise DataError(
            f"{path}: the card is of another version of {record.name} "
            f"({card.judge_hash or 'no hash'}, the run has {record.lineage.hash or 'none'}); "
            "make one with: truing card JUDGE --data SPEC"
        )
    if card.against and card.against not in card.questions:
        raise DataError(
            f"{path}: the card compares {record.name} with labels of {card.against!r}, which "
            f"corrects no rate of {', '.join(map(repr, card.questions))}; "
            "make one without --against"
        )


def add_transported_rates(
    table: VerdictTable, rates: Sequence[Rate], cards: Mapping[str, Path]
) -> list[Rate]:
    """Returns the rates with `transported` set for the judges with a card (judge -> card.json).

    Raises DataError if a card cannot be read or does not fit a judge of the run.
    """
    transported = list(rates)
    for judge, path in cards.items():
        card = read_card(path)
        record = next((r for r in table.manifest.judges if r.name == judge), None)
        if record is None:
            raise DataError(f"{path}: the card is of {judge}, which did not judge this run")
        check_card_matches(card, record, path)
        refused = table.columns.get((judge, "refused"))
        non_answers = count_non_answers(table, refused) if refused is not None else {}
        transported = [
            replace(
                rate,
                transported=transport_rate(
                    rate, card, non_answers=_non_answers_behind(rate, non_answers)
                ),
            )
            if rate.judge == judge
            else rate
            for rate in transported
        ]
    return [_refuse_stopped(rate) for rate in transported] if stopped_early(table) else transported


def _refuse_stopped(rate: Rate) -> Rate:
    if rate.transported is None:
        return rate
    reason = "the run was stopped by its own figures, for which no transported interval holds"
    return replace(rate, transported=_refused(rate.transported.card, reason))


def _non_answers_behind(rate: Rate, counts: Mapping[str | None, RateCounts]) -> int:
    if rate.question != "answers_benign" or rate.category not in counts:
        return 0
    return counts[rate.category].events


def transport_rate(
    rate: Rate, card: JudgeCard, *, delta: float = BAND_HALF_WIDTH, non_answers: int = 0
) -> TransportedRate | None:
    """Returns a raw rate corrected by the error rates of a card.

    Args:
        rate: the rate; None is returned if nothing of it was scored.
        card: the card; None is returned if it does not know the rate's question.
        delta: half-width of the band around sensitivity and specificity.
        non_answers: how many of the scored answers are none, whatever the judge of refusals says
            (``answers_benign``). The card is applied to the others, and the result is multiplied
            by their share.
    """
    question, _, invert = axis_of_rate(rate)
    question_card = card.questions.get(question)
    if rate.raw is None or question_card is None:
        return None
    card_name = f"{card.judge} on {card.data}"
    # Rogan and Gladen's estimate needs both error rates.
    error = _error_rates(question_card, invert=invert)
    if error is None:
        missing = "positive" if question_card.sensitivity is None else "negative"
        return _refused(card_name, f"the card has no {missing} labels")
    whole_answers = rate.scored - non_answers
    # The n answers to a prompt count as one row: treating them as independent would make the
    # interval too narrow, and the check against the card too strict.
    prompts = min(rate.scored, rate.prompts) if rate.prompts else rate.scored
    rows = prompts * whole_answers / rate.scored
    if not rows:
        return _refused(card_name, "no whole answer")
    estimate = transported_rate(rate.events / whole_answers * rows, rows, error, delta=delta)
    if estimate.interval is None or estimate.band is None:
        return _refused(card_name, estimate.refused)
    interval, method = estimate.interval, estimate.interval.method
    band = Interval(interval.estimate, *estimate.band, "")
    if non_answers:
        share = wilson(rows, prompts)
        interval, band = _product(share, interval), _product(share, band)
        method = f"{method}, times the share of whole answers"
    return TransportedRate(
        estimate=interval.estimate,
        lower=interval.lower,
        upper=interval.upper,
        method=method,
        card=card_name,
        band=(band.lower, band.upper),
    )


def _error_rates(card: QuestionCard, *, invert: bool) -> JudgeErrorRates | None:
    """Returns the error rates of a card; None if it lacks positive or negative labels.

    With `invert`, "no" is the event: sensitivity and specificity change places.
    """
    if card.sensitivity is None or card.specificity is None:
        return None
    negatives = card.n - card.n_positive
    if invert:
        return JudgeErrorRates(
            sensitivity=card.specificity.estimate,
            specificity=card.sensitivity.estimate,
            positives=negatives,
            negatives=card.n_positive,
        )
    return JudgeErrorRates(
        sensitivity=card.sensitivity.estimate,
        specificity=card.specificity.estimate,
        positives=card.n_positive,
        negatives=negatives,
    )


def _refused(card_name: str, reason: str | None) -> TransportedRate:
    return TransportedRate(
        estimate=None, lower=None, upper=None, method="none", card=card_name, refused=reason
    )


def _product(a: Interval, b: Interval) -> Interval:
    """Returns the product of two independent rates, both in [0, 1].

    Distances of the logarithms to the bounds are squared and added (Zou & Donner 2008).
    """
    estimate = a.estimate * b.estimate
    if estimate <= 0:
        return Interval(0.0, 0.0, a.upper * b.upper, "")
    lower = 0.0
    if a.lower > 0 and b.lower > 0:
        log_a, log_b = math.log(a.estimate / a.lower), math.log(b.estimate / b.lower)
        lower = estimate * math.exp(-math.hypot(log_a, log_b))
    log_a, log_b = math.log(a.upper / a.estimate), math.log(b.upper / b.estimate)
    upper = estimate * math.exp(math.hypot(log_a, log_b))
    return Interval(estimate, lower, min(1.0, upper), "")


def transport_difference(
    raw: Interval, card: JudgeCard, question: str, *, delta: float = BAND_HALF_WIDTH
) -> Interval | None:
    """Returns a raw difference divided by sensitivity + specificity - 1, over the band of both.

    None if the card lacks an error rate, or if the divisor may be close to 0 within the band.
    """
    question_card = card.questions.get(question)
    if question_card is None:
        return None
    sensitivity, specificity = question_card.sensitivity, question_card.specificity
    if sensitivity is None or specificity is None:
        return None
    # All four corners of the band: the quotient is monotone in both rates.
    divisors = [
        min(1.0, max(0.0, se)) + min(1.0, max(0.0, sp)) - 1
        for se in _band(sensitivity, delta)
        for sp in _band(specificity, delta)
    ]
    # The division scales the interval by 1 / (se + sp - 1), at most tenfold here.
    if min(divisors) <= MIN_YOUDEN:
        return None
    youden = sensitivity.estimate + specificity.estimate - 1
    return Interval(
        max(-1.0, min(1.0, raw.estimate / youden)),
        max(-1.0, min(raw.lower / divisor for divisor in divisors)),
        min(1.0, max(raw.upper / divisor for divisor in divisors)),
        "raw / youden, in a band",
    )


def _band(rate: Interval, delta: float) -> tuple[float, float]:
    """Returns the wider of a rate's interval and +-delta around it."""
    return min(rate.lower, rate.estimate - delta), max(rate.upper, rate.estimate + delta)
