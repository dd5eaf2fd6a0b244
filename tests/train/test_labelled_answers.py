"""Which labels of answers train a probe."""

from __future__ import annotations

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


def labels_of(*verdicts: tuple[str, str, bool | None]) -> dict[str, bool]:
    return read_labelled_answers(MemoryDataset([make_row(*verdicts)])).items[0].labels


def test_readers_count_in_place_of_judges() -> None:
    assert labels_of(
        ("rules:refusal", "refused", True),
        ("moderation:default", "harmful", True),
        ("llm:rubric", "harmful", True),
        ("ai:reader", "harmful", False),
        ("human:ann", "helpful", True),
    ) == {"refused": True, "harmful": False, "helpful": True}


def test_the_majority_counts_and_an_even_vote_is_no_label() -> None:
    assert labels_of(
        ("human:a", "harmful", True),
        ("human:b", "harmful", False),
        ("human:c", "harmful", True),
        ("human:a", "helpful", True),
        ("human:b", "helpful", False),
        ("human:c", "helpful", None),
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
    assert read.questions() == {"harmful"}
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
