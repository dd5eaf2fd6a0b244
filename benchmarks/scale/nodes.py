"""Three Ray nodes in network namespaces of one machine; nodes are killed while rows are moderated.

    sudo python benchmarks/scale/nodes.py --rows 2000000 --kills 10
    sudo python benchmarks/scale/nodes.py --rows 20000 --kills 1 --shard-mib 0.5      # small
    sudo python benchmarks/scale/nodes.py --idle 30      # Ray's parts for simulate.py

Each node has an address of its own on a bridge (10.24.0.0/24) and one worker. The driver is on the
head's node. Three jobs: undisturbed; one in which one of the two other nodes is killed, with all
its processes, and started again, at random points of the job's progress; one whose driver is killed
after a third of the shards, and repeated. Checks: nothing lost and nothing doubled (each id is read
from the parts, by no code of truing's), and manifests of the same bytes. Memory and processor time
of each process are read every two seconds.
Prints one line of JSON. With two cores it shows correctness, not speed-up.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rows import write_rows

BRIDGE, NETWORK, PORT = "trscale0", "10.24.0", 6399
SPACES = {name: f"{NETWORK}.{number}" for number, name in enumerate(("head", "one", "two"), 2)}
# Of this run alone: a cluster of the same user does not take its nodes.
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
REPORT_SECONDS = 10
PART_SHARDS = 200
JOBS = ("undisturbed", "nodes_killed", "driver_killed")
LAST_DEATH = 0.8  # share of the shards that are finished when the last node is killed
START_ATTEMPTS = 3  # Ray gives a node 30 s to start its processes: little on two busy cores


def run(*words: str, check: bool = True) -> None:
    """Runs a command, quietly."""
    subprocess.run(words, check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def build_network() -> None:
    """Creates the bridge and a namespace for each node; removes those of a run that was killed."""
    delete_network()
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "link", "set", BRIDGE, "up")
    for name, address in SPACES.items():
        space, pair = f"trscale-{name}", f"tr{name}"
        run("ip", "netns", "add", space)
        run("ip", "link", "add", pair, "type", "veth", "peer", "name", "eth0", "netns", space)
        run("ip", "link", "set", pair, "master", BRIDGE, "up")
        inside = ("ip", "netns", "exec", space, "ip")
        run(*inside, "addr", "add", f"{address}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "link", "set", "lo", "up")


def delete_network() -> None:
    """Ends the processes in the namespaces, and deletes what `build_network` creates."""
    for name in SPACES:
        kill_processes(name)
        # A namespace lives as long as a process in it, so the pair has to go by its own name.
        run("ip", "link", "del", f"tr{name}", check=False)
        run("ip", "netns", "del", f"trscale-{name}", check=False)
    run("ip", "link", "del", BRIDGE, check=False)


# Nodes


def start_node(name: str, folder: Path) -> subprocess.Popen[bytes]:
    """Starts a Ray node in its namespace, in a process group of its own."""
    where = ["--head", f"--port={PORT}", f"--temp-dir={folder}/ray"]
    if name != "head":
        where = [f"--address={SPACES['head']}:{PORT}"]
    ray = str(Path(sys.executable).with_name("ray"))
    words = ["ip", "netns", "exec", f"trscale-{name}", ray, "start", *where, "--block"]
    words += [f"--node-ip-address={SPACES[name]}", "--num-cpus=1"]
    words += ["--object-store-memory=100000000", "--disable-usage-stats"]
    if name == "head":
        words += ["--include-dashboard=false"]
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(words, process_group=0, stdout=log, stderr=log, env=ENVIRONMENT)


def list_processes(name: str) -> list[int]:
    """Returns the processes in the namespace of a node."""
    words = ["ip", "netns", "pids", f"trscale-{name}"]
    listed = subprocess.run(words, capture_output=True, text=True, check=False)
    return [int(pid) for pid in listed.stdout.split()]


def kill_processes(name: str) -> None:
    """Kills all processes in the namespace of a node at once."""
    for pid in list_processes(name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_node(name: str, process: subprocess.Popen[bytes]) -> None:
    """Kills a node."""
    kill_processes(name)
    process.wait()


# Memory


@dataclass
class ProcessLog:
    """What the processes of a job use: resident MiB in the order of time, processor seconds."""

    kinds: dict[int, str] = field(default_factory=dict)
    memory: dict[int, list[float]] = field(default_factory=dict)
    processor: dict[int, tuple[float, float]] = field(default_factory=dict)
    worker_states: str = (
        ""  # at the last reading, as the kernel names them: R runs, D disk, S waits
    )

    def read(self) -> None:
        """Adds the present figures of each process of the nodes."""
        page = os.sysconf("SC_PAGE_SIZE") / (1 << 20)
        ticks = os.sysconf("SC_CLK_TCK")
        is_first = not self.kinds
        self.worker_states = ""
        for name in SPACES:
            for pid in list_processes(name):
                with contextlib.suppress(OSError):
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                    times = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                    used = (int(times[11]) + int(times[12])) / ticks
                    # An idle process of Ray's becomes a worker.
                    self.kinds[pid] = describe_process(command.decode(errors="replace"))
                    if self.kinds[pid] == "worker":
                        self.worker_states += times[0]
                    self.memory.setdefault(pid, []).append(pages * page)
                    first, _ = self.processor.get(pid, (used if is_first else 0.0, used))
                    self.processor[pid] = (first, used)

    def count_processor_seconds(self) -> dict[str, float]:
        """Returns the processor seconds since the first reading of the processes of each kind;
        `other` are Ray's small ones.
        """
        seconds: dict[str, float] = {}
        for pid, (first, last) in self.processor.items():
            kind = self.kinds[pid] or "other"
            seconds[kind] = seconds.get(kind, 0.0) + last - first
        return {kind: round(used, 2) for kind, used in sorted(seconds.items())}

    def count_workers(self) -> int:
        """Returns how many processes held a judge."""
        return list(self.kinds.values()).count("worker")

    def summarise_memory(self) -> dict[str, dict[str, float]]:
        """Returns, of the process of each kind that lived longest: MiB at a third of its life, at
        the end, and at most.
        """
        longest: dict[str, list[float]] = {}
        for pid, readings in self.memory.items():
            kind = self.kinds[pid]
            if kind and len(readings) > len(longest.get(kind, [])):
                longest[kind] = readings
        return {
            kind: {
                "third": round(max(r[: max(1, len(r) // 3)])),
                "end": round(r[-1]),
                "peak": round(max(r)),
                "readings": len(r),
            }
            for kind, r in sorted(longest.items())
        }


def describe_process(command: str) -> str:
    """Returns what a process does, "" for those of no interest."""
    if "ray::" in command and "Map" in command:
        return "worker"
    if " -m truing moderate" in command:
        return "driver"
    kinds = {"gcs_server": "gcs", "raylet/raylet": "raylet"}
    return next((kind for part, kind in kinds.items() if part in command), "")


# Jobs


def count_finished(out: Path) -> int:
    """Returns how many shards of an output are finished."""
    return len(list((out / "commits").glob("*.json")))


@dataclass
class Cluster:
    """The nodes, and a job on them."""

    folder: Path
    rows: Path
    judge: str
    shard_mib: float
    reading_seconds: float = 2.0  # between two readings of the processes
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self) -> None:
        """Starts the nodes, and waits for each."""
        for name in SPACES:
            if not any(self._start_once(name) for _ in range(START_ATTEMPTS)):
                sys.exit(f"node {name} did not start:\n{(self.folder / f'{name}.log').read_text()}")

    def _start_once(self, name: str) -> bool:
        """Starts a node; returns whether it runs. One that ended leaves nothing behind."""
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        self.nodes[name] = start_node(name, self.folder)
        deadline = time.monotonic() + 180
        while not self.is_running(name):
            if self.nodes[name].poll() is not None or time.monotonic() > deadline:
                kill_node(name, self.nodes[name])
                return False
            time.sleep(0.5)
        return True

    def stop(self) -> None:
        """Kills the nodes."""
        for name, process in self.nodes.items():
            kill_node(name, process)

    def start_driver(self, out: Path) -> subprocess.Popen[bytes]:
        """Starts the driver on the head's node."""
        words = ["ip", "netns", "exec", "trscale-head", sys.executable, "-m", "truing", "moderate"]
        words += ["--judge", self.judge, "--in", str(self.rows), "--out", str(out), "--json"]
        words += ["--on", f"ray://{SPACES['head']}:{PORT}", "--shard-mib", str(self.shard_mib)]
        with (self.folder / "driver.log").open("ab") as log:
            return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, env=ENVIRONMENT)

    def restart(self, name: str) -> None:
        """Starts a node that was killed, or that ended by itself; does not wait for it."""
        kill_node(name, self.nodes[name])
        (self.folder / f"{name}.log").unlink(missing_ok=True)
        self.nodes[name] = start_node(name, self.folder)

    def is_running(self, name: str) -> bool:
        """Whether Ray has said that the node runs."""
        return "Ray runtime started" in (self.folder / f"{name}.log").read_text()

    def run_job(self, out: Path, kill_at: list[int], choose: random.Random) -> dict[str, Any]:
        """Runs a job; kills one of the two other nodes whenever so many shards are finished.

        A node is killed once it runs, so that each death ends a node. Returns figures.
        """
        log = ProcessLog()
        log.read()
        started = time.perf_counter()
        driver = self.start_driver(out)
        due = list(kill_at)
        n_failed_starts = 0
        reading_due = report_due = 0.0
        while driver.poll() is None:
            time.sleep(0.5)
            if time.perf_counter() > reading_due:
                log.read()
                reading_due = time.perf_counter() + self.reading_seconds
            if time.perf_counter() > report_due:
                done = f"{count_finished(out)} shards after {time.perf_counter() - started:.0f} s"
                states = f"workers {log.worker_states}"
                print(f"{out.name}: {done}, {states}", file=sys.stderr, flush=True)
                report_due = time.perf_counter() + REPORT_SECONDS
            for name in ("one", "two"):
                if self.nodes[name].poll() is not None:
                    n_failed_starts += 1
                    self.restart(name)
            running = [name for name in ("one", "two") if self.is_running(name)]
            if due and running and count_finished(out) >= due[0]:
                due.pop(0)
                self.restart(choose.choice(running))
        figures = self.read_result(out, driver)
        figures["seconds"] = round(time.perf_counter() - started, 1)
        figures["nodes_killed"] = len(kill_at) - len(due)
        figures["failed_starts"] = n_failed_starts
        figures["workers_seen"] = log.count_workers()
        figures["processor_s"] = log.count_processor_seconds()
        figures["memory_mib"] = log.summarise_memory()
        figures["load"] = round(os.getloadavg()[0], 1)
        return figures

    def measure_idle(self, seconds: float) -> dict[str, float]:
        """Returns the cores that Ray's processes of each kind take while there is no job."""
        log = ProcessLog()
        time.sleep(10)  # the last processes of a start
        log.read()
        time.sleep(seconds)
        log.read()
        used = log.count_processor_seconds()
        return {kind: round(of_kind / seconds, 3) for kind, of_kind in used.items()}

    def run_job_twice(self, out: Path, n_shards: int) -> dict[str, Any]:
        """Kills the driver after a third of the shards, and gives the same command again."""
        started = time.perf_counter()
        driver = self.start_driver(out)
        while driver.poll() is None and count_finished(out) < n_shards / 3:
            time.sleep(0.5)
        driver.kill()
        driver.wait()
        killed_after = round(time.perf_counter() - started, 1)
        n_before = count_finished(out)
        return {
            "killed_after_s": killed_after,
            "shards_before": n_before,
            **self.run_job(out, [], random.Random(0)),
        }

    def read_result(self, out: Path, driver: subprocess.Popen[bytes]) -> dict[str, Any]:
        """Returns the counts of a finished job, and what is wrong with its parts."""
        assert driver.stdout is not None
        printed = driver.stdout.read()
        try:
            counts = json.loads(printed)
        except ValueError:
            log = (self.folder / "driver.log").read_text(errors="replace")
            ended = f"ended with {driver.returncode} and printed {printed[-2000:]!r}"
            sys.exit(f"{out.name}: the driver {ended}\n{log[-4000:]}")
        encoded = (out / "manifest.json").read_bytes()
        ids: list[int] = []
        for part in json.loads(encoded)["parts"]:
            data = (out / part["file"]).read_bytes()
            ids += map(int, re.findall(rb'^\{"id":"r([0-9]+)"', data, re.MULTILINE))
        return {
            "shards": counts["shards"],
            "resumed_at": counts["resumed_at"],
            "rows": counts["rows"],
            "rows_in_parts": len(ids),
            "doubled": len(ids) - len(set(ids)),
            "ids": counts["ids"],
            "manifest": hashlib.sha256(encoded).hexdigest()[:12],
        }


