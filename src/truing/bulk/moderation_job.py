"""Moderates many rows in shards: the plan, the work on one shard, and the manifest of the result.

    OUT/plan.json           what is judged, by what, and how; only the same command continues
    OUT/parts/N-DIGEST.EXT  the judged rows of shard N
    OUT/ids/N.u64           the hashes of its rows' ids, sorted
    OUT/commits/N.json      which part counts for shard N, with its counts
    OUT/manifest.json       at the end: all parts, and the counts of all rows

A shard counts once its commit is there. A part is named by its content and the commit names the
part, so that a worker that was thought dead and writes after all changes nothing: each row of the
input is in exactly one part that counts.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from truing.bulk.input_shards import (
    InputShard,
    ShardFormat,
    ShardRows,
    SourceFile,
    check_unchanged,
    find_sources,
    name_key_ranges,
    options_with_format,
    plan_shards,
)
from truing.bulk.part_formats import PartEncoder
from truing.bulk.row_files import InputRow, RowOptions, TakenName
from truing.bulk.row_ids import DuplicateIds, find_duplicate_ids, hash_row, hash_row_id, pack_hashes
from truing.bulk.row_judgements import (
    ADDED_FIELDS,
    CHUNK_SIZE,
    is_immediate,
    judge_by_length,
    judge_rows,
    judged_values,
)
from truing.bulk.row_totals import ID_MODULUS, RowTotals, count_rows
from truing.bulk.shard_store import ShardStore
from truing.core.batches import split_batches
from truing.core.errors import BudgetExceeded, DataError, RunError
from truing.core.protocols import Closeable, Judge
from truing.core.types import Failure, Judgement
from truing.core.version import __version__
from truing.http.limits import close_connections

MAX_FAULTS = 20
"""Faults of the input that are reported at once."""

MAX_ATTEMPTS = 6
"""A shard that was begun so often by one command, and never finished, kills its workers."""

MAX_PASSING_SHARE = 0.01
"""Share of a shard's rows that may lack a verdict because of an outage; with more, the shard is not
committed."""


class ModerationJob(Struct, frozen=True, kw_only=True):
    """What is judged and how; two commands with equal jobs continue each other.

    `judge` is the judge's name, not its spec: it holds no secret.
    """

    judge: str
    judge_hash: str
    sources: tuple[SourceFile, ...]
    options: RowOptions
    prefix: str
    shard_bytes: int
    truing: str = __version__

    @property
    def format(self) -> ShardFormat:
        """The format of the input and of the parts."""
        return self.sources[0].format

    @property
    def added(self) -> list[str]:
        """The names of the fields that each row gets."""
        return [self.prefix + name for name in ADDED_FIELDS]


class ShardCommit(Struct, frozen=True, kw_only=True):
    """A finished shard: the part that holds its rows, and its counts.

    `faults` names the first malformed rows that were left out.
    """

    shard: int
    file: str
    sha256: str
    totals: RowTotals
    faults: tuple[str, ...] = ()


class ShardOutcome(Struct, frozen=True, kw_only=True):
    """What a worker returns: the commit, or why there is none."""

    shard: int
    commit: ShardCommit | None = None
    faults: tuple[str, ...] = ()


class Manifest(Struct, frozen=True, kw_only=True):
    """The finished output: its parts in the order of the input, and the counts of all rows."""

    job: ModerationJob
    totals: RowTotals
    parts: tuple[ShardCommit, ...]
    duplicate_ids: DuplicateIds = DuplicateIds()


def plan_job(
    judge: Judge, source: str, options: RowOptions, prefix: str, shard_bytes: int
) -> tuple[ModerationJob, list[InputShard]]:
    """Returns the job and its shards; raises DataError for an input that cannot be read."""
    sources = find_sources(source, options)
    shards = plan_shards(sources, options, shard_bytes)
    job = ModerationJob(
        judge=judge.name,
        judge_hash=judge.lineage.hash,
        sources=tuple(name_key_ranges(sources, shards)),
        options=options,
        prefix=prefix,
        shard_bytes=shard_bytes,
    )
    return job, shards


# The folder of the output


def begin_job(store: ShardStore, job: ModerationJob) -> dict[int, ShardCommit]:
    """Writes the plan, or checks that the folder holds this one; returns the finished shards.

    Raises RunError if the folder is another job's.
    """
    encoded = msgspec.json.encode(job)
    stored = store.read("plan.json")
    if stored is None:
        if store.read("manifest.json") is not None or store.names("commits"):
            raise RunError(f"{store.url}: holds other files; give another --out")
        store.write("plan.json", msgspec.json.format(encoded, indent=2) + b"\n")
        return {}
    try:
        earlier = msgspec.json.decode(stored, type=ModerationJob)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{store.path('plan.json')}: {error}") from error
    if earlier != job:
        raise RunError(f"{store.url}: was begun with {_describe_difference(earlier, job)}")
    for folder in ("", "parts", "commits", "ids"):
        store.delete_temporary_files(folder)
    # A new command tries again what ended its workers before.
    for name in store.names("attempts"):
        store.delete(f"attempts/{name}")
    return read_commits(store)


def _describe_difference(earlier: ModerationJob, job: ModerationJob) -> str:
    for name in job.__struct_fields__:
        old, new = getattr(earlier, name), getattr(job, name)
        if old == new:
            continue
        if name == "truing":
            return f"truing {old}, and this is {new}; use that version, or give another --out"
        if name == "sources":
            changed = sorted({s.path for s in old} ^ {s.path for s in new}) or [
                a.path for a, b in zip(old, new) if a != b
            ]
            return f"other input files ({changed[0]} is new or has changed); give another --out"
        return f"another {name.replace('_', ' ')}; give another --out"
    return "the same settings"


def read_commits(store: ShardStore) -> dict[int, ShardCommit]:
    """Returns the finished shards by number; a commit whose part is missing counts for nothing."""
    parts = store.names("parts")
    names = [f"commits/{name}" for name in sorted(store.names("commits"))]
    commits = (_decode_commit(encoded) for _, encoded in store.read_many(names))
    return {c.shard: c for c in commits if c is not None and c.file.removeprefix("parts/") in parts}


def _decode_commit(encoded: bytes | None) -> ShardCommit | None:
    """Returns a commit; None if there is none, or a damaged one: the shard is done again."""
    try:
        return msgspec.json.decode(encoded or b"", type=ShardCommit)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def finish_job(
    store: ShardStore, job: ModerationJob, shards: int, commits: dict[int, ShardCommit]
) -> Manifest:
    """Writes the manifest of a complete output and returns it.

    Its bytes depend on the input and the judge alone, not on which worker did what, or how often.
    Raises RunError if a shard is missing.
    """
    missing = [number for number in range(shards) if number not in commits]
    if missing:
        raise RunError(
            f"{store.url}: {len(missing)} of {shards} shards are not finished; the same command "
            "continues"
        )
    parts = tuple(commits[number] for number in range(shards))
    totals = RowTotals()
    for part in parts:
        totals = totals.add(part.totals)
    manifest = Manifest(
        job=job,
        totals=totals,
        parts=parts,
        duplicate_ids=find_duplicate_ids(_read_ids(store, shards)),
    )
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    store.write("manifest.json", encoded + b"\n")
    for name in store.names("attempts"):
        store.delete(f"attempts/{name}")
    return manifest


def _read_ids(store: ShardStore, shards: int) -> Iterator[bytes]:
    names = [f"ids/{number:06d}.u64" for number in range(shards)]
    for number, (name, hashes) in enumerate(store.read_many(names)):
        if hashes is None:
            # Without them, ids that occur twice would not be seen.
            raise RunError(
                f"{store.path(name)}: is missing; delete commits/{number:06d}.json, and the same "
                "command does the shard again"
            )
        yield hashes


def read_manifest(url: str) -> Manifest:
    """Returns the manifest of a finished output; raises RunError if there is none."""
    store = ShardStore(url)
    data = store.read("manifest.json")
    if data is None:
        raise RunError(f"{url}: no manifest.json; the same command continues an unfinished output")
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{store.path('manifest.json')}: {error}") from error


def run_shards(
    runner: ShardRunner, shards: Iterable[InputShard], report: Callable[[ShardOutcome], None]
) -> None:
    """Works on shards one after the other in this process."""
    for shard in shards:
        report(runner.run(shard))


# The work on one shard


class ShardRunner:
    """Judges shards with one judge, and commits them; errors are returned, not raised.

    Raises RunError if the judge is not the one of the job: another version of its weights, prompts
    or code.
    """

    def __init__(self, job: ModerationJob, judge: Judge, out: str) -> None:
        if (judge.name, judge.lineage.hash) != (job.judge, job.judge_hash):
            raise RunError(
                f"the judge of this worker is {judge.name} ({judge.lineage.hash}), that of the job "
                f"{job.judge} ({job.judge_hash})"
            )
        self.job, self.judge = job, judge
        self._sources = {source.path: source for source in job.sources}
        self.store = ShardStore(out)
        # One event loop for all shards: the connections of a judge belong to it.
        self._loop_runner: asyncio.Runner | None = asyncio.Runner()

    def run_in_loop(self, call: Callable[[], object]) -> None:
        """Calls a function inside of the event loop of the judge, in its context."""

        async def call_once() -> None:
            call()

        assert self._loop_runner is not None
        self._loop_runner.run(call_once())

    def run(self, shard: InputShard) -> ShardOutcome:
        """Returns the commit of a shard, or its faults; of a finished one what is stored."""
        try:
            commit = _decode_commit(self.store.read(f"commits/{shard.number:06d}.json"))
            if commit is None or not self.store.exists(commit.file):
                commit = self._judge_shard(shard)
        except DataError as error:
            return ShardOutcome(shard=shard.number, faults=error.faults[:MAX_FAULTS])
        except BudgetExceeded as error:
            fault = (
                f"{shard.label}: {error}; no verdict on this shard is stored: give a higher "
                "budget, fewer workers, or a smaller --shard-mib with another --out"
            )
            return ShardOutcome(shard=shard.number, faults=(fault,))
        except Exception as error:
            fault = f"{shard.label}: {type(error).__name__}: {error}"
            return ShardOutcome(shard=shard.number, faults=(fault,))
        return ShardOutcome(shard=shard.number, commit=commit)

    def close(self) -> None:
        """Closes the judge's connections; may be called twice."""
        if self._loop_runner is None:
            return
        with self._loop_runner as loop_runner:
            loop_runner.run(_close(self.judge))
        self._loop_runner = None

    def _judge_shard(self, shard: InputShard) -> ShardCommit:
        attempt = self._count_attempt(shard.number)
        if attempt > MAX_ATTEMPTS:
            raise DataError(
                f"{shard.label}: ended its worker {MAX_ATTEMPTS} times; is a row too large for the "
                "memory of a worker? Give smaller shards, or fewer workers a machine"
            )
        judged = _JudgedRows(ShardRows(shard, self.job.options, self.job.added), self.judge)
        assert self._loop_runner is not None
        self._loop_runner.run(self._judge_rows(judged))
        _check_failures(shard, judged)
        data = judged.part.encode()
        digest = hashlib.sha256(data).hexdigest()
        number = f"{shard.number:06d}"
        commit = ShardCommit(
            shard=shard.number,
            file=f"parts/{number}-{digest[:12]}.{shard.format}",
            sha256=digest,
            totals=judged.totals.add(RowTotals(skipped=len(judged.faults))),
            faults=tuple(judged.faults[:MAX_FAULTS]),
        )
        self.store.write(commit.file, data)
        self.store.write(f"ids/{number}.u64", pack_hashes(judged.id_hashes))
        # Last: from here on the shard counts.
        self.store.write(f"commits/{number}.json", msgspec.json.encode(commit))
        return commit

    async def _judge_rows(self, judged: _JudgedRows) -> None:
        rows = self._read_rows(judged.source, judged.faults)
        if is_immediate(self.judge):
            # A few rows at a time: those of a whole shard take ten times the memory of their
            # texts, and every pass of the garbage collector walks over them.
            for chunk in split_batches(rows, CHUNK_SIZE):
                judged.add(chunk, await judge_rows(self.judge, chunk))
            return
        # All rows are read before the first is judged: judging costs much, and a fault refuses all.
        all_rows = list(rows)
        judged.add(all_rows, await judge_by_length(self.judge, all_rows))

    def _count_attempt(self, number: int) -> int:
        """Counts how often a shard was begun, also by workers that died of it."""
        earlier = self.store.read(f"attempts/{number:06d}") or b""
        self.store.write(f"attempts/{number:06d}", earlier + b"x", durable=False)
        return len(earlier) + 1

    def _read_rows(self, source: ShardRows, faults: list[str]) -> Iterator[InputRow]:
        """Yields the rows of a shard; adds those of malformed ones to `faults`.

        Raises DataError at the end, with all faults, unless they are skipped; no row is yielded
        after a fault that is not.
        """
        source_file = self._sources[source.shard.path]
        # Before and after: the rows are then those of the version that was planned.
        check_unchanged(source_file, self.job.options)
        is_refused = False
        for row in source:
            if isinstance(row, InputRow):
                if not is_refused:
                    yield row
                continue
            faults += row.faults
            skips = self.job.options.skip_malformed and not isinstance(row, TakenName)
            is_refused = is_refused or not skips
            if is_refused and len(faults) >= MAX_FAULTS:
                break
        if is_refused:
            raise DataError(*faults[:MAX_FAULTS])
        check_unchanged(source_file, self.job.options)


