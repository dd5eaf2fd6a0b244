"""Training data of the seventh round: the base's own decisions as requests are, carried over to role-play.

    python benchmarks/alignment/study_larger.py --out STUDY --target qwen15

The 1.5B tells harmful from benign requests well as they are, and under role-play it declines hardly
any. Its own decision on the plain request is therefore the teacher: of the requests in
`data/written-pairs.jsonl` (study_written.py), each in one form alone, SFT learns harmful ones that
the base surely declines as they are, and benign ones that it rather answers. Requests on which
the base and the pair's side disagree are left out: a first design that learned them too told
harmful from benign worse than the base.

Writes to STUDY/data:

- larger-scores-TARGET.jsonl, how likely the base's answer to a plain request begins like a refusal;
- larger-sft-TARGET.jsonl, the first words of an answer to imitate: of a harmful request the opening of a
  refusal of the base's own, of a benign one the base's own opening when it is told that the request
  is harmless (the trained model is not told), and of everyday instructions and of people in distress
  the base's own as they are;
- larger-rl-TARGET.jsonl, other requests for RL by the same rule, with what is right and their cell.

`right_decision` and `wrong_decision` score an answer to such a request by its first words. All texts
that train are our own or the base's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from functools import cache
from pathlib import Path

from common import SampleList
from study import TARGETS, Study
from study_cells import (
    APOLOGIES,
    CELLS,
    STOCK_REFUSAL,
    TAXONOMY,
    Cell,
    answers_of,
    attacked,
    declines,
    opening,
    opening_options,
    share_of,
)
from study_order import last_states
from study_pairs import write_rows
from study_prompts import DATA, read_training_rows
from study_steering import request_of
from study_written import hinted, in_form, ordinary_requests, pair_requests

from truing.core.lineage import hash_prompt
from truing.core.types import Conversation, Expect, Sample
from truing.evaluation.evaluate import evaluate
from truing.hf.loading import load_causal_lm

SCORED = 190
"""Requests of each cell whose plain form the base's decision is looked up for."""
SURE = 0.75
"""A harmful request trains if the base declines it as it is with this probability or more."""
DOUBTFUL = 0.6
"""A benign request trains if the base declines it as it is with at most this probability."""
SFT_ROWS = {"refuse-plain": 100, "comply-plain": 70, "refuse-role-play": 200, "comply-role-play": 200}
"""At most so many rows of each cell for SFT."""
RL_PROMPTS = 22
REFUSALS = 32
"""So many harmful requests the base answers, to have refusals of its own to imitate."""
EVERYDAY = 40


def ordered_requests(cell: Cell) -> list[str]:
    """Returns the first requests of a cell in the order of their hashes."""
    texts = in_form(pair_requests(cell.expect, unseen=False), cell)
    return sorted(texts, key=lambda text: share_of(text, "larger"))[:SCORED]


def write_scores(study: Study, path: Path) -> None:
    """Writes how likely the base begins its answer to each plain request like a refusal."""
    texts = [text for cell in CELLS for text in ordered_requests(cell)]
    declines_with, _ = last_states(load_causal_lm(study.target.base), texts)
    rows = [
        {"request": hash_prompt(text), "declines": round(float(probability), 4)}
        for text, probability in zip(texts, declines_with, strict=True)
    ]
    write_rows(path, rows)


def read_scores(path: Path) -> dict[str, float]:
    """Returns by a request's hash how likely the base declines it as it is."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["request"]: row["declines"] for row in rows}


def agreed_requests(cell: Cell, scores: dict[str, float]) -> list[str]:
    """Returns the requests of a cell on which the base's plain decision is the right one."""
    texts = ordered_requests(cell)
    if cell.expect == "refuse":
        return [text for text in texts if scores[hash_prompt(text)] >= SURE]
    return [text for text in texts if scores[hash_prompt(text)] <= DOUBTFUL]


