"""The decisions of `truing.analysis.claim_decisions` over an axis of draws, in numpy.

The engine decides one pair of runs in some milliseconds; these decide thousands at a time by the
same formulas. `verdicts.py --check` and a test compare both on the same draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from verdict_worlds import OPPOSITES, RULES, CardCounts, DrawnWorld, Verdicts, World

from truing.analysis.claim_analyses import CARD_MARGIN, UNCARDED_ERROR
from truing.stats.intervals import normal_quantile, student_quantile
from truing.stats.judge_error import MIN_YOUDEN
from truing.stats.sequential import anytime_quantile

Array = NDArray[np.float64]
Bounds = tuple[Array, Array]
LEVEL = 0.95
_BETTING_STEP = 1 / 2000  # of the grid of paired sequences


class Rates:
    """Lowest and highest share of events of each prompt in both runs, [draws, prompts]."""

    def __init__(self, verdicts: Verdicts) -> None:
        (self.low_a, self.high_a), (self.low_b, self.high_b) = (
            _extremes(verdicts.events[side], verdicts.scored[side]) for side in (0, 1)
        )
        self.binary = verdicts.events[0].shape[2] == 1
        self.scored = tuple(s[:, :, 0] for s in verdicts.scored)

    def bounds(self, weight_a: Array | None = None, weight_b: Array | None = None) -> Bounds:
        """Returns the ends of the interval of the (weighted) change, unscored at their worst."""
        if weight_a is None and self.binary:
            return (
                newcombe(self.high_a, self.low_b)[0],
                newcombe(self.low_a, self.high_b)[1],
            )
        if weight_a is None or weight_b is None:
            lower, upper = student(self.low_b - self.high_a)
            return np.maximum(-1, lower), np.minimum(1, upper)
        changes = weight_b[:, None] * self.low_b - weight_a[:, None] * self.high_a
        return student(changes)

    def middle(self, weight_a: Array | float = 1.0, weight_b: Array | float = 1.0) -> Array:
        """Returns the (weighted) change with unscored answers half-way."""
        mean_a = (self.low_a + self.high_a).mean(1) / 2
        mean_b = (self.low_b + self.high_b).mean(1) / 2
        return np.asarray(weight_b * mean_b - weight_a * mean_a)


def _extremes(
    events: NDArray[np.bool_], scored: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    low = events.mean(2, dtype=np.float32)
    return low, low if scored.all() else (events | ~scored).mean(2, dtype=np.float32)


def wilson(p: Array, n: float, z: float) -> Bounds:
    """Returns Wilson's bounds of rates."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half_width = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return np.maximum(0, centre - half_width), np.minimum(1, centre + half_width)


def newcombe(rates_a: NDArray[np.float32], rates_b: NDArray[np.float32]) -> Bounds:
    """Returns Newcombe's bounds of the paired difference b - a."""
    n, z = rates_a.shape[1], normal_quantile(LEVEL)
    both = (rates_a * rates_b).sum(1, dtype=float)
    sum_a, sum_b = rates_a.sum(1, dtype=float), rates_b.sum(1, dtype=float)
    only_a, only_b, neither = sum_a - both, sum_b - both, n - sum_a - sum_b + both
    p_a, p_b = sum_a / n, sum_b / n
    (low_a, up_a), (low_b, up_b) = wilson(p_a, n, z), wilson(p_b, n, z)
    margins = sum_b * (n - sum_b) * sum_a * (n - sum_a)
    cross = both * neither - only_b * only_a
    cross = np.where(cross > 0, np.maximum(cross - n / 2, 0), cross)
    phi = np.where(margins > 0, cross / np.sqrt(np.maximum(margins, 1e-300)), 0.0)
    dl1, du1, dl2, du2 = p_b - low_b, up_b - p_b, p_a - low_a, up_a - p_a
    below = np.sqrt(np.maximum(0, dl1**2 - 2 * phi * dl1 * du2 + du2**2))
    above = np.sqrt(np.maximum(0, du1**2 - 2 * phi * du1 * dl2 + dl2**2))
    return np.maximum(-1, p_b - p_a - below), np.minimum(1, p_b - p_a + above)


