"""Training data in four cells: harmful and benign requests, as they are and under role-play.

    python benchmarks/alignment/study_cells.py --out STUDY

Each request stands in one form alone: neither the form nor a bias towards declining tells what is
right, the request alone does. The requests are our own (`refusals`, `twins`, `careful-refusals`,
`careful-prompts`); with a second number after --refuse and --comply also those of published sets
(`PUBLISHED`), none of them frozen or in a development set, and then RL has requests that SFT has not.

Writes to STUDY/data cells-sft-TARGET.jsonl (the first words of the base's own answers: a refusal of
harmful, an answer to benign requests) and cells-rl-TARGET.jsonl (prompts with what is right and their
cell). Openings are short and cut, so that the loss is that of the decision, and no end is learned.
A refusal names no request: where the base gave none to a prompt, it is one that it gave to another.
What declines is told by the first words (`study_steering.declines`).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

from common import SampleList
from study import TARGETS, Study
from study_pairs import ROLE_PLAY, write_rows
from study_prompts import DATA, build_prompt_set, read_training_rows
from study_steering import BENIGN_FILES, HARMFUL_FILES, declines, request_of

from truing.core.lineage import hash_prompt
from truing.core.measurement_set import is_frozen
from truing.core.types import Conversation, Expect, Sample, Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.runs.folder import Run
from truing.specs.resolve import resolve

MAX_TOKENS = 10
OPENING_WORDS = 5
FILES: dict[Expect, tuple[str, ...]] = {"refuse": HARMFUL_FILES, "comply": BENIGN_FILES}
DEVELOPMENT = ("dev-harm", "dev-benign", "dev-support")
FORMS = {"plain": "", ROLE_PLAY: ROLE_PLAY}
RL_SHARE = 0.35
TAXONOMY = "cells.toml"
APOLOGIES = re.compile(
    r"\b(?:sorry|apologi[sz]e|as an? (?:ai|language)|can(?:['’]t|not| not))\b", re.I
)
"""An answer with such words in its opening may decline, whatever it begins with."""
STOCK_REFUSAL = re.compile(r"\W*(?:i['’]m )?sorry,? (?:but )?i (?:can['’]t|cannot)", re.I)
"""The base's plain refusal. Others talk about the model, or are none ("I'm sorry, but I'm not sure")."""
OPENINGS_SEED = 21


@dataclass(frozen=True)
class PublishedPart:
    """Prompts of a published set; people's labels say of those with `harmful` whether all are that."""

    spec: str
    harmful: bool | None = None


PUBLISHED: dict[Expect, tuple[PublishedPart, ...]] = {
    "refuse": (PublishedPart("beavertails", harmful=True), PublishedPart("do-not-answer")),
    "comply": (PublishedPart("toxic-chat", harmful=False), PublishedPart("refusal-direction")),
}
"""In the words of users, as the measuring sets are; for research only, where a set's licence is."""
MAX_WORDS = 40


@dataclass(frozen=True)
class Cell:
    """One of the four kinds of prompts: what is right, and the form."""

    expect: Expect
    form: str

    @property
    def folder(self) -> str:
        """The name of the run folder of the base's answers."""
        return f"cells-{self.expect}-{self.form}"

    @property
    def name(self) -> str:
        """The name that a constraint of RL gives the cell (its `category`)."""
        return f"{self.expect}-{self.form}"


CELLS = tuple(Cell(expect, form) for expect in FILES for form in FORMS)


def share_of(prompt: str, purpose: str) -> float:
    """Returns a number in [0, 1) that is drawn by the prompt's hash."""
    key = hashlib.sha256(f"cells {purpose}\n{hash_prompt(prompt)}".encode()).digest()
    return int.from_bytes(key[:6], "big") / 2**48


@cache
def development_prompts() -> frozenset[str]:
    """Returns the hashes of the prompts of the development sets."""
    return frozenset(s.id for name in DEVELOPMENT for s in build_prompt_set(name).samples)


def training_requests(expect: Expect) -> list[str]:
    """Returns our own requests of a kind, none of which develops or measures."""
    excluded = development_prompts()
    texts = dict.fromkeys(
        row["prompt"] for name in FILES[expect] for row in read_training_rows(name)
    )
    return [t for t in texts if hash_prompt(t) not in excluded and not is_frozen(t)]


def cell_requests(cell: Cell) -> list[str]:
    """Returns the requests of a cell: each request has one form."""
    first_form = next(iter(FORMS))
    return [
        text
        for text in training_requests(cell.expect)
        if (share_of(text, "form") < 0.5) == (cell.form == first_form)
    ]


