"""Which rows train: refusals by default, contradictions, weights, the benign share, the guard on ourselves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.train.parts import Data, item, pair, settings, source

from truing.core.errors import DataError, LineageError, PlanError
from truing.core.types import Conversation, Judgement, Lineage, Message, Response, Row, Sample
from truing.specs.resolve import resolve
from truing.train.data_mix import (
    add_benign_examples,
    benign_share,
    count_steps,
    epoch_order,
    iterate_step_rows,
    split_held_out,
)
from truing.train.examples import TrainingSet
from truing.train.harm_check import check_objective, find_harmful_objective
from truing.train.settings import TrainingSettings
from truing.train.training_data import check_no_test_overlap, read_training_set


def row(prompt: str, *answers: tuple[str, bool | None]) -> Row:
    made = [
        Response(sample_id="s", index=k, message=Message("assistant", t))
        for k, (t, _) in enumerate(answers)
    ]
    judged = [
        Judgement(sample_id="s", index=k, judge="human", question="harmful", verdict=v)
        for k, (_, v) in enumerate(answers)
        if v is not None
    ]
    return Row(
        sample=Sample(conversation=Conversation.of(prompt), id=prompt),
        responses=tuple(made),
        judgements=tuple(judged),
    )


def conf(kind: str, **more: Any) -> TrainingSettings:
    return settings(kind, "out", "base", **more)


def test_sft_refuses_pairs_and_leaves_out_what_people_called_harmful() -> None:
    pairs = Data([pair("Q", "A", "B"), pair("R", "A", "B", signs=(-1, -1), dimension="safe")])
    with pytest.raises(PlanError, match="--chosen takes their preferred answers"):
        read_training_set(pairs, "sft")
    kept = read_training_set(pairs, "sft", chosen=True)
    assert [i.answers for i in kept.items] == [("A",)] and kept.dropped == {"labelled harmful": 1}
    rows = Data(rows=[row("Q", ("fine", False), ("bad", True), (" ", None)), row("R")])
    kept = read_training_set(rows, "sft")
    assert [i.answers[0] for i in kept.items] == ["fine"]
    assert kept.dropped == {"labelled harmful": 1, "empty": 1, "without an answer": 1}
    assert len(read_training_set(rows, "sft", harmful=True).items) == 2


def test_the_hh_pairs_and_the_red_team_attempts(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUING_DATA", str(data_dir))
    with pytest.raises(PlanError, match="preference pairs, not examples to imitate"):
        read_training_set(resolve("hh,limit=20", "data"), "sft")
    from truing.datasets.dialogues import ATTEMPTS_ABOUT, BAD_ABOUT

    assert ATTEMPTS_ABOUT.red_team and BAD_ABOUT.red_team
    attempts = Data(rows=[row("Q", ("fine", None))], red_team=True)
    for kind in ("sft", "kto", "distil"):
        with pytest.raises(PlanError, match="--allow-red-team"):
            read_training_set(attempts, kind)
    assert read_training_set(attempts, "sft", allow_red_team=True).items
    assert read_training_set(resolve("pku,conflicts=drop,limit=300", "data"), "cost").items[
        0
    ].signs == (
        1,
        -1,
    )


def test_sets_to_compare_are_not_imitated() -> None:
    rows = Data(rows=[row("Q", ("fine", False))], imitate=False)
    with pytest.raises(PlanError, match="compared or judged, not to be imitated"):
        read_training_set(rows, "sft")
    assert read_training_set(rows, "sft", chosen=True).items


def test_sets_for_testing_train_nothing(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUING_DATA", str(data_dir))
    with pytest.raises(PlanError, match="--test llmbar,limit=20 measures one"):
        read_training_set(resolve("llmbar,limit=20", "data"), "reward")
    assert (
        len(read_training_set(resolve("llmbar,limit=20", "data"), "reward", testing=True).items)
        == 20
    )


def test_equal_repeated_and_contradictory_pairs_are_left_out() -> None:
    data = Data(
        [
            pair("Q", "A", "B"),
            pair("Q", "A", "B"),
            pair("R", "A", "A "),
            pair("S", "A", "B"),
            pair("S", "B", "A"),
        ]
    )
    kept = read_training_set(data, "dpo")
    assert [i.conversation.prompt for i in kept.items] == ["Q"]
    assert kept.dropped == {"repeated": 1, "equal pairs": 1, "contradictory pairs": 2}
    with pytest.raises(DataError, match="nothing left for dpo after filtering: 1 equal pairs"):
        read_training_set(Data([pair("R", "A", "A")]), "dpo")


def test_each_model_learns_its_own_dimension() -> None:
    data = Data([pair("Q", "A", "B"), pair("Q", "B", "A", dimension="safe", signs=(1, -1))])
    assert [i.answers[0] for i in read_training_set(data, "reward").items] == ["A"]
    assert [i.answers[0] for i in read_training_set(data, "cost").items] == ["B"]
    assert read_training_set(data, "reward").dropped == {"of the other dimension (safe)": 1}
    with pytest.raises(DataError, match="safer answer is labelled unsafe"):
        read_training_set(Data([pair("Q", "A", "B", dimension="safe", signs=(-1, 1))]), "cost")
    with pytest.raises(DataError, match="1 without safety signs"):
        read_training_set(Data([pair("Q", "A", "B", dimension="safe")]), "cost")


def test_kto_takes_pairs_apart_and_reads_labels() -> None:
    kept = read_training_set(Data([pair("Q", "A", "B")]), "kto").items
    assert [(i.answers, i.desirable) for i in kept] == [(("A",), True), (("B",), False)]
    kept = read_training_set(
        Data(rows=[row("Q", ("fine", False), ("bad", True), ("open", None))]), "kto"
    ).items
    assert [(i.answers[0], i.desirable) for i in kept] == [("fine", True), ("bad", False)]


def test_weights_are_shares_of_an_epoch() -> None:
    mixed = [
        source(10, spec="a"),
        source(10, spec="b", weight=2.5),
        source(10, spec="c", weight=0.3),
    ]
    drawn = Counter(epoch_order(mixed, 0, 7))
    assert [sum(n for (s, _), n in drawn.items() if s == k) for k in range(3)] == [10, 25, 3]
    assert epoch_order(mixed, 0, 7) == epoch_order(mixed, 0, 7) != epoch_order(mixed, 1, 7)
    steps = list(iterate_step_rows(mixed, conf("dpo", batch=7), 12))
    assert all(len(s) == 7 for s in steps)
    assert count_steps(mixed, conf("dpo", steps=None, batch=8, epochs=2.0)) == 10
    with pytest.raises(PlanError, match="above 0"):
        read_training_set(Data([pair("Q", "A", "B")]), "dpo", weight=0)


def test_three_in_ten_are_benign() -> None:
    cautious = [source(70, signs=(1, -1))]
    fill = source(20, spec="benign", benign=True)
    mixed = add_benign_examples(conf("dpo", benign=0.3), cautious, fill)
    assert benign_share(mixed) == pytest.approx(0.3, abs=0.005)
    with pytest.raises(PlanError, match="30% are wanted; add pairs:benign"):
        add_benign_examples(conf("dpo", benign=0.3), cautious, None)
    assert add_benign_examples(conf("dpo", benign=0.0), cautious, None) == cautious
    helpful = [source(10)]
    assert add_benign_examples(conf("reward", benign=0.3), helpful, None) == helpful
    enough = [*cautious, source(40, benign=True)]
    assert add_benign_examples(conf("cost", benign=0.3), enough, None) == enough


def test_held_out_prompts_stand_on_one_side() -> None:
    kept, held = split_held_out([source(60)], 0.3)
    left = {i.conversation.prompt for i in kept[0].items}
    right = {i.conversation.prompt for i in held}
    assert left and right and not left & right and len(left | right) == 60
    with pytest.raises(PlanError, match="too few prompts"):
        split_held_out([source(1)], 0.5)


def test_a_test_set_is_never_trained_on() -> None:
    check_no_test_overlap([source(4)], {"other": (item(9),)})
    with pytest.raises(LineageError, match="--test mine: 1 of its prompts are trained on"):
        check_no_test_overlap([source(4)], {"mine": (item(2), item(9))})


@pytest.mark.parametrize(
    ("kind", "made", "word"),
    [
        ("sft", source(3, width=1, signs=(-1, -1)), "3 target answers are labelled harmful"),
        ("dpo", source(3, signs=(-1, 1)), "3 pairs prefer the unsafe answer and 0 the safe one"),
        (
            "kto",
            source(3, width=1, signs=(-1, -1), desirable=True),
            "3 target answers are labelled harmful",
        ),
        ("cost", source(3, signs=(-1, 1)), "3 pairs prefer the unsafe answer"),
    ],
)
def test_the_guard_stops_what_raises_harm(kind: str, made: TrainingSet, word: str) -> None:
    assert word in str(find_harmful_objective(conf(kind), [made]))
    with pytest.raises(PlanError, match="--red-model REASON"):
        check_objective(conf(kind), [made], Lineage())
    mark = check_objective(conf(kind, red_model="a test of our own gate"), [made], Lineage())
    assert mark is not None and mark.startswith("a test of our own gate (") and word in mark


def test_harmless_objectives_pass_and_a_red_base_stays_red() -> None:
    for kind, made in (
        ("dpo", source(3, signs=(1, -1))),
        ("dpo", source(3)),
        ("sft", source(3, width=1, signs=(1, 1))),
        ("kto", source(3, width=1, signs=(-1, -1), desirable=False)),
    ):
        assert check_objective(conf(kind), [made], Lineage()) is None
        assert check_objective(conf(kind), [made], Lineage(red_model="was one")) == "was one"


def test_a_red_model_carries_its_mark(base: str, out: str) -> None:
    from truing.specs.resolve import resolve as find
    from truing.train.model_folder import read_model_card
    from truing.train.supervised import train_supervised

    bad = [source(4, signs=(-1, 1))]
    with pytest.raises(PlanError, match="--red-model REASON"):
        train_supervised(settings("dpo", out, base), bad)
    train_supervised(settings("dpo", out, base, red_model="to test the gate"), bad)
    card = read_model_card(out)
    assert (
        card is not None
        and card.red_model is not None
        and card.red_model.startswith("to test the gate (4 pairs")
    )
    assert '"red_model": "to test the gate' in (Path(out) / "manifest.json").read_text()
    assert find(f"local:{out},dtype=float32", "model").lineage.red_model == card.red_model
