"""Moderation in shards: the rows of the local command, once each, whatever is killed when."""

from __future__ import annotations

import csv
import json
import os
import resource
import time
import tracemalloc
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from truing.bulk.input_shards import InputShard
from truing.bulk.moderation_job import (
    MAX_ATTEMPTS,
    Manifest,
    ModerationJob,
    ShardOutcome,
    ShardRunner,
    begin_job,
    finish_job,
    plan_job,
    read_manifest,
    run_shards,
    sum_input_ids,
)
from truing.bulk.row_files import RowOptions
from truing.bulk.row_totals import RowTotals
from truing.bulk.shard_store import ShardStore
from truing.cli.moderate import command
from truing.core.errors import BudgetExceeded, RunError
from truing.core.types import Failure, Judgement, Response, Sample
from truing.specs.resolve import resolve

SETTINGS = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
JUDGE = resolve("keywords:", "judge")
WORDS = ["hello", "steal", "a car", "murder", "weather", "\n", 'say "no"', "naïve"]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(0, 99).map(str),
            "prompt": st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join),
            "response": st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join),
        }
    ),
    min_size=1,
    max_size=15,
)


def moderate(
    source: Path, out: Path, shard_bytes: int = 60, options: RowOptions | None = None
) -> Manifest:
    job, shards = plan_job(JUDGE, str(source), options or RowOptions(), "", shard_bytes)
    store = ShardStore(out)
    commits = begin_job(store, job)
    outcomes: list[ShardOutcome] = []
    runner = ShardRunner(job, JUDGE, str(out))
    run_shards(runner, [s for s in shards if s.number not in commits], outcomes.append)
    runner.close()
    faults = [fault for outcome in outcomes for fault in outcome.faults]
    assert not faults, faults
    commits |= {o.shard: o.commit for o in outcomes if o.commit is not None}
    return finish_job(store, job, len(shards), commits)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def read_parts(out: Path, manifest: Manifest) -> bytes:
    return b"".join((out / part.file).read_bytes() for part in manifest.parts)


@pytest.fixture
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lambda: tmp_path_factory.mktemp("job")


@SETTINGS
@given(rows=ROWS, shard_bytes=st.integers(20, 400))
def test_the_same_rows_as_one_process_writes(
    folders: Any, rows: list[dict[str, Any]], shard_bytes: int
) -> None:
    folder = folders()
    source = write_rows(folder / "in.jsonl", rows)
    command(judge="keywords:", in_=source, out=folder / "local.jsonl", json=True)
    manifest = moderate(source, folder / "out", shard_bytes)
    local = (folder / "local.jsonl").read_bytes()
    assert read_parts(folder / "out", manifest) == local
    judged = [json.loads(line) for line in local.splitlines()]
    assert manifest.totals.rows == len(rows)
    assert manifest.totals.flagged == sum(row["flagged"] is True for row in judged)
    assert manifest.totals.unscored == sum(row["flagged"] is None for row in judged)
    assert manifest.duplicate_ids.rows == len(rows) - len({row["id"] for row in rows})
    assert read_manifest(str(folder / "out")) == manifest


def test_a_table_and_parquet_give_the_same_figures(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "response": ["murder", "", "a\nb"][i % 3]} for i in range(20)]
    with (tmp_path / "in.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["prompt", "response"], lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet", row_group_size=7)
    write_rows(tmp_path / "in.jsonl", rows)
    totals = {}
    for ending in ("jsonl", "csv", "parquet"):
        manifest = moderate(tmp_path / f"in.{ending}", tmp_path / ending)
        totals[ending] = manifest.totals
        assert len(manifest.parts) > 1
    assert totals["jsonl"] == totals["csv"] == totals["parquet"]
    command(judge="keywords:", in_=tmp_path / "in.csv", out=tmp_path / "local.csv", json=True)
    local = read_table(tmp_path / "local.csv")
    tables = [tmp_path / "csv" / part.file for part in read_manifest(str(tmp_path / "csv")).parts]
    assert [row for path in tables for row in read_table(path)] == local
    judged = pq.read_table(tmp_path / "parquet" / "parts").to_pylist()
    assert [(row["prompt"], row["response"]) for row in judged] == [
        (row["prompt"], row["response"]) for row in rows
    ]
    verdicts = {"true": True, "false": False, "": None}
    assert [row["flagged"] for row in judged] == [verdicts[row["flagged"]] for row in local]
    assert judged[0]["failure"] is None
    assert judged[1]["failure"]["kind"] == json.loads(local[1]["failure"])["kind"]
    assert dict(judged[0]["categories"]) == json.loads(local[0]["categories"])


