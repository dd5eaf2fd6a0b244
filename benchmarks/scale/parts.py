"""What a row costs: processor time to read, hash, judge, encode and write it, in one process.

    python benchmarks/scale/parts.py --rows 20000 --judge keywords: moderation:fast
    python benchmarks/scale/parts.py --rows 100000 --processes 2

A few rows at a time, as a worker takes them for a judge that waits for nothing; for other judges all
rows, sorted by length. With several processes at once each line is one process's: the cores of a
machine slow each other down, most of all where two are threads of one core. These figures feed
`simulate.py` and docs/explanation/scale.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rows import write_rows

from truing.bulk.input_shards import ShardRows, find_sources, plan_shards
from truing.bulk.part_formats import PartEncoder
from truing.bulk.row_files import InputRow, RowOptions
from truing.bulk.row_ids import hash_row_id, pack_hashes
from truing.bulk.row_judgements import (
    ADDED_FIELDS,
    CHUNK_SIZE,
    is_immediate,
    judge_by_length,
    judged_values,
)
from truing.bulk.row_totals import count_rows
from truing.bulk.shard_store import ShardStore
from truing.core.batches import split_batches
from truing.core.language_id import detect_language
from truing.core.protocols import Judge
from truing.specs.resolve import resolve


class PartTimes:
    """Processor seconds of each part of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def measure(self, name: str, call: Callable[[], Any]) -> Any:
        """Calls a function, adds its time to a part's, and returns its result."""
        started = time.process_time()
        result = call()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started
        return result


def measure_parts(judge: Judge, source: ShardRows, size: int) -> tuple[PartTimes, bytes]:
    """Does what a worker does with a shard, `size` rows at a time; returns the file, too."""
    times, part = PartTimes(), PartEncoder(source)
    hashes: list[int | None] = []
    loop = asyncio.Runner()
    chunks: Iterator[list[InputRow]] = split_batches(
        (row for row in source if isinstance(row, InputRow)), size
    )
    while rows := times.measure("read", lambda: next(chunks, None)):
        judgements = times.measure("judge", lambda of=rows: loop.run(judge_by_length(judge, of)))

        def encode(of: list[InputRow] = rows, by: list[Any] = judgements) -> list[Any]:
            values = [judged_values(judge, judgement) for judgement in by]
            part.add(of, values)
            return values

        values = times.measure("encode", encode)
        times.measure("hash", lambda of=rows, v=values: count_rows(of, v))
        times.measure("hash", lambda of=rows: hashes.extend(map(hash_row_id, of)))
    times.measure("hash", lambda: pack_hashes(hashes))
    data = times.measure("encode", part.encode)
    loop.close()
    return times, data


def measure_judge(spec: str, path: Path, n_rows: int) -> dict[str, Any]:
    """Returns the figures of a judge."""
    options = RowOptions()
    (shard,) = plan_shards(find_sources(str(path), options), options, 1 << 40)
    load = PartTimes()
    judge = load.measure("judge", lambda: resolve(spec, "judge"))
    # The model of languages: once a process, at the first text without a common word of English.
    load.measure("languages", lambda: detect_language("tungsten kiwi marzipan drizzle plinth"))
    source = ShardRows(shard, options, list(ADDED_FIELDS))
    times, data = measure_parts(judge, source, CHUNK_SIZE if is_immediate(judge) else n_rows)
    store = ShardStore(path.parent)
    started = time.perf_counter()
    store.write("part", data)
    written = time.perf_counter()
    for name in ("ids", "commit"):
        store.write(name, b"{}")
    store.write("attempt", b"x", durable=False)
    committed = time.perf_counter()
    by_part = {name: round(1e6 * s / n_rows, 2) for name, s in times.seconds.items()}
    return {
        "judge": spec,
        "rows": n_rows,
        "bytes_per_row": round(path.stat().st_size / n_rows),
        "cpu_us_per_row": {**by_part, "sum": round(sum(by_part.values()), 1)},
        "load_s": {name: round(seconds, 2) for name, seconds in load.seconds.items()},
        "write_us_per_row": round(1e6 * (written - started) / n_rows, 2),
        "commit_ms": round(1e3 * (committed - written), 2),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Prints one line of JSON for each judge and process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--judge", nargs="+", default=["keywords:"])
    parser.add_argument("--processes", type=int, default=1, help="so many at once")
    arguments = parser.parse_args()
    if arguments.processes > 1:
        words = [sys.executable, __file__, "--rows", str(arguments.rows)]
        words += ["--judge", *arguments.judge]
        for process in [subprocess.Popen(words) for _ in range(arguments.processes)]:
            process.wait()
        return
    with tempfile.TemporaryDirectory() as folder:
        path = write_rows(Path(folder) / "rows.jsonl", arguments.rows)
        for spec in arguments.judge:
            print(json.dumps(measure_judge(spec, path, arguments.rows)), flush=True)


if __name__ == "__main__":
    main()
