"""Attacks a real `truing serve` process: rails, a key, a judge, an upstream that fails at seven
requests in ten. Counts what is a fault of the server, and measures memory and times.

    python benchmarks/security/server_fuzz.py --requests 20000 --out benchmarks/security/server_fuzz.md

Of the requests, 70 % are of the grammar (`request_grammar.py`), 15 % schemathesis makes from the
OpenAPI description, 15 % are bytes on raw sockets. A 502 or 504 of type `upstream_error` or
`timeout_error` is the upstream's; each other status from 500 on is a fault of the server, as are an
error in another form, a response without a request id, `[DONE]` after an error, and a connection
that gets no answer. Times are of the grammar's requests, from the first byte sent to the last byte
received, at `--concurrency` requests at a time. Exit status 1 if there is a fault.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web
from yarl import URL

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.security.request_grammar import (  # noqa: E402
    HttpRequest,
    make_raw_request,
    make_request,
)

KEY = "fuzz-key"
FAILING = 0.7
UPSTREAM_KINDS = ("upstream_error", "timeout_error")
CONFIGS = {
    "words": (
        "rails: {input: {flows: [own]}, output: {flows: [own output]}}\n",
        'define subflow own\n  if "secret" in $user_message\n    bot refuse to respond\n    stop\n\n'
        'define subflow own output\n  if "secret" in $bot_message\n    bot refuse to respond\n'
        "    stop\n",
    ),
    "asks": (
        "rails: {input: {flows: [self check input]}}\n"
        "prompts:\n"
        "  - task: self_check_input\n"
        "    content: |\n"
        "      Should the user message be blocked? {{ user_input }}\n"
        "      Answer Yes or No:\n",
        "",
    ),
}


@dataclass
class Counts:
    """What came back."""

    statuses: Counter[str] = field(default_factory=Counter)
    upstream: int = 0
    broken_streams: int = 0
    unanswered: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def note(self, status: int, error_type: str | None) -> None:
        """Counts a status."""
        self.statuses[str(status)] += 1
        if status >= 500:
            if error_type in UPSTREAM_KINDS:
                self.upstream += 1
            else:
                self.faults.append(f"{status} {error_type}")


class FailingUpstream:
    """An OpenAI-compatible endpoint: three requests in ten are answered, the others fail in the
    ways of real ones.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.count = self.failed = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answers, or fails."""
        body = await request.json()
        self.count += 1
        await asyncio.sleep(0.002)
        if self.rng.random() < FAILING:
            self.failed += 1
            return await self._fail(request)
        text = "No" if "Answer Yes or No" in json.dumps(body["messages"]) else "a fine answer"
        if body.get("stream"):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            for word in text.split():
                await response.write(_event(word + " "))
            await response.write(b"data: [DONE]\n\n")
            return response
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }
        usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
        return web.json_response({"choices": [choice], "usage": usage})

    async def _fail(self, request: web.Request) -> web.StreamResponse:
        kind = self.rng.randrange(7)
        if kind == 0:
            return web.json_response({"error": {"message": "overloaded"}}, status=503)
        if kind == 1:
            return web.json_response({"error": {"message": "slow down"}}, status=429)
        if kind == 2:
            return web.Response(text="<html>bad gateway</html>", status=502)
        if kind == 3:
            return web.json_response({"choices": "none", "n": [1] * 500})
        if kind == 4:
            return web.Response(body=b"\xff{not json" * 300, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        if kind == 5:  # breaks off in the middle
            await response.prepare(request)
            await response.write(_event("half an ") * 3)
        if request.transport is not None:
            request.transport.abort()
        return response


def _event(text: str) -> bytes:
    delta = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: " + json.dumps(delta).encode() + b"\n\n"


@contextmanager
def upstream_serving(seed: int) -> Iterator[tuple[FailingUpstream, int]]:
    """The upstream in a thread of this process, and its port."""
    upstream, loop, port = FailingUpstream(seed), asyncio.new_event_loop(), free_port()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/chat/completions", upstream.answer)
    runner = web.AppRunner(app, access_log=None)
    # Of the connections that it aborts.
    logging.getLogger("aiohttp.server").disabled = True
    loop.set_exception_handler(lambda loop, context: None)

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(runner.setup())
        loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", port).start())
        loop.run_forever()

    threading.Thread(target=run, daemon=True).start()
    wait_for_port(port)
    try:
        yield upstream, port
    finally:
        loop.call_soon_threadsafe(loop.stop)


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for_port(port: int) -> None:
    """Until the port answers, at most a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("the server did not come up")


