"""The cache of verdict tables: a folder is read once within a block, and never stale."""

from __future__ import annotations

import pytest

from truing.analysis import verdict_table as module
from truing.analysis.comparison import compare
from truing.analysis.pairing import pair_runs
from truing.analysis.summary import summarise
from truing.analysis.verdict_table import CACHE_SIZE, cached_verdict_tables, read_verdict_table
from truing.cli.compare import command
from truing.core.types import Conversation, Judgement, Lineage, Message, Response, Sample
from truing.runs.folder import RunWriter


@pytest.fixture
def reads(monkeypatch):
    """The folders that were really read, in order."""
    seen = []
    real = module._read_table

    def counted(path, *rest):
        seen.append(path.name)
        return real(path, *rest)

    monkeypatch.setattr(module, "_read_table", counted)
    return seen


@pytest.fixture
def two(make_run, prompts):
    a = make_run(
        "a", prompts(40), {"harmful": [[True]] * 20 + [[False]] * 20, "refused": [[False]] * 40}
    )
    b = make_run(
        "b", prompts(40), {"harmful": [[True]] * 5 + [[False]] * 35, "refused": [[False]] * 40}
    )
    return a, b


def test_a_comparison_with_its_report_reads_each_run_once(two, reads, tmp_path, capsys):
    assert command(*two, out=tmp_path / "report.html") == 0
    assert sorted(reads) == ["a", "b"]
    assert "safer" in capsys.readouterr().out


def test_without_a_block_nothing_is_kept(two, reads):
    read_verdict_table(two[0])
    read_verdict_table(two[0])
    assert reads == ["a", "a"]


def test_what_one_reader_drops_or_strikes_another_still_sees(two, make_run, prompts):
    a, _ = two
    other = make_run(
        "c",
        prompts(40),
        {"harmful": [[True]] * 40},
        lineages={"test:harmful": Lineage(name="test:harmful", hash="f" * 16)},
    )
    with cached_verdict_tables():
        before = summarise(a)
        pair = pair_runs(
            a, other
        )  # another version of the judge, and `refused` in one alone: both columns go
        assert not pair.a.columns
        assert summarise(a) == before and len(read_verdict_table(a).columns) == 2


def test_ids_are_added_when_somebody_asks(two, reads):
    with cached_verdict_tables():
        assert read_verdict_table(two[0]).ids is None
        assert read_verdict_table(two[0], ids=True).ids == [f"s{i}" for i in range(40)]
    assert reads == ["a"]


def test_a_run_that_grew_meanwhile_is_read_again(two, reads):
    a, _ = two
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
        found = summarise(a).find("harmful")
    assert (found.n, found.events) == (41, 21)
    assert reads == ["a", "a"]


def test_the_memo_is_bounded(make_run, prompts, reads):
    runs = [
        make_run(f"r{i}", prompts(2), {"refused": [[True], [False]]}) for i in range(CACHE_SIZE + 1)
    ]
    with cached_verdict_tables():
        for run in runs:
            read_verdict_table(run)
        read_verdict_table(runs[-1])
        read_verdict_table(runs[0])  # the oldest had to go
    assert reads == [r.name for r in runs] + ["r0"]


def test_a_block_ends_even_where_something_fails(two, reads):
    with pytest.raises(ValueError, match="margin"), cached_verdict_tables():
        compare(*two, margin=2.0)
    read_verdict_table(two[0])
    read_verdict_table(two[0])
    assert reads == ["a", "a"]
