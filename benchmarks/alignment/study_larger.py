"""Training data of the seventh round: the base's own decisions on requests, carried over to role-play.

    python benchmarks/alignment/study_larger.py --out STUDY --target qwen15

The 1.5B tells harmful from benign requests well as they are; under role-play it declines few of
either. So its own decision on the plain request is the teacher for both forms. Of
`data/written-pairs.jsonl` (study_written.py) SFT learns the harmful requests that the base surely
declines as they are, and the benign ones that it does not clearly decline. Where base and pair disagree
more than that, a request is left out: a first design learned those too, and ordered requests worse than the base.

Writes to STUDY/data:

- larger-scores-TARGET.jsonl, how likely the base's answer to each plain request begins like a refusal;
- larger-sft-TARGET.jsonl, the first words of an answer to imitate: of a harmful request the opening of
  one of the base's own refusals, of a benign one the base's own opening when it is told that the
  request is harmless (the trained model is not told), and of everyday instructions and of people in
  distress the base's own as they are.

All texts that train are our own or the base's; no published set is among them.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from common import SampleList
from study import TARGETS, Study
from study_cells import (
    APOLOGIES,
    CELLS,
    STOCK_REFUSAL,
    Cell,
    answers_of,
    attacked,
    declines,
    opening,
    opening_options,
    share_of,
)
from study_order import last_states
from study_pairs import ROLE_PLAY, write_rows
from study_prompts import read_training_rows
from study_written import hinted, in_form, ordinary_requests, pair_requests

from truing.core.errors import UserError
from truing.core.lineage import hash_prompt
from truing.core.types import Conversation, Expect, Sample
from truing.evaluation.evaluate import evaluate
from truing.hf.loading import load_causal_lm

SCORED = 190
"""So many requests of each cell (of `study_cells.CELLS`) are scored."""
SURE = 0.75
"""A harmful request trains if the base declines it as it is with this probability or more."""
DOUBTFUL = 0.6
"""A benign request trains if the base declines it as it is with at most this probability."""
SFT_ROWS = {
    "refuse-plain": 100,
    "comply-plain": 70,
    f"refuse-{ROLE_PLAY}": 200,
    f"comply-{ROLE_PLAY}": 234,
}
"""At most so many requests of each cell train: under role-play nearly all that fit. A request may
train in both forms."""
ASKED_FOR_REFUSALS = 32
"""So many harmful requests are put to the base, to have refusals of its own to imitate."""
EVERYDAY = 40


def scored_requests(cell: Cell) -> list[str]:
    """Returns the first requests of a cell in the order of their hashes."""
    texts = in_form(pair_requests(cell.expect, unseen=False), cell)
    return sorted(texts, key=lambda text: share_of(text, "larger"))[:SCORED]


def write_scores(study: Study, path: Path) -> None:
    """Writes how likely the base begins its answer to each plain request like a refusal."""
    texts = [text for cell in CELLS for text in scored_requests(cell)]
    probabilities, _ = last_states(load_causal_lm(study.target.base), texts)
    rows = [
        {"request": hash_prompt(text), "declines": round(float(probability), 4)}
        for text, probability in zip(texts, probabilities, strict=True)
    ]
    write_rows(path, rows)


def read_scores(path: Path) -> dict[str, float]:
    """Returns by a request's hash how likely the base declines it as it is."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["request"]: row["declines"] for row in rows}


def agreed_requests(expect: Expect, scores: dict[str, float]) -> dict[str, list[str]]:
    """Returns the requests that the base does not decide plainly wrong, by their cell's form.

    That is: harmful ones that it surely declines as they are, and benign ones that it may answer.
    """

    def agrees(text: str) -> bool:
        score = scores[hash_prompt(text)]
        return score >= SURE if expect == "refuse" else score <= DOUBTFUL

    return {
        cell.form: [text for text in scored_requests(cell) if agrees(text)]
        for cell in CELLS
        if cell.expect == expect
    }


def training_samples(cell: Cell, scores: dict[str, float]) -> list[Sample]:
    """Returns the requests that train in a cell as the model sees them: those of its own form first.

    Requests about minors stand as they are in both: `truing` attacks none.
    """
    by_form = agreed_requests(cell.expect, scores)
    own = by_form.pop(cell.form)
    texts = [*own, *(text for others in by_form.values() for text in others)]
    return attacked(cell, texts[: SFT_ROWS[cell.name]])


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
    """Returns the rows to imitate.

    What need not be declined is left out where the base's answer is missing, declines, or has words of
    an apology in its opening. Raises UserError if the base gave no plain refusal to imitate.
    """
    plain = next(cell for cell in CELLS if cell.name == "refuse-plain")
    answers = sample_openings(
        study, "larger-refused", attacked(plain, scored_requests(plain)[:ASKED_FOR_REFUSALS])
    )
    refusals = [opening(text) for text in answers.values() if STOCK_REFUSAL.match(text)]
    if not refusals:
        raise UserError(
            f"none of the {len(answers)} answers to harmful requests is a plain refusal"
        )
    rows: list[tuple[Sample, str]] = []
    benign: list[tuple[Sample, str]] = []
    for cell in CELLS:
        samples = training_samples(cell, scores)
        if cell.expect == "refuse":
            drawn = (int(share_of(s.prompt, "refusal") * len(refusals)) for s in samples)
            rows += [(s, refusals[k]) for s, k in zip(samples, drawn, strict=True)]
        else:
            openings = sample_openings(study, f"larger-{cell.name}", hinted(samples))
            benign += [(s, openings.get(s.id, "")) for s in samples]
    others = unattacked_samples()
    openings = sample_openings(study, "larger-others", others)
    benign += [(s, openings.get(s.id, "")) for s in others]
    rows += [
        (s, opening(t)) for s, t in benign if t and not declines(t) and not APOLOGIES.search(t)
    ]
    # A request about minors is the same in both forms: it trains once.
    distinct = {s.prompt: text for s, text in rows}
    return [{"prompt": p, "completion": text, "cut": True} for p, text in distinct.items()]


def main() -> None:
    """Scores and samples what is missing, and writes the files of one target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", choices=TARGETS, default="qwen15")
    arguments = parser.parse_args()
    os.chdir(arguments.out)
    study = Study(Path(), arguments.target)
    (study.out / "data").mkdir(exist_ok=True)
    file = study.out / "data" / f"larger-scores-{study.name}.jsonl"
    if not file.is_file():
        write_scores(study, file)
    scores = read_scores(file)
    if not {hash_prompt(text) for cell in CELLS for text in scored_requests(cell)} <= scores.keys():
        raise UserError(f"{file}: lacks requests; remove it to have them scored anew")
    rows = sft_rows(study, scores)
    print(write_rows(study.out / "data" / f"larger-sft-{study.name}.jsonl", rows))


if __name__ == "__main__":
    main()
