"""What is known of a judge: agreement with people and calibration, from a card that was given or that ships with it."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

import msgspec
from msgspec import Struct

from truing.analysis.judge_card import JudgeCard
from truing.runs.folder import JudgeRecord
from truing.stats.calibration import ReliabilityBin
from truing.stats.intervals import Interval


class JudgeFacts(Struct, frozen=True, kw_only=True):
    """A judge on one question, on the labelled rows of `data`; `bins` (if the card has them) are its reliability diagram."""

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


class _Scores(Struct, frozen=True):
    n: int
    recall: Interval | None = None
    specificity: Interval | None = None
    auroc: Interval | None = None


class _Question(Struct, frozen=True):
    scores: _Scores
    kappa: Interval | None = None
    ece: float | None = None


class _Shipped(Struct, frozen=True):
    """The card that training wrote beside a classifier's weights."""

    judge_hash: str
    data: str
    questions: dict[str, _Question]
    method: str = ""


def facts_from_card(card: JudgeCard) -> list[JudgeFacts]:
    """What a card says; nothing of one that compares with another question's labels."""
    if card.against and card.against not in card.questions:
        return []
    return [
        JudgeFacts(
            judge=card.judge,
            question=question,
            data=card.data,
            n=q.n,
            sensitivity=q.sensitivity,
            specificity=q.specificity,
            auroc=q.auroc,
            kappa=q.kappa,
            ece=q.ece,
            bins=q.reliability,
        )
        for question, q in card.questions.items()
    ]


def shipped_card_facts(record: JudgeRecord) -> list[JudgeFacts]:
    """What the card beside a shipped classifier says, if the run used that very version; else nothing."""
    name = record.name.removeprefix("moderation:").split(",", 1)[0]
    path = files("truing") / "resources" / "weights" / "moderation" / name / "card.json"
    if not record.name.startswith("moderation:") or not name.isidentifier() or not path.is_file():
        return []
    try:
        card = msgspec.json.decode(path.read_bytes(), type=_Shipped)
    except msgspec.DecodeError:  # of another version of truing: nothing is known then
        return []
    if card.judge_hash != record.lineage.hash:
        return []
    return [
        JudgeFacts(
            judge=record.name,
            question=question,
            data=card.data,
            n=q.scores.n,
            sensitivity=q.scores.recall,
            specificity=q.scores.specificity,
            auroc=q.scores.auroc,
            kappa=q.kappa,
            ece=q.ece,
            method=card.method,
        )
        for question, q in card.questions.items()
        if question == record.question
    ]


def collect_judge_facts(
    records: Iterable[JudgeRecord], given: Iterable[JudgeFacts]
) -> list[JudgeFacts]:
    """Facts of the judges of some runs, each judge and question once; a card that was given comes before a shipped one."""
    found = {(f.judge, f.question): f for f in given}
    out: dict[tuple[str, str], JudgeFacts] = {}
    for record in records:
        key = (record.name, record.question)
        if key not in out:
            of = [found[key]] if key in found else shipped_card_facts(record)
            out.update({(f.judge, f.question): f for f in of})
    return list(out.values())
