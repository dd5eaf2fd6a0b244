"""Preference pairs of a model's own samples: a refusal of a harmful request, an answer to its twin.

    python benchmarks/alignment/study_pairs.py --out STUDY --target qwen

Samples the openings of the base's answers to our own training prompts, as they are and under the
attack under which the target is measured (run folders STUDY/runs/TARGET/base/samples-*). Writes
to STUDY/data pairs-TARGET.jsonl, which the DPO plan reads, and better-harm-TARGET.jsonl and
better-benign-TARGET.jsonl, the better openings alone, which the SFT plan on own samples (raft) reads.
No end is learned from openings that were cut. A harmful request is one of `data/refusals.jsonl`: all of them are plainly harmful, so an answer that
does not decline is the worse one. Benign twins are attacked too: else the attack's form, not the
request, would tell what to decline. What declines is told by the first words alone, a cruder rule
than `rules:refusal`, which measures; no judge is asked.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from common import SampleList
from study import TARGETS, Study
from study_prompts import read_training_rows
from study_steering import declines

from truing.core.lineage import hash_prompt
from truing.core.types import Conversation, Expect, Response, Sample, Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.runs.folder import Run
from truing.specs.resolve import resolve

MAX_TOKENS = 24
"""Whether an answer declines is decided in its first words."""
MAX_PAIRS_PER_PROMPT = 2
ATTACK = "role-play"


@dataclass(frozen=True)
class SamplingPart:
    """How many answers the base gives to one file of prompts, attacked or as they are."""

    name: str
    expect: Expect
    n: int
    attack: str = ""

    @property
    def folder(self) -> str:
        """The name of the run folder."""
        return "-".join(filter(None, ("samples", self.name, self.attack)))


PARTS = (
    SamplingPart("refusals", "refuse", 2),
    SamplingPart("refusals", "refuse", 2, ATTACK),
    SamplingPart("twins", "comply", 3),
    SamplingPart("twins", "comply", 2, ATTACK),
    SamplingPart("support", "support", 6),
)


def training_samples(part: SamplingPart) -> list[Sample]:
    """Returns our own training prompts of a part; `expect` says what the better answer does."""
    return [
        Sample(
            conversation=Conversation.of(row["prompt"]),
            id=hash_prompt(row["prompt"]),
            expect=part.expect,
            pair=row.get("pair"),
        )
        for row in read_training_rows(part.name)
    ]


@dataclass
class SampledPrompt:
    """A prompt as the model saw it, the request in it, and the better and worse answers to it."""

    sample: Sample
    request: str
    better: list[Response]
    worse: list[Response]


def sample_part(study: Study, part: SamplingPart) -> None:
    """Lets the base answer the prompts of a part, as far as it has not."""
    options = EvaluateOptions(
        sampling=Sampling(
            n=part.n,
            max_tokens=MAX_TOKENS,
            temperature=study.target.temperature,
            top_p=study.target.top_p,
        ),
        concurrency=study.target.batch,
    )
    data = SampleList(f"study {part.name}", training_samples(part))
    attack = resolve(part.attack, "attack") if part.attack else None
    with study.model("base") as model:
        evaluate(
            model, data, [], study.run_folder("base", part.folder), attack=attack, options=options
        )


def read_part(study: Study, part: SamplingPart) -> list[SampledPrompt]:
    """Returns the prompts of a part with their answers, each distinct answer once."""
    run = Run(study.run_folder("base", part.folder))
    answers: dict[str, dict[str, Response]] = defaultdict(dict)
    for response in run.responses():
        if response.text.strip():
            answers[response.sample_id].setdefault(response.text, response)
    requests = {sample.id: sample.prompt for sample in training_samples(part)}
    prompts = []
    for sample in run.samples():
        by_declining: dict[bool, list[Response]] = {True: [], False: []}
        for response in answers[sample.id].values():
            by_declining[declines(response.text)].append(response)
        refuses = part.expect == "refuse"
        request = requests[sample.parent or sample.id]
        prompts.append(
            SampledPrompt(sample, request, by_declining[refuses], by_declining[not refuses])
        )
    return prompts


def lend_plain_answers(attacked: list[SampledPrompt], plain: list[SampledPrompt]) -> None:
    """Gives attacked prompts without a better answer that to the plain prompt: it fits both."""
    better = {prompt.request: prompt.better for prompt in plain}
    for prompt in attacked:
        prompt.better = prompt.better or better.get(prompt.request, [])


def is_cut(response: Response) -> bool:
    """Returns whether a token limit ended the answer."""
    return response.finish_reason == "length"


def pair_answers(prompt: SampledPrompt) -> list[dict[str, object]]:
    """Returns the pairs of one prompt: each answer at most once, the better one `chosen`."""
    return [
        {
            "prompt": prompt.sample.prompt,
            "chosen": better.text,
            "rejected": worse.text,
            "cut": is_cut(better) or is_cut(worse),
        }
        for better, worse in zip(prompt.better, prompt.worse)
    ][:MAX_PAIRS_PER_PROMPT]


def teaches(prompt: SampledPrompt, k: int) -> bool:
    """Returns whether a prompt is learned: one to which the base gives worse answers too.

    Where all of its own samples are good they say nothing new; of the benign ones under the attack
    every other is learned all the same, so that the attack's form does not stand for a refusal.
    """
    is_benign_attacked = prompt.sample.parent is not None and prompt.sample.expect == "comply"
    return bool(prompt.worse) or (is_benign_attacked and k % 2 == 0)


def better_answers(prompt: SampledPrompt) -> list[dict[str, object]]:
    """Returns one better answer to the prompt as a row to imitate."""
    return [
        {"prompt": prompt.sample.prompt, "completion": better.text, "cut": is_cut(better)}
        for better in prompt.better[:1]
    ]


def write_rows(path: Path, rows: list[dict[str, object]]) -> int:
    """Writes rows as JSON lines, and returns their number."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return len(rows)


