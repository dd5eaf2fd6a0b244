"""Simulates a job: shards on workers, with stragglers, deaths, a rate limit and a slow driver.

    python benchmarks/scale/simulate.py                      # the table of docs/explanation/scale.md
    python benchmarks/scale/simulate.py --rows 1e8 --workers 100 --us-per-row 40
    python benchmarks/scale/simulate.py --rows 2e6 --workers 3 --machines 1 --cores 2 --nodes 3
    python benchmarks/scale/simulate.py --compare            # with the jobs that were measured

A worker takes the next shard when the driver has handed it out, works for the time of its rows
(times a log-normal factor), dies at a rate, and commits. Workers of one machine share its cores
with each other and with Ray's own processes; where all cores are busy each is slower by `crowding`.
Every constant is measured apart from the jobs that are predicted (`parts.py`, `nodes.py --idle`).
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import random
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Job:
    """A job and a cluster; times in seconds.

    - `start`: until the first worker can take a shard; `worker_start`: processor time of each
      later one until it can
    - `spread`: standard deviation of the logarithm of a shard's factor
    - `hand_out`: what the driver does for a shard, one after the other; `commit`: what a worker
      waits for when a shard is written
    - `deaths`: mean number of deaths of a worker in an hour; `restart`: until it is replaced
    - `rate`: most rows a second that an endpoint allows (None: no endpoint)
    - `machines`: None is one for each worker; `cores`: of each machine; `nodes`: Ray's nodes on
      one machine (more than one where network namespaces stand for machines)
    - `node_cores`: what Ray's own processes of one node take, in cores; `shard_processor`: the
      processor time of the driver and of Ray's processes for a shard, on the first machine;
      `shard_work`: that of the worker, besides the rows
    - `crowding`: by what factor a row takes more processor time when all cores are busy
    """

    rows: float
    workers: int
    us_per_row: float = 69.0
    rows_per_shard: float = 100_000
    start: float = 20.0
    worker_start: float = 0.0
    hand_out: float = 0.011
    commit: float = 0.05
    spread: float = 0.2
    deaths: float = 0.01
    restart: float = 20.0
    rate: float | None = None
    machines: int | None = None
    cores: float = math.inf
    nodes: int = 1
    node_cores: float = 0.0
    shard_processor: float = 0.0
    shard_work: float = 0.0
    crowding: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """Seconds of the job, the share of the workers' time that was work that counts, deaths."""

    seconds: float
    useful: float
    deaths: int


@dataclass
class Machine:
    """The work that the workers of a machine have left, in processor seconds of an idle machine."""

    cores: float
    ray_cores: float
    crowding: float
    left: dict[int, float] = field(default_factory=dict)
    at: float = 0.0
    version: int = 0

    def speed(self) -> float:
        """Returns how much of a second's work each worker does in a second."""
        busy = len(self.left)
        if math.isinf(self.cores):
            return 1.0
        share = min(1.0, max(self.cores - self.ray_cores, 0.01) / busy)
        # One busy core is slowed down by nobody.
        others = min(busy + self.ray_cores, self.cores) - 1
        crowded = max(0.0, others / (self.cores - 1)) if self.cores > 1 else 0.0
        return share / (1 + (self.crowding - 1) * crowded)

    def advance(self, now: float) -> None:
        """Does the work of the time that has passed; whoever asks next sees another version."""
        if self.left:
            done = self.speed() * (now - self.at)
            self.left = {worker: left - done for worker, left in self.left.items()}
        self.at = now
        self.version += 1

    def next_end(self) -> tuple[float, int]:
        """Returns when the next worker has done its work, and which."""
        worker = min(self.left, key=self.left.__getitem__)
        return self.at + max(0.0, self.left[worker]) / self.speed(), worker


