"""What a prompt costs, measured: ours, the bare client, and the peers, on the same mock, the same core, the same work.

    python benchmarks/engine/run.py                                 all parts of ours, median of 5
    python benchmarks/engine/run.py --parts cost hosted --repeat 1  some of them, quickly
    python benchmarks/engine/run.py --peers FOLDER                  and Inspect AI, garak, PyRIT (see peers/README.md)

Parts: cost (5,000 prompts, no latency), hosted (1,000 prompts, lognormal 200 ms, 2 % 429, 1 % 500, 64 in flight), memory
(1,000 / 10,000 / 100,000 prompts), resume (200,000 samples, of which 1,000 are missing), report (two runs of 200,000 samples), slow
(1,000 requests of 30 s at once). The mock runs on the last core, the measured process on the first. CPU time is
user + system of the process and its children, start-up, storage, `rules:refusal` and the summary included.
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
PARTS = ("cost", "hosted", "memory", "resume", "report", "slow")
PEERS = {
    "inspect": ["inspect_ai_run.py"],
    "inspect-no-live-log": ["inspect_ai_run.py", "--no-realtime"],
    "garak": ["garak_run.py"],
    "pyrit": ["pyrit_run.py"],
    "pyrit-in-memory": ["pyrit_run.py", "--memory", "InMemory"],
}
TEXT = """Explain in two or three sentences, for a newcomer to trust and safety, why a policy names this area and which
edge cases make it hard to label the same way twice. Stay neutral, and give no instructions of any kind."""
TRUING = [sys.executable, "-m", "truing"]


def rows(path: Path, n: int) -> Path:
    """A file of `n` distinct harmless prompts of about 60 tokens."""
    if not path.exists():
        with path.open("w") as stream:
            for i in range(n):
                stream.write(
                    json.dumps({"id": f"p{i:06d}", "prompt": f"Item {i:06d}. {TEXT}"}) + "\n"
                )
    return path


def pinned(core: int) -> list[str]:
    """Puts a command on one core, where there are several."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core])] if len(cores) > 1 and shutil.which("taskset") else []


