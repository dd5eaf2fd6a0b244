"""Measures what a prompt costs: truing, a bare client and the peers, on the same mock endpoint.

    python benchmarks/engine/run.py                                 all parts, median of 5
    python benchmarks/engine/run.py --parts cost hosted --repeat 1  some of them, quickly
    python benchmarks/engine/run.py --peers FOLDER                  with Inspect AI, garak, PyRIT
                                                                    (see peers/README.md)

Parts:
    cost    5,000 prompts, no latency
    hosted  1,000 prompts, lognormal 200 ms, 2 % 429, 1 % 500, 64 in flight
    memory  1,000 / 10,000 / 100,000 prompts
    resume  200,000 samples, of which 1,000 are missing
    report  two runs of 200,000 samples
    slow    1,000 requests of 30 s at once

The mock runs on the last core, the measured process on the first. CPU time is user + system of the
process and its children; start-up, storage, `rules:refusal` and the summary are included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEERS = {
    "inspect": ["inspect_ai_run.py"],
    "inspect-no-live-log": ["inspect_ai_run.py", "--no-realtime"],
    "garak": ["garak_run.py"],
    "pyrit": ["pyrit_run.py"],
    "pyrit-in-memory": ["pyrit_run.py", "--memory", "InMemory"],
}
TEXT = (
    "Explain in two or three sentences, for a newcomer to trust and safety, why a policy names "
    "this area and which\nedge cases make it hard to label the same way twice. Stay neutral, and "
    "give no instructions of any kind."
)
TRUING = [sys.executable, "-m", "truing"]


def write_prompts(path: Path, n: int) -> Path:
    """Writes a file of `n` distinct harmless prompts of about 60 tokens, unless it is there."""
    if not path.exists():
        with path.open("w") as stream:
            for i in range(n):
                stream.write(
                    json.dumps({"id": f"p{i:06d}", "prompt": f"Item {i:06d}. {TEXT}"}) + "\n"
                )
    return path


def pin_to_core(index: int) -> list[str]:
    """Returns the prefix that pins a command to one core, if there are several."""
    cores = sorted(os.sched_getaffinity(0))
    return (
        ["taskset", "-c", str(cores[index])] if len(cores) > 1 and shutil.which("taskset") else []
    )


@contextmanager
def run_mock(*arguments: str) -> Iterator[str]:
    """Runs the mock endpoint on the last core; yields its base URL."""
    command = [*pin_to_core(-1), sys.executable, str(HERE / "mock.py"), "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[1]
    finally:
        process.terminate()
        process.wait()


def call_mock(url: str, path: str, data: bytes | None = None) -> dict[str, Any]:
    """Calls /stats or /reset of the mock and returns the reply."""
    with urllib.request.urlopen(url.removesuffix("/v1") + path, data=data, timeout=10) as reply:
        return dict(json.loads(reply.read()))


def tree_memory(root: int) -> tuple[int, int]:
    """Returns the memory of a process and its descendants in KiB, and the number of processes.

    The proportional set size (PSS) counts a page shared by several processes once in all.
    """
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
            except OSError:  # the process has ended
                continue
    pending, total, count = [root], 0, 0
    while pending:
        process = pending.pop()
        pending += children.get(process, [])
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += next(int(record.split()[1]) for record in lines if record.startswith("Pss:"))
            count += 1
        except (OSError, StopIteration):
            continue
    return total, count


def measure(command: list[str], timeout: float = 1200) -> dict[str, Any]:
    """Runs a command on the first core; returns its times and the memory of its whole tree."""
    peak, processes = 0, 1
    started = time.time()
    process = subprocess.Popen(
        [*pin_to_core(0), *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output: list[bytes] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: output.append(process.stdout.read()))  # type: ignore[union-attr]
    reader.start()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = 0
    while not ended:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if not ended:
            memory, count = tree_memory(process.pid)
            peak, processes = max(peak, memory), max(processes, count)
            time.sleep(0.2)
            if time.time() - started > timeout:
                # Popen.kill would reap the process, and its usage would be lost.
                os.kill(process.pid, signal.SIGKILL)
                timeout = float("inf")
    wall = time.time() - started
    process.returncode = status
    reader.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # wait4 counts the process and its reaped children; RUSAGE_CHILDREN also what was reaped since.
    cpu = max(
        usage.ru_utime + usage.ru_stime,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )
    if status:
        text = b"".join(output).decode("utf-8", "replace")
        return {"failed": text[-500:], "wall_s": round(wall, 2), "started": started}
    return {
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "rss_mib": round(usage.ru_maxrss / 1024),
        "pss_mib": round(peak / 1024),
        "processes": processes,
        "started": started,
    }


def evaluate_command(url: str, data: Path, out: Path, concurrency: int) -> list[str]:
    """Returns the command of truing that is measured."""
    return [
        *TRUING,
        "evaluate",
        "--model",
        f"openai:mock,base_url={url}",
        "--data",
        f"file:{data}",
        "--judge",
        "rules:refusal",
        "--out",
        str(out),
        "--concurrency",
        str(concurrency),
    ]


class Session:
    """The folder for data and outputs, and the command line's arguments."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.arguments = folder, arguments

    def prompts(self, n: int) -> Path:
        """Returns a file of `n` prompts."""
        return write_prompts(self.folder / f"rows{n}.jsonl", n)

    def tools(self, n: int, concurrency: int, url: str) -> dict[str, Callable[[Path], list[str]]]:
        """Returns for each tool the function from an output folder to its command."""
        data = self.prompts(n)
        commands: dict[str, Callable[[Path], list[str]]] = {
            "truing": lambda out: evaluate_command(url, data, out, concurrency)
        }
        common = ["--data", str(data), "--concurrency", str(concurrency), "--base-url", url]
        commands["bare aiohttp"] = lambda out: [
            sys.executable,
            str(HERE / "bare.py"),
            *common,
            "--out",
            str(out),
        ]
        if self.arguments.peers:
            for name, script in PEERS.items():
                python = Path(self.arguments.peers) / name.split("-")[0] / "bin" / "python"
                if python.exists():
                    commands[name] = (
                        lambda out, p=python, s=script: [  # type: ignore[misc]
                            str(p),
                            str(HERE / "peers" / s[0]),
                            *s[1:],
                            *common,
                            "--out",
                            str(out),
                        ]
                    )
        return commands

    def repeat(
        self, part: str, name: str, n: int, url: str, command: Callable[[Path], list[str]]
    ) -> dict[str, Any]:
        """Runs one tool several times, each with an empty folder; returns the medians."""
        records = []
        for turn in range(self.arguments.repeat):
            out = self.folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            # In each turn other requests fail, but the same ones for every tool.
            call_mock(url, "/reset", json.dumps({"turn": turn}).encode())
            load = os.getloadavg()[0]
            record = measure(command(out))
            stats = call_mock(url, "/stats")
            record |= {
                "part": part,
                "tool": name,
                "n": n,
                "turn": turn,
                "load_before": round(load, 2),
                "requests": stats["requests"],
                "max_in_flight": stats["max_in_flight"],
            }
            records.append(record)
            self.append_record(record)
        complete = [record for record in records if "failed" not in record]
        if not complete:
            return {"tool": name, "n": n, "failed": records[-1]["failed"][-160:]}
        median = {
            k: statistics.median(record[k] for record in complete)
            for k in ("wall_s", "cpu_s", "rss_mib", "pss_mib")
        }
        return {
            "tool": name,
            "n": n,
            "prompts/s": round(n / median["wall_s"]),
            "cpu ms/prompt": round(1000 * median["cpu_s"] / n, 3),
            **median,
            "requests": complete[-1]["requests"],
            "load": max(record["load_before"] for record in complete),
        }

    def append_record(self, record: dict[str, Any]) -> None:
        """Appends the record of a run to --out."""
        if self.arguments.out:
            with open(self.arguments.out, "a") as stream:
                stream.write(json.dumps(record) + "\n")


