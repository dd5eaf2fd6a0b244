"""From out-of-fold logits to mixing weights and thresholds.

All logits here are of rows that the scoring fold did not learn. What is chosen on them (mixing
weights, biases, thresholds) is chosen again without each fold for the card, so that no row is
measured by what was chosen on it.

The mix of the encoder's logits z and the n-gram logits n is linear, so that it can be folded into
the heads: harmful' = a z + b n + c, and for a category z'_k = a z_k + b n_k + g z_harmful + c_k,
with a, b and g common to all categories. The weights are fitted by penalised logistic regression.
The threshold of a category maximises micro F1, for which one common threshold on calibrated
probabilities is optimal (Lipton et al. 2014, arXiv:1402.1892: it is half the best F1); the more
positives a category has, the more its own best threshold counts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from truing.judges.moderation.settings import MODERATION_QUESTIONS

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

QUESTION_COUNT = len(MODERATION_QUESTIONS)
MIN_ROWS = 20  # labelled rows below which a question is not mixed
MIN_CATEGORY_LABELS = 50  # labels below which the categories are not mixed


class OutOfFoldLogits(Struct, frozen=True):
    """Logits of encoder and n-grams and targets `[n, outputs]` (NaN = not judged); folds `[n]`.

    `sets` `[n]` has the number of each row's data set; None if the sets do not matter.
    """

    encoder: Floats
    ngrams: Floats
    targets: Floats
    folds: npt.NDArray[np.int64]
    sets: npt.NDArray[np.int64] | None = None

    def without(self, rows: Flags) -> OutOfFoldLogits:
        """Returns the rows that are not marked."""
        keep = ~rows
        return OutOfFoldLogits(
            self.encoder[keep],
            self.ngrams[keep],
            self.targets[keep],
            self.folds[keep],
            None if self.sets is None else self.sets[keep],
        )

    def only(self, rows: Flags) -> OutOfFoldLogits:
        """Returns the rows that are marked."""
        return self.without(~rows)


class LogitMix(Struct, frozen=True):
    """The mix: `a`, `b`, `bias` of each output, `gate` (of the harmful logit) of each category."""

    a: Floats
    b: Floats
    gate: Floats
    bias: Floats

    def apply(self, encoder: Floats, ngrams: Floats) -> Floats:
        """Returns mixed logits `[n, outputs]`."""
        mixed = encoder * self.a + ngrams * self.b + self.bias
        mixed[:, QUESTION_COUNT:] += encoder[:, :1] * self.gate
        return mixed


class Calibration(Struct, frozen=True):
    """The mix and a threshold for each question and category."""

    mix: LogitMix
    harmful: float
    harmful_prompt: float
    refused: float
    categories: Floats

    @property
    def thresholds(self) -> Floats:
        """The thresholds of all outputs, in their order."""
        return np.array([self.harmful, self.harmful_prompt, self.refused, *self.categories])


def sigmoid(z: Floats) -> Floats:
    """Returns the probabilities of logits."""
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -60, 60))), dtype=np.float64)


def fit_logistic_regression(
    x: Floats, y: Floats, *, weight: Floats | None = None, ridge: float = 1e-3, steps: int = 30
) -> Floats:
    """Returns the coefficients of a penalised logistic regression, by Newton's method.

    The last column of `x` is the intercept, and is not penalised.
    """
    w = np.zeros(x.shape[1])
    penalty = np.full(x.shape[1], ridge)
    penalty[-1] = 1e-9  # keeps the Hessian invertible
    c = np.ones(len(y)) if weight is None else weight
    c = c / c.sum()
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -40, 40)))
        gradient = x.T @ (c * (p - y)) + penalty * w
        hessian = (x.T * (c * np.maximum(p * (1 - p), 1e-6))) @ x + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        largest = float(np.abs(step).max())
        # Far from the optimum a full Newton step may overshoot.
        w -= step * min(1.0, 5.0 / max(largest, 1e-12))
        if largest < 1e-8:
            break
    return w


def fit_logit_mix(evidence: OutOfFoldLogits) -> LogitMix:
    """Fits the mix of every output that has both labels among the rows.

    The other outputs keep the encoder's logits.
    """
    outputs = evidence.encoder.shape[1]
    a, b, bias = np.ones(outputs), np.zeros(outputs), np.zeros(outputs)
    for k in range(QUESTION_COUNT):
        is_judged = ~np.isnan(evidence.targets[:, k])
        y = evidence.targets[is_judged, k]
        if is_judged.sum() < MIN_ROWS or not 0 < y.sum() < len(y):
            continue
        x = np.stack(
            [evidence.encoder[is_judged, k], evidence.ngrams[is_judged, k], np.ones(len(y))], 1
        )
        a[k], b[k], bias[k] = fit_logistic_regression(x, y)
        # A negative weight is chance: no model is better the more it contradicts its training.
        if a[k] <= 0 or b[k] < 0:
            b[k] = 0.0
            a[k], bias[k] = fit_logistic_regression(x[:, [0, 2]], y)
        if a[k] <= 0:
            a[k], bias[k] = 1.0, 0.0
    gate = np.zeros(outputs - QUESTION_COUNT)
    category_mix = _fit_category_mix(evidence, outputs - QUESTION_COUNT)
    if category_mix is not None:
        a[QUESTION_COUNT:], b[QUESTION_COUNT:], gate[:] = category_mix[:3]
        bias[QUESTION_COUNT:] = category_mix[3:]
    return LogitMix(a, b, gate, bias)


def _fit_category_mix(evidence: OutOfFoldLogits, categories: int) -> Floats | None:
    """Returns a, b, g and a bias per category, fitted on the labels of all categories together."""
    targets = evidence.targets[:, QUESTION_COUNT:]
    rows, columns = np.nonzero(~np.isnan(targets))
    if len(rows) < MIN_CATEGORY_LABELS or not 0 < np.nansum(targets) < len(rows):
        return None
    one_hot = np.zeros((len(rows), categories))
    one_hot[np.arange(len(rows)), columns] = 1.0
    x = np.column_stack(
        [
            evidence.encoder[rows, QUESTION_COUNT + columns],
            evidence.ngrams[rows, QUESTION_COUNT + columns],
            evidence.encoder[rows, 0],
            one_hot,
            np.ones(len(rows)),
        ]
    )
    w = fit_logistic_regression(x, targets[rows, columns], ridge=1e-5)
    shared, category_bias, intercept = w[:3], w[3 : 3 + categories], w[-1]
    return np.concatenate([shared, category_bias + intercept])


def best_f1_threshold(p: Floats, y: Floats) -> tuple[float, float]:
    """Returns the threshold with the highest F1, and that F1; (0.5, 0) without positives.

    The threshold is half-way between two scores.
    """
    if not y.sum():
        return 0.5, 0.0
    order = np.argsort(-p, kind="stable")
    p_sorted = p[order]
    true_positives = np.cumsum(y[order])
    f1 = 2 * true_positives / (np.arange(1, len(p) + 1) + y.sum())
    # A threshold cannot part equal scores: only the last row of each run of ties counts.
    run_ends = np.flatnonzero(np.append(np.diff(p_sorted) != 0, True))
    best = int(run_ends[np.argmax(f1[run_ends])])
    next_lower = p_sorted[best + 1] if best + 1 < len(p) else p_sorted[best] * 0.5
    return float((p_sorted[best] + next_lower) / 2), float(f1[best])


def false_alarm_threshold(p: Floats, y: Floats, share: float) -> float:
    """Returns the lowest threshold that at most `share` (below 1) of the negatives reach.

    It lies half-way between two scores of negatives (or one and 1); 0.5 without any negative.
    """
    negatives = np.sort(p[y == 0])[::-1]
    if not len(negatives):
        return 0.5
    allowed = int(share * len(negatives))
    # Equal scores pass a threshold together, so it must lie above all that equal the first excess.
    above = negatives[:allowed][negatives[:allowed] > negatives[allowed]]
    upper = above[-1] if len(above) else 1.0
    return float((upper + negatives[allowed]) / 2)


def fit_category_thresholds(p: Floats, y: Floats, *, strength: float = 60.0) -> Floats:
    """Returns a threshold per category: its own best, shrunk to the common one (best micro F1).

    A category with `strength` positives is half-way between the two.
    """
    is_judged = ~np.isnan(y)
    common, _ = best_f1_threshold(p[is_judged], y[is_judged])
    thresholds = np.full(p.shape[1], common)
    for k in range(p.shape[1]):
        rows = is_judged[:, k]
        positives = float(y[rows, k].sum())
        if positives:
            best, _ = best_f1_threshold(p[rows, k], y[rows, k])
            share = positives / (positives + strength)
            thresholds[k] = share * best + (1 - share) * common
    clipped: Floats = np.clip(thresholds, 0.02, 0.98)
    return clipped


def fit_calibration(
    evidence: OutOfFoldLogits,
    home: Flags,
    is_prompt: Flags,
    *,
    mix_on_all_rows: bool = False,
    false_alarms: float = 0.0,
) -> Calibration:
    """Fits mix and thresholds.

    With `evidence.sets`, all sets that have both labels decide, each with the same weight, the
    scale and bias of harmful (on answers) and of harmful_prompt (on prompts without an answer), so
    that neither kind, nor a large set, decides the probabilities of the other.

    The home set (rows marked by `home`) decides the mix and thresholds of harmful and of the
    categories; all rows decide harmful_prompt and refused, which the home set may not label.
    `is_prompt` marks prompts without an answer, whose question is harmful_prompt. With
    `mix_on_all_rows` the relative weights of harmful come from all rows, and the home set decides
    only scale and bias. The thresholds of harmful and harmful_prompt have the best F1, or, with
    `false_alarms`, they are the lowest that at most that share of the home set's harmless answers,
    and of all harmless prompts, reaches.
    """
    mix = fit_logit_mix(evidence.only(home))
    mix_of_all = fit_logit_mix(evidence)
    if mix_on_all_rows:
        _rescale_harmful(mix, mix_of_all, evidence.only(home))
    for k in (1, 2):
        mix.a[k], mix.b[k], mix.bias[k] = mix_of_all.a[k], mix_of_all.b[k], mix_of_all.bias[k]
    if evidence.sets is not None:
        _calibrate_question(mix, 0, evidence, ~is_prompt)
        _calibrate_question(mix, 1, evidence, is_prompt)
    p = sigmoid(mix.apply(evidence.encoder, evidence.ngrams))
    targets = evidence.targets

    def question_threshold(k: int, rows: Flags) -> float:
        # Rows that raters disagree on (a share between 0 and 1) have no right verdict.
        rows = rows & ((targets[:, k] == 0) | (targets[:, k] == 1))
        if k in (0, 1) and false_alarms:
            return false_alarm_threshold(p[rows, k], targets[rows, k], false_alarms)
        return best_f1_threshold(p[rows, k], targets[rows, k])[0] if rows.any() else 0.5

    return Calibration(
        mix,
        question_threshold(0, home & ~is_prompt),
        question_threshold(1, is_prompt),
        question_threshold(2, ~is_prompt),
        fit_category_thresholds(p[home, QUESTION_COUNT:], targets[home, QUESTION_COUNT:]),
    )


def _rescale_harmful(mix: LogitMix, source: LogitMix, home: OutOfFoldLogits) -> None:
    """Puts the relative weights of `source` for harmful into `mix`, fitted to the home rows."""
    is_judged = ~np.isnan(home.targets[:, 0])
    z = home.encoder[is_judged, 0] * source.a[0] + home.ngrams[is_judged, 0] * source.b[0]
    y = home.targets[is_judged, 0]
    if is_judged.sum() < MIN_ROWS or not 0 < y.sum() < len(y):
        return
    scale, bias = fit_logistic_regression(np.stack([z, np.ones(len(y))], 1), y)
    if scale > 0:
        mix.a[0], mix.b[0], mix.bias[0] = source.a[0] * scale, source.b[0] * scale, bias


def _calibrate_question(mix: LogitMix, k: int, evidence: OutOfFoldLogits, rows: Flags) -> None:
    """Fits scale and bias of question `k` to the marked rows, each set with the same weight."""
    assert evidence.sets is not None
    rows = rows & ~np.isnan(evidence.targets[:, k])
    y, sets = evidence.targets[:, k], evidence.sets
    weight = np.zeros(len(y))
    for number in np.unique(sets[rows]):
        inside = rows & (sets == number)
        # The probabilities of a set with one label only say nothing of the scale.
        if inside.sum() >= MIN_ROWS and 0 < y[inside].sum() < inside.sum():
            weight[inside] = 1 / inside.sum()
    used = weight > 0
    if not used.any():
        return
    z = (evidence.encoder * mix.a + evidence.ngrams * mix.b + mix.bias)[used, k]
    x = np.stack([z, np.ones(len(z))], 1)
    scale, bias = fit_logistic_regression(x, y[used], weight=weight[used])
    if scale > 0:
        mix.a[k] *= scale
        mix.b[k] *= scale
        mix.bias[k] = mix.bias[k] * scale + bias


def cross_fit(
    evidence: OutOfFoldLogits,
    home: Flags,
    is_prompt: Flags,
    *,
    mix_on_all_rows: bool = False,
    false_alarms: float = 0.0,
) -> tuple[Floats, Flags]:
    """Returns probabilities and verdicts `[n, outputs]`, each fold's by a fit without the fold."""
    p = np.zeros_like(evidence.encoder)
    verdicts = np.zeros(evidence.encoder.shape, bool)
    for fold in np.unique(evidence.folds):
        inside = evidence.folds == fold
        calibration = fit_calibration(
            evidence.without(inside),
            home[~inside],
            is_prompt[~inside],
            mix_on_all_rows=mix_on_all_rows,
            false_alarms=false_alarms,
        )
        logits = calibration.mix.apply(evidence.encoder[inside], evidence.ngrams[inside])
        p[inside] = sigmoid(logits)
        verdicts[inside] = p[inside] >= calibration.thresholds
    return p, verdicts
