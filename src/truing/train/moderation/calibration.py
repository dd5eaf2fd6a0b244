"""From out-of-fold logits to what a moderation folder holds: how encoder and n-grams are mixed, and the thresholds.

All figures here come from rows that the scoring fold did not learn. What is *chosen* on them (mixing weights, biases,
thresholds) is chosen a second time without each fold for the card, so no row is measured by what it chose.

The mix is linear, so that it folds into the heads: harmful' = a z + b n + c, and for a category
z' = a z_c + b n_c + g z_harmful + c_c with a, b, g common to all categories. Weights by penalised logistic regression;
a category's threshold maximises micro F1, for which one common threshold on calibrated probabilities is the best
(Lipton et al. 2014, arXiv:1402.1892: it is half the best F1), shrunk from each category's own best by its positives.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

Floats = npt.NDArray[np.float64]
QUESTION_COUNT = 3  # outputs before the categories: harmful, harmful_prompt, refused


class OutOfFoldLogits(Struct, frozen=True):
    """Out-of-fold logits of encoder and n-grams `[n, outputs]`, targets (NaN = not judged), fold of each row."""

    encoder: Floats
    ngrams: Floats
    targets: Floats
    folds: npt.NDArray[np.int64]

    def without(self, rows: npt.NDArray[np.bool_]) -> OutOfFoldLogits:
        """The rows that are not marked."""
        keep = ~rows
        return OutOfFoldLogits(
            self.encoder[keep], self.ngrams[keep], self.targets[keep], self.folds[keep]
        )

    def only(self, rows: npt.NDArray[np.bool_]) -> OutOfFoldLogits:
        """The rows that are marked."""
        return self.without(~rows)


class LogitMix(Struct, frozen=True):
    """The linear mix: `a`, `b`, `bias` for each output, `gate` (of the harmful logit) for each category."""

    a: Floats
    b: Floats
    gate: Floats
    bias: Floats

    def apply(self, encoder: Floats, ngrams: Floats) -> Floats:
        """Mixed logits `[n, outputs]`."""
        made = encoder * self.a + ngrams * self.b + self.bias
        made[:, QUESTION_COUNT:] += encoder[:, :1] * self.gate
        return made


def fit_logistic_regression(
    x: Floats, y: Floats, *, weight: Floats | None = None, ridge: float = 1e-3, steps: int = 30
) -> Floats:
    """Coefficients of a penalised logistic regression by Newton's method; the last column of `x` is not penalised."""
    w = np.zeros(x.shape[1])
    penalty = np.full(x.shape[1], ridge)
    penalty[-1] = 1e-9
    c = np.ones(len(y)) if weight is None else weight
    c = c / c.sum()
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -40, 40)))
        gradient = x.T @ (c * (p - y)) + penalty * w
        hessian = (x.T * (c * np.maximum(p * (1 - p), 1e-6))) @ x + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        w -= step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-8:
            break
    return w


def fit_mix(given: OutOfFoldLogits) -> LogitMix:
    """The mixing weights for every output that has both labels among the rows; the encoder alone elsewhere."""
    outputs = given.encoder.shape[1]
    a, b, bias = np.ones(outputs), np.zeros(outputs), np.zeros(outputs)
    for k in range(QUESTION_COUNT):
        known = ~np.isnan(given.targets[:, k])
        y = given.targets[known, k]
        if known.sum() < 20 or not 0 < y.sum() < len(y):
            continue
        x = np.stack([given.encoder[known, k], given.ngrams[known, k], np.ones(len(y))], 1)
        a[k], b[k], bias[k] = fit_logistic_regression(x, y)
        if (
            a[k] <= 0 or b[k] < 0
        ):  # chance: a model that says the opposite of what it was taught is left as it is, or out
            b[k] = 0.0
            a[k], bias[k] = fit_logistic_regression(x[:, [0, 2]], y)
        if a[k] <= 0:
            a[k], bias[k] = 1.0, 0.0
    gate = np.zeros(outputs - QUESTION_COUNT)
    shared = _shared(given, outputs - QUESTION_COUNT)
    if shared is not None:
        a[QUESTION_COUNT:], b[QUESTION_COUNT:], gate[:] = shared[:3]
        bias[QUESTION_COUNT:] = shared[3:]
    return LogitMix(a, b, gate, bias)


def _shared(given: OutOfFoldLogits, categories: int) -> Floats | None:
    known = ~np.isnan(given.targets[:, QUESTION_COUNT:])
    at, c = np.nonzero(known)
    if len(at) < 50 or not 0 < np.nansum(given.targets[:, QUESTION_COUNT:]) < len(at):
        return None
    one = np.zeros((len(at), categories))
    one[np.arange(len(at)), c] = 1.0
    x = np.column_stack(
        [
            given.encoder[at, QUESTION_COUNT + c],
            given.ngrams[at, QUESTION_COUNT + c],
            given.encoder[at, 0],
            one,
            np.ones(len(at)),
        ]
    )
    found = fit_logistic_regression(x, given.targets[at, QUESTION_COUNT + c], ridge=1e-5)
    made: Floats = np.concatenate([found[:3], found[3 : 3 + categories] + found[-1]])
    return made


