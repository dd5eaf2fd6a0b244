"""Rows in memory as a data set."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import DataError
from truing.core.types import Conversation
from truing.datasets.memory import MemoryDataset


def test_rows_have_the_columns_of_a_file() -> None:
    dataset = MemoryDataset(
        [{"prompt": "p", "response": "r", "expect": "refuse", "id": "x", "harmful": np.bool_(True)}]
    )
    (row,) = dataset.rows()
    assert (row.sample.id, row.sample.expect) == ("x", "refuse")
    assert row.responses[0].message.content == "r"
    assert row.judgements[0].verdict is True


def test_missing_values_of_tables_are_no_values() -> None:
    (row,) = MemoryDataset([{"prompt": "p", "response": math.nan, "category": None}]).rows()
    assert row.responses == ()
    assert row.sample.harms == ()


def test_a_conversation_keeps_its_messages() -> None:
    talk = Conversation.from_openai(
        [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    )
    (row,) = MemoryDataset([talk]).rows()
    assert row.sample.conversation == talk


@pytest.mark.parametrize("source", ["a prompt", b"x", {"prompt": "p"}, 5, None])
def test_what_is_no_list_is_refused(source: object) -> None:
    with pytest.raises(DataError, match="a data set is a list"):
        MemoryDataset(source)


@given(st.lists(st.text(min_size=1).filter(lambda text: text.strip()), min_size=1, max_size=20))
def test_ids_are_unique_and_the_hash_follows_the_rows(prompts: list[str]) -> None:
    dataset = MemoryDataset(prompts)
    rows = list(dataset.rows())
    assert [row.sample.conversation.prompt for row in rows] == prompts
    assert len({row.sample.id for row in rows}) == len(prompts)
    assert dataset.sha256() == MemoryDataset(list(prompts)).sha256()
    assert dataset.sha256() != MemoryDataset([*prompts, "one more"]).sha256()


class PolarsFrame:
    """The part of a DataFrame of polars that is read: its `to_dict` takes keywords only."""

    columns = ("prompt", "id")

    def to_dict(self, *, as_series: bool = True) -> dict[str, list[str]]:
        return {"prompt": ["p", "q"], "id": ["1", "2"]}

    def to_dicts(self) -> list[dict[str, str]]:
        return [{"prompt": "p", "id": "1"}, {"prompt": "q", "id": "2"}]


def test_a_table_of_polars_is_read() -> None:
    rows = list(MemoryDataset(PolarsFrame()).rows())
    assert [(row.sample.id, row.sample.conversation.prompt) for row in rows] == [
        ("1", "p"),
        ("2", "q"),
    ]


@pytest.mark.parametrize("value", [object(), 1j, {1.5: object()}, ["x", object()]])
def test_a_cell_that_has_no_hash_is_a_fault_with_its_row_and_column(value: object) -> None:
    rows = [{"prompt": "p"}, {"prompt": "q", "note": value}]
    with pytest.raises(DataError, match=r"table\[1\]: column 'note'"):
        MemoryDataset(rows, name="table").sha256()


def test_a_cell_that_contains_itself_is_a_fault() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(DataError, match=r"rows\[0\]: column 'note'"):
        MemoryDataset([{"prompt": "p", "note": endless}]).sha256()


def test_a_data_frame_without_the_columns_is_one_fault_that_names_the_nearest() -> None:
    import pandas

    frame = pandas.DataFrame({"promt": ["p", "q"], "reply": ["a", "b"]})
    with pytest.raises(DataError, match=r"no column 'prompt'; did you mean 'promt'"):
        list(MemoryDataset(frame, name="table").rows())
    with pytest.raises(DataError, match=r"no column 'question'"):
        list(MemoryDataset(frame, name="table", prompt="question").rows())
    rows = list(MemoryDataset(frame, name="table", prompt="promt", response="reply").rows())
    assert [row.responses[0].text for row in rows] == ["a", "b"]
