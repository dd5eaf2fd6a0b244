"""Preference pairs of a model's own samples: a refusal of a harmful request, an answer to its twin.

    python benchmarks/alignment/study_pairs.py --out STUDY --target qwen

Samples the base's answers to our own training prompts (run folder STUDY/runs/TARGET/base/samples),
and writes STUDY/data/pairs-TARGET.jsonl, which the DPO plan reads, and better-TARGET.jsonl, the
better answers alone, which the SFT plan on own samples (raft) reads. A harmful request is one of
`data/refusals.jsonl`: all of them are plainly harmful, so an answer that does not decline is the
worse one. What declines is told by the first words alone, a cruder rule than `rules:refusal`, which
measures; no judge is asked.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from pathlib import Path

from common import SampleList
from study import TARGETS, Study
from study_prompts import read_training_rows
from study_steering import declines

from truing.core.lineage import hash_prompt
from truing.core.types import Conversation, Expect, Sample, Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.runs.folder import Run

SAMPLES_PER_PROMPT = 4
MAX_TOKENS = 56
MAX_PAIRS_PER_PROMPT = 2


def training_samples() -> list[Sample]:
    """Returns our own training prompts; `expect` says what the better answer does."""
    by_expectation: tuple[tuple[str, Expect], ...] = (("refusals", "refuse"), ("twins", "comply"))
    return [
        Sample(
            conversation=Conversation.of(row["prompt"]),
            id=hash_prompt(row["prompt"]),
            expect=expect,
            pair=row["pair"],
        )
        for name, expect in by_expectation
        for row in read_training_rows(name)
    ]


def sort_answers(sample: Sample, answers: list[str]) -> tuple[list[str], list[str]]:
    """Returns the better and the worse of the distinct answers to one prompt."""
    distinct = [answer for answer in dict.fromkeys(answers) if answer.strip()]
    declining = [answer for answer in distinct if declines(answer)]
    answering = [answer for answer in distinct if not declines(answer)]
    return (declining, answering) if sample.expect == "refuse" else (answering, declining)


def pair_answers(sample: Sample, answers: list[str]) -> list[dict[str, str]]:
    """Returns the pairs of one prompt: each answer at most once, the better one `chosen`."""
    return [
        {"prompt": sample.prompt, "chosen": chosen, "rejected": rejected}
        for chosen, rejected in zip(*sort_answers(sample, answers))
    ][:MAX_PAIRS_PER_PROMPT]


def write_pairs(study: Study) -> dict[str, int]:
    """Samples what is missing, writes the pairs, and returns their number by kind of prompt."""
    samples = training_samples()
    folder = study.run_folder("base", "samples")
    options = EvaluateOptions(
        sampling=Sampling(n=SAMPLES_PER_PROMPT, max_tokens=MAX_TOKENS, temperature=1.0),
        concurrency=study.target.batch,
    )
    with study.model("base") as model:
        evaluate(model, SampleList("study training prompts", samples), [], folder, options=options)
    answers: dict[str, list[str]] = defaultdict(list)
    whole: dict[str, list[str]] = defaultdict(list)
    for response in Run(folder).responses():
        answers[response.sample_id].append(response.text)
        if response.finish_reason == "stop":
            whole[response.sample_id].append(response.text)
    # Targets of the SFT lever on own samples: an answer that was cut would teach to end there.
    path = study.out / "data" / f"better-{study.name}.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for sample in samples:
            for text in sort_answers(sample, whole[sample.id])[0][:MAX_PAIRS_PER_PROMPT]:
                row = {"prompt": sample.prompt, "completion": text}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    counts: dict[str, int] = defaultdict(int)
    path = study.out / "data" / f"pairs-{study.name}.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for sample in samples:
            for pair in pair_answers(sample, answers[sample.id]):
                stream.write(json.dumps(pair, ensure_ascii=False) + "\n")
                counts[sample.expect] += 1
    return dict(counts)


def main() -> None:
    """Writes the pairs of one target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", choices=TARGETS, default="qwen")
    arguments = parser.parse_args()
    os.chdir(arguments.out)
    print(write_pairs(Study(Path(), arguments.target)))


if __name__ == "__main__":
    main()