def print_table(title: str, lines: list[dict[str, Any]]) -> None:
    """Prints a Markdown table whose columns are the keys of all lines."""
    print(f"\n### {title}\n")
    keys = list(dict.fromkeys(k for record in lines for k in record))
    print("| " + " | ".join(keys) + " |\n|" + " --- |" * len(keys))
    for record in lines:
        print("| " + " | ".join(str(record.get(k, "")) for k in keys) + " |", flush=True)


def measure_cost(session: Session) -> None:
    """Prompts without latency: the cost of the tool itself."""
    n = session.arguments.n
    with run_mock() as url:
        lines = [
            session.repeat("cost", name, n, url, c) for name, c in session.tools(n, 32, url).items()
        ]
    print_table(f"{n:,} prompts, no latency, 32 in flight", lines)


def measure_hosted(session: Session) -> None:
    """1,000 prompts with the latencies and failures of a hosted model."""
    with run_mock("--latency", "lognormal:200:0.5", "--p429", "0.02", "--p500", "0.01") as url:
        lines = [
            session.repeat("hosted", name, 1000, url, c)
            for name, c in session.tools(1000, 64, url).items()
        ]
    print_table(
        "1,000 prompts, lognormal 200 ms, 2 % 429, 1 % 500, Retry-After 1 s, 64 in flight", lines
    )


