"""`card.json` of a trained classifier: its agreement with people.

The rows are those that neither trained the measured model nor chose its thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from truing.core.lineage import ancestors
from truing.core.private_files import replace_file
from truing.core.types import Lineage
from truing.judges.moderation.settings import MODERATION_QUESTIONS, ClassifierSettings
from truing.stats.agreement import cohen_kappa
from truing.stats.calibration import ece
from truing.stats.classification import (
    ClassificationScores,
    classification_scores,
    f1_score,
    pairwise_accuracy,
)
from truing.stats.intervals import Interval
from truing.train.moderation.examples import ModerationExample, ModerationTrainingSet

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

MIN_ROWS = 20  # rows below which a question is not scored
MIN_POSITIVES = 30  # positives below which a category gets only its average precision


class QuestionScores(Struct, frozen=True, kw_only=True):
    """The scores of one question on one data set."""

    scores: ClassificationScores
    kappa: Interval | None
    ece: float | None


class CardMetrics(Struct, frozen=True, kw_only=True):
    """The measured part of a card.

    `questions`, `per_category` and the F1 scores are on the home set, `sets` has every data set;
    `macro_over` are the categories that the macro F1 averages over, `pairs` the pairwise accuracy
    on pairs that people ordered, by data set.
    """

    n: int
    questions: dict[str, QuestionScores]
    per_category: dict[str, ClassificationScores]
    micro_f1: Interval | None
    macro_f1: float | None
    macro_over: tuple[str, ...]
    sets: dict[str, dict[str, QuestionScores]]
    pairs: dict[str, Interval | None]


class CardOrigin(Struct, frozen=True, kw_only=True):
    """Something that a classifier was made from, with its licence: a `base` model, a `data` set, or
    a `judge` that labelled or chose rows (or stands behind one that did).
    """

    kind: Literal["base", "data", "judge"]
    name: str
    licence: str


class ClassifierCard(Struct, frozen=True, kw_only=True):
    """`card.json`. `method` says how the figures were obtained; `CardMetrics` explains the rest.

    `origins` is all that the classifier was made from, teachers' teachers included.
    """

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
    origins: tuple[CardOrigin, ...] = ()
    notes: tuple[str, ...] = ()


def list_origins(
    lineage: Lineage, sources: Sequence[ModerationTrainingSet], base_licence: str
) -> tuple[CardOrigin, ...]:
    """Returns the base, the data sets and all judges behind a lineage, each with its licence."""
    bases = [part for part in lineage.base.split(" + ") if part]
    origins = [CardOrigin(kind="base", name=name, licence=base_licence) for name in bases]
    origins += [CardOrigin(kind="data", name=s.spec, licence=s.licence) for s in sources]
    origins += [
        CardOrigin(kind="judge", name=judge.name, licence=judge.licence)
        for judge in ancestors(lineage)
    ]
    return tuple(dict.fromkeys(origins))


def build_card(
    metrics: CardMetrics,
    settings: ClassifierSettings,
    judge_hash: str,
    home: ModerationTrainingSet,
    *,
    method: str,
    origins: tuple[CardOrigin, ...] = (),
    notes: tuple[str, ...] = (),
) -> ClassifierCard:
    """Returns the card of a classifier with these settings."""
    harmful = metrics.questions.get("harmful")
    return ClassifierCard(
        judge=settings.lineage.name,
        judge_hash=judge_hash,
        data=home.spec,
        data_hash=home.sha256,
        method=method,
        ece=harmful.ece if harmful else None,
        kappa=harmful.kappa if harmful else None,
        languages=settings.languages,
        lineage=summarise_lineage(settings.lineage),
        licence=settings.licence,
        origins=origins,
        notes=notes,
        **{name: getattr(metrics, name) for name in CardMetrics.__struct_fields__},
    )


def compute_card_metrics(
    items: Sequence[ModerationExample],
    p: Floats,
    verdicts: Flags,
    home: str,
    category_ids: Sequence[str],
) -> CardMetrics:
    """Measures probabilities and verdicts `[n, outputs]` of rows against their labels."""
    targets = np.array([item.targets for item in items], float)
    sources = np.array([item.source for item in items])
    # Rows of one prompt are not independent: intervals are computed over groups of them.
    groups = np.array([item.key for item in items])
    questions = len(MODERATION_QUESTIONS)

    sets: dict[str, dict[str, QuestionScores]] = {}
    for source in dict.fromkeys(sources.tolist()):
        for k, question in enumerate(MODERATION_QUESTIONS):
            rows = (sources == source) & _is_decided(targets[:, k])
            positives = targets[rows, k].sum()
            if rows.sum() >= MIN_ROWS and 0 < positives < rows.sum():
                sets.setdefault(source, {})[question] = _score_question(
                    p[rows, k], verdicts[rows, k], targets[rows, k] == 1, groups[rows].tolist()
                )

    is_home = sources == home
    per_category: dict[str, ClassificationScores] = {}
    for k, name in enumerate(category_ids, questions):
        rows = is_home & _is_decided(targets[:, k])
        if rows.any():
            per_category[name] = classification_scores(
                verdicts[rows, k].tolist(),
                (targets[rows, k] == 1).tolist(),
                p[rows, k].tolist(),
                groups[rows].tolist(),
            )
    macro_over = [n for n, s in per_category.items() if s.n_positive >= MIN_POSITIVES]

    decided = is_home[:, None] & _is_decided(targets)
    decided[:, :questions] = False
    micro_f1 = None
    if decided.any():
        decided_groups = np.repeat(groups[:, None], targets.shape[1], 1)[decided]
        micro_f1 = f1_score(verdicts[decided], targets[decided] == 1, decided_groups)
    f1_estimates = [f1.estimate for name in macro_over if (f1 := per_category[name].f1) is not None]
    return CardMetrics(
        n=int(is_home.sum()),
        questions=sets.get(home, {}),
        per_category={
            name: scores if name in macro_over else _without_unstable_scores(scores)
            for name, scores in per_category.items()
        },
        micro_f1=micro_f1,
        macro_f1=float(np.mean(f1_estimates)) if f1_estimates else None,
        macro_over=tuple(macro_over),
        sets=sets,
        pairs=_pairwise_accuracy_by_set(items, p),
    )


def _is_decided(targets: Floats) -> Flags:
    """Returns whether each label is 0 or 1: judged, and not split among raters."""
    return np.asarray((targets == 0) | (targets == 1))


def _score_question(p: Floats, verdicts: Flags, y: Flags, groups: list[str]) -> QuestionScores:
    verdict_list, label_list = verdicts.tolist(), y.tolist()
    # Kappa is undefined where verdicts and labels are all the same.
    is_mixed = len(set(verdict_list)) > 1 or len(set(label_list)) > 1
    return QuestionScores(
        scores=classification_scores(verdict_list, label_list, p.tolist(), groups),
        kappa=cohen_kappa(verdict_list, label_list, groups) if is_mixed else None,
        ece=ece(p, y) if len(y) >= MIN_POSITIVES else None,
    )


def _without_unstable_scores(scores: ClassificationScores) -> ClassificationScores:
    """Drops what a few positives cannot tell; the average precision stays, with its interval."""
    return msgspec.structs.replace(scores, precision=None, recall=None, specificity=None, f1=None)


def _pairwise_accuracy_by_set(
    items: Sequence[ModerationExample], p: Floats
) -> dict[str, Interval | None]:
    by_set: dict[str, dict[str, list[int]]] = {}
    for index, example in enumerate(items):
        is_ordered = example.order == example.order  # not NaN
        if example.pair is not None and is_ordered:
            by_set.setdefault(example.source, {}).setdefault(example.pair, []).append(index)
    accuracy: dict[str, Interval | None] = {}
    for source, pairs in by_set.items():
        better, worse = [], []
        for members in pairs.values():
            if len(members) != 2:
                continue
            low, high = sorted(members, key=lambda index: items[index].order)
            if items[low].order < items[high].order:
                better.append(float(p[low, 0]))
                worse.append(float(p[high, 0]))
        if better:
            accuracy[source] = pairwise_accuracy(better, worse)
    return accuracy


def write_card(path: Path, card: ClassifierCard) -> None:
    """Writes a card as indented JSON; the file is replaced as a whole."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n")


def summarise_lineage(lineage: Lineage) -> dict[str, Any]:
    """Returns the lineage for a card; the hashes of the prompts are in `truing.json` only."""
    return {
        "base": lineage.base,
        "base_sha256": lineage.base_sha256,
        "n_prompts": len(lineage.prompts),
        "data": lineage.data,
    }