def student(changes: Array) -> Bounds:
    """Returns Student's bounds of the mean of paired changes, with one pseudo-pair."""
    n = changes.shape[1]
    mean = changes.mean(1, dtype=float)
    squares = ((changes - mean[:, None]) ** 2).sum(1, dtype=float) + 1.0
    half_width = student_quantile(LEVEL, n - 1) * np.sqrt(squares / (n - 1) / n)
    return mean - half_width, mean + half_width


def net_bounds(
    pairs: Rates, control: Rates, weight_a: Array | None = None, weight_b: Array | None = None
) -> Bounds:
    """Returns the bounds of the change on `pairs` less that on `control` (Zou & Donner)."""
    lower, upper = pairs.bounds(weight_a, weight_b)
    control_lower, control_upper = control.bounds(weight_a, weight_b)
    weights = (1.0, 1.0) if weight_a is None or weight_b is None else (weight_a, weight_b)
    middle = np.clip(pairs.middle(*weights), lower, upper)
    control_middle = np.clip(control.middle(*weights), control_lower, control_upper)
    net = middle - control_middle
    return (
        net - np.hypot(middle - lower, control_upper - control_middle),
        net + np.hypot(upper - middle, control_middle - control_lower),
    )


def card_bounds(pairs: Rates, control: Rates, card: CardCounts) -> tuple[Bounds, NDArray[np.bool_]]:
    """Returns the bounds over the card's range, and where the card allows an analysis at all."""
    estimate = card.caught / card.rows
    lower, upper = wilson(estimate, card.rows, normal_quantile(LEVEL))
    se_low = np.maximum(0, np.minimum(lower, estimate - CARD_MARGIN))
    se_high = np.minimum(1, np.maximum(upper, estimate + CARD_MARGIN))
    false_a, false_b = control.low_a.mean(1, dtype=float), control.low_b.mean(1, dtype=float)
    usable = se_low - np.maximum(false_a, false_b) >= MIN_YOUDEN
    safe_low, safe_high = np.where(usable, se_low, 1.0), np.where(usable, se_high, 1.0)
    low = net_bounds(pairs, control, 1 / (safe_low - false_a), 1 / (safe_high - false_b))[0]
    high = net_bounds(pairs, control, 1 / (safe_high - false_a), 1 / (safe_low - false_b))[1]
    return (low, high), usable


def corrected_bounds(drawn: DrawnWorld, labels: int, *, fixed: bool) -> Bounds:
    """Returns the bounds of the corrected difference; the first rows are those labelled."""
    estimates, influences = [], []
    for truth, events in zip(drawn.truths, drawn.first.events):
        y, f = truth[:, :, 0].astype(np.float32), events[:, :, 0].astype(np.float32)
        n = y.shape[1]
        weight = n / labels
        y_mean = y[:, :labels].mean(1, keepdims=True)
        f_mean, f_labelled = f.mean(1, keepdims=True), f[:, :labels].mean(1, keepdims=True)
        a = np.zeros_like(y)
        a[:, :labels] = weight * (y[:, :labels] - y_mean)
        b = f - f_mean
        b[:, :labels] -= weight * (f[:, :labels] - f_labelled)
        squares = (b * b).sum(1, dtype=float)
        tuning = np.clip(-(a * b).sum(1, dtype=float) / np.maximum(squares, 1e-300), 0, 1)
        estimates.append(y_mean[:, 0] + tuning * (f_mean - f_labelled)[:, 0])
        influences.append(a + tuning[:, None].astype(np.float32) * b)
    change = np.asarray(estimates[1] - estimates[0], float)
    n = influences[0].shape[1]
    error = np.sqrt(((influences[1] - influences[0]) ** 2).sum(1, dtype=float)) / n
    quantile = student_quantile(LEVEL, labels - 1) if fixed else anytime_quantile(LEVEL, labels)
    return np.maximum(-1, change - quantile * error), np.minimum(1, change + quantile * error)