class _JudgedRows:
    """What a commit needs of the judged rows of a shard; `faults` are of malformed ones."""

    def __init__(self, source: ShardRows, judge: Judge) -> None:
        self.source, self._judge = source, judge
        self.part = PartEncoder(source)
        self.totals = RowTotals()
        self.id_hashes: list[int | None] = []
        self.faults: list[str] = []
        self.passing_failures: list[Failure] = []

    def add(self, rows: list[InputRow], judgements: list[Judgement]) -> None:
        """Adds rows in the order of the input, with their judgements."""
        values = [judged_values(self._judge, judgement) for judgement in judgements]
        self.part.add(rows, values)
        self.totals = self.totals.add(count_rows(rows, values))
        self.id_hashes += map(hash_row_id, rows)
        failures = (judgement.failure for judgement in judgements)
        self.passing_failures += [f for f in failures if f is not None and f.transient]


def _check_failures(shard: InputShard, judged: _JudgedRows) -> None:
    """Raises DataError if more than a few rows lack a verdict for a reason that may pass.

    A commit is final: an outage of the judge's endpoint would leave whole shards unscored.
    """
    passing, n_rows = judged.passing_failures, judged.totals.rows
    if len(passing) > MAX_PASSING_SHARE * n_rows:
        raise DataError(
            f"{shard.label}: {len(passing)} of {n_rows} rows have no verdict for a reason "
            f"that may pass ({passing[0].kind}: {passing[0].message}); the same command repeats "
            "the shard"
        )


async def _close(judge: Any) -> None:
    if isinstance(judge, Closeable):
        await judge.close()
    await close_connections()


def sum_input_ids(job: ModerationJob, shards: Iterable[InputShard]) -> RowTotals:
    """Returns rows and ids of an input, read anew: what the output must hold, no more and no less.

    For checks after a failure; reads everything once.
    """
    count = total = 0
    for shard in shards:
        options = options_with_format(
            job.options, "jsonl" if shard.format == "parquet" else shard.format
        )
        for row in ShardRows(shard, options, job.added):
            if isinstance(row, InputRow):
                count += 1
                total += int.from_bytes(hash_row(row.fields), "big")
    return RowTotals(rows=count, ids=f"{total % ID_MODULUS:032x}")
