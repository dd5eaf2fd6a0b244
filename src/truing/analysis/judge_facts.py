"""What is known about the judges of some runs: error rates and calibration, from judge cards.

A card may be given by the user, or ship with a classifier's weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from truing.analysis.card_files import ShippedCard, read_card
from truing.analysis.judge_card import JudgeCard
from truing.judges.shipped_classifiers import find_version_file
from truing.runs.folder import JudgeRecord
from truing.stats.calibration import ReliabilityBin
from truing.stats.intervals import Interval


class JudgeFacts(Struct, frozen=True, kw_only=True):
    """A judge on one question, measured on the `n` labelled rows of `data`.

    `bins` is its reliability diagram, empty if the card has none.
    """

    judge: str
    question: str
    data: str
    n: int
    sensitivity: Interval | None = None
    specificity: Interval | None = None
    auroc: Interval | None = None
    kappa: Interval | None = None
    ece: float | None = None
    bins: tuple[ReliabilityBin, ...] = ()
    method: str = ""


def facts_from_card(card: JudgeCard) -> list[JudgeFacts]:
    """Returns the facts of a card, one for each question.

    Empty for a card that compares with labels of another question: it says nothing about the
    judge's own.
    """
    if card.against and card.against not in card.questions:
        return []
    return [
        JudgeFacts(
            judge=card.judge,
            question=name,
            data=card.data,
            n=question.n,
            sensitivity=question.sensitivity,
            specificity=question.specificity,
            auroc=question.auroc,
            kappa=question.kappa,
            ece=question.ece,
            bins=question.reliability,
        )
        for name, question in card.questions.items()
    ]


def shipped_card_facts(record: JudgeRecord) -> list[JudgeFacts]:
    """Returns the facts of the card that ships with a classifier.

    Empty for other judges, and if the run used another version of the classifier.
    """
    if not record.name.startswith("moderation:"):
        return []
    if "threshold=" in record.name:  # the card holds for the fitted threshold
        return []
    # By the hash: error rates hold for one version of the weights, whatever its name was then.
    path = find_version_file(record.lineage.hash, "card.json")
    if path is None:
        return []
    try:
        card = msgspec.json.decode(path.read_bytes(), type=ShippedCard)
    except msgspec.DecodeError:  # written by another version of truing
        return []
    question = card.questions.get(record.question)
    if question is None:
        return []
    return [
        JudgeFacts(
            judge=record.name,
            question=record.question,
            data=card.data,
            n=question.scores.n,
            sensitivity=question.scores.recall,
            specificity=question.scores.specificity,
            auroc=question.scores.auroc,
            kappa=question.kappa,
            ece=question.ece,
            method=card.method,
        )
    ]


def facts_of_judge(record: JudgeRecord, cards: Mapping[str, Path]) -> JudgeFacts | None:
    """Returns what is known of a judge on its question, from a given card or from a shipped one.

    `cards`: judge -> card.json. None if there is neither.
    """
    if record.name in cards:
        facts = facts_from_card(read_card(cards[record.name]))
    else:
        facts = shipped_card_facts(record)
    return next((f for f in facts if f.question == record.question), None)


def collect_judge_facts(
    records: Iterable[JudgeRecord], from_cards: Iterable[JudgeFacts]
) -> list[JudgeFacts]:
    """Returns the facts of the judges of some runs, each judge and question once.

    A card given by the user (`from_cards`) takes precedence over a shipped one.
    """
    by_user = {(facts.judge, facts.question): facts for facts in from_cards}
    collected: dict[tuple[str, str], JudgeFacts] = {}
    for record in records:
        key = (record.name, record.question)
        if key in collected:
            continue
        for facts in [by_user[key]] if key in by_user else shipped_card_facts(record):
            collected[(facts.judge, facts.question)] = facts
    return list(collected.values())
