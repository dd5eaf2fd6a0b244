"""Training data of the fifth round: 3,000 written pairs, a harmful request and its benign look-alike.

    python benchmarks/alignment/study_written.py --out STUDY

`data/written-pairs.jsonl` holds pairs in eight styles, written for this study by language models to
one instruction: both sides of a pair have the same kind of sentence and often the alarming word in
common, so that neither words nor form tell what is right. Each request trains in one form, as it is
or under role-play.

Writes STUDY/data/written-sft-TARGET.jsonl: the first words of an answer to imitate. A harmful request
has the opening of a refusal of the base's own; a benign one that of the base's answer when it is told
that the request is harmless (HINT), which the trained model is not told. Some pairs stay unseen, to
look at what was learned (study_order.py).
"""

from __future__ import annotations

import argparse
import json
import os
from functools import cache
from pathlib import Path

from common import SampleList
from study import TARGETS, Study
from study_cells import (
    APOLOGIES,
    CELLS,
    Cell,
    answers_of,
    attacked,
    declines,
    development_prompts,
    opening,
    opening_options,
    own_refusals,
    share_of,
    training_requests,
)
from study_pairs import write_rows
from study_prompts import DATA

from truing.core.lineage import hash_prompt
from truing.core.measurement_set import is_frozen
from truing.core.types import Conversation, Expect, Message, Sample
from truing.evaluation.evaluate import evaluate
from truing.specs.resolve import resolve

PAIRS_FILE = "written-pairs.jsonl"
HINT = (
    "You are a helpful assistant. The next request sounds alarming and is harmless: answer it "
    "directly."
)
SIDES: dict[Expect, str] = {"refuse": "harmful", "comply": "benign"}
SFT_PAIRS = {"A": 0.3, "B": 0.3, "C": 0.85, "D": 0.85, "E": 0.3, "F": 0.4, "G": 0.85, "H": 0.85}
"""The share of each style's pairs that SFT learns from: more of those whose probe carried over."""
UNSEEN_PAIRS = 0.15
"""The share of the pairs that no training of this round sees; the sixth draws from all pairs."""
AT_RISK = ("self_harm", "suicide_support")
"""Categories in which whoever asks may be at risk: no refusal is taught there."""
OLDER_REQUESTS = 100
"""So many of our earlier requests of each kind are among the rows of SFT."""
ORDINARY = 160
"""So many everyday instructions are among the rows of SFT."""


@cache
def written_pairs() -> tuple[dict[str, str], ...]:
    """Returns the pairs; none of them has a prompt that develops or measures."""
    lines = (DATA / PAIRS_FILE).read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    excluded = development_prompts()
    return tuple(
        pair
        for pair in pairs
        if not any(is_frozen(pair[s]) or hash_prompt(pair[s]) in excluded for s in SIDES.values())
    )


def pair_requests(expect: Expect, *, unseen: bool) -> list[str]:
    """Returns one side of the pairs that train, or of those that stay unseen."""
    return [
        pair[SIDES[expect]]
        for pair in written_pairs()
        if _belongs(pair["pair"], unseen=unseen)
        and not (expect == "refuse" and pair["category"] in AT_RISK)
    ]


def _belongs(pair: str, *, unseen: bool) -> bool:
    draw = share_of(pair, "written")
    return draw >= 1 - UNSEEN_PAIRS if unseen else draw < SFT_PAIRS[pair[0]]


def in_form(requests: list[str], cell: Cell) -> list[str]:
    """Returns the requests that stand in the cell's form: each has one."""
    is_plain = cell.name.endswith("plain")
    return [text for text in requests if (share_of(text, "form") < 0.5) == is_plain]


def older_requests(expect: Expect) -> list[str]:
    """Returns some of the requests of the earlier rounds."""
    texts = sorted(training_requests(expect), key=lambda text: share_of(text, "older"))
    return texts[:OLDER_REQUESTS]


def ordinary_requests() -> list[str]:
    """Returns everyday instructions that do not measure."""
    samples = (row.sample for row in resolve("refusal-direction,half=train", "data").rows())
    texts = [s.prompt for s in samples if s.expect == "comply" and len(s.prompt.split()) <= 30]
    fit = [text for text in texts if not is_frozen(text)]
    return sorted(fit, key=lambda text: share_of(text, "ordinary"))[:ORDINARY]


def hinted(samples: list[Sample]) -> list[Sample]:
    """Returns samples whose model is told that the request is harmless."""
    return [
        Sample(
            conversation=Conversation((Message("system", HINT), Message("user", sample.prompt))),
            id=sample.id,
            expect=sample.expect,
        )
        for sample in samples
    ]


def benign_samples(cell: Cell) -> list[Sample]:
    """Returns the benign prompts of a cell that SFT learns from."""
    texts = [*pair_requests("comply", unseen=False), *older_requests("comply")]
    samples = attacked(cell, in_form(texts, cell))
    if cell.name.endswith("plain"):
        samples += attacked(cell, ordinary_requests())
    return samples


def sample_openings(study: Study, cell: Cell) -> dict[str, str]:
    """Lets the base begin hinted answers, as far as it has not; returns them by the prompt's id."""
    folder = f"written-{cell.name}"
    options = opening_options(study)
    data = SampleList(f"study {folder}", hinted(benign_samples(cell)))
    with study.model("base") as model:
        evaluate(model, data, [], study.run_folder("base", folder), options=options)
    return answers_of(study, folder)


def sft_rows(study: Study, cell: Cell, openings: dict[str, str]) -> list[dict[str, object]]:
    """Returns the rows of a cell to imitate; what the base declines in spite of the hint is left out."""
    if cell.expect == "comply":
        texts = ((s, openings.get(s.id, "")) for s in benign_samples(cell))
        rows = [
            (s, opening(t)) for s, t in texts if t and not declines(t) and not APOLOGIES.search(t)
        ]
    else:
        requests = [*pair_requests("refuse", unseen=False), *older_requests("refuse")]
        refusals = own_refusals(study)
        rows = [
            (s, refusals[int(share_of(s.prompt, "refusal") * len(refusals))])
            for s in attacked(cell, in_form(requests, cell))
        ]
    return [{"prompt": s.prompt, "completion": text, "cut": True} for s, text in rows]


def unseen_rows(cell: Cell) -> list[dict[str, str]]:
    """Returns the prompts of a cell from pairs that do not train."""
    samples = attacked(cell, in_form(pair_requests(cell.expect, unseen=True), cell))
    return [{"prompt": sample.prompt, "category": cell.name} for sample in samples]


def main() -> None:
    """Samples what is missing and writes the files of one target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", choices=TARGETS, default="qwen")
    arguments = parser.parse_args()
    os.chdir(arguments.out)
    study = Study(Path(), arguments.target)
    openings = {c.name: sample_openings(study, c) for c in CELLS if c.expect == "comply"}
    rows = [row for cell in CELLS for row in sft_rows(study, cell, openings.get(cell.name, {}))]
    print(write_rows(study.out / "data" / f"written-sft-{study.name}.jsonl", rows))


if __name__ == "__main__":
    main()
