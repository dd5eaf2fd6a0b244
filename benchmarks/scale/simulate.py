"""Simulates a job: shards on workers, with stragglers, deaths, a rate limit and a slow driver.

    python benchmarks/scale/simulate.py                      # the table of docs/explanation/scale.md
    python benchmarks/scale/simulate.py --rows 1e8 --workers 100 --us-per-row 40

Events, one a shard: a worker takes the next shard when the driver has handed it out, works for the
time of its rows (times a log-normal factor of its machine), dies at a rate, and commits.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Job:
    """A job and a cluster; times in seconds.

    `spread` is the standard deviation of the logarithm of a shard's factor, `deaths` the mean
    number of deaths of a worker in an hour, `hand_out` what the driver does for a shard, one after
    the other, `rate` the most rows a second that an endpoint allows (None: no endpoint). `cores`
    are those of all machines where they are fewer than the workers, which then share them.
    """

    rows: float
    workers: int
    us_per_row: float = 67.0
    rows_per_shard: float = 100_000
    start: float = 20.0
    hand_out: float = 0.004
    commit: float = 0.05
    spread: float = 0.2
    deaths: float = 0.01
    restart: float = 20.0
    rate: float | None = None
    cores: float = math.inf
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """Seconds of the job, the share of the workers' time that was work that counts, deaths."""

    seconds: float
    useful: float
    deaths: int


def simulate(job: Job) -> Outcome:
    """Returns how long a job takes."""
    source = random.Random(job.seed)
    n_shards = max(1, math.ceil(job.rows / job.rows_per_shard))
    free = [(job.start, worker) for worker in range(min(job.workers, n_shards))]
    heapq.heapify(free)
    driver_free = end = useful = 0.0
    left, deaths = n_shards, 0
    rows = job.rows / n_shards
    us_per_row = job.us_per_row * max(1.0, min(job.workers, n_shards) / job.cores)
    while left:
        at, worker = heapq.heappop(free)
        driver_free = max(at, driver_free) + job.hand_out
        work = rows * us_per_row / 1e6 * source.lognormvariate(0, job.spread) + job.commit
        if job.rate is not None:
            # The limit is shared evenly by all workers that are busy.
            work = max(work, rows * min(job.workers, n_shards) / job.rate)
        to_death = source.expovariate(job.deaths / 3600) if job.deaths else math.inf
        if to_death < work:
            deaths += 1
            heapq.heappush(free, (driver_free + to_death + job.restart, worker))
            continue
        left -= 1
        useful += work
        end = max(end, driver_free + work)
        heapq.heappush(free, (driver_free + work, worker))
    return Outcome(end, useful / (end * min(job.workers, n_shards)), deaths)


def main() -> None:
    """Prints the table, or the outcome of one job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--us-per-row", type=float, default=67.0)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--deaths", type=float, default=0.01, help="of a worker, an hour")
    parser.add_argument("--rows-per-shard", type=float, default=100_000)
    parser.add_argument("--start", type=float, default=20.0, help="seconds until work begins")
    parser.add_argument("--restart", type=float, default=20.0, help="seconds after a death")
    parser.add_argument("--spread", type=float, default=0.2)
    parser.add_argument("--cores", type=float, default=math.inf)
    arguments = parser.parse_args()
    job = Job(
        rows=arguments.rows or 1e6,
        workers=arguments.workers,
        us_per_row=arguments.us_per_row,
        rate=arguments.rate,
        deaths=arguments.deaths,
        rows_per_shard=arguments.rows_per_shard,
        start=arguments.start,
        restart=arguments.restart,
        spread=arguments.spread,
        cores=arguments.cores,
    )
    if arguments.rows:
        outcome = simulate(job)
        print(json.dumps(outcome.__dict__))
        return
    print("| rows | 1 worker | 10 | 100 | 1,000 |\n|---|---|---|---|---|")
    for rows in (1e6, 1e7, 1e8, 1e9, 1e10):
        cells = []
        for workers in (1, 10, 100, 1000):
            # Of the largest jobs a shard holds more rows: a million events are enough.
            size = max(job.rows_per_shard, rows / 1e5)
            outcome = simulate(replace(job, rows=rows, workers=workers, rows_per_shard=size))
            cells.append(f"{describe_seconds(outcome.seconds)} ({outcome.useful:.0%})")
        print(f"| 10^{round(math.log10(rows))} | " + " | ".join(cells) + " |")


def describe_seconds(seconds: float) -> str:
    """Returns a duration for people."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s"


if __name__ == "__main__":
    main()
