"""Three Ray nodes in network namespaces of one machine; nodes are killed while rows are moderated.

    sudo python benchmarks/scale/nodes.py --rows 2000000 --kills 10
    sudo python benchmarks/scale/nodes.py --rows 20000 --kills 1 --shard-mib 0.5      # small

Each node has an address of its own on a bridge (10.24.0.0/24). The driver is on the head's node; the
two others are killed in turn, with all their processes, and started again. Checks: nothing lost,
nothing doubled (counts and the sum of content ids), and a manifest of the same bytes as without
deaths. Prints one line of JSON. With two cores it shows correctness and overhead, not speed-up.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows import write_rows

BRIDGE, NETWORK, PORT = "trscale0", "10.24.0", 6399
SPACES = {name: f"{NETWORK}.{number}" for number, name in enumerate(("head", "one", "two"), 2)}


def run(*words: str, check: bool = True) -> None:
    """Runs a command, quietly."""
    subprocess.run(words, check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def build_network() -> None:
    """Creates the bridge and a namespace for each node."""
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
    """Deletes what `build_network` creates."""
    for name in SPACES:
        run("ip", "netns", "del", f"trscale-{name}", check=False)
    run("ip", "link", "del", BRIDGE, check=False)


def start_node(name: str, folder: Path) -> subprocess.Popen[bytes]:
    """Starts a Ray node in its namespace, in a process group of its own."""
    where = ["--head", f"--port={PORT}", f"--temp-dir={folder}/ray"]
    if name != "head":
        where = [f"--address={SPACES['head']}:{PORT}"]
    ray = str(Path(sys.executable).with_name("ray"))
    words = ["ip", "netns", "exec", f"trscale-{name}", ray, "start", *where, "--block"]
    words += [f"--node-ip-address={SPACES[name]}", "--num-cpus=1", "--include-dashboard=false"]
    words += ["--object-store-memory=100000000", "--disable-usage-stats"]
    log = (folder / f"{name}.log").open("ab")
    return subprocess.Popen(words, start_new_session=True, stdout=log, stderr=log)


def kill_node(name: str, process: subprocess.Popen[bytes]) -> None:
    """Kills all processes of a node at once: those in its namespace."""
    listed = subprocess.run(
        ["ip", "netns", "pids", f"trscale-{name}"], capture_output=True, text=True, check=False
    )
    for pid in map(int, listed.stdout.split()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def moderate(source: Path, out: Path, judge: str, shard_mib: float) -> subprocess.Popen[bytes]:
    """Starts the driver on the head's node."""
    words = ["ip", "netns", "exec", "trscale-head", sys.executable, "-m", "truing", "moderate"]
    words += ["--judge", judge, "--in", str(source), "--out", str(out), "--json"]
    words += ["--on", f"ray://{SPACES['head']}:{PORT}", "--shard-mib", str(shard_mib)]
    return subprocess.Popen(words, stdout=subprocess.PIPE)


def main() -> None:
    """Runs the job undisturbed and with deaths, and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--judge", default="keywords:")
    parser.add_argument("--shard-mib", type=float, default=2.0)
    parser.add_argument("--between", type=float, default=20.0, help="seconds between deaths")
    arguments = parser.parse_args()
    source_of_names = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = write_rows(folder / "rows.jsonl", arguments.rows)
        build_network()
        nodes: dict[str, subprocess.Popen[bytes]] = {}
        figures: dict[str, object] = {"rows": arguments.rows, "judge": arguments.judge}
        try:
            for name in SPACES:
                nodes[name] = start_node(name, folder)
                time.sleep(8)
            for label, kills in (("undisturbed", 0), ("with_deaths", arguments.kills)):
                started = time.perf_counter()
                driver = moderate(rows, folder / label, arguments.judge, arguments.shard_mib)
                n_killed = 0
                while driver.poll() is None:
                    time.sleep(1)
                    due = started + arguments.between * (n_killed + 1)
                    if n_killed < kills and time.perf_counter() > due:
                        name = source_of_names.choice(["one", "two"])
                        kill_node(name, nodes[name])
                        n_killed += 1
                        nodes[name] = start_node(name, folder)
                assert driver.stdout is not None
                counts = json.loads(driver.stdout.read() or b"{}")
                manifest = (folder / label / "manifest.json").read_bytes()
                figures[label] = {
                    "seconds": round(time.perf_counter() - started, 1),
                    "killed": n_killed,
                    "status": driver.returncode,
                    "rows": counts.get("rows"),
                    "ids": counts.get("ids"),
                    "manifest": hashlib.sha256(manifest).hexdigest()[:12],
                }
        finally:
            for name, process in nodes.items():
                kill_node(name, process)
            delete_network()
    one, two = figures["undisturbed"], figures["with_deaths"]
    assert isinstance(one, dict) and isinstance(two, dict)
    figures["same"] = all(one[key] == two[key] for key in ("rows", "ids", "manifest"))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
