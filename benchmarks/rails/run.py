"""What a guardrail runtime adds to a turn: truing and NeMo Guardrails' two engines, same folders, mock and machine, one run.

    python benchmarks/rails/run.py --peer VENV/bin/python --model MINILM_FOLDER --out results.json

For each configuration a server (one process) is started, asked once, then loaded at 1, 16 and 64 requests in flight,
round after round; every figure is the median over the rounds, and the systems take turns within a round. added = p50 at 1 in
flight less the critical path's LLM calls x the mock's own p50. Each request has a text of its own, so that no cache of
whole answers or embeddings helps. Without --peer only truing is measured.
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
MOCK, PORT = 9001, 9002
CONFIGS = ("none", "selfcheck", "dialog20", "dialog20_embeddings_only")
CALLS = {"none": 1, "selfcheck": 3, "dialog20": 1, "dialog20_embeddings_only": 0}
EXPECTED = {"none": "the answer of the mock", "selfcheck": "the answer of the mock"}


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 180) -> float:
    """Seconds until a server answers."""
    began = time.time()
    while time.time() - began < seconds:
        if process.poll() is not None:
            raise RuntimeError(f"{url}: the server ended with {process.returncode}")
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return time.time() - began
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{url} did not come up")


def blanks(k: int) -> str:
    """White space that is another one for each number: another text, the same words."""
    return "".join(" \t"[int(bit)] for bit in f"{abs(k):024b}") + (" " if k >= 0 else "\t")


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(r for r in rows if r.startswith("VmRSS")).split()[1]) / 1024


async def load(url: str, config: str | None, n: int, in_flight: int, first: int) -> dict[str, Any]:
    """`n` requests; times in ms, requests a second."""
    times: list[float] = []
    errors = 0
    numbers = iter(range(first, first + n))
    timeout = aiohttp.ClientTimeout(120)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=timeout
    ) as session:

        async def one(k: int) -> None:
            nonlocal errors
            said = {"role": "user", "content": f"tell me about{blanks(k)}topic seven"}
            body: dict[str, Any] = {"model": "mock", "messages": [said]}
            if config is not None:
                body["guardrails"] = {"config_id": config}
            began = time.perf_counter()
            async with session.post(
                url, data=json.dumps(body), headers={"content-type": "application/json"}
            ) as answer:
                text = await answer.text()
            times.append(time.perf_counter() - began)
            wanted = EXPECTED.get(config or "none", "answer about topic seven")
            errors += answer.status != 200 or wanted not in text

        for k in range(3):
            await one(-1 - k - first)
        times.clear()

        async def worker() -> None:
            for k in numbers:
                await one(k)

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(in_flight)))
        wall = time.perf_counter() - began
    times.sort()
    at = {q: times[min(len(times) - 1, int(q * len(times)))] * 1000 for q in (0.5, 0.95)}
    return {"p50": at[0.5], "p95": at[0.95], "rps": n / wall, "errors": errors}


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used: a figure that other load on the machine hardly moves."""
    fields = Path(f"/proc/{pid}/stat").read_text().split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def serve(system: str, python: str, configs: Path, log: Path) -> subprocess.Popen[bytes]:
    """A server of one system over a folder with one configuration."""
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
    command = [
        sys.executable,
        "-m",
        "truing",
        "serve",
        "--rails",
        str(configs),
        "--port",
        str(PORT),
    ]
    if system != "truing":
        command = [
            python,
            "-m",
            "nemoguardrails",
            "server",
            "--config",
            str(configs),
            "--port",
            str(PORT),
        ]
    return subprocess.Popen(command, env=env, stdout=log.open("ab"), stderr=subprocess.STDOUT)


def measure(
    system: str, config: str, a: argparse.Namespace, folder: Path, n: tuple[int, ...], seed: int
) -> dict[str, Any]:
    """One system on one configuration, one round."""
    url = f"http://127.0.0.1:{PORT}/v1/chat/completions"
    process = serve(system, a.peer or "", folder / config, folder / f"{system}.log")
    try:
        up = wait_for(f"http://127.0.0.1:{PORT}/v1/rails/configs", process)
        row: dict[str, Any] = {"start_s": up}
        clock = time.time()
        asyncio.run(load(url, config, 1, 1, seed))
        row["first_s"] = time.time() - clock
        row["runs"] = []
        for count, c in zip(n, a.in_flight):
            before = cpu_s(process.pid)
            one = asyncio.run(load(url, config, count, c, seed + 10_000 * c))
            row["runs"].append(
                {**one, "cpu_ms": (cpu_s(process.pid) - before) * 1000 / (count + 3)}
            )
        row["rss_mb"] = rss_mb(process.pid)
        return row
    finally:
        process.terminate()
        process.wait(30)


