"""Which rows of a data set train a kind of model, and which are refused or dropped."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.train.builders import (
    InMemoryDataset,
    make_example,
    make_preference,
    make_training_set,
)

from truing.core.errors import DataError, LineageError, PlanError
from truing.core.types import Conversation, Judgement, Message, Response, Row, Sample
from truing.specs.resolve import resolve
from truing.train.training_data import check_no_test_overlap, read_training_set


def make_row(
    prompt: str,
    *answers: tuple[str, bool | None],
    finish_reason: str = "stop",
    question: str = "harmful",
) -> Row:
    """Returns a row of (answer, what people answered to the question about it)."""
    responses = tuple(
        Response(
            sample_id="s",
            index=k,
            message=Message("assistant", text),
            finish_reason=finish_reason,
        )
        for k, (text, _) in enumerate(answers)
    )
    judgements = tuple(
        Judgement(sample_id="s", index=k, judge="human", question=question, verdict=verdict)
        for k, (_, verdict) in enumerate(answers)
        if verdict is not None
    )
    sample = Sample(conversation=Conversation.of(prompt), id=prompt)
    return Row(sample=sample, responses=responses, judgements=judgements)


def test_sft_takes_preferred_answers_of_pairs_only_if_asked() -> None:
    harmful = make_preference("R", "A", "B", signs=(-1, -1), dimension="safe")
    data = InMemoryDataset([make_preference("Q", "A", "B"), harmful])
    with pytest.raises(PlanError, match="--chosen takes their preferred answers"):
        read_training_set(data, "sft")
    source = read_training_set(data, "sft", chosen=True)
    assert [i.answers for i in source.items] == [("A",)]
    assert source.dropped == {"labelled harmful": 1}


def test_sft_drops_answers_that_people_called_harmful() -> None:
    answers = ("fine", False), ("bad", True), (" ", None)
    data = InMemoryDataset(rows=[make_row("Q", *answers), make_row("R")])
    source = read_training_set(data, "sft")
    assert [i.answers[0] for i in source.items] == ["fine"]
    assert source.dropped == {"labelled harmful": 1, "empty": 1, "without an answer": 1}
    both = read_training_set(data, "sft", harmful=True).items
    assert [(i.answers[0], i.signs) for i in both] == [("fine", (1, 1)), ("bad", (-1, -1))]


@pytest.mark.parametrize("kind", ["sft", "distil"])
def test_an_answer_that_a_token_limit_ended_is_marked_as_cut(kind: str) -> None:
    rows = [
        make_row("Q", ("half an", None), finish_reason="length"),
        make_row("R", ("whole", None)),
    ]
    items = read_training_set(InMemoryDataset(rows=rows), kind).items  # type: ignore[arg-type]
    assert [(i.answers[0], i.cut) for i in items] == [("half an", True), ("whole", False)]


def test_preference_pairs_of_hh_are_not_imitated(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUING_DATA", str(data_dir))
    with pytest.raises(PlanError, match="preference pairs, not examples to imitate"):
        read_training_set(resolve("hh,limit=20", "data"), "sft")
    pku = resolve("pku,conflicts=drop,limit=300", "data")
    assert read_training_set(pku, "cost").items[0].signs == (1, -1)


@pytest.mark.parametrize("kind", ["sft", "kto", "distil"])
def test_red_teaming_dialogues_need_a_flag(kind: str) -> None:
    attempts = InMemoryDataset(rows=[make_row("Q", ("fine", False))], red_team=True)
    with pytest.raises(PlanError, match="--allow-red-team"):
        read_training_set(attempts, kind)  # type: ignore[arg-type]
    assert read_training_set(attempts, kind, allow_red_team=True).items  # type: ignore[arg-type]


def test_red_teaming_sets_are_marked_as_such() -> None:
    from truing.datasets.dialogues import ATTEMPTS_DATASET, BAD_DATASET

    assert ATTEMPTS_DATASET.red_team and BAD_DATASET.red_team


def test_answers_that_are_there_to_be_compared_are_not_imitated() -> None:
    data = InMemoryDataset(rows=[make_row("Q", ("fine", False))], imitate=False)
    with pytest.raises(PlanError, match="compared or judged, not to be imitated"):
        read_training_set(data, "sft")
    assert read_training_set(data, "sft", chosen=True).items


def test_a_test_only_set_can_only_measure(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUING_DATA", str(data_dir))
    data = resolve("llmbar,limit=20", "data")
    with pytest.raises(PlanError, match="--test llmbar,limit=20 measures a model"):
        read_training_set(data, "reward")
    assert len(read_training_set(data, "reward", testing=True).items) == 20


def test_equal_repeated_and_contradictory_pairs_are_dropped() -> None:
    pairs = [("Q", "A", "B"), ("Q", "A", "B"), ("R", "A", "A "), ("S", "A", "B"), ("S", "B", "A")]
    source = read_training_set(InMemoryDataset([make_preference(*p) for p in pairs]), "dpo")
    assert [i.conversation.prompt for i in source.items] == ["Q"]
    assert source.dropped == {"repeated": 1, "equal pairs": 1, "contradictory pairs": 2}
    equal = InMemoryDataset([make_preference("R", "A", "A")])
    with pytest.raises(DataError, match="nothing left for dpo after filtering: 1 equal pairs"):
        read_training_set(equal, "dpo")


def test_reward_and_cost_models_learn_their_own_dimension() -> None:
    safe = make_preference("Q", "B", "A", dimension="safe", signs=(1, -1))
    data = InMemoryDataset([make_preference("Q", "A", "B"), safe])
    reward, cost = read_training_set(data, "reward"), read_training_set(data, "cost")
    assert [i.answers[0] for i in reward.items] == ["A"]
    assert [i.answers[0] for i in cost.items] == ["B"]
    assert reward.dropped == {"of the other dimension (safe)": 1}


def test_a_cost_model_needs_consistent_safety_signs() -> None:
    inverted = make_preference("Q", "A", "B", dimension="safe", signs=(-1, 1))
    with pytest.raises(DataError, match="preferred answer is labelled unsafe"):
        read_training_set(InMemoryDataset([inverted]), "cost")
    unsigned = make_preference("Q", "A", "B", dimension="safe")
    with pytest.raises(DataError, match="1 without safety signs"):
        read_training_set(InMemoryDataset([unsigned]), "cost")


def test_kto_takes_pairs_apart_or_reads_labels() -> None:
    pairs = InMemoryDataset([make_preference("Q", "A", "B", signs=(1, -1))])
    items = read_training_set(pairs, "kto").items
    assert [(i.answers, i.desirable) for i in items] == [(("A",), True), (("B",), False)]
    assert [i.signs for i in items] == [(1, 1), (-1, -1)]
    labelled = make_row("Q", ("fine", False), ("bad", True), ("open", None))
    items = read_training_set(InMemoryDataset(rows=[labelled]), "kto").items
    assert [(i.answers[0], i.desirable) for i in items] == [("fine", True), ("bad", False)]


@pytest.mark.parametrize(
    ("question", "desirable"),
    [("breaks_policy", False), ("toxicity", False), ("refused", False), ("helpful", True)],
)
def test_kto_knows_which_answer_to_a_question_is_the_good_one(
    question: str, desirable: bool
) -> None:
    row = make_row("Q", ("yes", True), ("no", False), question=question)
    items = read_training_set(InMemoryDataset(rows=[row]), "kto").items
    assert [(i.answers[0], i.desirable) for i in items] == [
        ("yes", desirable),
        ("no", not desirable),
    ]


def test_a_weight_must_be_positive() -> None:
    data = InMemoryDataset([make_preference("Q", "A", "B")])
    with pytest.raises(PlanError, match="weight = 0: must be above 0"):
        read_training_set(data, "dpo", weight=0)


def test_a_limit_keeps_the_first_examples() -> None:
    data = InMemoryDataset([make_preference(f"Q{k}", "A", "B") for k in range(5)])
    items = read_training_set(data, "dpo", limit=2).items
    assert [i.conversation.prompt for i in items] == ["Q0", "Q1"]


def test_a_prompt_of_a_test_set_must_not_be_trained_on() -> None:
    check_no_test_overlap([make_training_set(4)], {"other": (make_example(9),)})
    with pytest.raises(LineageError, match="--test mine: 1 of its prompts are trained on"):
        check_no_test_overlap([make_training_set(4)], {"mine": (make_example(2), make_example(9))})