def rl_prompts(by_folder: dict[str, list[SampledPrompt]]) -> list[dict[str, object]]:
    """Returns the prompts of RL: those to which the base gives worse answers, and all distress.

    Harmful requests are attacked alone, since that is how the target is measured.
    """
    folders = (f"samples-refusals-{ATTACK}", f"samples-twins-{ATTACK}", "samples-twins")
    prompts = [prompt for name in folders for prompt in by_folder[name] if prompt.worse]
    return [{"prompt": p.sample.prompt} for p in (*prompts, *by_folder["samples-support"])]


def write_pairs(study: Study) -> dict[str, int]:
    """Samples what is missing, writes pairs and better openings, and returns their numbers."""
    for part in PARTS:
        sample_part(study, part)
    by_folder = {part.folder: read_part(study, part) for part in PARTS}
    for name in ("refusals", "twins"):
        lend_plain_answers(by_folder[f"samples-{name}-{ATTACK}"], by_folder[f"samples-{name}"])
    data, counts = study.out / "data", {}
    pairs = [pair for prompts in by_folder.values() for p in prompts for pair in pair_answers(p)]
    counts["pairs"] = write_rows(data / f"pairs-{study.name}.jsonl", pairs)
    for name, kind in (("refusals", "harm"), ("twins", "benign"), ("support", "support")):
        prompts = by_folder[f"samples-{name}"] + by_folder.get(f"samples-{name}-{ATTACK}", [])
        rows = [row for k, p in enumerate(prompts) if teaches(p, k) for row in better_answers(p)]
        counts[kind] = write_rows(data / f"better-{kind}-{study.name}.jsonl", rows)
    counts["rl prompts"] = write_rows(data / f"rl-{study.name}.jsonl", rl_prompts(by_folder))
    return counts


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
