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
_MOST_IN_FLOAT64 = 2**26


class ProbeFit(Struct, frozen=True, kw_only=True):
    """A fitted probe, and how it does on prompts that it did not learn from.

    The logit of an answer is its state · `weights` + `bias`, and the verdict is true above the
    logit `threshold`. That one has the best F1 of the held-out logits; `precision` and `recall` are
    theirs at it.

    `held_out` is the AUROC of logits from cross-validation, each fold's centred, and `by_length`
    that of the answers' lengths alone. The penalty was chosen on the same folds by log loss. The
    interval over prompts does not hold what other training rows would change: of probes of noise it
    covers a half in about 85 % in place of 95. `held_out_logits` are those of the answers, in their
    order, each by a probe that did not see its prompt. `n_true` of `n` labels are true.
    """

    weights: tuple[float, ...]
    bias: float
    threshold: float
    penalty: float
    n: int
    n_true: int
    held_out: Interval
    by_length: Interval
    precision: float
    recall: float
    held_out_logits: tuple[float, ...]


def count_label_faults(question: str, labels: Sequence[bool], prompts: Sequence[str]) -> list[str]:
    """Returns what is missing for a probe of a question: prompts with an answer of each label."""
    faults = []
    for label in (True, False):
        n_prompts = len({p for p, value in zip(prompts, labels, strict=True) if value == label})
        if n_prompts < MIN_LABELS:
            n, name = sum(value == label for value in labels), "true" if label else "false"
            faults.append(
                f"{question}: {n} labels are {name}, of {n_prompts} prompts; a probe needs answers "
                f"to at least {MIN_LABELS} prompts that are {name}"
            )
    return faults


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
    faults = count_label_faults(question, labels.tolist(), prompts)
    if faults:
        raise DataError(*faults)
    if not np.isfinite(states).all():
        raise DataError(f"{question}: states of answers are not finite; --dtype float32 may help")
    numbers = {text: number for number, text in enumerate(dict.fromkeys(prompts))}
    prompt = np.array([numbers[text] for text in prompts])
    rng = np.random.default_rng(seed)
    fold = rng.permutation(np.arange(len(numbers)) % FOLDS)[prompt]
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
    threshold, precision, recall = _best_threshold(logits[penalty], labels)
    held_out_auroc = auroc(centred[penalty], labels, groups=prompt)
    length_auroc = auroc(np.asarray(lengths, float), labels, groups=prompt)
    assert held_out_auroc is not None and length_auroc is not None  # both labels occur
    return ProbeFit(
        weights=tuple(float(w) for w in weights),
        bias=float(bias),
        threshold=threshold,
        penalty=penalty,
        n=len(labels),
        n_true=int(labels.sum()),
        held_out=held_out_auroc,
        by_length=length_auroc,
        precision=precision,
        recall=recall,
        held_out_logits=tuple(float(value) for value in logits[penalty]),
    )


def _best_threshold(logits: Floats, labels: Labels) -> tuple[float, float, float]:
    """Returns the threshold with the best F1 of verdicts above it, and precision and recall there.

    It lies half-way between two logits.
    """
    order = np.argsort(-logits, kind="stable")
    values, n_true = logits[order], np.cumsum(labels[order])
    flagged = np.arange(1, len(values) + 1)
    f1 = 2 * n_true / (flagged + labels.sum())
    # Answers of one logit are flagged together, and one at least is not.
    f1[np.append(values[1:] == values[:-1], True)] = -1
    best = int(np.argmax(f1))
    if f1[best] < 0:  # all logits are the same, and tell nothing
        return float(values[0]), 0.0, 0.0
    threshold = float(values[best] + values[min(best + 1, len(values) - 1)]) / 2
    return threshold, float(n_true[best] / flagged[best]), float(n_true[best] / labels.sum())


def _fit_path(states: npt.NDArray[np.float32], labels: Labels) -> dict[float, tuple[Floats, float]]:
    """Returns weights and bias on the states as they are, for each penalty."""
    mean, scale = states.mean(0, dtype=np.float64), states.std(0, dtype=np.float64)
    scale = np.where(scale > 1e-6 * max(float(scale.max()), 1e-30), scale, np.inf)
    # Float32 halves the memory of many states, and its rounding ends the optimisation earlier.
    dtype = np.float64 if states.size <= _MOST_IN_FLOAT64 else np.float32
    x = ((states - mean) / scale).astype(dtype)
    rate = labels.mean()
    # From the strongest penalty on, each fit starts where the last one ended.
    start = np.append(np.zeros(x.shape[1]), np.log(rate / (1 - rate)))
    fits = {}
    for penalty in PENALTIES:
        start = _fit_scaled(x, labels, penalty, start)
        weights = start[:-1] / scale
        fits[penalty] = (weights, float(start[-1] - mean @ weights))
    return fits


def _fit_scaled(
    x: npt.NDArray[np.floating], labels: Labels, penalty: float, start: Floats
) -> Floats:
    """Returns weights and, last, the bias, which is not penalised."""
    y = labels.astype(np.float64)

    def loss_and_gradient(w: Floats) -> tuple[float, Floats]:
        logits = (x @ w[:-1].astype(x.dtype)).astype(np.float64) + w[-1]
        loss = np.logaddexp(0, logits).sum() - y @ logits + penalty / 2 * (w[:-1] @ w[:-1])
        error = expit(logits) - y
        projected = (x.T @ error.astype(x.dtype)).astype(np.float64)
        gradient = np.append(projected + penalty * w[:-1], error.sum())
        return float(loss) / len(y), gradient / len(y)

    solution = minimize(
        loss_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MAX_ITERATIONS, "gtol": 1e-6},
    )
    return np.asarray(solution.x, dtype=np.float64)


def _log_loss(logits: Floats, labels: Labels) -> float:
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))
