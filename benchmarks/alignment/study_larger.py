"""Training data of the seventh round: requests of the written pairs for the 1.5B target, in four cells.

    python benchmarks/alignment/study_larger.py --out STUDY --target qwen15

Takes requests of `data/written-pairs.jsonl` (study_written.py), each in one form alone, as it is or
under role-play, and writes to STUDY/data:

- larger-sft-TARGET.jsonl, the first words of an answer to imitate: of a harmful request the opening of a
  refusal of the base's own, of a benign one the base's own opening when it is told that the request
  is harmless (the trained model is not told), and of everyday instructions and of people in distress
  the base's own as they are;
- larger-rl-TARGET.jsonl, other requests for RL, with what is right and their cell.

`right_decision` and `wrong_decision` score an answer to such a request by its first words. All texts
that train are our own or the base's.
"""

from __future__ import annotations

import argparse
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
from study_pairs import write_rows
from study_prompts import DATA, read_training_rows
from study_steering import request_of
from study_written import hinted, in_form, ordinary_requests, pair_requests

from truing.core.lineage import hash_prompt
from truing.core.types import Conversation, Expect, Sample
from truing.evaluation.evaluate import evaluate

SFT_ROWS = 90
"""Rows of each cell for SFT; the requests behind them in the same order are those of RL."""
RL_PROMPTS = 40
REFUSALS = 32
"""So many harmful requests the base answers, to have refusals of its own to imitate."""
EVERYDAY = 40
SUPPORT_FILES = ("support", "careful-support")


def requests_of(cell: Cell, first: int, last: int) -> list[Sample]:
    """Returns the requests `first` to `last` of a cell in the order of their hashes, as the model sees them."""
    texts = in_form(pair_requests(cell.expect, unseen=False), cell)
    ordered = sorted(texts, key=lambda text: share_of(text, "larger"))
    return attacked(cell, ordered[first:last])


def unattacked_samples() -> list[Sample]:
    """Returns everyday instructions, and what people in distress write."""
    distress = {row["prompt"] for name in SUPPORT_FILES for row in read_training_rows(name)}
    texts = [*ordinary_requests()[:EVERYDAY], *sorted(distress)]
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


def sft_rows(study: Study) -> list[dict[str, object]]:
    """Returns the rows to imitate; a benign request that the base declines all the same is left out."""
    cells = {cell: requests_of(cell, 0, SFT_ROWS) for cell in CELLS}
    harmful = [s for cell in CELLS if cell.expect == "refuse" for s in cells[cell]]
    benign = [s for cell in CELLS if cell.expect == "comply" for s in cells[cell]]
    plain_harmful = cells[CELLS[0]][:REFUSALS]
    others = unattacked_samples()
    answers = sample_openings(study, "larger-harmful", plain_harmful)
    refusals = [opening(text) for text in answers.values() if STOCK_REFUSAL.match(text)]
    openings = sample_openings(study, "larger-benign", hinted(benign))
    openings |= sample_openings(study, "larger-others", others)
    rows = [(s, refusals[int(share_of(s.prompt, "refusal") * len(refusals))]) for s in harmful]
    for sample in (*benign, *others):
        text = openings.get(sample.id, "")
        if text and not declines(text) and not APOLOGIES.search(text):
            rows.append((sample, opening(text)))
    return [{"prompt": s.prompt, "completion": text, "cut": True} for s, text in rows]


def rl_rows() -> list[dict[str, object]]:
    """Returns requests that SFT does not learn, with what is right and the cell."""
    return [
        {"prompt": sample.prompt, "expect": cell.expect, "category": cell.name}
        for cell in CELLS
        for sample in requests_of(cell, SFT_ROWS, SFT_ROWS + RL_PROMPTS)
    ]


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
    for name, rows in (("rl", rl_rows()), ("sft", sft_rows(study))):
        file = study.out / "data" / f"larger-{name}-{study.name}.jsonl"
        print(name, write_rows(file, rows))


if __name__ == "__main__":
    main()
