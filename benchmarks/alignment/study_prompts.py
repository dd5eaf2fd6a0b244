"""The prompt sets of the study: which prompts develop, which measure, and by what rule.

    TRUING_DATA=... python benchmarks/alignment/study_prompts.py            compares with the stored hashes
    TRUING_DATA=... python benchmarks/alignment/study_prompts.py --write    stores them

A set takes the first n prompts of each source in the order of `draw_order`, a hash, so that nobody
chooses prompts. The measuring sets are of frozen prompts alone (`truing.core.measurement_set`); the
development sets are of prompts that are neither frozen nor known to the measuring judge nor
trained on. `data/prompt-sets.json` holds hashes, no text.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
from common import SampleList

from truing.core.lineage import ancestors, digest, hash_prompt, normalise_prompt
from truing.core.measurement_set import is_frozen
from truing.core.types import Sample
from truing.specs.resolve import resolve

DATA = Path(__file__).resolve().parent / "data"
HASHES_FILE = DATA / "prompt-sets.json"
MEASURING_JUDGE = "moderation:default"
TRAINING_FILES = ("refusals", "twins", "support")
MAX_WORDS = 80
"""Longer prompts are left out: a model of this size answers the frame, not the request."""

PromptFilter = Callable[[Sample], bool]


@dataclass(frozen=True)
class Part:
    """The first `count` prompts of a data set that expect `expect`.

    With `harmful_answers`, those all of whose recorded answers people called harmful: requests that
    ask for harm, where the set says nothing about its prompts.
    """

    spec: str
    count: int
    expect: str = ""
    harmful_answers: bool = False


@dataclass(frozen=True)
class PromptSet:
    """A set of the study; `frozen` says on which side of the measurement set its prompts are.

    `without` names earlier sets whose prompts it does not have.
    """

    parts: tuple[Part, ...]
    frozen: bool
    without: tuple[str, ...] = ()


PROMPT_SETS = {
    "pilot-1": PromptSet((Part("beavertails", 120), Part("do-not-answer", 80)), frozen=False),
    "dev-harm": PromptSet((Part("beavertails", 200, harmful_answers=True),), frozen=False),
    "dev-benign": PromptSet(
        (Part("builtin:safety,half=train", 41, "comply"), Part("pairs:benign", 59)), frozen=False
    ),
    "dev-support": PromptSet((Part("builtin:support,half=train", 20, "support"),), frozen=False),
    "harm": PromptSet(
        (
            Part("beavertails,part=evaluation,distinct=true", 110),
            Part("strongreject", 60),
            Part("xstest", 37, "refuse"),
            Part("builtin:safety,half=report", 43, "refuse"),
        ),
        frozen=True,
    ),
    "harm-2": PromptSet(
        (
            Part("beavertails,part=evaluation,distinct=true", 110),
            Part("strongreject", 80),
            Part("jailbreakbench", 60, "refuse"),
            Part("xstest", 50, "refuse"),
        ),
        frozen=True,
        without=("harm",),
    ),
    # Prompts that no round before the ninth has answered.
    "harm-3": PromptSet(
        (
            Part("beavertails,part=evaluation,distinct=true", 110),
            Part("strongreject", 60),
            Part("jailbreakbench", 30, "refuse"),
            Part("xstest", 50, "refuse"),
        ),
        frozen=True,
        without=("harm", "harm-2"),
    ),
    "benign": PromptSet(
        (
            Part("xstest", 75, "comply"),
            Part("builtin:safety,half=report", 43, "comply"),
            Part("jailbreakbench", 32, "comply"),
        ),
        frozen=True,
    ),
    "benign-2": PromptSet(
        (Part("xstest", 100, "comply"), Part("jailbreakbench", 50, "comply")),
        frozen=True,
        without=("benign",),
    ),
    # What is left of the look-alikes of these sets.
    "benign-3": PromptSet(
        (Part("xstest", 100, "comply"), Part("jailbreakbench", 50, "comply")),
        frozen=True,
        without=("benign", "benign-2"),
    ),
    "support": PromptSet((Part("builtin:support,half=report", 40, "support"),), frozen=True),
    "ordinary": PromptSet((Part("refusal-direction,half=report", 850, "comply"),), frozen=True),
}


def draw_order(prompt: str) -> str:
    """Returns the key by which prompts are ordered before the first n are taken."""
    return hashlib.sha256(f"study 1\n{normalise_prompt(prompt)}".encode()).hexdigest()


@cache
def prompts_known_to_judge() -> frozenset[str]:
    """Returns the hashes of the prompts that the measuring judge, or a judge behind it, learned."""
    lineage = resolve(MEASURING_JUDGE, "judge").lineage
    return frozenset(lineage.prompts).union(*(judge.prompts for judge in ancestors(lineage)))


def read_training_rows(name: str) -> list[dict[str, str]]:
    """Returns the rows of `data/NAME.jsonl`: our own prompts and answers that train."""
    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@cache
def training_prompts() -> frozenset[str]:
    """Returns the hashes of our own training prompts."""
    rows = [row for name in TRAINING_FILES for row in read_training_rows(name)]
    return frozenset(hash_prompt(row["prompt"]) for row in rows)


def build_prompt_set(name: str) -> SampleList:
    """Returns the samples of a set; their ids are the prompts' hashes."""
    rule = PROMPT_SETS[name]
    excluded = {
        sample.id for earlier in rule.without for sample in build_prompt_set(earlier).samples
    }
    samples: dict[str, Sample] = {}
    for part in rule.parts:
        left = part.count
        for sample in read_candidates(part):
            key = hash_prompt(sample.prompt)
            if not left:
                break
            is_new = key not in samples and key not in excluded
            if is_new and _is_allowed(sample, part, frozen=rule.frozen):
                samples[key] = msgspec.structs.replace(sample, id=key, source=part.spec)
                left -= 1
    return SampleList(f"study {name}", list(samples.values()))


