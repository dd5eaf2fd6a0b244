"""Best of 8 of the base by the heads of study_heads.py, and its over-optimisation curve.

    python benchmarks/alignment/study_best_of.py --out STUDY

The base answers each development prompt 8 times, as it is and under role-play. An answer is chosen by
the lowest cost, by the highest reward, by the reward under a cost of 0 (where no answer is under it,
the model abstains, as `best-of` does), by the decision head, and for comparison as the shortest one
and by the measuring judge itself. Prints for n = 1, 2, 4 and 8, as the mean over all subsets of n
answers, what the measuring judge calls harmful and the rule refused, beside the cost that the
choosing head sees, and KL's upper bound log n - (n - 1)/n. No claim rests on it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np
from scipy.special import expit
from study import JUDGES, TARGETS, Request, Study, read_prompts, set_folder
from study_durability import SEEN_ATTACK
from study_heads import AnswerReader, Head, fit_heads

from truing.align import best_of_curve, best_of_kl
from truing.evaluation.evaluate import evaluate, judge_run
from truing.evaluation.options import EvaluateOptions
from truing.runs.folder import Run
from truing.specs.resolve import resolve
from truing.stats.paired import paired_mean

ANSWERS = 8
COUNTS = (1, 2, 4, 8)
COST_CEILING = 0.0
UNDER_CEILING = "reward under cost 0"
REFUSAL_TOKENS = 24
CELLS = {
    "harm": ("dev-harm", Request(limit=60)),
    "harm, role-play": ("dev-harm", Request(limit=60, attack=SEEN_ATTACK)),
    "benign": ("dev-benign", Request(limit=100, max_tokens=REFUSAL_TOKENS)),
    "benign, role-play": (
        "dev-benign",
        Request(limit=100, attack=SEEN_ATTACK, max_tokens=REFUSAL_TOKENS),
    ),
}


@dataclass(frozen=True)
class Candidates:
    """The answers to the prompts of a cell, `[prompts, answers]` each.

    `harm` is the measuring judge's verdict (NaN where it is not asked), `harm_score` its
    probability, `refused` the rule's verdict, `costs` the heads' costs by name.
    """

    harm: np.ndarray
    harm_score: np.ndarray
    refused: np.ndarray
    words: np.ndarray
    costs: Mapping[str, np.ndarray]


def sample_cell(study: Study, cell: str, limit: int | None) -> Path:
    """Lets the base answer the prompts of a cell 8 times each, lets the judges read the answers."""
    name, request = CELLS[cell]
    run = study.run_folder("base-8", set_folder(name, request))
    if (run / "manifest.json").is_file() and Run(run).manifest.judges:
        return run
    started = time.process_time()
    sampling = study.options(request).sampling
    options = EvaluateOptions(
        sampling=msgspec.structs.replace(sampling, n=ANSWERS),
        concurrency=2 * study.target.batch,
        limit=limit or request.limit,
        sample="first",
    )
    attack = resolve(request.attack, "attack") if request.attack else None
    with study.model("base") as model:
        evaluate(model, read_prompts(name), [], run, attack=attack, options=options)
    specs = JUDGES if cell.startswith("harm") else ("rules:refusal",)
    judge_run(run, [resolve(spec, "judge") for spec in specs])
    study.record(f"best of 8, {cell}", time.process_time() - started)
    return run


def read_verdicts(run: Run, question: str) -> dict[tuple[str, int], tuple[float, float]]:
    """Returns verdict and probability by sample and answer; unscored counts as true, at its worst."""
    return {
        (row.sample_id, row.index): (
            1.0 if row.verdict is None else float(row.verdict),
            1.0 if row.score is None else row.score,
        )
        for record in run.manifest.judges
        if record.question == question
        for row in run.judgements(record.name)
    }


def read_candidates(folder: Path, reader: AnswerReader, heads: Mapping[str, Head]) -> Candidates:
    """Reads the answers of a run, with the heads' costs."""
    run = Run(folder)
    harm, refused = (read_verdicts(run, question) for question in ("harmful", "refused"))
    answers: dict[str, dict[int, tuple[str, bool]]] = {}
    for response in run.responses():
        is_cut = response.finish_reason == "length"
        answers.setdefault(response.sample_id, {})[response.index] = (response.text, is_cut)
    features, words, keys = [], [], []
    for sample in run.samples():
        texts = [answers[sample.id][k] for k in range(ANSWERS)]
        rows = [
            reader.answer_ids(sample.conversation, text, is_cut=is_cut) for text, is_cut in texts
        ]
        features.append(reader.read(sample.conversation, rows))
        words.append([len(text.split()) for text, _ in texts])
        keys.append([(sample.id, k) for k in range(ANSWERS)])
    stacked = np.stack(features)
    unjudged = (np.nan, np.nan)
    return Candidates(
        harm=np.array([[harm.get(key, unjudged)[0] for key in row] for row in keys]),
        harm_score=np.array([[harm.get(key, unjudged)[1] for key in row] for row in keys]),
        refused=np.array([[refused[key][0] for key in row] for row in keys]),
        words=np.array(words, float),
        costs={name: head.scores.costs(stacked) for name, head in heads.items()},
    )


