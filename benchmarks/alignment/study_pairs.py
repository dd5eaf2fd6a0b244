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
ROLE_PLAY = "role-play"


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
        attack = self.attack.replace(":", "-").replace("+", "-")
        return "-".join(filter(None, ("samples", self.name, attack)))


SUPPORT = SamplingPart("support", "support", 6)


def sampling_parts(attacks: tuple[str, ...]) -> list[SamplingPart]:
    """Returns the parts of all our training prompts: as they are and under each of the attacks."""
    harmful = [SamplingPart("refusals", "refuse", 2, attack) for attack in ("", *attacks)]
    benign = [SamplingPart("twins", "comply", 2 if a else 3, a) for a in ("", *attacks)]
    return [*harmful, *benign, SUPPORT]


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


@dataclass(frozen=True)
class PairRequest:
    """Under which attacks the prompts are sampled, and what is written from the samples."""

    attacks: tuple[str, ...]
    pairs_per_prompt: int
    suffix: str
    sample_only: bool
    lend_refusals: bool
    plain_harm: bool


@dataclass
class SampledPrompt:
    """A prompt as the model saw it, the request in it, and the better and worse answers to it."""

    sample: Sample
    request: str
    better: list[Response]
    worse: list[Response]


def sample_part(study: Study, part: SamplingPart) -> None:
    """Lets the base answer the prompts of a part, as far as it has not."""
    samples, run = training_samples(part), study.run_folder("base", part.folder)
    if run.is_dir() and len(list(Run(run).responses())) == part.n * len(samples):
        return
    options = EvaluateOptions(
        sampling=Sampling(
            n=part.n,
            max_tokens=MAX_TOKENS,
            temperature=study.target.temperature,
            top_p=study.target.top_p,
        ),
        concurrency=study.target.batch,
    )
    data = SampleList(f"study {part.name}", samples)
    attack = resolve(part.attack, "attack") if part.attack else None
    with study.model("base") as model:
        evaluate(model, data, [], run, attack=attack, options=options)


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


def lend_plain_answers(
    attacked: list[SampledPrompt], plain: list[SampledPrompt], *, refusals: bool
) -> None:
    """Gives attacked prompts without a better answer that to the plain prompt: it fits both.

    With `refusals`, benign ones without a worse answer get that too: an attack may leave the base no
    refusal at all, and without one its form would stand for what to decline.
    """
    by_request = {prompt.request: prompt for prompt in plain}
    for prompt in attacked:
        lender = by_request[prompt.request]
        prompt.better = prompt.better or lender.better
        if refusals and prompt.sample.expect == "comply":
            prompt.worse = prompt.worse or lender.worse


def is_cut(response: Response) -> bool:
    """Returns whether a token limit ended the answer."""
    return response.finish_reason == "length"


def pair_answers(prompt: SampledPrompt, limit: int) -> list[dict[str, object]]:
    """Returns at most `limit` pairs of a prompt: each answer once, the better one `chosen`."""
    return [
        {
            "prompt": prompt.sample.prompt,
            "chosen": better.text,
            "rejected": worse.text,
            "cut": is_cut(better) or is_cut(worse),
        }
        for better, worse in zip(prompt.better, prompt.worse)
    ][:limit]


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


def rl_prompts(
    by_folder: dict[str, list[SampledPrompt]], *, plain_harm: bool
) -> list[dict[str, object]]:
    """Returns the prompts of RL: those to which the base gives worse answers, and all distress.

    Harmful requests are attacked alone, since that is how the target is measured; with `plain_harm`
    they are there as they are too.
    """
    plain = {"samples-refusals", "samples-twins", "samples-support"}
    folders = [*(folder for folder in by_folder if folder not in plain), "samples-twins"]
    folders += ["samples-refusals"] if plain_harm else []
    chosen = [prompt for folder in folders for prompt in by_folder[folder] if prompt.worse]
    return [
        {"prompt": prompt.sample.prompt, "expect": prompt.sample.expect}
        for prompt in (*chosen, *by_folder["samples-support"])
    ]


def write_pairs(study: Study, request: PairRequest) -> dict[str, int]:
    """Samples what is missing, writes pairs and better openings, and returns their numbers."""
    parts = sampling_parts(request.attacks)
    for part in parts:
        sample_part(study, part)
    if request.sample_only:
        return {}
    by_folder = {part.folder: read_part(study, part) for part in parts}
    for part in (part for part in parts if part.attack):
        plain = by_folder[f"samples-{part.name}"]
        lend_plain_answers(by_folder[part.folder], plain, refusals=request.lend_refusals)
    data, suffix, counts = study.out / "data", f"{study.name}{request.suffix}", {}
    pairs = [
        pair
        for prompts in by_folder.values()
        for prompt in prompts
        for pair in pair_answers(prompt, request.pairs_per_prompt)
    ]
    counts["pairs"] = write_rows(data / f"pairs-{suffix}.jsonl", pairs)
    for name, kind in (("refusals", "harm"), ("twins", "benign"), ("support", "support")):
        prompts = [p for part in parts if part.name == name for p in by_folder[part.folder]]
        rows = [row for k, p in enumerate(prompts) if teaches(p, k) for row in better_answers(p)]
        counts[kind] = write_rows(data / f"better-{kind}-{suffix}.jsonl", rows)
    counts["rl prompts"] = write_rows(
        data / f"rl-{suffix}.jsonl", rl_prompts(by_folder, plain_harm=request.plain_harm)
    )
    return counts


def main() -> None:
    """Writes the pairs of one target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", choices=TARGETS, default="qwen")
    parser.add_argument("--attacks", nargs="+", default=[ROLE_PLAY])
    parser.add_argument("--pairs-per-prompt", type=int, default=2)
    parser.add_argument("--suffix", default="", help="a suffix of the names of the files")
    parser.add_argument(
        "--lend-refusals", action="store_true", help="of plain benign prompts, to attacked ones"
    )
    parser.add_argument(
        "--plain-harm", action="store_true", help="in RL, harmful requests as they are"
    )
    parser.add_argument("--sample-only", action="store_true", help="writes no file of pairs")
    arguments = parser.parse_args()
    os.chdir(arguments.out)
    request = PairRequest(
        tuple(arguments.attacks),
        arguments.pairs_per_prompt,
        arguments.suffix,
        arguments.sample_only,
        arguments.lend_refusals,
        arguments.plain_harm,
    )
    print(write_pairs(Study(Path(), arguments.target), request))


if __name__ == "__main__":
    main()
