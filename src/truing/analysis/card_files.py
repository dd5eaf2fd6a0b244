"""Reading and writing of card.json: those of `truing card`, and those that ship with weights."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from truing.analysis.judge_card import CardLineage, JudgeCard, QuestionCard
from truing.core.errors import DataError
from truing.core.input_files import read_input_bytes
from truing.core.private_files import create_folder, replace_file
from truing.stats.classification import ClassificationScores
from truing.stats.intervals import Interval


class ShippedQuestion(Struct, frozen=True):
    """One question of a shipped card; its scores stand one level deeper than in other cards."""

    scores: ClassificationScores
    kappa: Interval | None = None
    ece: float | None = None


class ShippedCard(Struct, frozen=True):
    """The card that the training of a classifier wrote beside its weights."""

    judge: str
    judge_hash: str
    data: str
    questions: dict[str, ShippedQuestion]
    data_hash: str = ""
    n: int = 0
    method: str = ""
    lineage: CardLineage = CardLineage()
    licence: str = ""


def write_card(card: JudgeCard, path: Path) -> None:
    """Writes a card as JSON, whole or not at all."""
    create_folder(path.parent)
    replace_file(path, msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n")


def read_card(path: str | Path) -> JudgeCard:
    """Reads a card of either form. Raises DataError if the file cannot be read or is no card."""
    try:
        data = read_input_bytes(path)
        try:
            return msgspec.json.decode(data, type=JudgeCard)
        except msgspec.DecodeError as error:
            try:
                shipped = msgspec.json.decode(data, type=ShippedCard)
            except msgspec.DecodeError:
                raise error from None  # the form of `truing card` is the one to mend
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(f"{path}: no judge's card: {error}") from error
    return _from_shipped(shipped)


def _from_shipped(card: ShippedCard) -> JudgeCard:
    questions = {name: _question_card(question) for name, question in card.questions.items()}
    only = next(iter(questions.values()), None) if len(questions) == 1 else None
    return JudgeCard(
        judge=card.judge,
        judge_hash=card.judge_hash,
        data=card.data,
        data_hash=card.data_hash,
        n=card.n,
        questions=questions,
        per_category={},
        ece=only.ece if only else None,
        kappa=only.kappa if only else None,
        lineage=card.lineage,
        licence=card.licence,
    )


def _question_card(question: ShippedQuestion) -> QuestionCard:
    scores = question.scores
    return QuestionCard(
        n=scores.n,
        n_positive=scores.n_positive,
        unscored=0,
        sensitivity=scores.recall,
        specificity=scores.specificity,
        precision=scores.precision,
        f1=scores.f1,
        auroc=scores.auroc,
        ap=scores.ap,
        kappa=question.kappa,
        ece=question.ece,
    )
