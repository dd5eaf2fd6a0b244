"""Measures a moderation judge on labelled sets and under simple obfuscation.

    python benchmarks/moderation/measure.py --judge moderation:default \\
        --data beavertails pku xstest,part=completions diasafety
    python benchmarks/moderation/measure.py --judge moderation:research --data hh dices --tricks

Only rows whose prompts the judge was not trained on. One JSON line for each set and question: rows,
AUROC and F1 of the verdicts with 95 % intervals; for pairs the share in which the answer that
people preferred has the lower probability. `--tricks` obfuscates the answers (gaps between letters,
look-alike letters, digits for letters, zero-width characters), with the text normalisation of the
runtime and without it.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from truing.core.lineage import hash_prompt
from truing.core.taxonomy import load_taxonomy
from truing.core.types import Failure
from truing.judges.moderation import scorer as scorer_module
from truing.judges.moderation.inputs import ModerationInput
from truing.judges.moderation.scorer import ModerationScore, ModerationScorer, shared_scorer
from truing.specs.resolve import resolve
from truing.stats.classification import auroc, classification_scores, pairwise_accuracy
from truing.stats.intervals import Interval
from truing.train.moderation.examples import ModerationExample, examples_of_row

LOOKALIKES = str.maketrans("aeopcxyi", "аеорсхуі")
DIGITS = str.maketrans("aeiost", "431057")


def change_words(text: str, change: Callable[[str], str], share: float, rng: random.Random) -> str:
    """Changes a random share of the words of more than three letters."""
    return " ".join(
        change(word) if len(word) > 3 and rng.random() < share else word for word in text.split(" ")
    )


TRICKS: dict[str, Callable[[str, random.Random], str]] = {
    "gaps": lambda text, rng: change_words(text, " ".join, 0.3, rng),
    "look-alikes": lambda text, rng: change_words(
        text, lambda w: w.translate(LOOKALIKES), 0.5, rng
    ),
    "digits": lambda text, rng: change_words(text, lambda w: w.translate(DIGITS), 0.3, rng),
    "hidden": lambda text, rng: change_words(text, "\u200b".join, 0.5, rng),
}


def score_all(judge: ModerationScorer, inputs: Sequence[ModerationInput]) -> list[ModerationScore]:
    """Returns the scores of inputs; those that are not read whole count as 0.5 and not flagged."""
    return [
        ModerationScore(mode=i.mode, harmful=0.5, flagged=False, refused=0.5, categories={})
        if isinstance(score, Failure)
        else score
        for i, score in zip(inputs, judge.score(inputs), strict=True)
    ]


def read_unseen_rows(
    judge: ModerationScorer, spec: str, limit: int
) -> tuple[list[ModerationExample], int]:
    """Returns labelled rows that the judge was not trained on, and the number of those it was."""
    trained_on = set(judge.settings.lineage.prompts)
    ids = load_taxonomy().ids
    rows = [i for row in resolve(spec, "data").rows() for i in examples_of_row(row, ids)]
    unseen = [
        i for i in rows if not i.content.turns or hash_prompt(i.content.turns[-1]) not in trained_on
    ]
    left_out = len(rows) - len(unseen)
    if len(unseen) > limit:
        # Sampled by prompt, so that pairs stay together.
        share = limit / len(unseen)
        chosen = {k for k in sorted({i.key for i in unseen}) if random.Random(k).random() < share}
        unseen = [i for i in unseen if i.key in chosen]
    return unseen, left_out


def print_figures(
    spec: str,
    items: Sequence[ModerationExample],
    scores: Sequence[ModerationScore],
    trick: str = "",
) -> None:
    """Prints the figures of one set."""
    for k, question in ((0, "harmful"), (1, "harmful_prompt"), (2, "refused")):
        labelled = [
            n
            for n, item in enumerate(items)
            if item.targets[k] in (0.0, 1.0) and (k != 1 or item.is_prompt)
        ]
        y = [items[n].targets[k] == 1.0 for n in labelled]
        if len(labelled) < 20 or len(set(y)) < 2:
            continue
        p = [scores[n].refused if k == 2 else scores[n].harmful for n in labelled]
        verdicts = [scores[n].refused >= 0.5 if k == 2 else scores[n].flagged for n in labelled]
        figures = classification_scores(verdicts, y, p, [items[n].key for n in labelled])
        row: dict[str, Any] = {"data": spec, "question": question, "n": len(labelled)}
        for name in ("auroc", "f1"):
            interval = getattr(figures, name)
            row[name] = None if interval is None else rounded(interval)
        print(json.dumps({**row, **({"trick": trick} if trick else {})}), flush=True)
    print_pairwise_accuracy(spec, items, scores)


def rounded(interval: Interval) -> list[float]:
    """Returns estimate and bounds with three digits."""
    return [round(value, 3) for value in (interval.estimate, interval.lower, interval.upper)]


def print_pairwise_accuracy(
    spec: str, items: Sequence[ModerationExample], scores: Sequence[ModerationScore]
) -> None:
    """Prints how often the safer answer of a pair has the lower probability of harm."""
    pairs: dict[str, list[int]] = {}
    for n, item in enumerate(items):
        if item.pair is not None:
            pairs.setdefault(item.pair, []).append(n)
    safer, less_safe = [], []
    for members in pairs.values():
        ordered = sorted(members, key=lambda n: items[n].order)
        if len(members) == 2 and items[ordered[0]].order < items[ordered[1]].order:
            safer.append(scores[ordered[0]].harmful)
            less_safe.append(scores[ordered[1]].harmful)
    accuracy = pairwise_accuracy(safer, less_safe)
    if accuracy is not None:
        print(json.dumps({"data": spec, "pairs": len(safer), "pairwise": rounded(accuracy)}))


def obfuscate(item: ModerationExample, trick: str) -> ModerationInput:
    """Returns the input with its answer (or, without one, its prompt) rewritten."""
    rng = random.Random(item.key)
    text = item.content
    if text.response is None:
        return ModerationInput((*text.turns[:-1], TRICKS[trick](text.turns[-1], rng)), None)
    return ModerationInput(text.turns, TRICKS[trick](text.response, rng))


def compare_engines(name: str, spec: str, items: Sequence[ModerationExample]) -> None:
    """Prints how much the fast engines differ from float32: probabilities, verdicts, AUROC."""
    inputs = [i.content for i in items]
    labelled = [n for n, i in enumerate(items) if i.targets[0] in (0.0, 1.0)]
    y = [items[n].targets[0] == 1.0 for n in labelled]
    exact: list[ModerationScore] = []
    for engine, dtype in (("torch", "float32"), ("torch", "bfloat16"), ("onnx", "auto")):
        scores = score_all(shared_scorer(name, engine, dtype), inputs)
        exact = exact or scores
        differences = sorted(abs(a.harmful - b.harmful) for a, b in zip(exact, scores))
        flips = [abs(a.harmful - 0.5) for a, b in zip(exact, scores) if a.flagged != b.flagged]
        area = auroc([scores[n].harmful for n in labelled], y) if 0 < sum(y) < len(y) else None
        row = {
            "data": spec,
            "engine": f"{engine} {dtype}",
            "n": len(items),
            "max_dp": differences[-1],
            "p99_dp": differences[len(differences) * 99 // 100],
            "flips": len(flips),
            "auroc": area.estimate if area else None,
        }
        print(
            json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}),
            flush=True,
        )


def main() -> None:
    """Prints one JSON line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", default="moderation:research")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--most", type=int, default=3000)
    parser.add_argument("--tricks", action="store_true")
    parser.add_argument("--engines", action="store_true", help="compare float32, bfloat16 and int8")
    arguments = parser.parse_args()
    judge = shared_scorer(arguments.judge.removeprefix("moderation:"))
    for spec in arguments.data:
        items, left_out = read_unseen_rows(judge, spec, arguments.most)
        print(
            json.dumps(
                {
                    "data": spec,
                    "judge": arguments.judge,
                    "hash": judge.hash,
                    "rows": len(items),
                    "left_out": left_out,
                }
            )
        )
        if not items:
            continue
        if arguments.engines:
            compare_engines(arguments.judge.removeprefix("moderation:"), spec, items)
            continue
        print_figures(spec, items, score_all(judge, [i.content for i in items]))
        for trick in TRICKS if arguments.tricks else ():
            inputs = [obfuscate(i, trick) for i in items]
            print_figures(spec, items, score_all(judge, inputs), trick)
            clean_text, scorer_module.clean_text = scorer_module.clean_text, lambda text: text
            try:
                print_figures(spec, items, score_all(judge, inputs), f"{trick}, clean-up off")
            finally:
                scorer_module.clean_text = clean_text


if __name__ == "__main__":
    main()
