"""Summarises and reports a run of very many scripted judgements, and shows the memory it takes.

    python benchmarks/scale/summary.py --rows 50000000 --folder /scratch
    python benchmarks/scale/summary.py --rows 2000100                       # small: the least that is read part by part

The run is written without a model or a judge: one answer and one scripted verdict a prompt (3 % are
harmful, 1 % unscored). `truing show` and `truing report` then read it, each in a process of its own,
whose largest resident memory is that of the kernel. About 260 bytes of disk a row; with `--folder`
the run stays there, and a second call reads it again. Prints one line of JSON; the rate must be
that of the script.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from truing.evaluation.options import EvaluateOptions
from truing.evaluation.run_parts import finish_parts, prepare_parts
from truing.runs.folder import Run
from truing.specs.resolve import resolve

PART_ROWS = 100_000


def prepare_run(folder: Path) -> Path:
    """Returns a sharded run with one part of one sample, whose manifests the others copy."""
    rows = folder / "rows.jsonl"
    rows.write_text('{"id": "0", "prompt": "a question", "response": "an answer"}\n')
    out = folder / "run"
    dataset, judge = resolve(f"file:{rows}", "data"), resolve("keywords:", "judge")
    prepare_parts(None, dataset, [judge], out, options=EvaluateOptions())
    finish_parts(out)
    return out


def is_harmful(number: int) -> bool | None:
    """The scripted verdict of a row."""
    return None if number % 100 == 7 else number % 100 < 3


def write_part(folder: Path, manifest: bytes, judge_file: str, start: int, end: int) -> None:
    """Writes the records of the rows from `start` to before `end`."""
    (folder / "judgements").mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_bytes(manifest)
    harms = ("violence,aiding_and_abetting,incitement", "self_harm")
    words = {None: "null", True: "true", False: "false"}
    verdicts = [words[is_harmful(n)] for n in range(100)]
    with (
        (folder / "samples.jsonl").open("w") as samples,
        (folder / "responses.jsonl").open("w") as responses,
        (folder / judge_file).open("w") as judgements,
    ):
        samples.writelines(
            f'{{"id":"{n}","conversation":{{"messages":[{{"role":"user","content":"question {n}"}}]}},"harms":["{harms[n % 2]}"]}}\n'
            for n in range(start, end)
        )
        responses.writelines(
            f'{{"sample_id":"{n}","index":0,"model":"recorded","message":{{"role":"assistant","content":"yes"}}}}\n'
            for n in range(start, end)
        )
        judgements.writelines(
            f'{{"sample_id":"{n}","index":0,"judge":"keywords:","question":"harmful","verdict":{verdicts[n % 100]}}}\n'
            for n in range(start, end)
        )


def write_run(folder: Path, n_rows: int) -> Path:
    """Writes the run; returns its folder."""
    out = prepare_run(folder)
    manifest = Run(out).manifest
    manifest.data[0] = msgspec.structs.replace(manifest.data[0], n=n_rows)
    (out / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    judge_file = manifest.judges[0].file
    of_part = Run(out / "parts" / "part-000000").manifest
    of_part.complete, of_part.judges = True, manifest.judges
    encoded = msgspec.json.encode(of_part)
    names = []
    for number, start in enumerate(range(0, n_rows, PART_ROWS)):
        names.append(f"part-{number:06d}")
        end = min(start + PART_ROWS, n_rows)
        write_part(out / "parts" / names[-1], encoded, judge_file, start, end)
    (out / "parts.json").write_text(json.dumps({"parts": names}))
    return out


def measure(words: list[str]) -> tuple[bytes, float, float, int]:
    """Returns what a command of truing prints, its seconds, CPU seconds and peak memory in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "truing", *words], stdout=subprocess.PIPE)
    assert process.stdout is not None
    printed = process.stdout.read()
    # Of this child alone, unlike RUSAGE_CHILDREN.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"truing {words[0]} ended with {process.returncode}")
    seconds = time.perf_counter() - started
    return printed, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_100)
    parser.add_argument("--folder", type=Path, help="where the run is written, or lies")
    parser.add_argument("--only-write", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        out = folder / "run"
        figures: dict[str, object] = {"rows": arguments.rows}
        if not (out / "parts.json").exists():
            started = time.perf_counter()
            write_run(folder, arguments.rows)
            figures["written_in_s"] = round(time.perf_counter() - started)
        if arguments.only_write:
            return
        names = json.loads((out / "parts.json").read_text())["parts"]
        files = [path for name in names for path in (out / "parts" / name).rglob("*.jsonl")]
        figures["parts"] = len(names)
        figures["gib_on_disk"] = round(sum(path.stat().st_size for path in files) / 2**30, 1)
        counts: list[int] = []
        for name, words in (
            ("show", ["show", str(out), "--json"]),
            ("report", ["report", str(out), "--out", str(Path(temporary) / "report")]),
        ):
            printed, seconds, cpu, peak = measure(words)
            figures[name] = {"seconds": round(seconds), "cpu_s": round(cpu), "peak_mib": peak}
            if name == "show":
                rates = json.loads(printed)["rates"]
                rate = next(r for r in rates if r["question"] == "harmful" and not r["category"])
                counts = [rate[key] for key in ("n", "scored", "events")]
        expected = [is_harmful(n) for n in range(100)]
        hundreds, rest = divmod(arguments.rows, 100)
        n_unscored = hundreds * expected.count(None) + expected[:rest].count(None)
        n_harmful = hundreds * expected.count(True) + expected[:rest].count(True)
        figures["counts"] = counts
        figures["right"] = counts == [arguments.rows, arguments.rows - n_unscored, n_harmful]
        figures["load"] = os.getloadavg()[0]
        print(json.dumps(figures))
    sys.exit(0 if figures["right"] else 1)


if __name__ == "__main__":
    main()