class Killed(BaseException):
    """Stands for the end of a process at a moment: nothing after it happens."""


class MortalStore(ShardStore):
    """A store whose process ends at a write, before or after the file is there."""

    writes_left = 0
    ends_after_write = False

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        self.writes_left -= 1
        if self.writes_left >= 0 or self.ends_after_write:
            super().write(name, data, durable=durable)
        if self.writes_left < 0:
            raise Killed


@SETTINGS
@given(kills=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=5))
def test_whatever_is_killed_when_nothing_is_lost_or_doubled(
    folders: Any, kills: list[tuple[int, bool]]
) -> None:
    folder = folders()
    rows = [{"id": str(i), "text": ["murder", "hello"][i % 2]} for i in range(6)]
    source = write_rows(folder / "in.jsonl", rows)
    undisturbed = moderate(source, folder / "undisturbed")
    out = folder / "out"
    job, shards = plan_job(JUDGE, str(source), RowOptions(), "", 60)
    for writes_left, ends_after_write in kills:
        commits = begin_job(ShardStore(out), job)
        runner = ShardRunner(job, JUDGE, str(out))
        store = MortalStore(out)
        store.writes_left, store.ends_after_write = writes_left, ends_after_write
        runner.store = store
        try:
            run_shards(runner, [s for s in shards if s.number not in commits], lambda _: None)
        except Killed:
            pass
        finally:
            runner.close()
    manifest = moderate(source, out)
    assert (out / "manifest.json").read_bytes() == (
        folder / "undisturbed" / "manifest.json"
    ).read_bytes()
    assert read_parts(out, manifest) == read_parts(folder / "undisturbed", undisturbed)
    assert manifest.totals.ids == sum_input_ids(job, shards).ids


def test_a_worker_that_was_thought_dead_changes_nothing(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "murder"}])
    manifest = moderate(source, tmp_path / "out")
    job, (shard,) = plan_job(JUDGE, str(source), RowOptions(), "", 60)
    late = ShardRunner(job, JUDGE, str(tmp_path / "out"))
    outcome = late.run(shard)
    late.close()
    assert outcome.commit == manifest.parts[0]


def test_a_part_that_is_gone_or_a_damaged_commit_is_made_again(tmp_path: Path) -> None:
    rows = [{"text": f"row {i}"} for i in range(9)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    manifest = moderate(source, tmp_path / "out")
    whole = read_parts(tmp_path / "out", manifest)
    (tmp_path / "out" / manifest.parts[0].file).unlink()
    (tmp_path / "out/commits/000001.json").write_bytes(b"\0\0")
    (tmp_path / "out/parts/.x.tmp").write_bytes(b"half")
    assert moderate(source, tmp_path / "out") == manifest
    assert read_parts(tmp_path / "out", manifest) == whole
    assert not (tmp_path / "out/parts/.x.tmp").exists()


def run_shard(source: Path, out: Path, options: RowOptions | None = None) -> list[ShardOutcome]:
    job, shards = plan_job(JUDGE, str(source), options or RowOptions(), "", 60)
    begin_job(ShardStore(out), job)
    outcomes: list[ShardOutcome] = []
    runner = ShardRunner(job, JUDGE, str(out))
    run_shards(runner, shards, outcomes.append)
    runner.close()
    return outcomes


def test_malformed_rows_are_named_and_no_row_of_their_shard_counts(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a"}\n{"text": 3}\nnot json\n')
    (outcome,) = run_shard(source, tmp_path / "out")
    assert outcome.commit is None
    assert not (tmp_path / "out" / "parts").exists()
    assert [fault.split(": ")[0].rsplit(":", 1)[1] for fault in outcome.faults] == ["2", "3"]
    manifest = moderate(source, tmp_path / "skipped", options=RowOptions(skip_malformed=True))
    assert (manifest.totals.rows, manifest.totals.skipped) == (1, 2)
    assert len(manifest.parts[0].faults) == 2
    source.write_text('{"text": "a", "flagged": true}\n')
    (outcome,) = run_shard(source, tmp_path / "taken", RowOptions(skip_malformed=True))
    assert "already has a field 'flagged'; give --prefix" in outcome.faults[0]


def test_a_full_disk_is_named_and_the_shard_is_done_later(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "hello " * 900}])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    job, (shard,) = plan_job(JUDGE, str(source), RowOptions(), "", 10_000)
    out = tmp_path / "out"
    begin_job(ShardStore(out), job)
    runner = ShardRunner(job, JUDGE, str(out))
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        outcome = runner.run(shard)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        runner.close()
    assert "the disk is full" in outcome.faults[0]
    assert list((out / "parts").glob("*")) == list((out / "parts").glob(".*")) == []
    assert moderate(source, out, 10_000).totals.rows == 1