def sigmoid(z: Floats) -> Floats:
    """Probabilities of logits."""
    made: Floats = 1 / (1 + np.exp(-np.clip(z, -60, 60)))
    return made


def best_f1_threshold(p: Floats, y: Floats) -> tuple[float, float]:
    """The threshold with the highest F1, half-way to the next lower score, and that F1; (0.5, 0) without positives."""
    if not y.sum():
        return 0.5, 0.0
    order = np.argsort(-p, kind="stable")
    hits = np.cumsum(y[order])
    f1 = 2 * hits / (np.arange(1, len(p) + 1) + y.sum())
    ends = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))
    at = int(ends[np.argmax(f1[ends])])
    lower = p[order][at + 1] if at + 1 < len(p) else p[order][at] * 0.5
    return float((p[order][at] + lower) / 2), float(f1[at])


def fit_category_thresholds(p: Floats, y: Floats, *, strength: float = 60.0) -> Floats:
    """One threshold a category: its own best, drawn to the common one (best micro F1) by `strength` positives' weight."""
    known = ~np.isnan(y)
    common, _ = best_f1_threshold(p[known], y[known])
    made = np.full(p.shape[1], common)
    for c in range(p.shape[1]):
        rows = known[:, c]
        positives = float(y[rows, c].sum())
        if positives:
            own, _ = best_f1_threshold(p[rows, c], y[rows, c])
            share = positives / (positives + strength)
            made[c] = share * own + (1 - share) * common
    return np.clip(made, 0.02, 0.98)


class Calibration(Struct, frozen=True):
    """Mix and thresholds: `harmful` for the question, `categories` for each category, `refused`."""

    mix: LogitMix
    harmful: float
    harmful_prompt: float
    refused: float
    categories: Floats


def fit_calibration(
    given: OutOfFoldLogits,
    home: npt.NDArray[np.bool_],
    alone: npt.NDArray[np.bool_],
    *,
    wide: bool = False,
) -> Calibration:
    """Everything that is chosen: the mix on all rows, thresholds and biases on the rows of the `home` set.

    `alone` marks rows that are a prompt without an answer; their question is harmful_prompt. `wide` weighs the two against
    each other on all rows for `harmful` too, and takes only scale and bias from the home set.
    """
    mix = fit_mix(given.only(home))
    rest = fit_mix(given)
    if wide:
        _on_scale(mix, rest, given.only(home))
    for k in (1, 2):
        mix.a[k], mix.b[k], mix.bias[k] = rest.a[k], rest.b[k], rest.bias[k]
    p = sigmoid(mix.apply(given.encoder, given.ngrams))
    t = given.targets

    def pick(k: int, rows: npt.NDArray[np.bool_]) -> float:
        use = rows & ~np.isnan(t[:, k]) & ((t[:, k] == 0) | (t[:, k] == 1))
        return best_f1_threshold(p[use, k], t[use, k])[0] if use.any() else 0.5

    return Calibration(
        mix,
        pick(0, home & ~alone),
        pick(1, alone),
        pick(2, ~alone),
        fit_category_thresholds(p[home, QUESTION_COUNT:], t[home, QUESTION_COUNT:]),
    )


def _on_scale(mix: LogitMix, rest: LogitMix, home: OutOfFoldLogits) -> None:
    """Puts the weights of `rest` for `harmful` into `mix`, with the scale and the bias of the home rows."""
    known = ~np.isnan(home.targets[:, 0])
    z = home.encoder[known, 0] * rest.a[0] + home.ngrams[known, 0] * rest.b[0]
    y = home.targets[known, 0]
    if known.sum() < 20 or not 0 < y.sum() < len(y):
        return
    scale, bias = fit_logistic_regression(np.stack([z, np.ones(len(y))], 1), y)
    if scale > 0:
        mix.a[0], mix.b[0], mix.bias[0] = rest.a[0] * scale, rest.b[0] * scale, bias


def cross_fit(
    given: OutOfFoldLogits,
    home: npt.NDArray[np.bool_],
    alone: npt.NDArray[np.bool_],
    *,
    wide: bool = False,
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Probabilities and verdicts `[n, outputs]` of each fold by what was chosen without it."""
    p = np.zeros_like(given.encoder)
    verdicts = np.zeros(given.encoder.shape, bool)
    for fold in np.unique(given.folds):
        inside = given.folds == fold
        picked = fit_calibration(given.without(inside), home[~inside], alone[~inside], wide=wide)
        p[inside] = sigmoid(picked.mix.apply(given.encoder[inside], given.ngrams[inside]))
        limits = np.concatenate(
            [[picked.harmful, picked.harmful_prompt, picked.refused], picked.categories]
        )
        verdicts[inside] = p[inside] >= limits
    return p, verdicts
