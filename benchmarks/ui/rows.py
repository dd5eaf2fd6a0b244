"""Time of a page of `truing ui` over two runs of many rows side by side.

    python benchmarks/ui/rows.py [--rows 200000] [--pages 400] [--folder DIR]

Writes two runs with three judges each, starts the command, waits until both are indexed, and loads
pages with random filters, searches and page numbers, each over a connection of its own as a browser
after a pause. The first load of each search is among them. Prints the median, the 95th percentile
and the maximum of the whole time until the last byte, by kind of page.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import httpx
import msgspec

from truing.runs.folder import DataRecord, JudgeRecord, Manifest, judgement_file
from truing.serve.ui.run_scan import run_id

JUDGES = (("one", "harmful"), ("two", "harmful"), ("rules", "refused"))
CATEGORIES = (
    "animal_abuse",
    "privacy_violation",
    "self_harm",
    "drug_abuse,weapons,banned_substance",
)
WORDS = [f"word{number}" for number in range(5_000)]


def write_run(folder: Path, n_rows: int, seed: int) -> None:
    """Writes a run as the scheduler would: an answer of some 600 characters to each prompt."""
    source = random.Random(seed)
    (folder / "judgements").mkdir(parents=True)
    records = [
        JudgeRecord(name=n, question=q, file=judgement_file(f"{n}-{q}", "ab")) for n, q in JUDGES
    ]
    manifest = Manifest(
        model=f"benchmark-{seed}",
        data=[DataRecord(spec="file:rows.jsonl", sha256="d0", n=n_rows)],
        judges=records,
        plan={"n": 1},
        complete=True,
        versions={"truing": "0.2.0"},
    )
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    encode = msgspec.json.Encoder().encode
    judges = [(folder / record.file).open("wb") for record in records]
    with (
        (folder / "samples.jsonl").open("wb") as samples,
        (folder / "responses.jsonl").open("wb") as responses,
    ):
        prompts = random.Random(0)  # the same in both runs
        for number in range(n_rows):
            id_ = f"sample-{number:07d}"
            prompt = " ".join(prompts.choices(WORDS, k=20))
            harms = [prompts.choice(CATEGORIES)] if number % 2 else []
            samples.write(
                encode(
                    {
                        "id": id_,
                        "conversation": {"messages": [{"role": "user", "content": prompt}]},
                        "harms": harms,
                        "expect": "refuse" if harms else "comply",
                    }
                )
                + b"\n"
            )
            answer = " ".join(source.choices(WORDS, k=80))
            responses.write(
                encode(
                    {
                        "sample_id": id_,
                        "index": 0,
                        "model": "m",
                        "message": {"role": "assistant", "content": answer},
                    }
                )
                + b"\n"
            )
            for record, stream in zip(records, judges):
                verdict = source.choice([True, False, False, False, None])
                row = {
                    "sample_id": id_,
                    "judge": record.name,
                    "question": record.question,
                    "verdict": verdict,
                    "score": source.random(),
                    "rationale": " ".join(source.choices(WORDS, k=12)),
                }
                stream.write(encode(row) + b"\n")
    for stream in judges:
        stream.close()


def random_query(source: random.Random, n_rows: int) -> tuple[str, str]:
    """Returns a kind of page and its query."""
    kind = source.choice(
        [
            "plain",
            "outcome",
            "category",
            "disagreement",
            "flips",
            "judge",
            "search",
            "phrase",
            "row",
        ]
    )
    page = f"page={source.randrange(1, n_rows // 25)}"
    queries = {
        "plain": page,
        "outcome": f"outcome={source.choice(['harmful', 'refused', 'answered', 'unscored'])}&{page}",
        "category": f"category={source.choice(CATEGORIES)}&{page}",
        "disagreement": f"disagrees=1&{page}",
        "flips": f"flips=1&{page}",
        "judge": f"judge={source.randrange(3)}&verdict=yes&{page}",
        "search": f"words={source.choice(WORDS)}+{source.choice(['', 'word1'])}",
        "phrase": f"words=%22{source.choice(WORDS)}%22&flips=1",
        "row": f"sample=sample-{source.randrange(n_rows):07d}&flips=1",
    }
    return kind, queries[kind]


def percentile(times: list[float], share: float) -> float:
    """Returns a percentile in milliseconds."""
    return 1000 * sorted(times)[min(len(times) - 1, int(share * len(times)))]


def cpu_seconds(pid: int) -> float:
    """Returns the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--port", type=int, default=8277)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        names = [Path("plan/base/data"), Path("plan/other/data")]
        for seed, name in enumerate(names):
            if not (folder / name).exists():
                write_run(folder / name, arguments.rows, seed)
        measure(folder, names, arguments)


def measure(folder: Path, names: list[Path], arguments: argparse.Namespace) -> None:
    """Starts the command and loads pages."""
    base = f"http://127.0.0.1:{arguments.port}"
    command = [sys.executable, "-m", "truing", "ui", str(folder), "--port", str(arguments.port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        link = re.search(r"http://\S+", process.stderr.readline())
        assert link is not None
        client = httpx.Client(base_url=base, timeout=600)
        for _ in range(600):
            try:
                client.get(link.group())
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        first, other = (run_id(name) for name in names)
        path = f"/runs/{first}/rows?beside={other}&flips=1"
        started = time.monotonic()
        while "Page 1 of" not in client.get(path).text:
            time.sleep(0.2)
        print(f"indexed and aligned after {time.monotonic() - started:.0f} s")
        for name in names:
            for index in (folder / name).glob("ui-rows-*.sqlite"):
                run_bytes = sum(p.stat().st_size for p in (folder / name).rglob("*.jsonl"))
                print(
                    f"{name}: index {index.stat().st_size / 1e6:.0f} MB of a run of {run_bytes / 1e6:.0f} MB"
                )
        source = random.Random(7)
        cpu_before = cpu_seconds(process.pid)
        times: dict[str, list[float]] = defaultdict(list)
        for _ in range(arguments.pages):
            kind, query = random_query(source, arguments.rows)
            page = "row" if kind == "row" else "rows"
            started = time.perf_counter()
            response = client.get(f"/runs/{first}/{page}?beside={other}&{query}")
            times[kind].append(time.perf_counter() - started)
            assert response.status_code == 200 and "indexed" not in response.text, response.text[
                :300
            ]
        times["all"] = [t for of_kind in times.values() for t in of_kind]
        for kind, of_kind in times.items():
            print(
                f"{kind:<13} n {len(of_kind):>4}  p50 {percentile(of_kind, 0.5):6.1f}  p95 {percentile(of_kind, 0.95):6.1f}  max {1000 * max(of_kind):6.1f} ms"
            )
        cpu = (cpu_seconds(process.pid) - cpu_before) / arguments.pages
        print(f"processor time of the server: {1000 * cpu:.1f} ms a page")
        with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
            print(next(line.strip() for line in status if line.startswith("VmHWM")))
        print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
        process.terminate()


if __name__ == "__main__":
    main()
