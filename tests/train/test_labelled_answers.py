"""Which labels of answers train a probe."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.model_stand_ins import MemoryDataset

from truing.core.errors import DataError, PlanError
from truing.core.measurement_set import load_measurement_set
from truing.core.types import (
    Conversation,
    DataInfo,
    Failure,
    Judgement,
    Message,
    Response,
    Row,
    Sample,
)
from truing.specs.resolve import resolve
from truing.train.frozen_prompts import FROZEN_REASON
from truing.train.labelled_answers import read_labelled_answers


def make_row(
    *verdicts: tuple[str, str, bool | None], text: str = "Slowly.", **fields: object
) -> Row:
    """Returns a row with one answer and judgements (judge, question, verdict) of it."""
    sample = Sample(conversation=Conversation.of("How do I true a wheel?"), id="s")
    response = Response(sample_id="s", index=0, model="m", message=Message("assistant", text))
    response = msgspec.structs.replace(response, **fields)
    judgements = [
        Judgement(sample_id="s", judge=judge, question=question, verdict=verdict)
        for judge, question, verdict in verdicts
    ]
    return Row(sample=sample, responses=(response,), judgements=tuple(judgements))


def labels_of(*verdicts: tuple[str, str, bool | None], **options: Any) -> dict[str, bool]:
    return read_labelled_answers(MemoryDataset([make_row(*verdicts)]), **options).items[0].labels


def test_raters_alone_count_unless_a_judge_is_named() -> None:
    verdicts = [
        ("rules:refusal", "refused", True),
        ("moderation:default", "harmful", True),
        ("ai:one", "harmful", False),
        ("human:ann", "helpful", True),
    ]
    assert labels_of(*verdicts) == {"harmful": False, "helpful": True}
    # A named judge counts where no rater says anything.
    read = read_labelled_answers(
        MemoryDataset([make_row(*verdicts)]), by=("rules:refusal", "moderation:default")
    )
    assert read.items[0].labels == {"refused": True, "harmful": False, "helpful": True}
    assert read.labels_by_judges == {"refused": 1}


def test_the_lineage_has_the_judges_whose_verdicts_are_labels() -> None:
    row = make_row(("rules:refusal", "refused", True), ("human:a", "harmful", True))
    read = read_labelled_answers(MemoryDataset([row]), by=("rules:refusal", "rules:never"))
    # A data set that knows no lineages has the judge's name at least.
    assert [judge.name for judge in read.judges] == ["rules:refusal"]
    assert read.judges[0].hash
    assert read.judge_names == ("human:a", "rules:refusal")
    failure = Failure("judge", "timeout", "late")
    failed = msgspec.structs.replace(row.judgements[0], failure=failure)
    row = msgspec.structs.replace(row, judgements=(failed, row.judgements[1]))
    read = read_labelled_answers(MemoryDataset([row]), by=("rules:refusal",))
    assert read.judges == () and read.labels_by_judges == {}


def test_votes_beside_a_run_hold_those_of_people_in_it() -> None:
    verdict = ("human:a", "harmful", True)
    for votes, expected in (
        ([True, True, False], {"harmful": True}),
        ([False], {"harmful": False}),
        ([True, False], {}),  # a tie, whatever stands in the run
        ([None], {}),  # withdrawn
    ):
        beside = {("s", 0): {"harmful": votes, "helpful": [True]}, ("other", 0): {"odd": [True]}}
        assert labels_of(verdict, rater_votes=beside) == {**expected, "helpful": True}
    # Models that read as people do are counted with them.
    beside = {("s", 0): {"harmful": [False]}}
    models = [("ai:x", "harmful", True), ("ai:y", "harmful", True)]
    assert labels_of(*models, rater_votes=beside) == {"harmful": True}


def test_raters_who_do_not_agree_leave_nothing_to_a_judge() -> None:
    verdicts = [
        ("human:a", "harmful", True),
        ("human:b", "harmful", False),
        ("mod", "harmful", True),
        ("human:a", "helpful", True),
    ]
    assert labels_of(*verdicts, by=("mod",)) == {"helpful": True}


def test_the_majority_of_the_newest_labels_counts_and_a_tie_is_no_label() -> None:
    assert labels_of(
        ("human:a", "harmful", False),
        ("human:a", "harmful", True),
        ("human:b", "harmful", False),
        ("human:c", "harmful", True),
        ("human:a", "helpful", True),
        ("human:b", "helpful", False),
        ("human:c", "helpful", None),
        ("human:a", "refused", True),
        ("human:a", "refused", None),  # could not tell after all
    ) == {"harmful": True}


def test_labels_are_of_their_own_answer() -> None:
    row = make_row(("human:a", "harmful", True))
    second = msgspec.structs.replace(row.responses[0], index=1, finish_reason="length")
    other = msgspec.structs.replace(row.judgements[0], index=1, verdict=False)
    row = Row(
        sample=row.sample, responses=(*row.responses, second), judgements=(*row.judgements, other)
    )
    read = read_labelled_answers(MemoryDataset([row]))
    assert [(item.labels["harmful"], item.is_cut) for item in read.items] == [
        (True, False),
        (False, True),
    ]
    assert len(read_labelled_answers(MemoryDataset([row]), limit=1).items) == 1


def test_what_is_dropped_is_counted() -> None:
    failure = Failure("model", "timeout", "no answer")
    rows = [
        make_row(("human:a", "harmful", True)),
        make_row(("human:a", "harmful", True), text="  "),
        make_row(("human:a", "harmful", True), failure=failure),
        make_row(("human:a", "harmful", None)),
        make_row(),
    ]
    read = read_labelled_answers(MemoryDataset(rows))
    assert len(read.items) == 1
    assert read.dropped == {"empty or failed": 2, "without a label": 2}


def test_without_labels_it_says_how_to_get_some() -> None:
    with pytest.raises(DataError, match="no labelled answers: 1 without a label.*truing label"):
        read_labelled_answers(MemoryDataset([make_row()]))
    judged = make_row(("rules:refusal", "refused", True))
    with pytest.raises(DataError, match="--by NAME takes the verdicts of a judge: rules:refusal"):
        read_labelled_answers(MemoryDataset([judged]))
    with pytest.raises(DataError, match="it has no answers"):
        read_labelled_answers(MemoryDataset([]))


def test_red_team_data_needs_permission() -> None:
    class RedTeam(MemoryDataset):
        @property
        def info(self) -> DataInfo:
            return msgspec.structs.replace(super().info, red_team=True)

    data = RedTeam([make_row(("human:a", "harmful", True))])
    with pytest.raises(PlanError, match="--allow-red-team"):
        read_labelled_answers(data)
    assert len(read_labelled_answers(data, allow_red_team=True).items) == 1


def test_the_frozen_measurement_set_is_left_out() -> None:
    assert load_measurement_set()
    prompt = next(iter(resolve("builtin:safety,half=report", "data").rows())).sample.conversation
    kept = make_row(("human:a", "harmful", True))
    frozen = msgspec.structs.replace(
        kept, sample=msgspec.structs.replace(kept.sample, conversation=prompt)
    )
    read = read_labelled_answers(MemoryDataset([kept, frozen]))
    assert read.dropped == {FROZEN_REASON: 1}
