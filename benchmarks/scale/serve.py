"""`truing serve` with four processes behind one port: requests a second, one limit, reload, drain.

    python benchmarks/scale/serve.py --seconds 20 --workers 1 4 --redis redis://127.0.0.1:6379

The real command with real HTTP and Redis; the model answers from a script, so that the server is
measured and no model. Keep-alive connections, closed loop: each sends its next request when the
last one is answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

MODEL = "scripted:mixed"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Is the wheel true?"}]}
KEY = "benchmark-key"
PARTS = ("rate", "limit", "reload", "drain")
RAILS = "models: []\nrails: {input: {flows: []}}\n"


@contextmanager
def running_server(
    workers: int, *flags: str, model: str = MODEL
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command on a free port, ready; ends with SIGTERM."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "truing", "serve", "--model", model]
    command += ["--port", str(port), "--workers", str(workers), "--keys-env", "BENCHMARK_KEYS"]
    process = subprocess.Popen(
        [*command, "--concurrency", "256", *flags],
        env={**os.environ, "BENCHMARK_KEYS": KEY},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        asyncio.run(wait_until_ready(process, url))
        yield process, url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


async def wait_until_ready(process: subprocess.Popen[str], url: str) -> None:
    deadline = time.monotonic() + 120
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(process.stderr.read() if process.stderr else "it ended")
            try:
                async with session.get(f"{url}/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise RuntimeError("the server did not become ready")


class Load:
    """Requests of many connections: statuses, failures and times."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/v1/chat/completions"
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []
        self.seconds: list[float] = []
        self.stopping = False

    async def send_one(self, session: aiohttp.ClientSession) -> None:
        started = time.perf_counter()
        try:
            async with session.post(self.url, json=BODY) as answer:
                await answer.read()
                self.statuses[answer.status] += 1
                self.seconds.append(time.perf_counter() - started)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    async def repeat(self, session: aiohttp.ClientSession) -> None:
        while not self.stopping:
            await self.send_one(session)

    def session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=aiohttp.ClientTimeout(total=60),
        )

    async def run(self, connections: int, seconds: float) -> float:
        """Returns the requests a second that were answered with 200."""
        async with self.session() as session:
            started = time.perf_counter()
            tasks = [asyncio.create_task(self.repeat(session)) for _ in range(connections)]
            await asyncio.sleep(seconds)
            self.stopping = True
            await asyncio.gather(*tasks)
            return self.statuses[200] / (time.perf_counter() - started)


def processor_seconds(pid: int) -> float:
    """The processor time of a process and its children."""
    pids = [pid]
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            pids.append(int(status.parent.name))
    total = 0
    for each in pids:
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def measure_rate(workers: int, seconds: float, redis: str) -> dict[str, float]:
    flags = ["--redis", redis, "--per-minute", "100000000"] if redis else []
    with running_server(workers, *flags) as (process, url):
        asyncio.run(Load(url).run(32, 2))  # warm
        before = processor_seconds(process.pid)
        load = Load(url)
        rate = asyncio.run(load.run(32, seconds))
        used = processor_seconds(process.pid) - before
    times = sorted(load.seconds)
    return {
        "workers": workers,
        "redis": bool(redis),
        "requests_per_second": round(rate, 1),
        "server_cpu_ms_per_request": round(1000 * used / max(1, load.statuses[200]), 3),
        "p50_ms": round(1000 * times[len(times) // 2], 1),
        "p99_ms": round(1000 * times[int(len(times) * 0.99)], 1),
        "failed": len(load.failures) + sum(n for s, n in load.statuses.items() if s != 200),
    }


def measure_limit(workers: int, redis: str, limit: int) -> dict[str, float]:
    """Twice as many requests as a minute allows, all within it: how many are admitted."""
    with running_server(workers, "--redis", redis, "--per-minute", str(limit)) as (_, url):
        load = Load(url)

        async def send_all() -> None:
            async with load.session() as session:
                waiting = asyncio.Semaphore(32)

                async def send() -> None:
                    async with waiting:
                        await load.send_one(session)

                await asyncio.gather(*(send() for _ in range(2 * limit)))

        started = time.perf_counter()
        asyncio.run(send_all())
        seconds = time.perf_counter() - started
    return {
        "workers": workers,
        "limit": limit,
        "sent": 2 * limit,
        "admitted": load.statuses[200],
        "rejected": load.statuses[429],
        "seconds": round(seconds, 1),
        "failed": len(load.failures),
    }


def measure_reload(workers: int, seconds: float) -> dict[str, object]:
    """Reloads three times under load: failed requests."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.yml").write_text(RAILS)
        with running_server(workers, "--rails", folder) as (process, url):
            load = Load(url)

            async def reload_under_load() -> None:
                task = asyncio.create_task(load.run(16, seconds))
                for _ in range(3):
                    await asyncio.sleep(seconds / 4)
                    process.send_signal(signal.SIGHUP)
                await task

            asyncio.run(reload_under_load())
    return {
        "workers": workers,
        "reloads": 3,
        "answered": load.statuses[200],
        "failed_in_reload": len(load.failures) + sum(load.statuses.values()) - load.statuses[200],
        "failures": Counter(load.failures).most_common(3),
    }


def measure_drain(workers: int) -> dict[str, object]:
    """Ends the server by SIGTERM 50 ms after 64 requests were sent, each answered in 3 seconds."""
    with running_server(workers, model="scripted:mixed,delay=3") as (process, url):
        load = Load(url)

        async def end_under_load() -> int:
            async with load.session() as session:
                tasks = [asyncio.create_task(load.send_one(session)) for _ in range(64)]
                await asyncio.sleep(0.05)
                process.send_signal(signal.SIGTERM)
                await asyncio.gather(*tasks)
            return await asyncio.to_thread(process.wait, 60)

        status = asyncio.run(end_under_load())
    return {
        "workers": workers,
        "sent_before_the_end": 64,
        "answered": load.statuses[200],
        "failed": len(load.failures),
        "exit_status": status,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--redis", default="")
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    options = parser.parse_args()
    parts = options.only
    if "rate" in parts:
        for workers in options.workers:
            print(json.dumps(measure_rate(workers, options.seconds, "")), flush=True)
            if options.redis:
                result = measure_rate(workers, options.seconds, options.redis)
                print(json.dumps(result), flush=True)
    most = max(options.workers)
    if "limit" in parts and options.redis:
        print(json.dumps(measure_limit(most, options.redis, options.limit)), flush=True)
    if "reload" in parts:
        print(json.dumps(measure_reload(most, options.seconds)), flush=True)
    if "drain" in parts:
        print(json.dumps(measure_drain(most)), flush=True)


if __name__ == "__main__":
    main()