def run_named_job(
    cluster: Cluster, name: str, n_kills: int, source: random.Random
) -> dict[str, Any]:
    """Runs one of the three jobs; returns its figures."""
    out = cluster.folder / name
    n_shards = math.ceil(cluster.rows.stat().st_size / int(cluster.shard_mib * (1 << 20)))
    if name == "driver_killed":
        return cluster.run_job_twice(out, n_shards)
    if name == "undisturbed":
        return cluster.run_job(out, [], source)
    # Not before the first shard is finished: a node that is killed earlier holds no work.
    last = max(2, round(LAST_DEATH * n_shards))
    return cluster.run_job(out, sorted(source.randrange(1, last) for _ in range(n_kills)), source)


def measure_parts(cluster: Cluster, idle_seconds: float) -> dict[str, Any]:
    """Returns Ray's parts of `simulate.py`, from a cluster without a job, a job of one row and a
    job of many shards of ten rows.
    """
    idle = cluster.measure_idle(idle_seconds)
    cluster.reading_seconds = 0.5  # short jobs
    cluster.rows = write_rows(cluster.folder / "one.jsonl", 1)
    one = cluster.run_job(cluster.folder / "one-row", [], random.Random(0))
    cluster.rows = write_rows(cluster.folder / "many.jsonl", 10 * PART_SHARDS)
    cluster.shard_mib = cluster.rows.stat().st_size / PART_SHARDS / (1 << 20)
    many = cluster.run_job(cluster.folder / "many-shards", [], random.Random(0))
    more = many["shards"] - 1
    seconds = many["seconds"] - one["seconds"]
    used = {
        kind: processor - one["processor_s"].get(kind, 0.0)
        for kind, processor in many["processor_s"].items()
    }
    worker_start = one["processor_s"]["worker"]
    of_workers = used.pop("worker") - (many["workers_seen"] - 1) * worker_start
    of_ray = sum(used.values()) - seconds * sum(idle.values())
    parts = {
        "start": one["seconds"],
        "worker_start": worker_start,
        "node_cores": sum(idle.values()) / len(SPACES),
        "hand_out": used["driver"] / more,
        "shard_work": of_workers / more,
        "shard_processor": of_ray / more,
        "seconds_a_shard": seconds / more,
    }
    rounded = {name: round(part, 4) for name, part in parts.items()}
    return {"parts": rounded, "idle_cores": idle, "one_row": one, "many_shards": many}


