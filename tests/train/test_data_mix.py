"""The mix of training sets: weights, benign share, held-out prompts, rows that are dropped."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tests.models.local.conftest import tokenizer
from tests.train.builders import make_example, make_settings, make_training_set

from truing.core.errors import DataError, PlanError
from truing.train.batches import ExampleEncoder
from truing.train.data_mix import (
    EncodedMix,
    add_benign_examples,
    benign_share,
    count_steps,
    epoch_order,
    iterate_step_rows,
    split_held_out,
)
from truing.train.examples import TrainingSet
from truing.train.settings import TrainingSettings


def settings(kind: str, **fields: Any) -> TrainingSettings:
    return make_settings(kind, "out", "base", **fields)


def test_a_weight_is_how_often_each_row_is_drawn_in_an_epoch() -> None:
    sources = [
        make_training_set(10, spec="a"),
        make_training_set(10, spec="b", weight=2.5),
        make_training_set(10, spec="c", weight=0.3),
    ]
    drawn = Counter(epoch_order(sources, 0, 7))
    by_source = [sum(n for (s, _), n in drawn.items() if s == k) for k in range(3)]
    assert by_source == [10, 25, 3]
    assert epoch_order(sources, 0, 7) == epoch_order(sources, 0, 7)
    assert epoch_order(sources, 0, 7) != epoch_order(sources, 1, 7)
    with pytest.raises(PlanError, match="no row in an epoch"):
        epoch_order([make_training_set(1, weight=0.4)], 0, 7)


def test_every_step_has_a_whole_batch() -> None:
    sources = [make_training_set(10), make_training_set(10, weight=2.8)]
    steps = list(iterate_step_rows(sources, settings("dpo", batch=7), 12))
    assert len(steps) == 12 and all(len(rows) == 7 for rows in steps)
    # 38 rows an epoch, 76 in two, 8 a step.
    assert count_steps(sources, settings("dpo", steps=None, batch=8, epochs=2.0)) == 10
    assert count_steps(sources, settings("dpo", steps=3)) == 3


def test_a_mix_that_teaches_caution_is_topped_up_with_benign_examples() -> None:
    cautious = [make_training_set(70, signs=(1, -1))]
    fill = make_training_set(20, spec="benign", benign=True)
    mixed = add_benign_examples(settings("dpo", benign=0.3), cautious, fill)
    assert benign_share(mixed) == pytest.approx(0.3, abs=0.005)
    with pytest.raises(PlanError, match="30% are required; add pairs:benign"):
        add_benign_examples(settings("dpo", benign=0.3), cautious, None)


def test_a_mix_is_left_alone_where_no_benign_examples_are_needed() -> None:
    cautious = make_training_set(70, signs=(1, -1))
    assert add_benign_examples(settings("dpo", benign=0.0), [cautious], None) == [cautious]
    helpful = [make_training_set(10)]
    assert add_benign_examples(settings("reward", benign=0.3), helpful, None) == helpful
    enough = [cautious, make_training_set(40, benign=True)]
    assert add_benign_examples(settings("cost", benign=0.3), enough, None) == enough


def test_no_prompt_is_both_held_out_and_trained_on() -> None:
    (remaining,), held_out = split_held_out([make_training_set(60)], 0.3)
    trained = {i.conversation.prompt for i in remaining.items}
    tested = {i.conversation.prompt for i in held_out}
    assert trained and tested and not trained & tested and len(trained | tested) == 60
    with pytest.raises(PlanError, match="too few prompts"):
        split_held_out([make_training_set(1)], 0.5)


def encoder(**fields: Any) -> ExampleEncoder:
    return ExampleEncoder(tokenizer(), settings("dpo", **fields))


def test_benign_rows_that_are_too_long_are_made_up_for_by_the_others() -> None:
    items = [make_example(k, benign=True) for k in range(3)]
    items.append(make_example(3, benign=True, answers=("word " * 300, "no")))
    mix = EncodedMix([TrainingSet(spec="b", sha256="1", items=tuple(items))], encoder())
    (source,) = mix.sources
    assert len(source.items) == 3 and source.weight == pytest.approx(4 / 3)
    assert source.dropped == {"answer longer than max_length": 1}


def test_a_set_without_usable_rows_is_refused_with_the_reasons() -> None:
    equal = TrainingSet(spec="same", sha256="1", items=(make_example(0, answers=("yes", "yes")),))
    with pytest.raises(DataError, match="same: nothing left after filtering: 1 equal as tokens"):
        EncodedMix([equal], encoder())


def test_the_rows_of_a_step_are_sorted_by_length() -> None:
    mix = EncodedMix([make_training_set(6)], encoder())
    rows = mix.step_rows([(0, k) for k in range(6)])
    lengths = [len(row.token_ids()) for row in rows]
    assert lengths == sorted(lengths, reverse=True)
    assert {row.item.name for row in rows} == {f"pairs#{k}" for k in range(6)}
    assert len(mix.all_rows()) == 6
