"""Time and memory of the report on large runs: six variants, four judges, many prompts.

    python benchmarks/statistics/report_scale.py --sizes 10000 50000 200000 --out scale.json

Run folders are written without a model: half of the prompts are harmful, in fourteen categories,
and their twins benign; verdicts are random. Each size is measured in a process of its own: the
seconds of CPU time of reading the folders, comparing all variants with the first and rendering
HTML, Markdown and JSON, and the peak of resident memory over that before. `--profile` prints where
the time goes.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from truing.core.taxonomy import load_taxonomy
from truing.core.types import Lineage
from truing.report import render
from truing.report.assembly import ReportOptions, assemble_report
from truing.runs.folder import JudgeRecord, Manifest, RunWriter, judgement_file

JUDGES = {
    "first": ("harmful", 0.2),
    "second": ("harmful", 0.25),
    "refusals": ("refused", 0.4),
    "broken": ("degenerate", 0.03),
}
"""Judge -> its question, and the rate of "yes" of the baseline; variants differ a little."""


def write_run(path: Path, prompts: int, variant: int) -> None:
    """Writes a complete run folder of random verdicts."""
    rng = np.random.default_rng([prompts, variant])
    records = []
    for judge, (question, _) in JUDGES.items():
        lineage = Lineage(name=judge, hash=f"{judge:0<16}"[:16])
        file = judgement_file(judge, lineage.hash)
        records.append(JudgeRecord(name=judge, question=question, file=file, lineage=lineage))
    model = f"scripted:variant-{variant}"
    with_model = Manifest(model=model, judges=records, complete=True, lineage=Lineage(name=model))
    writer = RunWriter(path, with_model)
    writer.close()
    categories = [category.id for category in load_taxonomy("beavertails").categories]
    with (path / "samples.jsonl").open("w") as stream:
        for i in range(prompts):
            is_benign = i % 2
            message = {"role": "user", "content": f"Question {i} about a kettle"}
            sample = {
                "id": f"sample-{i:08}",
                "conversation": {"messages": [message]},
                "harms": [] if is_benign else [categories[i // 2 % len(categories)]],
                "expect": "comply" if is_benign else "refuse",
                "pair": f"pair-{i // 2}",
            }
            stream.write(json.dumps(sample) + "\n")
    with (path / "responses.jsonl").open("w") as stream:
        for i in range(prompts):
            stream.write(
                f'{{"sample_id":"sample-{i:08}","index":0,"model":"{model}","message":'
                '{"role":"assistant","content":"An answer of a usual length about a kettle."},'
                '"finish_reason":"stop"}\n'
            )
    for record, (question, rate) in zip(records, JUDGES.values()):
        verdicts = rng.random(prompts) < rate * (1 - 0.1 * variant)
        with (path / record.file).open("w") as stream:
            for i, verdict in enumerate(verdicts.tolist()):
                stream.write(
                    f'{{"sample_id":"sample-{i:08}","index":0,"judge":"{record.name}","question":'
                    f'"{question}","verdict":{str(verdict).lower()},"score":{0.9 if verdict else 0.1}}}\n'
                )


def measure_report(folder: Path, *, profile: bool) -> dict[str, float]:
    """Returns CPU seconds and MiB of the report on the runs below a folder."""
    runs = {path.name: {"set": path / "set"} for path in sorted(folder.iterdir())}
    before = _peak_mib()
    profiler = cProfile.Profile()
    if profile:
        profiler.enable()
    started = time.process_time()
    report = assemble_report(runs, ReportOptions(title="scale", baseline=next(iter(runs))))
    read = time.process_time()
    paths = render.write_report(report, folder / "report")
    ended = time.process_time()
    if profile:
        profiler.disable()
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    return {
        "read_and_compare_s": round(read - started, 2),
        "render_s": round(ended - read, 2),
        "total_s": round(ended - started, 2),
        "peak_mib": round(_peak_mib() - before),
        "html_mib": round(paths["html"].stat().st_size / 2**20, 2),
        "json_mib": round(paths["json"].stat().st_size / 2**20, 1),
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measures each size in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--variants", type=int, default=6)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure_report(options.measure, profile=options.profile)))
        return
    results = []
    for prompts in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            for variant in range(options.variants):
                write_run(Path(folder) / f"variant-{variant}" / "set", prompts, variant)
            command = [sys.executable, __file__, "--measure", folder]
            command += ["--profile"] if options.profile else []
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        results.append({"prompts": prompts, "variants": options.variants, **json.loads(printed)})
        print(json.dumps(results[-1]), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
