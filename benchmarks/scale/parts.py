"""What a row costs: processor time to read, hash, judge, encode and write it, in one process.

    python benchmarks/scale/parts.py --rows 20000 --judge keywords: moderation:fast

These figures feed `simulate.py` and docs/explanation/scale.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rows import write_rows

from truing.bulk.input_shards import ShardRows, find_sources, plan_shards
from truing.bulk.part_formats import encode_part
from truing.bulk.row_files import InputRow, RowOptions
from truing.bulk.row_ids import hash_row, hash_row_id, pack_hashes
from truing.bulk.row_judgements import ADDED_FIELDS, judge_by_length, judged_values
from truing.bulk.shard_store import ShardStore
from truing.specs.resolve import resolve


def measure(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Returns the result, the processor seconds and the seconds of a call."""
    started, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.process_time() - cpu, time.perf_counter() - started


def main() -> None:
    """Prints one line of JSON for each judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--judge", nargs="+", default=["keywords:"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write_rows(Path(folder) / "rows.jsonl", arguments.rows)
        options = RowOptions()
        (shard,) = plan_shards(find_sources(str(path), options), options, 1 << 40)
        for spec in arguments.judge:
            judge = resolve(spec, "judge")
            source = ShardRows(shard, options, list(ADDED_FIELDS))
            asyncio.run(
                judge_by_length(judge, [r for r in source if isinstance(r, InputRow)][:256])
            )
            rows, read, _ = measure(lambda of=source: [r for r in of if isinstance(r, InputRow)])
            _, hashed, _ = measure(
                lambda of=rows: (
                    [hash_row(r.fields) for r in of],
                    pack_hashes(map(hash_row_id, of)),
                )
            )
            judgements, judged, _ = measure(
                lambda of=rows, by=judge: asyncio.run(judge_by_length(by, of))
            )
            data, encoded, _ = measure(
                lambda of=source, r=rows, j=judgements, by=judge: encode_part(
                    of, r, [judged_values(by, one) for one in j]
                )
            )
            store = ShardStore(folder)
            _, _, written = measure(lambda d=data, to=store: to.write("part", d))
            _, _, committed = measure(lambda to=store: to.write("commit", b"{}"))
            n = len(rows)
            figures = {
                "judge": spec,
                "rows": n,
                "bytes_per_row": round(path.stat().st_size / n),
                "cpu_us_per_row": {
                    "read": round(1e6 * read / n, 2),
                    "hash": round(1e6 * hashed / n, 2),
                    "judge": round(1e6 * judged / n, 2),
                    "encode": round(1e6 * encoded / n, 2),
                },
                "write_us_per_row": round(1e6 * written / n, 2),
                "commit_ms": round(1e3 * committed, 2),
                "load": os.getloadavg()[0],
            }
            print(json.dumps(figures))


if __name__ == "__main__":
    main()