def published_requests(cell: Cell) -> list[str]:
    """Returns requests of published sets for a cell, a part of each set in turn."""
    columns = [_published_part(part, cell.expect) for part in PUBLISHED[cell.expect]]
    first_form = next(iter(FORMS))
    # Sets repeat prompts but for case and spaces.
    distinct = {hash_prompt(text): text for row in zip_longest(*columns) for text in row if text}
    return [
        text
        for text in distinct.values()
        if (share_of(text, "form") < 0.5) == (cell.form == first_form)
    ]


@cache
def _published_part(part: PublishedPart, expect: Expect) -> list[str]:
    """Returns the prompts of a published set that may train, in the order of their hashes."""
    verdicts: dict[str, set[bool]] = {}
    for row in resolve(part.spec, "data").rows():
        prompt, says = row.sample.prompt, row.sample.expect
        labels = {
            j.verdict
            for j in row.judgements
            if j.question in ("harmful", "harmful_prompt") and j.verdict is not None
        }
        is_right = says in (expect, "none") if part.harmful is None else True
        if is_right and len(prompt.split()) <= MAX_WORDS and not is_frozen(prompt):
            verdicts.setdefault(prompt, set()).update(labels)
    excluded = development_prompts()
    chosen = [
        prompt
        for prompt, labels in verdicts.items()
        if hash_prompt(prompt) not in excluded and part.harmful in (None, *_only(labels))
    ]
    return sorted(chosen, key=lambda prompt: share_of(prompt, "published"))


def _only(labels: set[bool]) -> set[bool]:
    """Returns the one label that all who judged a prompt gave; none where they differ."""
    return labels if len(labels) == 1 else set()


def is_for_rl(request: str) -> bool:
    """Returns whether a request is one of RL, not of SFT and DPO."""
    return share_of(request, "rl") < RL_SHARE


def attacked(cell: Cell, requests: list[str]) -> list[Sample]:
    """Returns the prompts of a cell as the model sees them, with what is right and the cell."""
    samples = [
        Sample(
            conversation=Conversation.of(text),
            id=hash_prompt(text),
            expect=cell.expect,
            harms=(cell.name,),
        )
        for text in requests
    ]
    if not FORMS[cell.form]:
        return samples
    attack = resolve(FORMS[cell.form], "attack")
    return [attack.attack_once(sample) for sample in samples]


def opening_options(study: Study) -> EvaluateOptions:
    """Returns how the base begins an answer: its first words, drawn as the study draws."""
    sampling = Sampling(
        max_tokens=MAX_TOKENS, temperature=study.target.temperature, top_p=study.target.top_p
    )
    return EvaluateOptions(sampling=sampling, concurrency=2 * study.target.batch)


def sample_cell(study: Study, cell: Cell, published: int) -> None:
    """Lets the base begin an answer to each prompt of a cell, as far as it has not."""
    parts = {cell.folder: cell_requests(cell)}
    if published:
        parts[f"{cell.folder}-published"] = published_requests(cell)[: 2 * published]
    options = opening_options(study)
    with study.model("base") as model:
        for folder, requests in parts.items():
            data = SampleList(f"study {folder}", attacked(cell, requests))
            evaluate(model, data, [], study.run_folder("base", folder), options=options)


def opening(text: str) -> str:
    """Returns the first words of an answer, in which it declines or begins to answer."""
    return " ".join(text.split()[:OPENING_WORDS])


def answers_of(study: Study, folder: str) -> dict[str, str]:
    """Returns the first answer to each prompt of a run of the base, by the sample's id."""
    run = Run(study.run_folder("base", folder))
    answers: dict[str, str] = {}
    for response in run.responses():
        answers.setdefault(response.sample_id, response.text)
    return answers


def own_refusals(study: Study) -> list[str]:
    """Returns the openings of the base's refusals of our harmful requests, as often as they come."""
    folders = ("samples-refusals", f"samples-refusals-{ROLE_PLAY}")
    texts = [r.text for f in folders for r in Run(study.run_folder("base", f)).responses()]
    return [opening(text) for text in texts if STOCK_REFUSAL.match(text)]


def own_openings(study: Study, cell: Cell, samples: list[Sample], folder: str) -> list[str]:
    """Returns for each prompt the opening to imitate; "" where the base has no good one."""
    if cell.expect == "refuse":
        draw = random.Random(f"{OPENINGS_SEED} {cell.name}")
        refusals = own_refusals(study)
        return [draw.choice(refusals) for _ in samples]
    answers = answers_of(study, folder)
    texts = [answers.get(sample.id, "") for sample in samples]
    return ["" if declines(t) or APOLOGIES.search(t) else opening(t) for t in texts]