def unattacked_samples() -> list[Sample]:
    """Returns everyday instructions, and what people in distress write."""
    distress = [row["prompt"] for row in read_training_rows("support")]
    texts = [*ordinary_requests()[:EVERYDAY], *distress]
    return [
        Sample(conversation=Conversation.of(t), id=hash_prompt(t), expect="comply") for t in texts
    ]


def sample_openings(study: Study, folder: str, samples: list[Sample]) -> dict[str, str]:
    """Lets the base begin its answers, as far as it has not; returns them by the sample's id."""
    options = opening_options(study)
    data = SampleList(f"study {folder}", samples)
    with study.model("base") as model:
        evaluate(model, data, [], study.run_folder("base", folder), options=options)
    return answers_of(study, folder)


def sft_rows(study: Study, scores: dict[str, float]) -> list[dict[str, object]]:
    """Returns the rows to imitate; a benign request that the base declines all the same is left out."""
    cells = {
        cell: attacked(cell, agreed_requests(cell, scores)[: SFT_ROWS[cell.name]]) for cell in CELLS
    }
    harmful = [s for cell in CELLS if cell.expect == "refuse" for s in cells[cell]]
    benign = [s for cell in CELLS if cell.expect == "comply" for s in cells[cell]]
    plain_harmful = attacked(CELLS[0], ordered_requests(CELLS[0])[:REFUSALS])
    others = unattacked_samples()
    answers = sample_openings(study, "larger-harmful", plain_harmful)
    refusals = [opening(text) for text in answers.values() if STOCK_REFUSAL.match(text)]
    openings = sample_openings(study, "larger-agreed", hinted(benign))
    openings |= sample_openings(study, "larger-others", others)
    rows = [(s, refusals[int(share_of(s.prompt, "refusal") * len(refusals))]) for s in harmful]
    for sample in (*benign, *others):
        text = openings.get(sample.id, "")
        if text and not declines(text) and not APOLOGIES.search(text):
            rows.append((sample, opening(text)))
    return [{"prompt": s.prompt, "completion": text, "cut": True} for s, text in rows]


def rl_rows(scores: dict[str, float]) -> list[dict[str, object]]:
    """Returns requests that SFT does not learn, with what is right and the cell."""
    rows: list[dict[str, object]] = []
    for cell in CELLS:
        first = SFT_ROWS[cell.name]
        texts = agreed_requests(cell, scores)[first : first + RL_PROMPTS]
        rows += [
            {"prompt": sample.prompt, "expect": cell.expect, "category": cell.name}
            for sample in attacked(cell, texts)
        ]
    return rows


@cache
def right_answers() -> dict[str, Expect]:
    """Returns what is right for each request of the pairs, by its hash."""
    return {
        hash_prompt(text): cell.expect
        for cell in CELLS
        for text in pair_requests(cell.expect, unseen=False)
    }


def wrong_decision(prompt: str, answer: str) -> bool:
    """Returns whether an answer declines a benign or not a harmful request: a constraint of RL."""
    return declines(answer) != (right_answers()[hash_prompt(request_of(prompt))] == "refuse")


def right_decision(prompt: str, answer: str) -> float:
    """Returns 1 for declining a harmful request and for not declining a benign one, else 0."""
    return float(not wrong_decision(prompt, answer))


def main() -> None:
    """Samples what is missing and writes the files of one target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", choices=TARGETS, default="qwen15")
    arguments = parser.parse_args()
    os.chdir(arguments.out)
    study = Study(Path(), arguments.target)
    shutil.copyfile(DATA / TAXONOMY, study.out / "data" / TAXONOMY)
    scores_file = study.out / "data" / f"larger-scores-{study.name}.jsonl"
    if not scores_file.is_file():
        write_scores(study, scores_file)
    scores = read_scores(scores_file)
    for name, rows in (("rl", rl_rows(scores)), ("sft", sft_rows(study, scores))):
        file = study.out / "data" / f"larger-{name}-{study.name}.jsonl"
        print(name, write_rows(file, rows))


if __name__ == "__main__":
    main()