def measure_memory(session: Session) -> None:
    """Peak memory for 1,000 to 100,000 prompts: it should not grow."""
    lines = []
    with run_mock() as url:
        for n in (1000, 10_000, 100_000):
            data = session.prompts(n)
            lines.append(
                session.repeat(
                    "memory",
                    "truing",
                    n,
                    url,
                    lambda out, d=data: evaluate_command(url, d, out, 32),
                )
            )  # type: ignore[misc]
    print_table("Memory from 1,000 to 100,000 prompts", lines)


def large_run(session: Session, url: str) -> Path:
    """Returns a complete run of 200,000 samples with two judges, made at the first call."""
    out = session.folder / "big"
    if not out.exists():
        command = evaluate_command(url, session.prompts(200_000), out, 32)
        command += ["--judge", "rules:degenerate"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def measure_resume(session: Session) -> None:
    """Seconds from the start of the command to the first request that the endpoint gets."""
    lines = []
    with run_mock() as url:
        out = large_run(session, url)
        for turn in range(session.arguments.repeat):
            for file in [out / "responses.jsonl", *(out / "judgements").iterdir()]:
                drop_last_lines(file, 1000)
            manifest = json.loads((out / "manifest.json").read_text())
            (out / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
            call_mock(url, "/reset", b"{}")
            command = [
                *evaluate_command(url, session.prompts(200_000), out, 32),
                "--judge",
                "rules:degenerate",
            ]
            record = measure(command)
            stats = call_mock(url, "/stats")
            first = round(stats["first_request_at"] - record["started"], 2)
            record |= {
                "part": "resume",
                "turn": turn,
                "first_request_s": first,
                "requests": stats["requests"],
            }
            session.append_record(record)
            lines.append(
                {
                    "turn": turn,
                    "first request after s": first,
                    "asked": stats["requests"],
                    "wall_s": record["wall_s"],
                    "rss_mib": record.get("rss_mib"),
                    "load": round(os.getloadavg()[0], 2),
                }
            )
    print_table("Resume of 200,000 samples with two judges, 1,000 missing", lines)


def drop_last_lines(path: Path, count: int) -> None:
    """Removes the last lines of a file, as a run that was stopped earlier."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-count]))


def measure_report(session: Session) -> None:
    """A report that compares two runs of 200,000 samples, each with two judges."""
    with run_mock() as url:
        out = large_run(session, url)
    copy = session.folder / "big2"
    if not copy.exists():
        shutil.copytree(out, copy)
    lines = []
    for turn in range(session.arguments.repeat):
        record = measure(
            [*TRUING, "compare", str(out), str(copy), "--out", str(session.folder / "report.html")]
        )
        record |= {"part": "report", "turn": turn, "load": round(os.getloadavg()[0], 2)}
        session.append_record(record)
        lines.append(
            {k: record.get(k, "") for k in ("wall_s", "cpu_s", "rss_mib", "load", "failed")}
        )
    print_table("Report on two runs of 200,000 samples with two judges each", lines)


def measure_slow(session: Session) -> None:
    """1,000 requests of 30 s at once, and without latency: waiting should take no CPU time."""
    lines = []
    for latency in ("const:0", "const:30000"):
        with run_mock("--latency", latency) as url:
            command = session.tools(1000, 1000, url)["truing"]
            lines.append(
                {"latency": latency, **session.repeat("slow", "truing", 1000, url, command)}
            )
    print_table("1,000 requests at once", lines)


PARTS: dict[str, Callable[[Session], None]] = {
    "cost": measure_cost,
    "hosted": measure_hosted,
    "memory": measure_memory,
    "resume": measure_resume,
    "report": measure_report,
    "slow": measure_slow,
}


def main() -> None:
    """Runs the parts named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--n", type=int, default=5000, help="prompts in the part `cost`")
    parser.add_argument(
        "--peers", help="a folder of virtual environments: inspect, garak, pyrit (peers/README.md)"
    )
    parser.add_argument("--out", help="append a JSON line for each run")
    parser.add_argument("--work", help="folder for data and runs, kept (default: a temporary one)")
    arguments = parser.parse_args()
    print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.2f}, "
        f"median of {arguments.repeat}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.work or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for part in arguments.parts:
            PARTS[part](Session(folder, arguments))


if __name__ == "__main__":
    main()