def read_candidates(part: Part) -> list[Sample]:
    """Returns the prompts of a part's data set in the order in which they are drawn."""
    rows = list(resolve(part.spec, "data").rows())
    excluded: set[str] = set()
    if part.harmful_answers:
        for row in rows:
            verdicts = [j.verdict for j in row.judgements if j.question == "harmful"]
            if not verdicts or not all(verdicts):
                excluded.add(row.sample.prompt)
    candidates = [row.sample for row in rows if row.sample.prompt not in excluded]
    return sorted(candidates, key=lambda sample: draw_order(sample.prompt))


def _is_allowed(sample: Sample, part: Part, *, frozen: bool) -> bool:
    if part.expect and sample.expect != part.expect:
        return False
    if len(sample.prompt.split()) > MAX_WORDS or is_frozen(sample.prompt) != frozen:
        return False
    # A benign twin of builtin:safety is known to the judge of harm. It may develop all the same:
    # on benign prompts needless refusal is measured, by the rules.
    is_unknown = part.expect == "comply" or hash_prompt(sample.prompt) not in (
        prompts_known_to_judge()
    )
    return frozen or (is_unknown and hash_prompt(sample.prompt) not in training_prompts())


def hash_of_set(samples: Iterable[Sample]) -> str:
    """Returns one hash of a set's prompts, whatever their order."""
    return digest(*sorted(hash_prompt(sample.prompt) for sample in samples))


def describe_sets() -> dict[str, dict[str, object]]:
    """Returns for each set its hash, the count of each source and the hashes of its prompts."""
    described: dict[str, dict[str, object]] = {}
    for name in PROMPT_SETS:
        samples = build_prompt_set(name).samples
        sources = {part.spec: 0 for part in PROMPT_SETS[name].parts}
        for sample in samples:
            sources[sample.source] += 1
        prompts = sorted(sample.id for sample in samples)
        described[name] = {"hash": hash_of_set(samples), "sources": sources, "prompts": prompts}
    return described


def main() -> int:
    """Compares with the stored hashes, or stores them; the exit status is 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    sets = describe_sets()
    if parser.parse_args().write:
        HASHES_FILE.write_text(json.dumps(sets, indent=1) + "\n", encoding="utf-8")
    stored = json.loads(HASHES_FILE.read_text(encoding="utf-8"))
    for name, entry in sets.items():
        same = "as stored" if stored.get(name) == entry else "DIFFERS from what is stored"
        print(f"{name}: {entry['hash']} {entry['sources']} {same}")
    return int(stored != sets)


if __name__ == "__main__":
    sys.exit(main())
