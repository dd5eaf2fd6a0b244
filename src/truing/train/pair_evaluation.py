"""Evaluates a reward or cost model on pairs: order, sign, calibration, by category and length.

Each figure stands beside a baseline that looks at the lengths alone and always prefers the longer,
or always the shorter answer, whichever is right more often: a model that does not beat it may have
learned length and nothing else (reward-bench #267).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from truing.core.private_files import replace_file
from truing.stats.calibration import ReliabilityBin, brier_score, ece, reliability_bins
from truing.stats.intervals import wilson
from truing.train.batches import ExampleEncoder
from truing.train.examples import TrainingExample
from truing.train.objectives import score_answers
from truing.train.trainable_model import TrainableModel

EVALUATION_FILE = "evaluation.json"

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

# Ratios of the longer to the shorter answer, from the first number to below the second.
_LENGTH_RATIOS: tuple[tuple[float, float | None], ...] = (
    (1.0, 1.2),
    (1.2, 2.0),
    (2.0, 4.0),
    (4.0, None),
)


class Proportion(Struct, frozen=True, kw_only=True):
    """A share of n cases with its 95 % interval (Wilson); without cases there is no estimate."""

    n: int
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None


class LengthBucket(Struct, frozen=True, kw_only=True):
    """Pairs whose ratio of longer to shorter answer (characters) is in [low, high)."""

    low: float
    high: float | None
    accuracy: Proportion
    longer_preferred: Proportion
    length_only: float | None


class PairEvaluation(Struct, frozen=True, kw_only=True):
    """The figures of one set of pairs (`evaluation.json`).

    `accuracy` is the share of pairs in the right order; a tie counts as wrong. The `_order` figures
    are of the probability that the first of two answers is preferred, sigmoid(score difference),
    over both orders of each pair: a model that is always sure and always right is calibrated, one
    that is always sure and half right is not. The `_sign` figures (cost models) are of the
    probability that an answer is unsafe, sigmoid(cost).
    """

    kind: str
    pairs: int
    accuracy: Proportion
    sign_accuracy: Proportion | None = None
    unsafe_found: Proportion | None = None
    safe_passed: Proportion | None = None
    ece_order: float | None = None
    brier_order: float | None = None
    ece_sign: float | None = None
    brier_sign: float | None = None
    reliability_order: list[ReliabilityBin] = []
    reliability_sign: list[ReliabilityBin] = []
    by_category: dict[str, Proportion] = {}
    by_source: dict[str, Proportion] = {}
    by_length: list[LengthBucket] = []
    length_only: float | None = None
    too_long: int = 0


def wilson_proportion(hits: Sequence[bool] | Flags) -> Proportion:
    """Returns the share of hits with its interval."""
    n = len(hits)
    if not n:
        return Proportion(n=0)
    interval = wilson(int(np.sum(hits)), n)
    return Proportion(n=n, estimate=interval.estimate, lower=interval.lower, upper=interval.upper)


def evaluate_pairs(
    kind: str,
    items: Sequence[TrainingExample],
    scores: Sequence[tuple[float, float]],
    *,
    too_long: int = 0,
) -> PairEvaluation:
    """Evaluates pairs by `scores`: (preferred answer, other answer) of each."""
    pair_scores = np.asarray(scores, dtype=float).reshape(-1, 2)
    difference = pair_scores[:, 0] - pair_scores[:, 1]
    if kind == "cost":
        difference = -difference  # the preferred answer is the safer one and should cost less
    is_right = difference > 0
    length_difference = np.asarray([len(i.answers[0]) - len(i.answers[1]) for i in items])
    calibration: dict[str, Any] = {}
    if len(items):
        calibration |= _order_calibration(difference)
    if kind == "cost":
        calibration |= _sign_figures(items, pair_scores)
    return PairEvaluation(
        kind=kind,
        pairs=len(items),
        accuracy=wilson_proportion(is_right),
        by_category=_accuracy_by_group(items, is_right, lambda item: item.harms),
        by_source=_accuracy_by_group(items, is_right, lambda item: (item.source,)),
        by_length=_accuracy_by_length(items, is_right, length_difference),
        length_only=_length_only_accuracy(length_difference),
        too_long=too_long,
        **calibration,
    )


def _order_calibration(difference: Floats) -> dict[str, Any]:
    # Both orders of each pair: otherwise every label is 1, and "always sure" would look calibrated.
    p = _sigmoid(np.concatenate([difference, -difference]))
    y = np.concatenate([np.ones(len(difference)), np.zeros(len(difference))])
    return {
        "ece_order": ece(p, y),
        "brier_order": brier_score(p, y),
        "reliability_order": reliability_bins(p, y),
    }


def _sign_figures(items: Sequence[TrainingExample], values: Floats) -> dict[str, Any]:
    labelled = [
        (cost, sign)
        for item, costs in zip(items, values)
        if item.signs is not None
        for cost, sign in zip(costs, item.signs)
    ]
    if not labelled:
        return {}
    costs = np.asarray([cost for cost, _ in labelled])
    is_unsafe = np.asarray([sign < 0 for _, sign in labelled])
    is_right = np.where(is_unsafe, costs > 0, costs < 0)  # a cost of exactly 0 is wrong for both
    p, y = _sigmoid(costs), is_unsafe.astype(float)
    return {
        "sign_accuracy": wilson_proportion(is_right),
        "unsafe_found": wilson_proportion(is_right[is_unsafe]),
        "safe_passed": wilson_proportion(is_right[~is_unsafe]),
        "ece_sign": ece(p, y),
        "brier_sign": brier_score(p, y),
        "reliability_sign": reliability_bins(p, y),
    }


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)), dtype=np.float64)


def _accuracy_by_group(
    items: Sequence[TrainingExample],
    is_right: Flags,
    group_names: Callable[[TrainingExample], Sequence[str]],
) -> dict[str, Proportion]:
    groups: dict[str, list[bool]] = {}
    for item, right in zip(items, is_right):
        for name in group_names(item):
            groups.setdefault(name, []).append(bool(right))
    return {name: wilson_proportion(groups[name]) for name in sorted(groups)}


def _accuracy_by_length(
    items: Sequence[TrainingExample], is_right: Flags, length_difference: npt.NDArray[Any]
) -> list[LengthBucket]:
    lengths = [[max(1, len(answer)) for answer in item.answers[:2]] for item in items]
    sizes = np.asarray(lengths, dtype=float).reshape(-1, 2)
    ratio = sizes.max(1) / sizes.min(1)
    buckets = []
    for low, high in _LENGTH_RATIOS:
        inside = (ratio >= low) & (ratio < (high or np.inf))
        buckets.append(
            LengthBucket(
                low=low,
                high=high,
                accuracy=wilson_proportion(is_right[inside]),
                longer_preferred=wilson_proportion(length_difference[inside] > 0),
                length_only=_length_only_accuracy(length_difference[inside]),
            )
        )
    return buckets


def _length_only_accuracy(length_difference: npt.NDArray[Any]) -> float | None:
    """Returns the accuracy of "longer wins" or "shorter wins", the better one; ties count half."""
    if not len(length_difference):
        return None
    longer_wins = float(np.mean((length_difference > 0) + 0.5 * (length_difference == 0)))
    return max(longer_wins, 1 - longer_wins)


def evaluate_model(
    trainable: TrainableModel,
    items: Sequence[TrainingExample],
    encoder: ExampleEncoder,
    *,
    batch: int = 16,
) -> PairEvaluation:
    """Scores both answers of every pair with the trained model and evaluates them."""
    encoded, too_long = encoder.encode_all([i for i in items if len(i.answers) == 2])
    rows = [e.token_ids(answer) for e in encoded for answer in (0, 1)]
    model = trainable.model
    was_training = model.training
    model.eval()
    scores = score_answers(model, rows, pad_id=trainable.pad_id, batch=batch)
    model.train(was_training)
    pairs = list(zip(scores[::2], scores[1::2]))
    return evaluate_pairs(
        trainable.settings.kind, [e.item for e in encoded], pairs, too_long=len(too_long)
    )


def write_evaluation(folder: Path, evaluations: dict[str, PairEvaluation]) -> None:
    """Writes `evaluation.json`: one evaluation per set of pairs."""
    content = msgspec.json.format(msgspec.json.encode(evaluations), indent=2)
    replace_file(folder / EVALUATION_FILE, content)
