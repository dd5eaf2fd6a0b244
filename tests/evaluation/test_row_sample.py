"""A random sample of rows: by prompt, by seed, nested, whatever the order of the rows."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.core.types import Conversation, Row, Sample
from truing.evaluation.row_sample import RowSample, draw_rows, prompt_of


def make_row(prompt: int | str, number: int, **fields: str) -> Row:
    conversation = Conversation.of(f"Prompt {prompt}")
    return Row(sample=Sample(id=f"{prompt}-{number}", conversation=conversation, **fields))


def make_rows(sizes: list[int]) -> list[Row]:
    return [make_row(p, i) for p, size in enumerate(sizes) for i in range(size)]


def ids(rows: list[Row]) -> list[str]:
    return [row.sample.id for row in rows]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 8), min_size=1, max_size=25),
    st.integers(1, 60),
    st.integers(0, 5),
)
def test_whole_prompts_are_drawn_in_order_and_nested(
    sizes: list[int], limit: int, seed: int
) -> None:
    rows = make_rows(sizes)
    drawn = ids(draw_rows(rows, limit, seed))
    assert len(drawn) == min(limit, len(rows)) == len(set(drawn))
    assert drawn == [i for i in ids(rows) if i in set(drawn)]
    shuffled = random.Random(seed).sample(rows, len(rows))
    by_prompt = Counter(i.split("-")[0] for i in drawn)
    again = Counter(i.split("-")[0] for i in ids(draw_rows(shuffled, limit, seed)))
    assert by_prompt == again
    in_part = [p for p, n in by_prompt.items() if n < sizes[int(p)]]
    assert len(in_part) <= 1
    assert set(drawn) <= set(ids(draw_rows(rows, limit + 3, seed)))


def test_few_rows_are_held() -> None:
    sample = RowSample(10, 0)
    for row in make_rows([3] * 400 + [500]):
        sample.add(row)
        assert sum(map(len, sample._rows.values())) < 20
    assert len(list(sample.drawn())) == 10
    assert sample.n_seen == 1700


def test_prompts_are_equally_likely() -> None:
    # The first quarter of a sorted set is no sample of it.
    rows = make_rows([1] * 40)
    counts = Counter(i for seed in range(400) for i in ids(draw_rows(rows, 10, seed)))
    assert len(counts) == 40
    # Each is drawn in 100 of 400 on average; 8.7 is one standard deviation.
    assert all(60 < n < 140 for n in counts.values())


@pytest.mark.parametrize("field", ["pair", "parent"])
def test_twins_and_attacks_of_one_prompt_are_drawn_together(field: str) -> None:
    rows = [make_row(f"{p} {side}", 0, **{field: f"p{p}"}) for p in range(20) for side in "ab"]
    drawn = [row.sample for row in draw_rows(rows, 10, 0)]
    assert Counter(getattr(s, field) for s in drawn) == dict.fromkeys(
        (getattr(s, field) for s in drawn), 2
    )


def test_prompts_are_known_by_their_text() -> None:
    one = Sample(id="1", conversation=Conversation.of("What is  a kettle?"))
    two = Sample(id="2", conversation=Conversation.of("what is a kettle"))
    empty = [Sample(id=i, conversation=Conversation.of("")) for i in "34"]
    assert prompt_of(one) == prompt_of(two)
    assert len({prompt_of(s) for s in (one, *empty)}) == 3
