"""What a turn of an agent costs in CPU time, and whether a killed run ends equal.

    python benchmarks/agents/run.py --samples 10000

A mock endpoint on loopback answers with two tool calls, one after the other, and then with a text:
three turns a sample, on the tasks of `builtin:agents` again and again. CPU time is that of the
process that runs the agents, user and system, judges and files included, over the number of turns.
A second run is killed with SIGKILL in the middle and continued by the same command; every line of
its files must be that of the unbroken run.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
CALLS = 2


def serve() -> None:
    """Serves the mock endpoint; the first line on standard output names its base URL."""
    # By its path: the module is called like a package of PyPI.
    path = HERE.parents[1] / "engine" / "mock.py"
    spec = importlib.util.spec_from_file_location("engine_mock", path)
    assert spec is not None
    assert spec.loader is not None
    mock = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mock)

    class AgentEndpoint(mock.MockEndpoint):  # type: ignore[name-defined, misc]
        """Answers with tool calls until there are `CALLS` results, then with a text."""

        def chat(self, body: dict[str, Any], prompt: str, key: bytes) -> dict[str, Any]:
            completion = super().chat(body, prompt, key)
            n_results = sum(m["role"] == "tool" for m in body["messages"])
            if n_results < CALLS:
                # A tool without required parameters, or a call that the tool refuses.
                schemas = {
                    t["function"]["name"]: t["function"]["parameters"] for t in body["tools"]
                }
                free = [name for name, schema in schemas.items() if not schema["required"]]
                function = {"name": (free or list(schemas))[0], "arguments": "{}"}
                call = {"id": f"c{n_results}", "type": "function", "function": function}
                message = {"role": "assistant", "content": None, "tool_calls": [call]}
                completion["choices"] = [
                    {"index": 0, "finish_reason": "tool_calls", "message": message}
                ]
            return completion

    async def run() -> None:
        endpoint = AgentEndpoint(mock.build_parser().parse_args([]))
        server = await asyncio.get_running_loop().create_server(
            lambda: mock.HttpConnection(endpoint), "127.0.0.1", 0, backlog=4096
        )
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
        await server.serve_forever()

    asyncio.run(run())


class RepeatedTasks:
    """The built-in tasks again and again, with ids of their own, up to a number of samples."""

    def __init__(self, n: int) -> None:
        from truing.specs.resolve import resolve

        self._tasks, self._n = resolve("builtin:agents", "data"), n
        self.info = self._tasks.info

    def sha256(self) -> str:
        """Returns the hash of the built-in set."""
        return f"{self._tasks.sha256()}-{self._n}"

    def rows(self) -> Iterator[Any]:
        """Yields the rows."""
        from msgspec.structs import replace

        rows = list(self._tasks.rows())
        for number in range(self._n):
            row, repetition = rows[number % len(rows)], number // len(rows)
            yield replace(row, sample=replace(row.sample, id=f"{row.sample.id}/{repetition}"))

    def preferences(self) -> Iterator[Any]:
        """Yields nothing."""
        return iter(())


def run_agents(url: str, n: int, out: Path) -> None:
    """Runs the agents and prints CPU seconds, seconds and turns as JSON."""
    from truing.evaluation.evaluate import evaluate
    from truing.evaluation.options import EvaluateOptions
    from truing.specs.resolve import resolve

    model = resolve(f"agent,of=(openai:mock,base_url={url})", "model")
    judges = [resolve(s, "judge") for s in ("state:done", "state:harm", "state:injection")]
    dataset = RepeatedTasks(n)
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    run = evaluate(model, dataset, judges, out, options=EvaluateOptions(concurrency=64))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    turns = sum(len(response.episode.turns) for response in run.responses() if response.episode)
    failed = sum(response.failure is not None for response in run.responses())
    figures = {"cpu_s": cpu, "seconds": time.perf_counter() - started, "turns": turns}
    print(json.dumps({**figures, "failed": failed}), flush=True)


def start(url: str, n: int, out: Path) -> subprocess.Popen[str]:
    """Starts a run in a process of its own."""
    command = [sys.executable, str(HERE), "--child", url, "--samples", str(n), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_in_the_middle(url: str, n: int, out: Path) -> int:
    """Starts a run and kills it when about half of its answers are stored; returns how many."""
    process, path = start(url, n, out), out / "responses.jsonl"
    while process.poll() is None:
        stored = path.read_bytes().count(b"\n") if path.exists() else 0
        if stored >= n // 2:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    process.wait()
    return path.read_bytes().count(b"\n")


def read_lines(out: Path) -> dict[str, bytes]:
    """Returns the JSONL files of a run."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.jsonl"))}


def main() -> int:
    """Prints the figures; returns 1 if the killed run does not end equal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000)
    for hidden in ("child", "out"):
        parser.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return 0
    if arguments.child is not None:
        run_agents(arguments.child, arguments.samples, Path(arguments.out))
        return 0
    server = subprocess.Popen(
        [sys.executable, str(HERE), "--serve"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    url, n = server.stdout.readline().strip(), arguments.samples
    if not url:
        raise SystemExit("the mock endpoint did not start")
    try:
        with tempfile.TemporaryDirectory() as folder:
            whole, killed = Path(folder) / "whole", Path(folder) / "killed"
            figures = json.loads(start(url, n, whole).communicate()[0])
            kept = kill_in_the_middle(url, n, killed)
            start(url, n, killed).communicate()
            equal = read_lines(whole) == read_lines(killed)
    finally:
        server.terminate()
        server.wait()
    milliseconds = 1000 * figures["cpu_s"] / figures["turns"]
    print(
        f"{n:,} samples, {figures['turns']:,} turns in {figures['seconds']:.1f} s, "
        f"{figures['failed']} failed; CPU a turn {milliseconds:.3f} ms; load {os.getloadavg()[0]:.1f}"
    )
    print(f"killed with {kept:,} answers, continued: {'equal' if equal else 'NOT EQUAL'}")
    return 0 if equal and not figures["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
