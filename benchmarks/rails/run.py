"""What a guardrail runtime adds to a turn: truing against both engines of NeMo Guardrails.

    python benchmarks/rails/run.py --peer VENV/bin/python --model MINILM_FOLDER --out results.json

For each configuration a server (one process) of each system is started and gets one request. Then
come 1, 16 and 64 requests in flight: at each, the systems take turns, so that a change of the
machine's speed meets all of them; every figure is the median over the rounds. All use the same
configuration folders, mock LLM and machine. "added" is the p50 at 1 in flight minus the LLM calls
on the critical path times the p50 of the mock alone. Each request has a text of its own, so that no
cache of answers or embeddings helps. LLMRails, which would take most of the time, gets
--nemo-requests. Without --peer only truing is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).parent
MOCK_PORT, PORT = 9001, 9002
CONFIGS = ("none", "selfcheck", "dialog20", "dialog20_embeddings_only")
# LLM calls on the critical path of a turn.
CALLS = {"none": 1, "selfcheck": 3, "dialog20": 1, "dialog20_embeddings_only": 0}
EXPECTED = {"none": "the answer of the mock", "selfcheck": "the answer of the mock"}


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 180) -> float:
    """Waits until a server answers; returns the seconds. Raises RuntimeError if it does not."""
    started = time.time()
    while time.time() - started < seconds:
        if process.poll() is not None:
            raise RuntimeError(f"{url}: the server ended with {process.returncode}")
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return time.time() - started
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{url} did not come up")


def unique_whitespace(k: int) -> str:
    """Returns white space that encodes a number: a different text with the same words."""
    return "".join(" \t"[int(bit)] for bit in f"{abs(k):024b}") + (" " if k >= 0 else "\t")


def rss_mb(pid: int) -> float:
    """Returns the resident memory of a process in MiB."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(r for r in rows if r.startswith("VmRSS")).split()[1]) / 1024


async def send_load(
    url: str, config: str | None, n: int, in_flight: int, first: int
) -> dict[str, Any]:
    """Sends `n` requests after three to warm up; returns latencies (ms) and requests per second."""
    times: list[float] = []
    errors = 0
    numbers = iter(range(first, first + n))
    timeout = aiohttp.ClientTimeout(120)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=timeout
    ) as session:

        async def send_request(k: int) -> None:
            nonlocal errors
            message = {"role": "user", "content": f"tell me about{unique_whitespace(k)}topic seven"}
            body: dict[str, Any] = {"model": "mock", "messages": [message]}
            if config is not None:
                body["guardrails"] = {"config_id": config}
            started = time.perf_counter()
            async with session.post(
                url, data=json.dumps(body), headers={"content-type": "application/json"}
            ) as response:
                text = await response.text()
            times.append(time.perf_counter() - started)
            expected = EXPECTED.get(config or "none", "answer about topic seven")
            errors += response.status != 200 or expected not in text

        for k in range(3):
            await send_request(-1 - k - first)
        times.clear()

        async def worker() -> None:
            for k in numbers:
                await send_request(k)

        started = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(in_flight)))
        wall = time.perf_counter() - started
    times.sort()
    p50, p95 = (times[min(len(times) - 1, int(q * len(times)))] * 1000 for q in (0.5, 0.95))
    return {"p50": p50, "p95": p95, "rps": n / wall, "errors": errors}


def cpu_seconds(pid: int) -> float:
    """Returns the CPU seconds of a process, with those of threads that have ended."""
    # clock_getcpuclockid(3) of the process, which Python does not have: CPUCLOCK_SCHED is 2.
    return time.clock_gettime((~pid << 3) | 2)