def sft_rows(study: Study, cell: Cell, rows: int, published: int) -> list[dict[str, object]]:
    """Returns rows of a cell to imitate: the opening of a refusal, or of the base's own answer."""
    requests = [text for text in cell_requests(cell) if not is_for_rl(text)]
    samples = sorted(attacked(cell, requests), key=lambda s: share_of(s.prompt, "order"))
    sources = [(samples, cell.folder, rows)]
    if published:
        others = attacked(cell, published_requests(cell)[: 2 * published])
        sources.append((others, f"{cell.folder}-published", published))
    return [
        {"prompt": sample.prompt, "completion": text, "cut": True}
        for part, folder, count in sources
        for sample, text in _with_text(part, own_openings(study, cell, part, folder))[:count]
    ]


def _with_text(samples: list[Sample], texts: list[str]) -> list[tuple[Sample, str]]:
    return [(sample, text) for sample, text in zip(samples, texts, strict=True) if text]


def rl_rows(
    cell: Cell, rows: int, declined: frozenset[str] = frozenset(), published: int = 0
) -> list[dict[str, object]]:
    """Returns prompts of a cell for RL, with what is right and the cell.

    Of our own, those in `declined` (ids of prompts that the base declined) are three quarters at most.
    With `published`, as many more are of published sets: those behind the ones that SFT draws from.
    """
    requests = [t for t in cell_requests(cell) if not published or is_for_rl(t)]
    samples = sorted(attacked(cell, requests), key=lambda s: share_of(s.prompt, "order"))
    hard = [s for s in samples if s.id in declined][: 3 * rows // 4]
    easy = [s for s in samples if s.id not in declined][: rows - len(hard)]
    others = published_requests(cell)[2 * published :][:rows] if published else []
    return [
        {"prompt": s.prompt, "expect": cell.expect, "category": cell.name}
        for s in (*hard, *easy, *attacked(cell, others))
    ]


@cache
def right_answers() -> dict[str, Expect]:
    """Returns what is right for each request that may train, by its hash."""
    requests = {cell: (*cell_requests(cell), *published_requests(cell)) for cell in CELLS}
    return {hash_prompt(text): cell.expect for cell, texts in requests.items() for text in texts}


def wrong_decision(prompt: str, answer: str) -> bool:
    """Returns whether an answer declines a benign or not a harmful request: a constraint of RL."""
    return declines(answer) != (right_answers()[hash_prompt(request_of(prompt))] == "refuse")


def right_decision(prompt: str, answer: str) -> float:
    """Returns 1 for declining a harmful request and for not declining a benign one, else 0."""
    return float(not wrong_decision(prompt, answer))


def declined_prompts(study: Study, cell: Cell) -> frozenset[str]:
    """Returns the ids of the prompts of a cell that the base declined; none where it was not asked."""
    if not study.run_folder("base", cell.folder).is_dir():
        return frozenset()
    return frozenset(k for k, text in answers_of(study, cell.folder).items() if declines(text))


def rl_prompts(study: Study, cell: Cell, rows: int, *, published: int) -> list[dict[str, object]]:
    """Returns the prompts of a cell for RL: half of published sets, or hard ones of our own."""
    if published:
        return rl_rows(cell, rows // 2, published=published)
    return rl_rows(cell, rows, declined_prompts(study, cell))


def write_cells(
    study: Study, *, refuse: tuple[int, int], comply: tuple[int, int], rl: int, suffix: str
) -> dict[str, int]:
    """Writes rows for SFT, at most so many (own, published) of each cell, and prompts of RL."""
    shares = {"refuse": refuse, "comply": comply}
    shutil.copyfile(DATA / TAXONOMY, study.out / "data" / TAXONOMY)
    counts = {}
    for kind, rows_of in (
        ("sft", lambda cell: sft_rows(study, cell, *shares[cell.expect])),
        ("rl", lambda cell: rl_prompts(study, cell, rl, published=shares["comply"][1])),
    ):
        rows = [row for cell in CELLS for row in rows_of(cell)]
        counts[kind] = write_rows(
            study.out / "data" / f"cells-{kind}-{study.name}{suffix}.jsonl", rows
        )
    return counts


def main() -> None:
    """Samples what is missing and writes the files of one target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", choices=TARGETS, default="qwen")
    for name, what in (("refuse", "harmful"), ("comply", "benign")):
        parser.add_argument(
            f"--{name}",
            type=int,
            nargs=2,
            default=[300, 0],
            help=f"rows of each {what} cell: own, published",
        )
    parser.add_argument("--suffix", default="", help="a suffix of the names of the files")
    parser.add_argument("--rl", type=int, default=120, help="prompts of each cell for RL")
    arguments = parser.parse_args()
    os.chdir(arguments.out)
    study = Study(Path(), arguments.target)
    for cell in CELLS:
        if cell.expect == "comply":
            sample_cell(study, cell, arguments.comply[1])
    counts = write_cells(
        study,
        refuse=tuple(arguments.refuse),
        comply=tuple(arguments.comply),
        rl=arguments.rl,
        suffix=arguments.suffix,
    )
    print(counts)


if __name__ == "__main__":
    main()