def test_clocks_that_differ_between_machines_change_nothing(tmp_path: Path) -> None:
    """What counts is what a commit names: no time of a clock or a file decides."""
    source = write_rows(tmp_path / "in.jsonl", [{"id": str(i), "text": "a"} for i in range(12)])
    undisturbed = moderate(source, tmp_path / "undisturbed")
    job, shards = plan_job(JUDGE, str(source), RowOptions(), "", 60)
    out = tmp_path / "out"
    begin_job(ShardStore(out), job)
    day = 86_400
    for skew, of_machine in ((day, shards[:4]), (-day, shards[2:6])):
        now = time.time() + skew
        with mock.patch("time.time", return_value=now):
            runner = ShardRunner(job, JUDGE, str(out))
            run_shards(runner, of_machine, lambda outcome: None)
            runner.close()
        for path in out.rglob("*"):
            os.utime(path, (now, now))
    assert moderate(source, out) == undisturbed
    assert read_parts(out, undisturbed) == read_parts(tmp_path / "undisturbed", undisturbed)


def test_two_commands_do_not_write_to_one_folder(tmp_path: Path) -> None:
    first, second = ShardStore(tmp_path / "out"), ShardStore(tmp_path / "out")
    with first.lock(), pytest.raises(RunError, match="another process is writing"), second.lock():
        pass
    with second.lock():
        pass


def test_a_shard_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "a"}])
    job, (shard,) = plan_job(JUDGE, str(source), RowOptions(), "", 60)
    store = ShardStore(tmp_path / "out")
    begin_job(store, job)
    store.write("attempts/000000", b"x" * MAX_ATTEMPTS)
    runner = ShardRunner(job, JUDGE, store.url)
    assert f"ended its worker {MAX_ATTEMPTS} times" in runner.run(shard).faults[0]
    runner.close()
    # The next command tries again.
    assert moderate(source, tmp_path / "out").totals.rows == 1


def test_another_command_does_not_continue_the_folder(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "a"}])
    moderate(source, tmp_path / "out")
    job, _ = plan_job(JUDGE, str(source), RowOptions(), "", 60)
    store = ShardStore(tmp_path / "out")

    def refuse(changed: ModerationJob, message: str) -> None:
        with pytest.raises(RunError, match=message):
            begin_job(store, changed)

    replace = msgspec.structs.replace
    refuse(replace(job, judge_hash="other"), "another judge hash; give another --out")
    refuse(replace(job, prefix="p_"), "another prefix")
    refuse(replace(job, truing="0.0.1"), r"begun with truing 0\.2\.0, and this is 0\.0\.1")
    write_rows(source, [{"text": "a"}, {"text": "b"}])
    changed, _ = plan_job(JUDGE, str(source), RowOptions(), "", 60)
    refuse(changed, r"other input files \(.*in\.jsonl is new or has changed\)")
    (tmp_path / "out/plan.json").write_text("{")
    refuse(job, r"plan\.json: ")
    with pytest.raises(RunError, match="the judge of this worker is keywords:"):
        ShardRunner(replace(job, judge_hash="other"), JUDGE, store.url)


def test_an_unfinished_output_has_no_manifest(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "a"}])
    job, shards = plan_job(JUDGE, str(source), RowOptions(), "", 60)
    store = ShardStore(tmp_path / "out")
    begin_job(store, job)
    with pytest.raises(RunError, match="1 of 1 shards are not finished"):
        finish_job(store, job, len(shards), {})
    with pytest.raises(RunError, match=r"no manifest\.json"):
        read_manifest(store.url)


COUNTS = st.builds(
    RowTotals,
    rows=st.integers(0, 9),
    flagged=st.integers(0, 9),
    unscored=st.integers(0, 9),
    skipped=st.integers(0, 9),
    categories=st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)),
    ids=st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}"),
)


@given(COUNTS, COUNTS, COUNTS)
def test_counts_are_merged_in_any_order(a: RowTotals, b: RowTotals, c: RowTotals) -> None:
    assert a.add(b).add(c) == a.add(b.add(c)) == c.add(a).add(b)
    assert a.add(RowTotals()) == msgspec.structs.replace(
        a, categories=dict(sorted(a.categories.items()))
    )