class Server:
    """A server of one system for a folder with one configuration; its figures are of its own."""

    def __init__(self, system: str, python: str, configs: Path, port: int, log: Path) -> None:
        self.system, self.port = system, port
        self.config = configs.name
        env = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "NEMO_GUARDRAILS_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "OPENAI_API_KEY": "none",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if system == "iorails":
            env["NEMO_GUARDRAILS_IORAILS_ENGINE"] = "1"
        command = [sys.executable, "-m", "truing", "serve", "--rails", str(configs)]
        if system != "truing":
            command = [python, "-m", "nemoguardrails", "server", "--config", str(configs)]
            env.pop("PYTHONPATH", None)
        self.process = subprocess.Popen(
            [*command, "--port", str(port)],
            env=env,
            stdout=log.open("ab"),
            stderr=subprocess.STDOUT,
        )

    def wait(self, first: int) -> dict[str, Any]:
        """Waits until it serves, and sends four requests; returns the seconds of both."""
        url = f"http://127.0.0.1:{self.port}/v1/rails/configs"
        row: dict[str, Any] = {"start_s": wait_for(url, self.process)}
        clock = time.time()
        self.send(1, 1, first)
        return {**row, "first_s": time.time() - clock, "runs": []}

    def send(self, count: int, in_flight: int, first: int) -> dict[str, Any]:
        """Sends requests, and three to warm up; returns latencies and CPU of a request."""
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        before = cpu_seconds(self.process.pid)
        figures = asyncio.run(send_load(url, self.config, count, in_flight, first))
        used = cpu_seconds(self.process.pid) - before
        return {**figures, "cpu_ms": used * 1000 / (count + 3)}

    def stop(self) -> None:
        """Ends the process."""
        self.process.terminate()
        self.process.wait(30)