def direct(a: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The mock alone."""
    url = f"http://127.0.0.1:{MOCK}/v1/chat/completions"
    return {"runs": [asyncio.run(load(url, None, 300, c, seed)) for c in a.in_flight]}


def median_of(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of every figure over the rounds, and the range of the requests a second."""
    if not rounds:
        return {}
    made: dict[str, Any] = {
        k: round(statistics.median(r[k] for r in rounds), 3)
        for k in ("start_s", "first_s", "rss_mb")
        if k in rounds[0]
    }
    made["runs"] = []
    for at in range(len(rounds[0]["runs"])):
        runs = [r["runs"][at] for r in rounds]
        keys = [k for k in ("p50", "p95", "rps", "cpu_ms") if k in runs[0]]
        one = {k: round(statistics.median(r[k] for r in runs), 2) for k in keys}
        one["errors"] = sum(r["errors"] for r in runs)
        one["rps_range"] = [
            round(min(r["rps"] for r in runs), 1),
            round(max(r["rps"] for r in runs), 1),
        ]
        made["runs"].append(one)
    return made


def main() -> None:
    """The whole run."""
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
        default=[200, 1500, 2500],
        help="truing's; the peers get a part",
    )
    parser.add_argument("--configs", nargs="+", default=list(CONFIGS))
    parser.add_argument("--systems", nargs="+", default=["truing", "nemo", "iorails"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    if not a.peer:
        a.systems = ["truing"]
    folder = Path(tempfile.mkdtemp(prefix="rails-bench-"))
    for config in a.configs:
        shutil.copytree(HERE / "configs" / config, folder / config / config)
        file = folder / config / config / "config.yml"
        file.write_text(file.read_text().replace("__MODEL__", a.model or ""))
    found: list[dict[str, Any]] = []
    for latency in a.latencies:
        mock = subprocess.Popen(
            [
                sys.executable,
                str(HERE / "mock.py"),
                "--port",
                str(MOCK),
                "--latency-ms",
                str(latency),
            ]
        )
        try:
            wait_for(f"http://127.0.0.1:{MOCK}/stats", mock)
            found += _rounds(a, folder, latency)
        finally:
            mock.terminate()
            mock.wait()
    machine = {
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "rounds": a.rounds,
    }
    if a.out:
        a.out.write_text(json.dumps({"machine": machine, "rows": found}, indent=1))
    print(json.dumps(machine))
    print(table(found))
    shutil.rmtree(folder)


def _rounds(a: argparse.Namespace, folder: Path, latency: float) -> list[dict[str, Any]]:
    rounds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for k in range(a.rounds):
        rounds.setdefault(("direct", "none"), []).append(direct(a, k * 1_000_000))
        for config in a.configs:
            for system in a.systems:
                if system == "iorails" and config.startswith("dialog"):
                    continue  # it refuses configurations with dialog rails
                slow = {"truing": 1, "nemo": 12, "iorails": 4}[system] * (3 if latency else 1)
                n = tuple(
                    max(count // slow, 2 * c, 20) for count, c in zip(a.requests, a.in_flight)
                )
                row = measure(system, config, a, folder, n, k * 1_000_000)
                said = {"round": k, "latency": latency, "system": system, "config": config, **row}
                print(json.dumps(said), file=sys.stderr)
                rounds.setdefault((system, config), []).append(row)
    return [
        {"system": s, "config": c, "latency_ms": latency, **median_of(r)}
        for (s, c), r in rounds.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The result as Markdown."""
    base = {r["latency_ms"]: r["runs"][0]["p50"] for r in rows if r["system"] == "direct"}
    peer = {(r["config"], r["latency_ms"]): r for r in rows if r["system"] == "nemo"}
    made = [
        "| configuration | system | mock ms | added ms | p50 / p95 ms at 1, 16, 64 | CPU ms a request | requests/s | x LLMRails | MB |",
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
        other = peer.get((r["config"], r["latency_ms"]))
        times = (
            " / ".join(f"{x['rps'] / y['rps']:.1f}" for x, y in zip(runs, other["runs"]))
            if other
            else ""
        )
        errors = sum(x["errors"] for x in runs)
        made.append(
            f"| {r['config']} | {r['system']}{f' ({errors} errors)' if errors else ''} | {r['latency_ms']:.0f} | {added} | "
            + ", ".join(f"{x['p50']:.1f} / {x['p95']:.1f}" for x in runs)
            + " | "
            + ", ".join(f"{x['cpu_ms']:.1f}" for x in runs if "cpu_ms" in x)
            + " | "
            + ", ".join(f"{x['rps']:.0f}" for x in runs)
            + f" | {times} | {round(r['rss_mb']) if 'rss_mb' in r else ''} |"
        )
    return "\n".join(made)


if __name__ == "__main__":
    main()
