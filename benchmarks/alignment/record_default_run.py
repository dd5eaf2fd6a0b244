"""Writes the recorded answers that come with the package, from a fresh run of the default plan.

    truing run --fresh --out RUN
    python benchmarks/alignment/record_default_run.py --run RUN

Writes src/truing/resources/recorded/default-run.jsonl.gz: the answers of every variant to
builtin:benign, with each variant's spec, weights, prompts and rails, the sampling, the seed and the
version. After a change of any of them the default plan refuses the file, and this is run again.
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

from truing.cli.run import load_default_plan
from truing.core.errors import UserError
from truing.core.version import __version__
from truing.models.recorded import (
    FORMAT,
    RecordedAnswer,
    Recording,
    conversation_key,
    write_recording,
)
from truing.plan.recorded_answers import data_sampling, describe_origin, recordings_folder
from truing.runs.folder import Run
from truing.specs.resolve import resolve

DATA = "safety"


def read_answers(variant: str, run: Run) -> list[RecordedAnswer]:
    """Returns a run's answers to builtin:benign; raises UserError if it is not complete, or if they
    were not drawn in it.
    """
    if not run.manifest.complete or ", recorded " in run.manifest.model:
        raise UserError(f"{run.path}: no complete run of answers drawn anew (--fresh)")
    benign = {row.sample.conversation for row in resolve("builtin:benign", "data").rows()}
    conversations = {s.id: s.conversation for s in run.samples() if s.conversation in benign}
    answers = []
    for response in run.responses():
        if response.sample_id not in conversations:
            continue
        if response.failure is not None:
            raise UserError(f"{run.path}: the answer to {response.sample_id} failed")
        # Milliseconds differ from run to run and say nothing of another machine.
        rulings = tuple(r for r in response.rulings if r.ruling != "allow")
        answers.append(
            RecordedAnswer(
                variant,
                conversation_key(conversations[response.sample_id]),
                response.text,
                response.finish_reason,
                response.usage,
                rulings,
            )
        )
    return answers


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="OUT of `truing run --fresh`")
    parser.add_argument("--data", default=DATA, help="the data set of the run with these prompts")
    arguments = parser.parse_args()
    plan = load_default_plan()
    origins, answers = {}, []
    for variant, spec in plan.models.items():
        answers += read_answers(variant, Run(arguments.run / variant / arguments.data))
        origins[variant] = describe_origin(spec, resolve(spec, "model"))
    header = Recording(
        format=FORMAT,
        version=__version__,
        created=date.today().isoformat(),
        data="builtin:benign",
        sampling=data_sampling(plan, plan.data[DATA]),
        variants=origins,
        answers=0,
        sha256="",
    )
    path = recordings_folder() / "default-run.jsonl.gz"
    path.parent.mkdir(exist_ok=True)
    write_recording(path, header, answers)
    print(f"{path}: {len(answers)} answers, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