def measure_mock(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Measures the mock alone."""
    url = f"http://127.0.0.1:{MOCK_PORT}/v1/chat/completions"
    return {"runs": [asyncio.run(send_load(url, None, 300, c, seed)) for c in arguments.in_flight]}


def median_of(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the median of every figure, and the range of the requests per second."""
    if not rounds:
        return {}
    medians: dict[str, Any] = {
        k: round(statistics.median(r[k] for r in rounds), 3)
        for k in ("start_s", "first_s", "rss_mb")
        if k in rounds[0]
    }
    medians["runs"] = []
    for index in range(len(rounds[0]["runs"])):
        runs = [r["runs"][index] for r in rounds]
        keys = [k for k in ("p50", "p95", "rps", "cpu_ms") if k in runs[0]]
        figures = {k: round(statistics.median(r[k] for r in runs), 2) for k in keys}
        figures["errors"] = sum(r["errors"] for r in runs)
        figures["rps_range"] = [
            round(min(r["rps"] for r in runs), 1),
            round(max(r["rps"] for r in runs), 1),
        ]
        medians["runs"].append(figures)
    return medians


def main() -> None:
    """Runs all rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--peer",
        help="python of an environment with nemoguardrails[server] (and sentence-transformers)",
    )
    parser.add_argument(
        "--model", help="folder of all-MiniLM-L6-v2 for the peer's dialog configurations"
    )
    parser.add_argument("--latencies", type=float, nargs="+", default=[0.0])
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument(
        "--requests",
        type=int,
        nargs="+",
        default=[120, 600, 1280],
        help="of a round, one number for each of --in-flight",
    )
    parser.add_argument(
        "--nemo-requests",
        type=int,
        nargs="+",
        default=[20, 48, 128],
        help="those of LLMRails",
    )
    parser.add_argument("--configs", nargs="+", default=list(CONFIGS))
    parser.add_argument("--systems", nargs="+", default=["truing", "nemo", "iorails"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not arguments.peer:
        arguments.systems = ["truing"]
    folder = Path(tempfile.mkdtemp(prefix="rails-bench-"))
    for config in arguments.configs:
        shutil.copytree(HERE / "configs" / config, folder / config / config)
        file = folder / config / config / "config.yml"
        file.write_text(file.read_text().replace("__MODEL__", arguments.model or ""))
    rows: list[dict[str, Any]] = []
    for latency in arguments.latencies:
        mock = subprocess.Popen(
            [
                sys.executable,
                str(HERE / "mock.py"),
                "--port",
                str(MOCK_PORT),
                "--latency-ms",
                str(latency),
            ]
        )
        try:
            wait_for(f"http://127.0.0.1:{MOCK_PORT}/stats", mock)
            rows += measure_all(arguments, folder, latency)
        finally:
            mock.terminate()
            mock.wait()
    machine = {
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "rounds": arguments.rounds,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    print(json.dumps(machine))
    print(table(rows))
    shutil.rmtree(folder)


def measure_config(
    config: str, arguments: argparse.Namespace, folder: Path
) -> dict[str, list[dict[str, Any]]]:
    """Measures all systems on a configuration; returns the figures of each round."""
    # IORails rejects configurations with dialog rails.
    systems = [s for s in arguments.systems if s != "iorails" or not config.startswith("dialog")]
    servers: list[Server] = []
    rounds: dict[str, list[dict[str, Any]]] = {}
    try:
        for place, system in enumerate(systems):
            log = folder / f"{system}.log"
            python = arguments.peer or ""
            servers.append(Server(system, python, folder / config, PORT + place, log))
            first = servers[-1].wait(0)
            rounds[system] = [{**first, "runs": []} for _ in range(arguments.rounds)]
        for k in range(arguments.rounds):
            for place, in_flight in enumerate(arguments.in_flight):
                # Who goes first changes from round to round.
                for server in servers[k % len(servers) :] + servers[: k % len(servers)]:
                    is_slow = server.system == "nemo"
                    counts = arguments.nemo_requests if is_slow else arguments.requests
                    first = 1_000_000 * (k + 1) + 10_000 * in_flight
                    figures = server.send(counts[place], in_flight, first)
                    rounds[server.system][k]["runs"].append(figures)
                    record = {"round": k, "system": server.system, "config": config, **figures}
                    print(json.dumps({"in_flight": in_flight, **record}), file=sys.stderr)
        for server in servers:
            for row in rounds[server.system]:
                row["rss_mb"] = rss_mb(server.process.pid)
    finally:
        for server in servers:
            server.stop()
    return rounds


def measure_all(
    arguments: argparse.Namespace, folder: Path, latency: float
) -> list[dict[str, Any]]:
    """Measures every system on every configuration; returns the medians over the rounds."""
    mock_rounds = [measure_mock(arguments, k * 1_000_000) for k in range(arguments.rounds)]
    rows = [{"system": "direct", "config": "none", **median_of(mock_rounds)}]
    for config in arguments.configs:
        for system, rounds in measure_config(config, arguments, folder).items():
            rows.append({"system": system, "config": config, **median_of(rounds)})
        print(table([{"latency_ms": latency, **row} for row in rows]), file=sys.stderr)
    return [{"latency_ms": latency, **row} for row in rows]


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the results as a Markdown table."""
    base = {r["latency_ms"]: r["runs"][0]["p50"] for r in rows if r["system"] == "direct"}
    nemo_rows = {(r["config"], r["latency_ms"]): r for r in rows if r["system"] == "nemo"}
    lines = [
        "| configuration | system | mock ms | added ms | p50 / p95 ms at 1, 16, 64 "
        "| CPU ms a request | requests/s | x LLMRails | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(rows, key=lambda r: (r["latency_ms"], r["config"], r["system"])):
        runs = r["runs"]
        calls = CALLS[r["config"]]
        added = (
            ""
            if r["system"] == "direct"
            else f"{runs[0]['p50'] - calls * base[r['latency_ms']]:.1f}"
        )
        nemo = nemo_rows.get((r["config"], r["latency_ms"]))
        times = (
            " / ".join(f"{x['rps'] / y['rps']:.1f}" for x, y in zip(runs, nemo["runs"]))
            if nemo
            else ""
        )
        errors = sum(x["errors"] for x in runs)
        system = f"{r['system']} ({errors} errors)" if errors else r["system"]
        lines.append(
            f"| {r['config']} | {system} | {r['latency_ms']:.0f} | {added} | "
            + ", ".join(f"{x['p50']:.1f} / {x['p95']:.1f}" for x in runs)
            + " | "
            + ", ".join(f"{x['cpu_ms']:.1f}" for x in runs if "cpu_ms" in x)
            + " | "
            + ", ".join(f"{x['rps']:.0f}" for x in runs)
            + f" | {times} | {round(r['rss_mb']) if 'rss_mb' in r else ''} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