@contextmanager
def server_process(upstream_port: int, folder: Path) -> Iterator[tuple[int, int]]:
    """`truing serve` with rails, a judge and a key; its process id and port. Its log goes to a file."""
    for name, (config, flows) in CONFIGS.items():
        (folder / "rails" / name).mkdir(parents=True)
        (folder / "rails" / name / "config.yml").write_text(config)
        (folder / "rails" / name / "rails.co").write_text(flows)
    port = free_port()
    model = f"openai:m,base_url=http://127.0.0.1:{upstream_port}/v1,retries=0,timeout=5"
    command = [sys.executable, "-m", "truing", "serve", "--model", model]
    command += ["--rails", str(folder / "rails"), "--port", str(port), "--keys-env", "FUZZ_KEYS"]
    command += ["--judge", "rules:refusal", "--timeout", "10"]
    environment = {
        **os.environ,
        "FUZZ_KEYS": KEY,
        "PYTHONPATH": str(ROOT / "src"),
        "OPENAI_API_KEY": "not-a-key",
    }
    with (folder / "server.log").open("wb") as log:
        child = subprocess.Popen(command, stderr=log, env=environment)
        try:
            wait_for_port(port)
            yield child.pid, port
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()


class MemoryMeter:
    """Resident bytes of a process, five times a second (Linux)."""

    def __init__(self, pid: int) -> None:
        self.status = Path(f"/proc/{pid}/status")
        self.samples: list[float] = []
        self._stop = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            try:
                text = self.status.read_text()
            except FileNotFoundError:  # the server has ended, which other counts will show
                return
            kib = int(text.split("VmRSS:")[1].split()[0])
            self.samples.append(kib / 1024)

    def stop(self) -> np.ndarray[Any, Any]:
        """The samples in MiB."""
        self._stop.set()
        return np.array(self.samples)


async def send_grammar(url: str, count: int, seed: int, concurrency: int, counts: Counts) -> None:
    """Sends requests of the grammar, `concurrency` at a time."""
    rng = random.Random(seed)
    remaining = count
    connector = aiohttp.TCPConnector(limit=concurrency)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def work() -> None:
            nonlocal remaining
            while remaining > 0:
                remaining -= 1
                await send_one(session, url, make_request(rng, KEY), counts)

        await asyncio.gather(*(work() for _ in range(concurrency)))


async def send_one(
    session: aiohttp.ClientSession, url: str, request: HttpRequest, counts: Counts
) -> None:
    """Sends a request and checks its response."""
    started = time.perf_counter()
    try:
        async with session.request(
            request.method,
            URL(url + request.path, encoded=True),
            headers={k: v for k, v in request.headers.items() if v.isprintable()},
            data=request.body,
            skip_auto_headers=("content-type",),
        ) as response:
            body = await response.read()
    except (ValueError, aiohttp.InvalidURL):
        return  # the client itself refuses to send it
    except (aiohttp.ClientError, TimeoutError) as error:
        # A server may refuse in the middle of a body; it must answer whole requests.
        counts.unanswered += 1
        if len(request.body) < 100_000:
            counts.faults.append(f"no answer: {type(error).__name__} {request.path[:40]}")
        return
    counts.seconds.append(time.perf_counter() - started)
    check_response(request, response.status, dict(response.headers), body, counts)


def check_response(
    request: HttpRequest, status: int, headers: dict[str, str], body: bytes, counts: Counts
) -> None:
    """Counts a response and its faults."""
    names = {name.lower() for name in headers}
    if "x-request-id" not in names:
        counts.faults.append(f"{status} without a request id: {request.method} {request.path[:40]}")
    error_type = None
    if status >= 400 and request.method != "HEAD":
        try:
            error_type = json.loads(body)["error"]["type"]
        except (ValueError, KeyError, TypeError):
            counts.faults.append(f"{status} in another form: {body[:80]!r}")
    elif b'\ndata: {"error"' in body:
        counts.broken_streams += 1
        if b"[DONE]" in body.rsplit(b'{"error"', 1)[1]:
            counts.faults.append("[DONE] after an error")
    counts.note(status, error_type)


