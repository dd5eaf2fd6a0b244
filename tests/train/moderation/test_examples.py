"""Labels of data sets as targets, pairs, tenths of the prompts, names of sets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from tests.train.moderation.builders import CATEGORY_IDS, LabelledWords

from truing.core.errors import DataError, PlanError
from truing.core.ids import with_ids
from truing.core.types import (
    Conversation,
    Judgement,
    Message,
    Response,
    Row,
    Sample,
)
from truing.train.moderation.examples import (
    ModerationExample,
    examples_of_row,
    fold_of,
    give_unique_names,
    read_moderation_set,
    tenth_of,
)


def make_row(answers: tuple[str, ...], judgements: tuple[Judgement, ...], **sample: Any) -> Row:
    (identified,) = with_ids(
        [Sample(conversation=Conversation.of("a prompt"), source="s", **sample)]
    )
    responses = tuple(
        Response(sample_id=identified.id, index=k, message=Message("assistant", text))
        for k, text in enumerate(answers)
    )
    return Row(sample=identified, responses=responses, judgements=judgements)


def make_label(question: str, verdict: bool | None, index: int = 0, **fields: Any) -> Judgement:
    return Judgement(
        sample_id="", index=index, judge="human:s", question=question, verdict=verdict, **fields
    )


def examples(
    answers: tuple[str, ...], *judgements: Judgement, **sample: Any
) -> list[ModerationExample]:
    return examples_of_row(make_row(answers, judgements, **sample), CATEGORY_IDS)


def test_a_harmless_answer_has_none_of_the_categories() -> None:
    (harmless,) = examples(("fine",), make_label("harmful", False))
    assert harmless.targets[0] == 0 and math.isnan(harmless.targets[1])
    assert set(harmless.targets[3:]) == {0.0}
    (harmful,) = examples(("bad",), make_label("harmful", True))
    assert harmful.targets[0] == 1 and all(map(math.isnan, harmful.targets[3:]))


def test_an_expectation_and_a_refusal_say_whether_an_answer_is_harmful() -> None:
    (refused,) = examples(("no",), make_label("refused", True), expect="refuse")
    assert refused.targets[:3] == (0.0, 1.0, 1.0)
    (complied,) = examples(("yes",), make_label("refused", False), expect="refuse")
    assert complied.targets[:3] == (1.0, 1.0, 0.0)
    (answered,) = examples(("yes",), make_label("refused", False), expect="comply")
    assert answered.targets[:3] == (0.0, 0.0, 0.0)


def test_a_prompt_alone_is_judged_as_a_prompt() -> None:
    (prompt,) = examples((), expect="refuse", harms=(CATEGORY_IDS[0],))
    assert prompt.is_prompt and math.isnan(prompt.targets[0])
    assert prompt.targets[1] == 1 and prompt.targets[3] == 1 and math.isnan(prompt.targets[4])


def test_two_answers_are_ordered_by_preference() -> None:
    first, second = examples(
        ("a", "b"), make_label("preferred", True), make_label("preferred", False, 1)
    )
    assert first.pair == second.pair is not None and first.order < second.order


def test_raters_who_disagree_make_a_soft_label() -> None:
    votes = [make_label("harmful", v, rater=str(k)) for k, v in enumerate((True, False, True))]
    (split,) = examples(("a",), *votes)
    assert split.targets[0] == pytest.approx(2 / 3)
    (final,) = examples(("a",), *votes, make_label("harmful", False))
    assert final.targets[0] == 0  # the set's own label goes before its raters


def test_rows_without_labels_are_left_out() -> None:
    assert examples(("a",)) == [] and examples(()) == []
    assert examples((" ",), make_label("harmful", True)) == []

    class Unlabelled(LabelledWords):
        def rows(self) -> Iterator[Row]:
            for row in super().rows():
                yield msgspec.structs.replace(row, judgements=())

    with pytest.raises(PlanError, match="no row has a label"):
        read_moderation_set(Unlabelled(5), CATEGORY_IDS, weight=1.0)


def test_a_label_outside_the_taxonomy_is_named() -> None:
    with pytest.raises(DataError, match="'jaywalking' is no category"):
        examples(("a",), make_label("harmful", True, harms={"jaywalking": 1.0}))


def test_tenths_divide_the_prompts() -> None:
    low = read_moderation_set(LabelledWords(100), CATEGORY_IDS, weight=1.0, tenths=(0, 4))
    high = read_moderation_set(LabelledWords(100), CATEGORY_IDS, weight=1.0, tenths=(5, 9))
    low_keys, high_keys = ({item.key for item in s.items} for s in (low, high))
    assert not low_keys & high_keys and len(low.items) + len(high.items) == 100
    assert low.left_out == len(high.items)


def test_fold_and_tenth_by_hand() -> None:
    assert [fold_of(f"{n:x}", 3) for n in (0, 1, 2, 3)] == [0, 1, 2, 0]
    assert [tenth_of(f"{n:x}") for n in (0, 2, 3, 29, 30)] == [0, 0, 1, 9, 0]


def test_a_set_that_is_read_twice_gets_a_second_name() -> None:
    one, two = give_unique_names(
        [
            read_moderation_set(LabelledWords(9), CATEGORY_IDS, weight=1.0),
            read_moderation_set(LabelledWords(9, seed=1), CATEGORY_IDS, weight=2.0),
        ]
    )
    assert {item.source for item in one.items} == {"made"}
    assert {item.source for item in two.items} == {"made (2)"}
