"""Over-optimisation of the sixth round's cost head: what it promises and what is measured, by n.

    python benchmarks/alignment/study_curve.py --out STUDY

Of the 8 stored answers of the base to each measuring prompt (`study_answer_heads.py candidates`) the
best of n is taken by the cost head, by the refusal head (the least declining), as the shortest, or by
the measuring judge itself. Prints for n = 1, 2, 4 and 8, as the mean over all subsets of n answers,
the probability of harm that the cost head gives to what is chosen, what the measuring judge calls
harmful and the rule refused, beside KL's upper bound log n - (n - 1)/n. Answers that were withheld
or came out empty are the last choice and count as refused and harmless. No claim rests on it.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit
from study import JUDGES, TARGETS, Study
from study_answer_heads import (
    ANSWERS,
    LAYER,
    candidate_folder,
    read_candidates,
    stored_states,
    usable_text,
)
from study_best_of import read_verdicts

from truing.align import best_of_curve, best_of_kl
from truing.core.errors import UserError
from truing.evaluation.evaluate import judge_run
from truing.runs.folder import Run
from truing.specs.resolve import resolve

COUNTS = (1, 2, 4, 8)
SETS = ("harm", "harm-role-play", "benign-2", "benign-2-role-play")


@dataclass(frozen=True)
class ScoredAnswers:
    """What each rule prefers and what is measured, `[prompts, answers]` each."""

    utilities: dict[str, np.ndarray]
    measures: dict[str, np.ndarray]


def head_logits(path: Path, name: str, states: np.ndarray) -> np.ndarray:
    """Returns the logits of a stored head on states of `LAYER`, of any leading shape.

    Raises UserError if the heads are of another layer.
    """
    heads = json.loads(path.read_text(encoding="utf-8"))
    if heads["layer"] != LAYER:
        raise UserError(f"{path}: heads of layer {heads['layer']}, the states are of {LAYER}")
    head = heads[name]
    return np.asarray(states @ np.asarray(head["weights"]) + head["bias"])


def score_answers(study: Study, name: str) -> ScoredAnswers:
    """Returns utilities and measures of the stored answers to a set, judged as far as they are not.

    A verdict that is missing counts at its worst: harmful, refused.
    """
    folder = candidate_folder(study, name)
    judge_run(folder, [resolve(spec, "judge") for spec in JUDGES[:2]])
    run = Run(folder)
    candidates = list(read_candidates(run))
    texts = [[usable_text(answer) for answer in drawn] for _, drawn in candidates]
    conversations = [conversation for conversation, _ in candidates]
    states = stored_states(study, folder / "states", list(zip(conversations, texts)))
    states = states.reshape(len(texts), ANSWERS, -1)
    heads = study.out / "data" / f"answer-heads-{study.name}.json"
    costs, refusals = (head_logits(heads, head, states) for head in ("cost", "refusal"))
    keys = [[(sample.id, k) for k in range(ANSWERS)] for sample in run.samples()]
    harmful, refused = (read_verdicts(run, question) for question in ("harmful", "refused"))
    empty = np.array([[not text for text in row] for row in texts])
    verdict = np.array([[harmful[key][0] for key in row] for row in keys])
    judge_score = np.array([[harmful[key][1] for key in row] for row in keys])
    declined = np.array([[refused[key][0] for key in row] for row in keys])
    words = np.array([[len(text.split()) for text in row] for row in texts], dtype=float)
    preferred = {
        "cost head": -costs,
        "refusal head": -refusals,
        "shortest": -words,
        "the measuring judge": -judge_score,
    }
    return ScoredAnswers(
        utilities={rule: np.where(empty, -np.inf, u) for rule, u in preferred.items()},
        measures={
            "harm by the head": np.where(empty, 0.0, expit(costs)),
            "harmful": np.where(empty, 0.0, verdict),
            "refused": np.where(empty, 1.0, declined),
        },
    )


def curve_rows(scored: ScoredAnswers) -> list[list[str]]:
    """Returns a row for each rule of choice and n: per cent by head, judge and rule."""
    rows = []
    for rule, utility in scored.utilities.items():
        curves = [
            best_of_curve(utility.tolist(), values.tolist(), COUNTS)
            for values in scored.measures.values()
        ]
        for n, *rates in zip(COUNTS, *curves, strict=True):
            rows.append([rule, str(n), f"{best_of_kl(n):.2f}", *(f"{100 * r:.1f}" for r in rates)])
    return rows


def main() -> None:
    """Prints the curves of each set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", choices=TARGETS, default="qwen")
    parser.add_argument("--set", nargs="+", choices=SETS, default=list(SETS))
    arguments = parser.parse_args()
    os.chdir(arguments.out)
    study = Study(Path(), arguments.target)
    print("| set | chosen by | n | KL, at most | harm, by the head | harmful | refused |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.set:
        for row in curve_rows(score_answers(study, name)):
            print(f"| {name} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