class Simulation:
    """The state of a job: what happens next, and what is left to do."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.source = random.Random(job.seed)
        self.waiting = max(1, math.ceil(job.rows / job.rows_per_shard))
        self.rows = job.rows / self.waiting
        self.workers = min(job.workers, self.waiting)
        n_machines = min(job.machines or self.workers, self.workers)
        ray_cores = job.nodes * job.node_cores
        self.machines = [Machine(job.cores, ray_cores, job.crowding) for _ in range(n_machines)]
        self.idle: list[int] = []
        # Of a worker with work: its shard's whole work, or None where it dies or starts.
        self.shard_work: dict[int, float | None] = {}
        self.dying: set[int] = set()
        self.driver_free = self.end = self.useful = 0.0
        self.deaths = 0
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, str, int, int]] = []

    def run(self) -> Outcome:
        """Returns the outcome, once all shards are done."""
        for worker in range(self.workers):
            if worker and self.job.worker_start:
                self._add(self.job.start, "load", worker)
            else:
                self._add(self.job.start, "free", worker)
        while self._events:
            now, _, what, number, version = heapq.heappop(self._events)
            if what == "free":
                self._take_shard(now, number)
            elif what == "load":
                self._begin(now, number, self.job.worker_start, None)
            elif what == "ray":
                self._begin(now, number, self.job.shard_processor, None)
            elif what == "begin":
                self._begin_shard(now, number)
            elif version == self.machines[number].version:
                self._finish(now, self.machines[number])
        seconds = self.end
        return Outcome(seconds, self.useful / (seconds * self.workers), self.deaths)

    def _add(self, at: float, what: str, number: int, version: int = 0) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), what, number, version))

    def _machine(self, worker: int) -> int:
        return max(worker, 0) % len(self.machines)

    def _take_shard(self, now: float, worker: int) -> None:
        if not self.waiting:
            self.idle.append(worker)
            return
        self.waiting -= 1
        self.driver_free = max(now, self.driver_free) + self.job.hand_out
        if self.job.shard_processor:
            # Another process of the first machine, which works beside its workers.
            self._add(now, "ray", -next(self._numbers) - 1)
        self._add(self.driver_free, "begin", worker)

    def _begin_shard(self, now: float, worker: int) -> None:
        job = self.job
        work = self.rows * job.us_per_row / 1e6 * self.source.lognormvariate(0, job.spread)
        work += job.shard_work
        if job.rate is not None:
            # The limit is shared evenly by all workers that are busy.
            work = max(work, self.rows * self.workers / job.rate)
        to_death = self.source.expovariate(job.deaths / 3600) if job.deaths else math.inf
        if to_death < work:
            self.dying.add(worker)
        self._begin(now, worker, min(work, to_death), work)

    def _begin(self, now: float, worker: int, work: float, of_shard: float | None) -> None:
        number = self._machine(worker)
        machine = self.machines[number]
        machine.advance(now)
        machine.left[worker] = work
        self.shard_work[worker] = of_shard
        self._expect(number)

    def _expect(self, number: int) -> None:
        """Notes when the next worker of a machine has done its work."""
        machine = self.machines[number]
        if machine.left:
            self._add(machine.next_end()[0], "finish", number, machine.version)

    def _finish(self, now: float, machine: Machine) -> None:
        _, worker = machine.next_end()
        machine.advance(now)
        del machine.left[worker]
        work = self.shard_work.pop(worker)
        if worker in self.dying:
            self.dying.discard(worker)
            self.deaths += 1
            self.waiting += 1
            self._add(now + self.job.restart, "free", worker)
            if self.idle:
                self._add(now, "free", self.idle.pop())
        elif work is None:
            if worker >= 0:
                self._add(now, "free", worker)
        else:
            self.useful += work + self.job.commit
            self.end = max(self.end, now + self.job.commit)
            self._add(now + self.job.commit, "free", worker)
        self._expect(self._machine(worker))


def simulate(job: Job) -> Outcome:
    """Returns how long a job takes."""
    return Simulation(job).run()


# The small end: jobs that were measured on one machine of two cores (README), predicted from
# parts that were measured apart from them, on the same machine.

ROW_US = 68.7  # parts.py --rows 100000, `keywords:`: the sum, and the write
MODERATION_ROW_US = 7201.0  # parts.py --rows 800 --judge moderation:fast
MODERATION_LOAD = 6.5  # the same: load_s of the judge, once in the driver and once in each worker
ONE_NODE_START = 14.1  # overhead.py: a job of one row, with the start of Ray
# nodes.py --idle 15
THREE_NODES_START = 9.4  # a job of one row on a cluster that runs
WORKER_START = 2.8
NODE_CORES = 0.024
HAND_OUT = 0.0106
SHARD_PROCESSOR = 0.014
SHARD_WORK = 0.0143
# parts.py --rows 60000 --processes 3, mean of two trials: the sum over that of one process; what
# each of the three waits for to write and commit a shard of 9,000 rows (0.27 s and 0.02 s)
CROWDING = 1.10
THREE_COMMIT = 0.15
MODERATION_CROWDING = 1.06  # parts.py --rows 800 --judge moderation:fast --processes 2
# The workers' processor time of a row in another job on three nodes (1,000,000 rows), over `ROW_US`
JOB_CROWDING = 1.27


@dataclass(frozen=True)
class MeasuredJob:
    """A job, and how many seconds it took, its start included."""

    name: str
    seconds: float
    job: Job


def list_measured_jobs() -> list[MeasuredJob]:
    """Returns the jobs that were measured, with the parts that predict them."""
    one_node = Job(
        rows=500_000,
        workers=1,
        us_per_row=ROW_US,
        rows_per_shard=500_000 / 14,
        start=ONE_NODE_START,
        hand_out=HAND_OUT,
        commit=0.001,
        # Shards of like size on one machine, of which none died.
        spread=0.0,
        deaths=0.0,
        machines=1,
        cores=2,
        node_cores=NODE_CORES,
        shard_processor=SHARD_PROCESSOR,
        shard_work=SHARD_WORK,
    )
    three_nodes = replace(
        one_node,
        rows=2_000_000,
        workers=3,
        rows_per_shard=2_000_000 / 222,
        commit=THREE_COMMIT,
        crowding=CROWDING,
        start=THREE_NODES_START,
        worker_start=WORKER_START,
        nodes=3,
    )
    moderation = replace(
        three_nodes,
        rows=100_000,
        us_per_row=MODERATION_ROW_US,
        crowding=MODERATION_CROWDING,
        rows_per_shard=100_000 / 89,
        start=THREE_NODES_START + 2 * MODERATION_LOAD,
        worker_start=WORKER_START + MODERATION_LOAD,
    )
    return [
        MeasuredJob("500,000 rows, `keywords:`, one worker", 46.6, one_node),
        MeasuredJob("100,000 rows, `moderation:fast`, three nodes", 404.1, moderation),
        MeasuredJob("2,000,000 rows, `keywords:`, three nodes", 138.9, three_nodes),
        MeasuredJob(
            "the same, with the time of a row from another job",
            138.9,
            replace(three_nodes, crowding=JOB_CROWDING),
        ),
    ]


def render_comparison() -> str:
    """Returns the table of measured jobs and their predictions."""
    lines = ["| job | measured | simulated | difference |", "|---|---|---|---|"]
    for measured in list_measured_jobs():
        seconds = simulate(measured.job).seconds
        difference = seconds / measured.seconds - 1
        cells = f"{measured.seconds:.0f} s | {seconds:.0f} s | {difference:+.0%}"
        lines.append(f"| {measured.name} | {cells} |")
    return "\n".join(lines)


FLAGS = {
    "us_per_row": "processor time of a row on an idle machine",
    "rows_per_shard": "",
    "start": "seconds until the first worker takes a shard",
    "worker_start": "processor seconds of each later worker until it does",
    "hand_out": "seconds of the driver for a shard",
    "commit": "seconds that a worker waits for a shard's files",
    "spread": "standard deviation of the logarithm of a shard's factor",
    "rate": "rows a second that an endpoint allows",
    "deaths": "of a worker, an hour",
    "restart": "seconds after a death",
    "cores": "of each machine",
    "node_cores": "cores that Ray's own processes of a node take",
    "shard_processor": "processor seconds of Ray for a shard, on the first machine",
    "shard_work": "processor seconds of a worker for a shard, besides its rows",
    "crowding": "factor of a row's time when all cores are busy",
}


def main() -> None:
    """Prints the table, or the outcome of one job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compare", action="store_true", help="with the jobs that were measured")
    parser.add_argument("--rows", type=float)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--machines", type=int, help="one for each worker if not given")
    parser.add_argument("--nodes", type=int, default=1, help="Ray's nodes on one machine")
    for name, text in FLAGS.items():
        default = getattr(Job(0, 0), name)
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=float, default=default, help=text or None)
    arguments = parser.parse_args()
    if arguments.compare:
        print(render_comparison())
        return
    values = {name: value for name, value in vars(arguments).items() if name != "compare"}
    job = Job(**{**values, "rows": arguments.rows or 1e6})
    if arguments.rows:
        print(json.dumps(simulate(job).__dict__))
        return
    print(render_table(job))


def render_table(job: Job) -> str:
    """Returns the table of rows and workers."""
    lines = ["| rows | 1 worker | 10 | 100 | 1,000 |", "|---|---|---|---|---|"]
    for rows in (1e6, 1e7, 1e8, 1e9, 1e10):
        cells = []
        for workers in (1, 10, 100, 1000):
            # Of the largest jobs a shard holds more rows: a million events are enough.
            size = max(job.rows_per_shard, rows / 1e5)
            outcome = simulate(replace(job, rows=rows, workers=workers, rows_per_shard=size))
            cells.append(f"{describe_seconds(outcome.seconds)} ({outcome.useful:.0%})")
        lines.append(f"| 10^{round(math.log10(rows))} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def describe_seconds(seconds: float) -> str:
    """Returns a duration for people."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s"


if __name__ == "__main__":
    main()
