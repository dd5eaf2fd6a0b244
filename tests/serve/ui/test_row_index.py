"""The index of a run: the outcomes of the analysis, privacy of the file, received databases."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serve.ui.pages import write_run, write_small_run

from truing.analysis.outcomes import OUTCOME_NAMES
from truing.analysis.summary import summarise
from truing.core.errors import UserError
from truing.runs.folder import Run
from truing.serve.ui import row_reader
from truing.serve.ui.background import Fault
from truing.serve.ui.row_index import build_index
from truing.serve.ui.row_indexes import RowIndexes, load_index_key
from truing.serve.ui.row_reader import RowFilter, RowIndex
from truing.serve.ui.run_state import RunStateReader


def _open(path: Path, target: Path) -> RowIndex:
    build_index(Run(path), target, lambda share: None)
    return RowIndex(Run(path), target)


def _get(indexes: RowIndexes, path: Path) -> object:
    return indexes.get(RunStateReader().read("id", path.name, path))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.sampled_from([True, False, None]), min_size=3, max_size=3), max_size=8))
def test_the_rows_add_up_to_the_figures(
    tmp_path_factory: pytest.TempPathFactory, verdicts: list[list[bool | None]]
) -> None:
    folder = tmp_path_factory.mktemp("index")
    run = write_run(folder / "run", ["words"] * len(verdicts), verdicts)
    index = _open(run, folder / "index.sqlite")
    counts = index.count_outcomes(np.ones(index.size, bool))
    overall = [o for o in summarise(run).outcomes if o.category is None and o.expect is None]
    expected = {n: getattr(overall[0], n) for n in OUTCOME_NAMES[1:]} if overall else {}
    assert counts == {name: n for name, n in expected.items() if n}
    for row in range(index.size):
        sample_id, answer = index.key_of(row)
        assert index.find(sample_id, answer) == row
        records = index.read_rows([row])[0]
        assert records.sample is not None and records.sample.id == sample_id
        assert [j.verdict for j in records.judgements] == verdicts[row]


@pytest.fixture(scope="module")
def small_index(tmp_path_factory: pytest.TempPathFactory) -> RowIndex:
    folder = tmp_path_factory.mktemp("search")
    return _open(write_small_run(folder / "run"), folder / "index.sqlite")


@given(words=st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_no_search_is_an_error(small_index: RowIndex, words: str) -> None:
    assert all(mask.shape == (4,) for mask in small_index.search(words))


def test_a_search_that_takes_too_long_ends(
    small_index: RowIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_reader, "MAX_SEARCH_SECONDS", -1.0)
    monkeypatch.setattr(row_reader, "_STEPS_BETWEEN_CHECKS", 1)
    with pytest.raises(UserError, match="give more letters"):
        small_index.search("zebra*")
    monkeypatch.undo()
    assert not small_index.search("zebra*")[0].any()


def test_an_index_is_private_and_replaced_when_the_run_changes(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    indexes = RowIndexes(b"k" * 32)
    first = _get(indexes, run)
    assert isinstance(first, RowIndex)
    (file,) = run.glob("ui-rows-*.sqlite")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert _get(indexes, run) is first
    judged = run / first.meta.judges[0].file
    judged.write_text(judged.read_text().replace('"verdict":true', '"verdict":false'))
    second = _get(indexes, run)
    assert isinstance(second, RowIndex) and second is not first
    assert [p for p in run.glob("ui-rows-*") if p != second.path] == []
    assert second.select(RowFilter(judge=0, verdict="yes")).sum() == 0
    indexes.close()


def test_a_prepared_database_is_not_opened(tmp_path: Path) -> None:
    """Its author does not know the key that gives the real one its name."""
    run = write_small_run(tmp_path / "run")
    indexes = RowIndexes(b"k" * 32)
    assert isinstance(_get(indexes, run), RowIndex)
    indexes.close()
    (file,) = run.glob("ui-rows-*.sqlite")
    database = sqlite3.connect(file)
    database.execute("update arrays set content = zeroblob(4) where name = 'outcome'")
    database.commit()
    database.close()
    others = RowIndexes(b"o" * 32)
    index = _get(others, run)
    assert isinstance(index, RowIndex) and index.outcome_name(0) == "harmful"
    assert not file.exists()
    others.close()


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\0" * 200])
def test_a_half_written_index_is_built_again(tmp_path: Path, content: bytes) -> None:
    run = write_small_run(tmp_path / "run")
    indexes = RowIndexes(b"k" * 32)
    assert isinstance(_get(indexes, run), RowIndex)
    indexes.close()
    (file,) = run.glob("ui-rows-*.sqlite")
    file.write_bytes(content)
    again = RowIndexes(b"k" * 32)
    index = _get(again, run)
    assert isinstance(index, RowIndex) and index.outcome_name(0) == "harmful"
    assert file.read_bytes().startswith(b"SQLite format 3\0") and file.stat().st_size > 4096
    again.close()


def test_a_damaged_run_leaves_no_half_index(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    with (run / "responses.jsonl").open("ab") as stream:
        stream.write(b'{"sample_id": 3}\n')
    indexes = RowIndexes(b"k" * 32)
    index = _get(indexes, run)
    assert isinstance(index, Fault) and "responses.jsonl:5" in index.message
    assert list(run.glob("ui-rows-*")) == []
    indexes.close()


def test_the_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    key = load_index_key(tmp_path / "cache")
    assert load_index_key(tmp_path / "cache") == key and len(key) == 32
    assert stat.S_IMODE((tmp_path / "cache" / "ui.key").stat().st_mode) == 0o600
    (tmp_path / "file").touch()
    assert len(load_index_key(tmp_path / "file" / "x")) == 32  # nowhere to keep it