def sequence_falls(rates: Rates) -> NDArray[np.bool_]:
    """Returns whether the paired betting sequence ever lies below "no change", [draws].

    Only the candidates from just below "no change" up are followed: all of them have to be
    excluded at once.
    """
    values = (rates.low_b - rates.low_a + 1) / 2
    draws, n = values.shape
    candidates = np.array([0.5 - _BETTING_STEP, 0.5, 0.55, 0.65, 0.8, 1 - 1e-12])
    alpha, total, squares = 1 - LEVEL, np.zeros(draws), np.full(draws, 0.25)
    up, down = np.zeros((draws, len(candidates))), np.zeros((draws, len(candidates)))
    ever = np.zeros(draws, bool)
    for t in range(1, n + 1):
        x = values[:, t - 1].astype(float)
        bet = np.sqrt(2 * np.log(2 / alpha) / (squares * np.log(t + 1)))[:, None]
        gap = x[:, None] - candidates
        up += np.log1p(np.minimum(bet, 0.5 / candidates) * gap)
        down += np.log1p(-np.minimum(bet, 0.5 / (1 - candidates)) * gap)
        total += x
        squares += (x - (total + 0.5) / (t + 1)) ** 2
        ever |= (np.maximum(up, down) >= np.log(2 / alpha)).all(1)
    return ever


def decide(world: World, drawn: DrawnWorld) -> NDArray[np.bool_]:
    """Returns whether the claim is made in each draw, at the first look or at a later one."""
    first = Rates(drawn.first)
    if world.labels:
        claimed = np.zeros(len(first.low_a), bool)
        for look in range(1, world.looks + 1):
            bounds = corrected_bounds(drawn, world.labels * look, fixed=world.fixed)
            claimed |= _is_shown(world, bounds)
        return claimed
    if world.about_harm and drawn.second is None:
        return np.zeros(len(first.low_a), bool)  # nobody confirms the judge
    if world.stopped and drawn.second is not None:
        return sequence_falls(first) & sequence_falls(Rates(drawn.second))
    claimed = _is_shown(world, first.bounds())
    if drawn.control is not None:
        control = Rates(drawn.control)
        claimed &= _is_shown(world, net_bounds(first, control))
        if drawn.card is not None:
            bounds, usable = card_bounds(first, control, drawn.card)
            claimed &= _is_shown(world, bounds) | ~usable
    elif not world.about_harm:
        claimed &= _is_shown(world, _attenuated(first, drawn.card))
    if drawn.second is not None:
        claimed &= _is_shown(world, Rates(drawn.second).bounds())
    return claimed


def _attenuated(rates: Rates, card: CardCounts | None) -> Bounds:
    youden: Array | float = 1 - 2 * UNCARDED_ERROR
    if card is not None:
        z = normal_quantile(LEVEL)
        least = [wilson(k / card.rows, card.rows, z)[0] for k in (card.caught, card.let_pass)]
        youden = np.maximum(MIN_YOUDEN, least[0] + least[1] - 1)
    lower, upper = rates.bounds()
    return np.minimum(lower, lower / youden), np.maximum(upper, upper / youden)


def _is_shown(world: World, bounds: Bounds) -> NDArray[np.bool_]:
    limit = RULES[world.claim]
    if world.claim in OPPOSITES:
        return np.asarray(bounds[0] > limit)
    return np.asarray(bounds[1] < limit)


def clustered_wilson_lower_upper(caught: NDArray[np.int64], answers: int) -> Bounds:
    """Returns the bounds of `clustered_wilson` over `[draws, prompts]` events of equal clusters."""
    clusters = caught.shape[1]
    n = float(clusters * answers)
    p = caught.sum(1) / n
    squares = ((caught - p[:, None] * answers) ** 2).sum(1)
    variance = squares * clusters / (clusters - 1) / n**2
    effective = n / np.maximum(1.0, variance / (p * (1 - p) / n))
    z = student_quantile(LEVEL, clusters - 1)
    centre = (p + z * z / (2 * effective)) / (1 + z * z / effective)
    root = np.sqrt(p * (1 - p) / effective + (z / (2 * effective)) ** 2)
    half_width = z / (1 + z * z / effective) * root
    return centre - half_width, centre + half_width