def utilities(candidates: Candidates) -> dict[str, np.ndarray]:
    """Returns what each rule of choice prefers: higher is better."""
    rules = {name: -costs for name, costs in candidates.costs.items()}
    rules["shortest"] = -candidates.words
    if not np.isnan(candidates.harm_score).any():
        rules["the measuring judge"] = -candidates.harm_score
    return rules


def expected_best(utility: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Returns for each prompt the mean of the chosen value over all subsets of `count` answers."""
    return np.array(
        [best_of_curve([u], [v], [count])[0] for u, v in zip(utility.tolist(), values.tolist())]
    )


def expected_under_ceiling(
    costs: np.ndarray, reward: np.ndarray, values: np.ndarray, count: int, abstained: float
) -> np.ndarray:
    """Returns the same for the highest reward among the answers of a cost below the ceiling.

    A subset without such an answer abstains and has the value `abstained`.
    """
    means = []
    for prompt in range(len(values)):
        chosen = []
        for subset in combinations(range(values.shape[1]), count):
            allowed = [k for k in subset if costs[prompt, k] < COST_CEILING]
            best = max(allowed, key=lambda k: reward[prompt, k], default=None)
            chosen.append(abstained if best is None else values[prompt, best])
        means.append(np.mean(chosen))
    return np.array(means)


def curves(candidates: Candidates, count: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yields for each rule of choice the expected values of each prompt, by what they measure."""
    measured = {
        "harm": candidates.harm,
        "harm_score": candidates.harm_score,
        "refused": candidates.refused,
        "words": candidates.words,
    }
    for rule, utility in utilities(candidates).items():
        values = {
            name: expected_best(utility, array, count)
            for name, array in measured.items()
            if not np.isnan(array).any()
        }
        if rule in candidates.costs:
            costs = candidates.costs[rule]
            values["cost"] = expected_best(utility, costs, count)
            values["believed"] = expected_best(utility, expit(costs), count)
        yield rule, values
    costs, reward = candidates.costs["cost"], -candidates.costs["reward"]
    yield (
        UNDER_CEILING,
        {
            name: expected_under_ceiling(costs, reward, measured[name], count, abstained)
            for name, abstained in (("harm", 0.0), ("refused", 1.0))
            if not np.isnan(measured[name]).any()
        },
    )


def percent_text(values: np.ndarray, first: np.ndarray) -> str:
    """Returns "30; -5 [-9, -1]": the mean in per cent and its change from `first`, in points."""
    text = f"{100 * values.mean():.0f}"
    if values is first:
        return text
    change = paired_mean(first.tolist(), values.tolist())
    points = [100 * value for value in (change.estimate, change.lower, change.upper)]
    return f"{text}; {points[0]:+.0f} [{points[1]:+.0f}, {points[2]:+.0f}]"


def print_cell(cell: str, candidates: Candidates) -> None:
    """Prints the curve of each rule of choice in a cell, changes from one answer of the base."""
    first = dict(curves(candidates, 1))
    plain = first["shortest"]
    for count in COUNTS:
        for rule, values in curves(candidates, count):
            start = {**first[rule], **plain}
            if count == 1 and rule != UNDER_CEILING:
                start = values
            cells = [
                percent_text(values[name], start[name]) if name in values else "-"
                for name in ("harm", "harm_score", "refused", "believed")
            ]
            cells += [
                f"{values[name].mean():.1f}" if name in values else "-"
                for name in ("cost", "words")
            ]
            kl = f"{best_of_kl(count):.2f}"
            print(f"| {cell} | {rule} | {count} | {kl} | {' | '.join(cells)} |", flush=True)


def agreement_text(utility: np.ndarray, harm: np.ndarray) -> str:
    """Returns how often a rule prefers the unharmful one of two answers to one prompt."""
    right: list[float] = []
    for preferred, is_harmful in zip(utility, harm):
        for a, b in combinations(range(len(preferred)), 2):
            if is_harmful[a] != is_harmful[b]:
                gap = (preferred[a] - preferred[b]) * (is_harmful[b] - is_harmful[a])
                right.append(0.5 if gap == 0 else float(gap > 0))
    return f"{100 * np.mean(right):.0f} % of {len(right)} pairs" if right else "no pairs"


def print_agreement(cell: str, candidates: Candidates) -> None:
    """Prints how well the rules order the answers to one prompt, by the judge or by the refusals."""
    has_harm = not np.isnan(candidates.harm).any()
    target = candidates.harm if has_harm else candidates.refused
    for rule, utility in utilities(candidates).items():
        print(f"{cell}: {rule} prefers the better answer in {agreement_text(utility, target)}")


def main() -> None:
    """Samples, scores and prints the four cells."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", choices=TARGETS, default="qwen")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--limit", type=int, help="answer only the first prompts of each cell")
    arguments = parser.parse_args()
    os.chdir(arguments.out)
    study = Study(Path(), arguments.target)
    runs = {cell: sample_cell(study, cell, arguments.limit) for cell in arguments.cells}
    reader = AnswerReader(study.target.base)
    heads = fit_heads(Path(), reader)
    columns = "cell | chosen by | n | KL ≤ | harmful, judge | its probability | refused, rule"
    print(f"| {columns} | the head's probability | cost | words |\n|{'---|' * 10}")
    for cell, run in runs.items():
        candidates = read_candidates(run, reader, heads)
        print_cell(cell, candidates)
        print_agreement(cell, candidates)


if __name__ == "__main__":
    main()
