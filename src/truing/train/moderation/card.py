"""`card.json` of a trained classifier: how well it agrees with people on rows that neither chose nor trained it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from truing.core.types import Lineage
from truing.runs.folder import replace_file
from truing.stats.agreement import cohen_kappa
from truing.stats.calibration import ece
from truing.stats.classification import (
    ClassificationScores,
    classification_scores,
    f1_score,
    pairwise_accuracy,
)
from truing.stats.intervals import Interval
from truing.train.moderation.examples import ModerationExample

QUESTIONS = ("harmful", "harmful_prompt", "refused")
MIN_POSITIVES = 30  # positives below which only the average precision is given


class QuestionScores(Struct, frozen=True, kw_only=True):
    """One question on one data set."""

    scores: ClassificationScores
    kappa: Interval | None
    ece: float | None


class ClassifierCard(Struct, frozen=True, kw_only=True):
    """`card.json`. `questions` and `per_category` are on the home set; `sets` has every set; `method` says how."""

    judge: str
    judge_hash: str
    data: str
    data_hash: str
    n: int
    method: str
    questions: dict[str, QuestionScores]
    per_category: dict[str, ClassificationScores]
    micro_f1: Interval | None
    macro_f1: float | None
    macro_over: tuple[str, ...]
    sets: dict[str, dict[str, QuestionScores]]
    pairs: dict[str, Interval | None]
    ece: float | None
    kappa: Interval | None
    languages: tuple[str, ...]
    lineage: dict[str, Any]
    licence: str
    notes: tuple[str, ...] = ()


def _hard(targets: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.bool_]:
    made: npt.NDArray[np.bool_] = (targets[:, k] == 0) | (targets[:, k] == 1)
    return made


def _question(
    p: npt.NDArray[np.float64],
    said: npt.NDArray[np.bool_],
    y: npt.NDArray[np.bool_],
    keys: list[str],
) -> QuestionScores:
    found = classification_scores(
        [bool(v) for v in said], [bool(v) for v in y], [float(v) for v in p], keys
    )
    both = len(set(said.tolist())) > 1 or len(set(y.tolist())) > 1
    return QuestionScores(
        scores=found,
        kappa=cohen_kappa([bool(v) for v in said], [bool(v) for v in y]) if both else None,
        ece=ece(p, y) if len(y) >= MIN_POSITIVES else None,
    )


def compute_card_metrics(
    items: Sequence[ModerationExample],
    p: npt.NDArray[np.float64],
    said: npt.NDArray[np.bool_],
    home: str,
    ids: Sequence[str],
) -> dict[str, Any]:
    """The measured parts of a card: probabilities and verdicts `[n, outputs]` of rows against their labels."""
    targets = np.array([i.targets for i in items], float)
    sources = np.array([i.source for i in items])
    keys = np.array([i.key for i in items])
    sets: dict[str, dict[str, QuestionScores]] = {}
    for source in dict.fromkeys(sources.tolist()):
        for k, question in enumerate(QUESTIONS):
            rows = (sources == source) & _hard(targets, k)
            if rows.sum() >= 20 and 0 < targets[rows, k].sum() < rows.sum():
                made = _question(
                    p[rows, k], said[rows, k], targets[rows, k] == 1, keys[rows].tolist()
                )
                sets.setdefault(source, {})[question] = made
    rows = sources == home
    per_category, over = {}, []
    for c, name in enumerate(ids, len(QUESTIONS)):
        known = rows & _hard(targets, c)
        if known.any():
            y = targets[known, c] == 1
            found = classification_scores(
                said[known, c].tolist(), y.tolist(), p[known, c].tolist(), keys[known].tolist()
            )
            per_category[name] = found if found.n_positive >= MIN_POSITIVES else _few(found)
            over += [name] if found.n_positive >= MIN_POSITIVES else []
    known_all = rows[:, None] & ((targets == 0) | (targets == 1))
    known_all[:, : len(QUESTIONS)] = False
    groups = np.repeat(keys[:, None], targets.shape[1], 1)[known_all]
    micro = f1_score(said[known_all], targets[known_all] == 1, groups) if known_all.any() else None
    f1s = [per_category[n].f1 for n in over]
    return {
        "questions": sets.get(home, {}),
        "per_category": per_category,
        "micro_f1": micro,
        "macro_f1": float(np.mean([f.estimate for f in f1s if f is not None])) if f1s else None,
        "macro_over": tuple(over),
        "sets": sets,
        "pairs": _pairs(items, p),
        "n": int(rows.sum()),
    }


def _few(found: ClassificationScores) -> ClassificationScores:
    """With few positives only the average precision, with its interval, says anything."""
    return msgspec.structs.replace(found, precision=None, recall=None, specificity=None, f1=None)


def _pairs(
    items: Sequence[ModerationExample], p: npt.NDArray[np.float64]
) -> dict[str, Interval | None]:
    """Pairwise accuracy on human pairs, by data set."""
    found: dict[str, dict[str, list[int]]] = {}
    for at, item in enumerate(items):
        if item.pair is not None and item.order == item.order:
            found.setdefault(item.source, {}).setdefault(item.pair, []).append(at)
    made: dict[str, Interval | None] = {}
    for source, pairs in found.items():
        safer, other = [], []
        for members in pairs.values():
            if len(members) != 2:
                continue
            low, high = sorted(members, key=lambda k: items[k].order)
            if items[low].order < items[high].order:
                safer.append(float(p[low, 0]))
                other.append(float(p[high, 0]))
        if safer:
            made[source] = pairwise_accuracy(safer, other)
    return made


def write_card(path: Path, card: ClassifierCard) -> None:
    """Indented JSON, replaced whole."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n")


def summarise_lineage(lineage: Lineage) -> dict[str, Any]:
    """What a card says of where the classifier comes from; the hashes of the prompts stand in `truing.json`."""
    return {
        "base": lineage.base,
        "base_sha256": lineage.base_sha256,
        "n_prompts": len(lineage.prompts),
        "data": lineage.data,
    }