def main() -> None:
    """Runs the jobs and compares them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--source", type=Path, help="so many rows, written before by rows.py")
    parser.add_argument("--judge", default="keywords:")
    parser.add_argument("--shard-mib", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--idle", type=float, metavar="SECONDS", help="Ray's parts alone")
    arguments = parser.parse_args()
    # So that nodes and links go also when this script is ended.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    source = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = arguments.source or write_rows(folder / "rows.jsonl", arguments.rows)
        cluster = Cluster(folder, rows, arguments.judge, arguments.shard_mib)
        jobs: dict[str, dict[str, Any]] = {}
        build_network()
        try:
            cluster.start()
            if arguments.idle:
                print(json.dumps(measure_parts(cluster, arguments.idle)))
                return
            for name in arguments.jobs:
                jobs[name] = run_named_job(cluster, name, arguments.kills, source)
                print(json.dumps({name: jobs[name]}), file=sys.stderr, flush=True)
        finally:
            cluster.stop()
            delete_network()
    first = jobs[arguments.jobs[0]]
    same = all(job[key] == first[key] for job in jobs.values() for key in ("ids", "manifest"))
    is_whole = all(
        job["rows"] == job["rows_in_parts"] == arguments.rows and not job["doubled"]
        for job in jobs.values()
    )
    if "nodes_killed" in jobs:
        is_whole = is_whole and jobs["nodes_killed"]["nodes_killed"] == arguments.kills
    figures = {
        "rows": arguments.rows,
        "judge": arguments.judge,
        **jobs,
        "same_bytes": same,
        "none_lost_none_doubled": is_whole,
        "load": os.getloadavg()[0],
    }
    print(json.dumps(figures))
    sys.exit(0 if same and is_whole else 1)


if __name__ == "__main__":
    main()