def test_shards_and_outcomes_are_sent_as_they_are(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "a"}])
    _, (shard,) = plan_job(JUDGE, str(source), RowOptions(), "", 60)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(shard), type=InputShard) == shard


class RaisingJudge:
    """Raises for one text, has an outage for another, and no budget for a third."""

    name, question = JUDGE.name, JUDGE.question
    lineage = JUDGE.lineage

    def __init__(self) -> None:
        self.n_calls = 0

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        self.n_calls += 1
        text = response.message.content
        if text == "raise":
            raise ValueError("no such text")
        if text == "spent":
            raise BudgetExceeded("the budget of 20 requests is spent")
        failure = Failure("judge", "timeout", "30 s") if text == "outage" else None
        return Judgement(
            sample_id="of another row",
            judge=self.name,
            question=self.question,
            verdict=None if failure else False,
            failure=failure,
        )


def run_first_shard(source: Path, out: Path) -> ShardOutcome:
    job, shards = plan_job(RaisingJudge(), str(source), RowOptions(), "", 1 << 20)
    begin_job(ShardStore(out), job)
    runner = ShardRunner(job, RaisingJudge(), str(out))
    outcome = runner.run(shards[0])
    runner.close()
    return outcome


def test_a_judge_that_raises_leaves_one_row_unscored(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": text} for text in ("a", "raise", "b")])
    outcome = run_first_shard(source, tmp_path / "out")
    assert outcome.commit is not None, outcome.faults
    assert (outcome.commit.totals.rows, outcome.commit.totals.unscored) == (3, 1)
    rows = [
        json.loads(x) for x in (tmp_path / "out" / outcome.commit.file).read_text().splitlines()
    ]
    assert [row["harmful"] is None for row in rows] == [True, True, True]
    assert [row["flagged"] for row in rows] == [False, None, False]
    assert rows[1]["failure"] == {"kind": "exception", "message": "ValueError: no such text"}


def test_an_outage_is_not_committed(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": text} for text in ("a", "outage", "b")])
    outcome = run_first_shard(source, tmp_path / "out")
    assert outcome.commit is None
    assert (
        "1 of 3 rows have no verdict for a reason that may pass (timeout: 30 s)"
        in outcome.faults[0]
    )


def test_a_budget_that_ends_within_a_shard_says_what_helps(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": text} for text in ("a", "spent", "b")])
    outcome = run_first_shard(source, tmp_path / "out")
    assert outcome.commit is None
    (fault,) = outcome.faults
    assert "the budget of 20 requests is spent; no verdict on this shard is stored" in fault
    assert fault.endswith("or a smaller --shard-mib with another --out")


def test_a_judge_that_costs_much_judges_no_row_of_a_malformed_shard(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "a"}, {"text": 3}])
    judge = RaisingJudge()
    job, (shard,) = plan_job(judge, str(source), RowOptions(), "", 1 << 20)
    begin_job(ShardStore(tmp_path / "out"), job)
    runner = ShardRunner(job, judge, str(tmp_path / "out"))
    assert "in.jsonl:2: text: expected text" in runner.run(shard).faults[0]
    runner.close()
    assert judge.n_calls == 0


def test_a_judge_that_waits_for_nothing_holds_few_rows(tmp_path: Path) -> None:
    rows = [{"id": str(i), "prompt": "hello", "response": "the weather"} for i in range(4000)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    moderate(source, tmp_path / "warm", 1 << 20)
    tracemalloc.start()
    manifest = moderate(source, tmp_path / "out", 1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (part,) = manifest.parts
    # The lines of the part, the part, and the input: not a row's objects, which take 2 KB each.
    assert peak < 3 * (tmp_path / "out" / part.file).stat().st_size


def test_a_file_that_is_written_again_while_work_goes_on_is_refused(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": f"row {i}"} for i in range(9)])
    job, shards = plan_job(JUDGE, str(source), RowOptions(), "", 60)
    begin_job(ShardStore(tmp_path / "out"), job)
    runner = ShardRunner(job, JUDGE, str(tmp_path / "out"))
    assert runner.run(shards[0]).commit is not None
    write_rows(source, [{"text": f"ROW {i}"} for i in range(9)])
    faults = runner.run(shards[1]).faults
    runner.close()
    assert len(faults) == 1 and "was written again since" in faults[0]


def test_missing_hashes_of_ids_are_an_error(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "a"}])
    moderate(source, tmp_path / "out")
    next((tmp_path / "out" / "ids").iterdir()).unlink()
    with pytest.raises(RunError, match="is missing; delete commits/000000.json"):
        moderate(source, tmp_path / "out")
