"""Reads answers with their labels, question by question, for training probes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from msgspec import Struct, field

from truing.core.errors import DataError
from truing.core.protocols import Dataset
from truing.core.types import Conversation, Judgement, Lineage
from truing.train.frozen_prompts import FROZEN_REASON, TrainableRows
from truing.train.harm_check import check_training_data

_READERS = ("human:", "ai:")


class LabelledAnswer(Struct, frozen=True, kw_only=True):
    """An answer and what is said of it; `is_cut` marks one that a token limit ended."""

    conversation: Conversation
    text: str
    is_cut: bool
    labels: dict[str, bool]


class LabelledAnswers(Struct, frozen=True, kw_only=True):
    """The labelled answers of one data set, and how many were dropped and why."""

    spec: str
    sha256: str
    items: tuple[LabelledAnswer, ...]
    licence: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    judges: tuple[Lineage, ...] = ()

    def questions(self) -> set[str]:
        """Returns the questions that some answer has a label for."""
        return {question for item in self.items for question in item.labels}


def read_labelled_answers(
    data: Dataset,
    *,
    limit: int | None = None,
    allow_red_team: bool = False,
) -> LabelledAnswers:
    """Reads the answers of a data set that have a label; `limit` keeps the first.

    Labels of readers, `human:NAME` and `ai:NAME`, count in place of verdicts of other judges on the
    same answer and question; among several the majority counts, and an even vote is no label. Rows
    of the frozen measurement set are left out unless `TrainableRows(data, allow=True)` is given.
    Raises PlanError for data that must not train, and DataError if nothing is left.
    """
    check_training_data(data.info, allow_red_team=allow_red_team)
    trainable = data if isinstance(data, TrainableRows) else TrainableRows(data)
    dropped: Counter[str] = Counter()
    items: list[LabelledAnswer] = []
    for row in trainable.rows():
        for response in row.responses:
            if limit is not None and len(items) >= limit:
                break
            of_answer = [j for j in row.judgements if j.index == response.index]
            labels = _count_votes(of_answer)
            if response.failure is not None or not response.text.strip():
                dropped["empty or failed"] += 1
            elif not labels:
                dropped["without a label"] += 1
            else:
                items.append(
                    LabelledAnswer(
                        conversation=row.sample.conversation,
                        text=response.text,
                        is_cut=response.finish_reason == "length",
                        labels=labels,
                    )
                )
    if trainable.n_left_out:
        dropped[FROZEN_REASON] = trainable.n_left_out
    if not items:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
        raise DataError(
            f"{data.info.spec}: no labelled answers: {reasons or 'it has no answers'}. "
            "`truing label` and `truing judge` add labels to a run"
        )
    trainable.log_frozen_rows()
    return LabelledAnswers(
        spec=data.info.spec,
        sha256=data.sha256(),
        items=tuple(items),
        licence=data.info.licence,
        dropped=dict(dropped),
        judges=trainable.judges,
    )


def _count_votes(judgements: Iterable[Judgement]) -> dict[str, bool]:
    """Returns the label of each question that the judgements of one answer decide."""
    votes: dict[str, dict[bool, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for judgement in judgements:
        if judgement.verdict is not None and judgement.failure is None:
            is_reader = judgement.judge.startswith(_READERS)
            votes[judgement.question][is_reader].append(judgement.verdict)
    labels: dict[str, bool] = {}
    for question, by_kind in votes.items():
        counted = by_kind[True] or by_kind[False]
        if 2 * sum(counted) != len(counted):
            labels[question] = 2 * sum(counted) > len(counted)
    return labels
