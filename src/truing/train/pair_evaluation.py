"""How good a reward or cost model is on pairs that it never saw: order, sign, calibration, by category and by length.

No length, no learning: each length bucket stands beside a baseline that always picks the longer answer (reward) or calls
the shorter one safer (cost), whichever of the two directions is right more often (reward-bench #267).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from truing.runs.folder import replace_file
from truing.stats.calibration import ReliabilityBin, brier_score, ece, reliability_bins
from truing.stats.intervals import wilson
from truing.train.batches import ExampleEncoder
from truing.train.examples import TrainingExample
from truing.train.objectives import score_answers
from truing.train.trainable_model import TrainableModel

EVALUATION_FILE = "evaluation.json"


class Proportion(Struct, frozen=True, kw_only=True):
    """A share of n cases with its 95 % interval (Wilson); n = 0 has none."""

    n: int
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None


class LengthBucket(Struct, frozen=True, kw_only=True):
    """Pairs whose lengths differ alike: `ratio` is longer/shorter in characters, from `low` to below `high`."""

    low: float
    high: float | None
    accuracy: Proportion
    longer_preferred: Proportion
    length_only: float | None


class PairEvaluation(Struct, frozen=True, kw_only=True):
    """Of a reward or cost model on held-out pairs. A tie counts as wrong.

    `calibration_order` is of σ(difference) that the preferred answer is the preferred one, over both orders of each pair
    (so that always sure and always right is calibrated, always sure and half right is not); `calibration_sign` of
    σ(cost) that an answer is unsafe.
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


def wilson_proportion(hits: Sequence[bool] | np.ndarray) -> Proportion:
    """The share of hits."""
    n = len(hits)
    if not n:
        return Proportion(n=0)
    k = int(np.sum(hits))
    found = wilson(k, n)
    return Proportion(n=n, estimate=found.estimate, lower=found.lower, upper=found.upper)


_EDGES: tuple[tuple[float, float | None], ...] = ((1.0, 1.2), (1.2, 2.0), (2.0, 4.0), (4.0, None))


def evaluate_pairs(
    kind: str,
    items: Sequence[TrainingExample],
    scores: Sequence[tuple[float, float]],
    *,
    too_long: int = 0,
) -> PairEvaluation:
    """The evaluation from (score of the preferred answer, score of the other) of each pair; pure numbers."""
    values = np.asarray(scores, dtype=float).reshape(-1, 2)
    gap = values[:, 0] - values[:, 1]
    if kind == "cost":
        gap = -gap  # the preferred answer is the safer one and should cost less
    right = gap > 0
    p = 1 / (1 + np.exp(-np.concatenate([gap, -gap])))
    y = np.concatenate([np.ones(len(gap)), np.zeros(len(gap))])
    longer = np.asarray([len(i.answers[0]) - len(i.answers[1]) for i in items])
    made: dict[str, Any] = {}
    if len(gap):
        made |= {
            "ece_order": ece(p, y),
            "brier_order": brier_score(p, y),
            "reliability_order": reliability_bins(p, y),
        }
    if kind == "cost":
        made |= _signs(items, values)
    return PairEvaluation(
        kind=kind,
        pairs=len(items),
        accuracy=wilson_proportion(right),
        by_category=_grouped(items, right, lambda i: i.harms),
        by_source=_grouped(items, right, lambda i: (i.source,)),
        by_length=_lengths(items, right, longer),
        length_only=_length_only(longer),
        too_long=too_long,
        **made,
    )


def _signs(items: Sequence[TrainingExample], values: np.ndarray) -> dict[str, Any]:
    pairs = [
        (v, s) for i, row in zip(items, values) if i.signs is not None for v, s in zip(row, i.signs)
    ]
    if not pairs:
        return {}
    cost = np.asarray([v for v, _ in pairs])
    unsafe = np.asarray([s < 0 for _, s in pairs])
    right = np.where(unsafe, cost > 0, cost < 0)
    p, y = 1 / (1 + np.exp(-cost)), unsafe.astype(float)
    return {
        "sign_accuracy": wilson_proportion(right),
        "unsafe_found": wilson_proportion(right[unsafe]),
        "safe_passed": wilson_proportion(right[~unsafe]),
        "ece_sign": ece(p, y),
        "brier_sign": brier_score(p, y),
        "reliability_sign": reliability_bins(p, y),
    }


def _grouped(
    items: Sequence[TrainingExample],
    right: np.ndarray,
    names: Callable[[TrainingExample], Sequence[str]],
) -> dict[str, Proportion]:
    groups: dict[str, list[bool]] = {}
    for item, hit in zip(items, right):
        for name in names(item):
            groups.setdefault(name, []).append(bool(hit))
    return {name: wilson_proportion(groups[name]) for name in sorted(groups)}


def _length_only(longer: np.ndarray) -> float | None:
    """The accuracy of the better of the two rules that look at length alone; ties in length are half right."""
    if not len(longer):
        return None
    up = float(np.mean((longer > 0) + 0.5 * (longer == 0)))
    return max(up, 1 - up)


def _lengths(
    items: Sequence[TrainingExample], right: np.ndarray, longer: np.ndarray
) -> list[LengthBucket]:
    sizes = np.asarray(
        [[max(1, len(a)) for a in i.answers[:2]] for i in items], dtype=float
    ).reshape(-1, 2)
    ratio = sizes.max(1) / sizes.min(1)
    made = []
    for low, high in _EDGES:
        here = (ratio >= low) & (ratio < (high or np.inf))
        made.append(
            LengthBucket(
                low=low,
                high=high,
                accuracy=wilson_proportion(right[here]),
                longer_preferred=wilson_proportion(longer[here] > 0),
                length_only=_length_only(longer[here]),
            )
        )
    return made


def evaluate_model(
    t: TrainableModel, items: Sequence[TrainingExample], encoder: ExampleEncoder, *, batch: int = 16
) -> PairEvaluation:
    """Scores both answers of every pair with the trained model and evaluates them."""
    kept, long = encoder.all([i for i in items if len(i.answers) == 2])
    was = t.plain.training
    t.plain.eval()
    rows = [e.row(k) for e in kept for k in (0, 1)]
    flat = score_answers(t.plain, rows, fill=t.fill, batch=batch)
    t.plain.train(was)
    pairs = list(zip(flat[::2], flat[1::2]))
    return evaluate_pairs(t.settings.kind, [e.item for e in kept], pairs, too_long=len(long))


def write_evaluation(folder: Path, made: dict[str, PairEvaluation]) -> None:
    """`evaluation.json`: one evaluation for each set of pairs."""
    replace_file(folder / EVALUATION_FILE, msgspec.json.format(msgspec.json.encode(made), indent=2))