def send_schemathesis(url: str, count: int, counts: Counts) -> int:
    """Sends requests that schemathesis makes from the OpenAPI description; returns how many."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings

    headers = {"authorization": f"Bearer {KEY}"}
    schema = schemathesis.openapi.from_url(f"{url}/schema/openapi.json", headers=headers)
    operations = [result.ok() for result in schema.get_all_operations()]
    posts = sum(operation.method == "post" for operation in operations)
    sent = 0
    for operation in operations:

        @settings(
            max_examples=max(1, count // posts) if operation.method == "post" else 5,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def send(case: Any) -> None:
            nonlocal sent
            sent += 1
            response = case.call(headers=headers, timeout=30)
            request = HttpRequest(case.method, case.path, {}, b"")
            names = {name: str(value) for name, value in response.headers.items()}
            check_response(request, response.status_code, names, response.content, counts)

        send()
    return sent


def send_raw(port: int, count: int, seed: int, counts: Counts) -> None:
    """Sends bytes over sockets, and leaves."""
    rng = random.Random(seed)
    for _ in range(count):
        data = b""
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
                for piece in make_raw_request(rng, KEY):
                    sock.sendall(piece)
                # A request that is not whole has no answer before the server's own time-out.
                sock.settimeout(0.03)
                while chunk := sock.recv(65536):
                    data += chunk
        except OSError:
            pass
        for line in data.split(b"HTTP/1.1 ")[1:]:
            status = int(line[:3])
            kind = next((k for k in UPSTREAM_KINDS if k.encode() in line), None)
            counts.note(status, kind)
        if not data:
            counts.statuses["left without an answer"] += 1


def read_cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far (Linux): unlike times, they do not depend on the load."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_gauge(url: str, name: str) -> float:
    """A value of /metrics."""
    import urllib.request

    request = urllib.request.Request(f"{url}/metrics", headers={"authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        lines = response.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name + " ")))


def report(counts: Counts, memory: np.ndarray[Any, Any], sent: dict[str, int], facts: str) -> str:
    """The page."""
    ms = 1000 * np.array(counts.seconds)
    fifths = ", ".join(f"{np.median(part):.0f}" for part in np.array_split(memory, 5))
    statuses = ", ".join(f"{s} {n:,}" for s, n in sorted(counts.statuses.items()))
    total = sum(sent.values())
    rows = (
        ("requests", f"{total:,} (" + ", ".join(f"{n:,} {k}" for k, n in sent.items()) + ")"),
        ("faults of the server", f"**{len(counts.faults)}**"),
        ("502 and 504 of the upstream", f"{counts.upstream:,}"),
        ("streams that ended with an error event", f"{counts.broken_streams:,}"),
        ("statuses", statuses),
        ("connections closed in the middle of a large body", f"{counts.unanswered:,}"),
        (
            "p50, p99, longest of a request",
            f"{np.percentile(ms, 50):.0f}, **{np.percentile(ms, 99):.0f}**, {ms.max():.0f} ms",
        ),
        (
            "resident memory: median of each fifth of the time; peak",
            f"{fifths}; {memory.max():.0f} MiB",
        ),
    )
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    faults = "".join(f"- {f} ({n} times)\n" for f, n in Counter(counts.faults).most_common(20))
    return (
        "# Fuzz of the chat server\n\n"
        "`python benchmarks/security/server_fuzz.py`: a real `truing serve` process with two rails "
        "configurations, a key and a judge, before an upstream that fails at 70 % of its requests "
        "(503, 429, 502 with HTML, other JSON, broken JSON, half a stream, a reset). "
        "Requests: see `request_grammar.py`.\n\n"
        f"| | |\n|---|---|\n{table}\n\n{facts}\n\n{faults}"
    ).rstrip() + "\n"


def main() -> int:
    """Runs the fuzz and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    grammar = int(0.7 * options.requests)
    by_schema, raw = int(0.15 * options.requests), int(0.15 * options.requests)
    counts, started = Counts(), time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        upstream_serving(options.seed) as (upstream, upstream_port),
        server_process(upstream_port, Path(folder)) as (pid, port),
    ):
        url = f"http://127.0.0.1:{port}"
        # What the first requests load is no growth.
        asyncio.run(send_grammar(url, 300, options.seed + 9, options.concurrency, Counts()))
        memory, cpu_before = MemoryMeter(pid), read_cpu_seconds(pid)
        asyncio.run(send_grammar(url, grammar, options.seed, options.concurrency, counts))
        sent_by_schema = send_schemathesis(url, by_schema, counts)
        send_raw(port, raw, options.seed, counts)
        time.sleep(1.0)
        samples, cpu_seconds = memory.stop(), read_cpu_seconds(pid) - cpu_before
        if in_flight := read_gauge(url, "truing_in_flight"):
            counts.faults.append(f"{in_flight:.0f} slots are still held")
    sent = {"of the grammar": grammar, "of schemathesis": sent_by_schema, "on raw sockets": raw}
    facts = (
        f"The server used {1000 * cpu_seconds / sum(sent.values()):.1f} ms of CPU for a request. "
        f"The upstream got {upstream.count:,} requests and failed at {upstream.failed:,}. "
        f"{options.concurrency} requests at a time, client and upstream on the same machine: "
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f} (5 minutes), "
        f"Python {platform.python_version()}; {time.monotonic() - started:.0f} s."
    )
    page = report(counts, samples, sent, facts)
    print(page)
    if options.out is not None:
        options.out.write_text(page, encoding="utf-8")
    return 1 if counts.faults else 0


if __name__ == "__main__":
    sys.exit(main())
