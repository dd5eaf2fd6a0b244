"""No training learns the frozen measurement set, unless it is told to; then the lineage says so."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.train.builders import InMemoryDataset, make_preference

from truing.core.errors import DataError, PlanError
from truing.core.measurement_set import is_frozen
from truing.core.taxonomy import load_taxonomy
from truing.core.types import Conversation, Judgement, Message, Response, Row, Sample
from truing.specs.resolve import resolve
from truing.train.frozen_prompts import FROZEN_REASON, TrainableRows, read_trainable_samples
from truing.train.training_data import read_training_set

REPORT = [row.sample.prompt for row in resolve("builtin:safety,half=report", "data").rows()]
FREE = [row.sample.prompt for row in resolve("builtin:safety,half=train", "data").rows()]
PROMPTS = st.lists(st.sampled_from(REPORT + FREE), min_size=1, max_size=12, unique=True)


def make_row(prompt: str, before: Sequence[Message] = ()) -> Row:
    """Returns a labelled answer to a prompt, after earlier turns."""
    conversation = Conversation((*before, Message("user", prompt)))
    return Row(
        sample=Sample(conversation=conversation, id=prompt, source="memory"),
        responses=(Response(sample_id=prompt, message=Message("assistant", "Turn it slowly.")),),
        judgements=(
            Judgement(sample_id=prompt, judge="human:x", question="harmful", verdict=False),
        ),
    )


@given(PROMPTS, st.booleans())
def test_rows_and_pairs_with_a_frozen_prompt_are_left_out_and_counted(
    prompts: list[str], allow: bool
) -> None:
    data = InMemoryDataset(
        pairs=[make_preference(p, "A", "B") for p in prompts], rows=[make_row(p) for p in prompts]
    )
    trainable = TrainableRows(data, allow=allow)
    frozen = sum(map(is_frozen, prompts))
    for _ in range(2):  # a second reading counts anew
        read_rows = [row.sample.prompt for row in trainable.rows()]
        read_pairs = [pair.conversation.prompt for pair in trainable.preferences()]
    kept = [p for p in prompts if allow or not is_frozen(p)]
    assert read_rows == read_pairs == kept
    assert (trainable.n_left_out, trainable.n_kept) == (
        (0, 2 * frozen) if allow else (2 * frozen, 0)
    )


def test_a_frozen_prompt_in_an_earlier_turn_counts() -> None:
    earlier = (Message("user", REPORT[0]), Message("assistant", "No."))
    data = InMemoryDataset(rows=[make_row("And in summer?", earlier), make_row("And in winter?")])
    assert [row.sample.prompt for row in TrainableRows(data).rows()] == ["And in winter?"]


@pytest.mark.parametrize("kind", ["sft", "distil", "reward", "cost", "dpo", "kto"])
def test_every_supervised_kind_drops_them(kind, caplog: pytest.LogCaptureFixture) -> None:
    pairs = [
        make_preference(p, "A", "B", signs=(1, -1), dimension="safe")
        for p in (REPORT[0], FREE[0], FREE[1])
    ]
    rows = [make_row(p) for p in (REPORT[0], FREE[0], FREE[1])]
    uses_rows = kind in ("sft", "distil")
    data = InMemoryDataset(rows=rows) if uses_rows else InMemoryDataset(pairs)
    with caplog.at_level(logging.WARNING, "truing.train"):
        source = read_training_set(data, kind)
    assert {i.conversation.prompt for i in source.items} == set(FREE[:2])
    assert source.dropped[FROZEN_REASON] == 1 and source.n_frozen == 0
    assert "1 rows of the frozen measurement set are left out" in caplog.text
    assert "--allow-measurement-prompts" in caplog.text

    allowed = read_training_set(TrainableRows(data, allow=True), kind)
    assert len(allowed.items) > len(source.items)
    assert FROZEN_REASON not in allowed.dropped and allowed.n_frozen == 1


def test_nothing_is_left_of_a_set_that_is_frozen_as_a_whole() -> None:
    data = InMemoryDataset(rows=[make_row(p) for p in REPORT[:3]])
    with pytest.raises(DataError, match=f"3 {FROZEN_REASON}"):
        read_training_set(data, "sft")


def test_measuring_a_reward_model_on_them_is_no_training() -> None:
    pairs = InMemoryDataset([make_preference(p, "A", "B") for p in REPORT[:3]])
    source = read_training_set(pairs, "reward", testing=True)
    assert len(source.items) == 3 and source.n_frozen == 0


def test_moderation_training_drops_them() -> None:
    from truing.train.moderation.examples import read_moderation_set

    categories = load_taxonomy().ids
    data = InMemoryDataset(rows=[make_row(p) for p in (*REPORT[:2], FREE[0])])
    source = read_moderation_set(data, categories, weight=1.0)
    assert len(source.items) == 1 and (source.frozen_left_out, source.n_frozen) == (2, 0)
    allowed = read_moderation_set(data, categories, weight=1.0, allow_frozen=True)
    assert len(allowed.items) == 3 and (allowed.frozen_left_out, allowed.n_frozen) == (0, 2)
    # A run on the one is no run on the other: neither resumes the other.
    assert source.identity != allowed.identity == data.sha256()
    only_frozen = InMemoryDataset(rows=[make_row(p) for p in REPORT[:2]])
    with pytest.raises(PlanError, match="2 rows of the frozen measurement set are left out"):
        read_moderation_set(only_frozen, categories, weight=1.0)


def test_reinforcement_learning_drops_them() -> None:
    data = InMemoryDataset(rows=[make_row(p) for p in (REPORT[0], *FREE[:3])])
    assert [s.prompt for s in read_trainable_samples([data], allow_frozen=False)] == FREE[:3]
    assert len(read_trainable_samples([data], allow_frozen=True)) == 4
    with pytest.raises(DataError, match="no prompts are left"):
        read_trainable_samples([InMemoryDataset(rows=[make_row(REPORT[0])])], allow_frozen=False)
