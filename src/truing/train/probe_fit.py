"""Fits linear probes: penalised logistic regressions on the states of answers.

The penalty is chosen by cross-validation, in which all answers to one prompt are on the same side:
otherwise a probe could be chosen that knows the prompts again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from scipy.optimize import minimize
from scipy.special import expit

from truing.core.errors import DataError
from truing.stats.classification import auroc
from truing.stats.intervals import Interval

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]

PENALTIES = (3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0)
"""The penalties that are tried, strongest first. Half of one, times the squared weights, is added
to the sum of the log losses; the states are scaled to unit variance."""
FOLDS = 5
MIN_LABELS = 10
"""So many answers of each label are needed, and so many prompts that have one."""
_MAX_ITERATIONS = 500


class ProbeFit(Struct, frozen=True, kw_only=True):
    """A fitted probe, and how it does on prompts that it did not learn from.

    The logit of an answer is its state · `weights` + `bias`. `held_out` is the AUROC of logits from
    cross-validation, each fold's centred, and `by_length` that of the answers' lengths alone. The
    penalty was chosen on the same folds by log loss. The interval over prompts does not hold what
    other training rows would change: of probes of noise it covers a half in about 85 % in place of
    95. `held_out_logits` are those of the answers, in their order, each by a probe that did not see
    its prompt. `n_true` of `n` labels are true.
    """

    weights: tuple[float, ...]
    bias: float
    penalty: float
    n: int
    n_true: int
    held_out: Interval
    by_length: Interval
    held_out_logits: tuple[float, ...]


def fit_probe(
    question: str,
    states: npt.NDArray[np.float32],
    labels: Labels,
    prompts: Sequence[str],
    lengths: Sequence[int],
    *,
    seed: int = 0,
) -> ProbeFit:
    """Fits the probe of one question on states `[answers, width]`.

    `prompts` names the prompt of each answer, `lengths` counts its tokens. Raises DataError if
    there are too few answers of one label, or of too few prompts.
    """
    _, prompt = np.unique(np.asarray(prompts), return_inverse=True)
    _check_enough_labels(question, labels, prompt)
    rng = np.random.default_rng(seed)
    fold = rng.permutation(np.arange(prompt.max() + 1) % FOLDS)[prompt]
    logits, centred = ({p: np.zeros(len(labels)) for p in PENALTIES} for _ in range(2))
    for k in range(FOLDS):
        held_out = fold == k
        for penalty, (weights, bias) in _fit_path(states[~held_out], labels[~held_out]).items():
            projected = states[held_out] @ weights
            logits[penalty][held_out] = projected + bias
            # The bias holds the rate of the labels outside of the fold, low where that inside is
            # high: with it a probe of noise would order the folds the wrong way round.
            centred[penalty][held_out] = projected - projected.mean()
    penalty = min(PENALTIES, key=lambda p: _log_loss(logits[p], labels))
    weights, bias = _fit_path(states, labels)[penalty]
    held_out_auroc = auroc(centred[penalty], labels, groups=prompt)
    length_auroc = auroc(np.asarray(lengths, float), labels, groups=prompt)
    assert held_out_auroc is not None and length_auroc is not None  # both labels occur
    return ProbeFit(
        weights=tuple(float(w) for w in weights),
        bias=float(bias),
        penalty=penalty,
        n=len(labels),
        n_true=int(labels.sum()),
        held_out=held_out_auroc,
        by_length=length_auroc,
        held_out_logits=tuple(float(value) for value in logits[penalty]),
    )


def _check_enough_labels(question: str, labels: Labels, prompt: npt.NDArray[np.int64]) -> None:
    for label in (True, False):
        rows = labels == label
        n_prompts = len(np.unique(prompt[rows]))
        if n_prompts < MIN_LABELS:
            name = "true" if label else "false"
            raise DataError(
                f"{question}: {int(rows.sum())} labels are {name}, of {n_prompts} prompts; a probe "
                f"needs answers to at least {MIN_LABELS} prompts that are {name}"
            )


def _fit_path(states: npt.NDArray[np.float32], labels: Labels) -> dict[float, tuple[Floats, float]]:
    """Returns weights and bias on the states as they are, for each penalty."""
    mean, scale = states.mean(0, dtype=np.float64), states.std(0, dtype=np.float64)
    scale = np.where(scale > 1e-6 * max(float(scale.max()), 1e-30), scale, np.inf)
    x = (states - mean) / scale
    rate = labels.mean()
    # From the strongest penalty on, each fit starts where the last one ended.
    start = np.append(np.zeros(x.shape[1]), np.log(rate / (1 - rate)))
    fits = {}
    for penalty in PENALTIES:
        start = _fit_scaled(x, labels, penalty, start)
        weights = start[:-1] / scale
        fits[penalty] = (weights, float(start[-1] - mean @ weights))
    return fits


def _fit_scaled(x: Floats, labels: Labels, penalty: float, start: Floats) -> Floats:
    """Returns weights and, last, the bias, which is not penalised."""
    y = labels.astype(np.float64)

    def loss_and_gradient(w: Floats) -> tuple[float, Floats]:
        logits = x @ w[:-1] + w[-1]
        loss = np.logaddexp(0, logits).sum() - y @ logits + penalty / 2 * (w[:-1] @ w[:-1])
        error = expit(logits) - y
        gradient = np.append(x.T @ error + penalty * w[:-1], error.sum())
        return float(loss) / len(y), gradient / len(y)

    found = minimize(
        loss_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MAX_ITERATIONS, "gtol": 1e-6},
    )
    return np.asarray(found.x, dtype=np.float64)


def _log_loss(logits: Floats, labels: Labels) -> float:
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))