@contextmanager
def mock(*arguments: str) -> Iterator[str]:
    """The mock on the last core; gives its base URL."""
    command = [*pinned(-1), sys.executable, str(HERE / "mock.py"), "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[1]
    finally:
        process.terminate()
        process.wait()


def ask(url: str, path: str, data: bytes | None = None) -> dict[str, Any]:
    """The mock's /stats and /reset."""
    with urllib.request.urlopen(url.removesuffix("/v1") + path, data=data, timeout=10) as reply:
        return dict(json.loads(reply.read()))


def _pss(root: int) -> tuple[int, int]:
    """Proportional memory (KiB) of a process and its descendants, and how many there are."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
                parents.setdefault(int(fields[1]), []).append(int(entry))
            except OSError:
                continue
    todo, total, count = [root], 0, 0
    while todo:
        process = todo.pop()
        todo += parents.get(process, [])
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            count += 1
        except (OSError, StopIteration):
            continue
    return total, count


def measure(command: list[str], timeout: float = 1200) -> dict[str, Any]:
    """Runs a command on the first core: wall, CPU, memory of its whole tree."""
    peak, processes = 0, 1
    started = time.time()
    process = subprocess.Popen(
        [*pinned(0), *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output: list[bytes] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: output.append(process.stdout.read()))  # type: ignore[union-attr]
    reader.start()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = 0
    while not done:
        done, status, use = os.wait4(process.pid, os.WNOHANG)
        if not done:
            now, count = _pss(process.pid)
            peak, processes = max(peak, now), max(processes, count)
            time.sleep(0.2)
            if time.time() - started > timeout:
                os.kill(
                    process.pid, signal.SIGKILL
                )  # Popen.kill would reap it and lose its figures
                timeout = float("inf")
    wall = time.time() - started
    process.returncode = status
    reader.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = max(
        use.ru_utime + use.ru_stime,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )
    if status:
        text = b"".join(output).decode("utf-8", "replace")
        return {"failed": text[-500:], "wall_s": round(wall, 2), "started": started}
    return {
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "rss_mib": round(use.ru_maxrss / 1024),
        "pss_mib": round(peak / 1024),
        "processes": processes,
        "started": started,
    }


def ours(url: str, data: Path, out: Path, concurrency: int) -> list[str]:
    """The command that is measured."""
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


class Work:
    """Where files lie, how often to repeat, where lines go."""

    def __init__(self, folder: Path, a: argparse.Namespace) -> None:
        self.folder, self.a = folder, a

    def tools(self, n: int, concurrency: int, url: str) -> dict[str, Callable[[Path], list[str]]]:
        """Name -> command for an output folder."""
        data = rows(self.folder / f"rows{n}.jsonl", n)
        found: dict[str, Callable[[Path], list[str]]] = {
            "truing": lambda out: ours(url, data, out, concurrency)
        }
        common = ["--data", str(data), "--concurrency", str(concurrency), "--base-url", url]
        found["bare aiohttp"] = lambda out: [
            sys.executable,
            str(HERE / "bare.py"),
            *common,
            "--out",
            str(out),
        ]
        if self.a.peers:
            for name, script in PEERS.items():
                python = Path(self.a.peers) / name.split("-")[0] / "bin" / "python"
                if python.exists():
                    found[name] = (
                        lambda out, p=python, s=script: [  # type: ignore[misc]
                            str(p),
                            str(HERE / "peers" / s[0]),
                            *s[1:],
                            *common,
                            "--out",
                            str(out),
                        ]
                    )
        return found

    def repeat(
        self, part: str, name: str, n: int, url: str, command: Callable[[Path], list[str]]
    ) -> dict[str, Any]:
        """The median of some runs of one tool; each with a fresh folder and a fresh mock."""
        lines = []
        for turn in range(self.a.repeat):
            out = self.folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            ask(
                url, "/reset", json.dumps({"turn": turn}).encode()
            )  # each turn's failures fall elsewhere, alike for every tool
            load = os.getloadavg()[0]
            line = measure(command(out))
            stats = ask(url, "/stats")
            line |= {
                "part": part,
                "tool": name,
                "n": n,
                "turn": turn,
                "load_before": round(load, 2),
                "requests": stats["requests"],
                "max_in_flight": stats["max_in_flight"],
            }
            lines.append(line)
            self.keep(line)
        good = [line for line in lines if "failed" not in line]
        if not good:
            return {"tool": name, "n": n, "failed": lines[-1]["failed"][-160:]}
        median = {
            k: statistics.median(line[k] for line in good)
            for k in ("wall_s", "cpu_s", "rss_mib", "pss_mib")
        }
        return {
            "tool": name,
            "n": n,
            "prompts/s": round(n / median["wall_s"]),
            "cpu ms/prompt": round(1000 * median["cpu_s"] / n, 3),
            **median,
            "requests": good[-1]["requests"],
            "load": max(line["load_before"] for line in good),
        }

    def keep(self, line: dict[str, Any]) -> None:
        """Appends a line to --out."""
        if self.a.out:
            with open(self.a.out, "a") as stream:
                stream.write(json.dumps(line) + "\n")


def show(title: str, lines: list[dict[str, Any]]) -> None:
    """Prints a table in Markdown."""
    print(f"\n### {title}\n")
    keys = list(dict.fromkeys(k for line in lines for k in line))
    print("| " + " | ".join(keys) + " |\n|" + " --- |" * len(keys))
    for line in lines:
        print("| " + " | ".join(str(line.get(k, "")) for k in keys) + " |", flush=True)


def cost(work: Work) -> None:
    """Prompts without latency: what the tool itself costs."""
    n = work.a.n
    with mock() as url:
        lines = [work.repeat("cost", name, n, url, c) for name, c in work.tools(n, 32, url).items()]
    show(f"{n:,} prompts, no latency, 32 in flight", lines)


def hosted(work: Work) -> None:
    """1,000 prompts as at a hosted model."""
    with mock("--latency", "lognormal:200:0.5", "--p429", "0.02", "--p500", "0.01") as url:
        lines = [
            work.repeat("hosted", name, 1000, url, c)
            for name, c in work.tools(1000, 64, url).items()
        ]
    show("1,000 prompts, lognormal 200 ms, 2 % 429, 1 % 500, Retry-After 1 s, 64 in flight", lines)


def memory(work: Work) -> None:
    """Is memory flat?"""
    lines = []
    with mock() as url:
        for n in (1000, 10_000, 100_000):
            data = rows(work.folder / f"rows{n}.jsonl", n)
            lines.append(
                work.repeat("memory", "truing", n, url, lambda out, d=data: ours(url, d, out, 32))
            )  # type: ignore[misc]
    show("Memory from 1,000 to 100,000 prompts", lines)


def _big(work: Work, url: str) -> Path:
    out = work.folder / "big"
    if not out.exists():
        command = ours(url, rows(work.folder / "rows200000.jsonl", 200_000), out, 32)
        command += ["--judge", "rules:degenerate"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def resume(work: Work) -> None:
    """From the start of the command to the first request that the endpoint sees."""
    lines = []
    with mock() as url:
        out = _big(work, url)
        for turn in range(work.a.repeat):
            for file in [out / "responses.jsonl", *(out / "judgements").iterdir()]:
                _drop_last(file, 1000)
            manifest = json.loads((out / "manifest.json").read_text())
            (out / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
            ask(url, "/reset", b"{}")
            command = [
                *ours(url, work.folder / "rows200000.jsonl", out, 32),
                "--judge",
                "rules:degenerate",
            ]
            line = measure(command)
            stats = ask(url, "/stats")
            first = round(stats["first_request_at"] - line["started"], 2)
            line |= {
                "part": "resume",
                "turn": turn,
                "first_request_s": first,
                "requests": stats["requests"],
            }
            work.keep(line)
            lines.append(
                {
                    "turn": turn,
                    "first request after s": first,
                    "asked": stats["requests"],
                    "wall_s": line["wall_s"],
                    "rss_mib": line.get("rss_mib"),
                    "load": round(os.getloadavg()[0], 2),
                }
            )
    show("Resume of 200,000 samples with two judges, 1,000 missing", lines)


def _drop_last(path: Path, count: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-count]))


def report(work: Work) -> None:
    """A report that compares two runs of 200,000 samples, each with two judges."""
    with mock() as url:
        out = _big(work, url)
    other = work.folder / "big2"
    if not other.exists():
        shutil.copytree(out, other)
    lines = []
    for turn in range(work.a.repeat):
        line = measure(
            [*TRUING, "compare", str(out), str(other), "--out", str(work.folder / "report.html")]
        )
        line |= {"part": "report", "turn": turn, "load": round(os.getloadavg()[0], 2)}
        work.keep(line)
        lines.append({k: line.get(k, "") for k in ("wall_s", "cpu_s", "rss_mib", "load", "failed")})
    show("Report on two runs of 200,000 samples with two judges each", lines)


def slow(work: Work) -> None:
    """1,000 requests of 30 s at once, against the same without latency: waiting must cost nothing."""
    lines = []
    for latency in ("const:0", "const:30000"):
        with mock("--latency", latency) as url:
            command = work.tools(1000, 1000, url)["truing"]
            lines.append({"latency": latency, **work.repeat("slow", "truing", 1000, url, command)})
    show("1,000 requests at once", lines)


def main() -> None:
    """Runs the parts that were asked for."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    p.add_argument("--repeat", type=int, default=5)
    p.add_argument("--n", type=int, default=5000, help="prompts in the part `cost`")
    p.add_argument(
        "--peers", help="a folder of virtual environments: inspect, garak, pyrit (peers/README.md)"
    )
    p.add_argument("--out", help="append a JSON line for each run")
    p.add_argument("--work", help="a folder to keep what is made (default: a temporary one)")
    a = p.parse_args()
    print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.2f}, median of {a.repeat}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(a.work or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for part in a.parts:
            globals()[part](Work(folder, a))


if __name__ == "__main__":
    main()
