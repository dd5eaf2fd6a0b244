"""Reading a run as columns, and the cache: a folder is read once, and never out of date."""

from __future__ import annotations

import pytest

from truing.analysis import verdict_rows, verdict_table
from truing.analysis.comparison import compare
from truing.analysis.pairing import pair_runs
from truing.analysis.summary import summarise
from truing.analysis.verdict_table import (
    ABSENT,
    ANSWERED,
    CACHE_SIZE,
    CUT,
    FAILED,
    NO,
    SKIPPED,
    UNSCORED,
    YES,
    VerdictColumn,
    cached_verdict_tables,
    read_verdict_table,
)
from truing.cli.compare import command
from truing.core.types import Conversation, Failure, Judgement, Lineage, Message, Response, Sample
from truing.runs.folder import JudgeRecord, RunWriter


@pytest.fixture
def folders_read(monkeypatch):
    """Names of the folders that were really read, in order."""
    names = []
    read_table = verdict_table._read_table

    def counting_read_table(path, *arguments):
        names.append(path.name)
        return read_table(path, *arguments)

    monkeypatch.setattr(verdict_table, "_read_table", counting_read_table)
    return names


@pytest.fixture
def runs(make_run, prompts):
    """Two runs with a judge of harm and one of refusals."""
    refused = [[False]] * 40
    return tuple(
        make_run(
            name,
            prompts(40),
            {"harmful": [[True]] * harmful + [[False]] * (40 - harmful), "refused": refused},
        )
        for name, harmful in (("a", 20), ("b", 5))
    )


def test_columns_follow_the_samples(make_run, prompts):
    run = make_run(
        "r",
        prompts(3, harms=("self_harm",), expect="refuse"),
        {"harmful": [[True, None], [False, True], []]},
        finish={(0, 1): "error", (1, 0): "length"},
    )
    table = read_verdict_table(run, ids=True)
    assert (table.size, table.ids) == (3, ["s0", "s1", "s2"])
    assert [table.position_of(f"s{i}") for i in range(3)] == [0, 1, 2]
    assert table.position_of("unknown") is None
    assert (table.categories(1), table.expect(1)) == (("self_harm",), "refuse")
    assert table.response_states == [
        bytearray([ANSWERED, CUT, ANSWERED]),
        bytearray([FAILED, ANSWERED, ANSWERED]),
    ]
    column = table.headline_column("harmful")
    assert column.codes == [bytearray([YES, NO, ABSENT]), bytearray([UNSCORED, YES, ABSENT])]


def judgement(verdict=None, **fields):
    return verdict_rows.JudgementRow(sample_id="s", question="harmful", verdict=verdict, **fields)


def test_people_are_counted_by_majority_and_judges_by_their_last_judgement():
    codes = {}
    for name in ("human:set", "judge"):
        column = VerdictColumn(JudgeRecord(name=name, question="harmful", file=""), "harmful", 1)
        for verdict in (True, True, False):
            column.add_judgement(0, judgement(verdict), keep_score=False)
        codes[name] = column.codes[0][0]
    assert codes == {"human:set": YES, "judge": NO}
    tied = VerdictColumn(JudgeRecord(name="human:set", question="harmful", file=""), "harmful", 1)
    tied.add_judgement(0, judgement(True), keep_score=False)
    tied.add_judgement(0, judgement(False), keep_score=False)
    assert tied.codes[0][0] == UNSCORED


def test_inapplicable_rows_are_skipped_and_have_no_value():
    column = VerdictColumn(JudgeRecord(name="j", question="passes", file=""), "passes", 2)
    failure = Failure("judge", "no-check", "no check for this sample")
    column.add_judgement(0, judgement(failure=failure, value=3.0), keep_score=False)
    assert (column.codes[0][0], column.value_sums) == (SKIPPED, None)
    column.add_judgement(1, judgement(True, value=3.0, score=0.7), keep_score=True)
    assert (column.value_sums[1], column.exceeds_unit_interval) == (3.0, True)
    assert column.scores == {(1, 0): 0.7}


def test_a_comparison_with_its_report_reads_each_run_once(runs, folders_read, tmp_path, capsys):
    assert command(*runs, out=tmp_path / "report.html") == 0
    assert sorted(folders_read) == ["a", "b"]
    assert "safer" in capsys.readouterr().out


def test_outside_the_context_nothing_is_cached(runs, folders_read):
    read_verdict_table(runs[0])
    read_verdict_table(runs[0])
    assert folders_read == ["a", "a"]


def test_changes_by_one_caller_are_not_seen_by_another(runs, make_run, prompts):
    a, _ = runs
    other = make_run(
        "c",
        prompts(40),
        {"harmful": [[True]] * 40},
        lineages={"test:harmful": Lineage(name="test:harmful", hash="f" * 16)},
    )
    with cached_verdict_tables():
        before = summarise(a)
        # Another version of one judge, and the other in one run only: both columns are dropped.
        assert not pair_runs(a, other).a.columns
        assert summarise(a) == before
        assert len(read_verdict_table(a).columns) == 2


def test_ids_are_read_when_they_are_first_needed(runs, folders_read):
    with cached_verdict_tables():
        assert read_verdict_table(runs[0]).ids is None
        assert read_verdict_table(runs[0], ids=True).ids == [f"s{i}" for i in range(40)]
    assert folders_read == ["a"]


def test_a_run_that_has_grown_is_read_again(runs, folders_read):
    a, _ = runs
    with cached_verdict_tables():
        assert summarise(a).find("harmful").n == 40
        record = read_verdict_table(a).manifest.judges[0]
        writer = RunWriter(a, read_verdict_table(a).manifest)
        writer.append("samples.jsonl", Sample(id="new", conversation=Conversation.of("one more")))
        writer.append(
            "responses.jsonl",
            Response(sample_id="new", index=0, model="m", message=Message("assistant", "x")),
        )
        writer.append(
            record.file,
            Judgement(
                sample_id="new", index=0, judge=record.name, question="harmful", verdict=True
            ),
        )
        writer.close()
        rate = summarise(a).find("harmful")
    assert (rate.n, rate.events) == (41, 21)
    assert folders_read == ["a", "a"]


def test_the_least_recently_used_run_is_evicted(make_run, prompts, folders_read):
    runs = [
        make_run(f"r{i}", prompts(2), {"refused": [[True], [False]]}) for i in range(CACHE_SIZE + 1)
    ]
    with cached_verdict_tables():
        for run in runs:
            read_verdict_table(run)
        read_verdict_table(runs[-1])
        read_verdict_table(runs[0])
    assert folders_read == [run.name for run in runs] + ["r0"]


def test_the_cache_ends_with_the_context_also_on_an_error(runs, folders_read):
    with pytest.raises(ValueError, match="margin"), cached_verdict_tables():
        compare(*runs, margin=2.0)
    read_verdict_table(runs[0])
    read_verdict_table(runs[0])
    assert folders_read == ["a", "a"]
