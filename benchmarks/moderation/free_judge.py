"""Measures a moderation judge on what the free judge must do well, at its one threshold.

    python benchmarks/moderation/free_judge.py --judge moderation:default --answers report.jsonl --out DIR

`--answers` are the files of `model_answers.py --half report`: small models' answers to benign
prompts of the frozen measurement set. DIR gets `scores.jsonl` (a probability for each row, by id,
without any text) and `table.json`; rows whose prompt the judge learned are struck:

    benign answers    share flagged for each model that answers, and for each set of prompts
    swapped pairs     share flagged of harmful prompts beside a benign answer to another prompt
    labelled sets     AUROC, recall, false alarms, F1 and ECE at the judge's own threshold
    prompts alone     the same, by the threshold of prompts; sets of harmless ones by the share flagged
    toxigen           (also where the judge learned them) share of harmless statements flagged for each group of people

Intervals are 95 %: Wilson's for shares, bootstrapped by prompt for the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from free_rows import read_lines
from msgspec import Struct

from truing.core.lineage import ancestors, hash_prompt
from truing.core.taxonomy import load_taxonomy
from truing.core.types import Failure, Lineage
from truing.datasets.base import assign_half
from truing.judges.moderation.inputs import ModerationInput
from truing.judges.moderation.scorer import ModerationScore, shared_scorer
from truing.specs.resolve import resolve
from truing.stats.calibration import ece
from truing.stats.classification import classification_scores
from truing.stats.intervals import Interval, wilson
from truing.train.moderation.examples import examples_of_row

LABELLED_SETS = (
    "beavertails",
    "pku",
    "xstest,part=completions",
    "do-not-answer",
    "diasafety,split=val",
)
PROMPT_SETS = (
    "jailbreakbench",
    "builtin:safety,half=report",
    "xstest",
    "refusal-direction,half=report",
    "truthfulqa",
    "banking77",
)
HARMLESS_PROMPTS = 150  # of each set that has no harmful ones
SWAPS_OF_PROMPT = 2


class LabelledInput(Struct, frozen=True):
    """A row to judge: its set, a part of the set, whether it is harmful, and its prompt's hash."""

    data: str
    part: str
    harmful: bool
    key: str
    content: ModerationInput


def read_model_answers(paths: Sequence[Path]) -> Iterator[LabelledInput]:
    """Yields the benign answers, and harmful prompts of the frozen set beside some of them."""
    answers = [row for path in paths for row in read_lines(path) if row["response"].strip()]
    for row in answers:
        content = ModerationInput((row["prompt"],), row["response"])
        part = f"{row['model']} {row['group']}"
        yield LabelledInput("benign answers", part, False, hash_prompt(row["prompt"]), content)
    prompts = [r.sample for r in resolve("builtin:safety,half=report", "data").rows()]
    prompts += [r.sample for r in resolve("jailbreakbench", "data").rows()]
    rng = random.Random(0)
    for sample in prompts:
        if sample.expect == "refuse":
            for row in rng.sample(answers, SWAPS_OF_PROMPT):
                content = ModerationInput((sample.prompt,), row["response"])
                yield LabelledInput(
                    "swapped pairs", row["model"], False, hash_prompt(sample.prompt), content
                )


def read_artifacts() -> Iterator[LabelledInput]:
    """Yields the goals of JailbreakBench that do not train, with the attacked models' answers."""
    path = Path(os.environ["TRUING_DATA"]) / "jailbreakbench" / "artifacts.jsonl"
    for row in read_lines(path):
        if assign_half(row["goal"]) == "report" and row["response"].strip():
            content = ModerationInput((row["goal"],), row["response"])
            yield LabelledInput(
                "jailbreakbench artifacts",
                row["attack"],
                bool(row["jailbroken"]),
                hash_prompt(row["goal"]),
                content,
            )


def read_labelled_set(spec: str, limit: int) -> Iterator[LabelledInput]:
    """Yields up to `limit` answers of a set that people judged, drawn by the prompts' hashes."""
    ids = load_taxonomy().ids
    items = [i for row in resolve(spec, "data").rows() for i in examples_of_row(row, ids)]
    items = [i for i in items if not i.is_prompt and i.targets[0] in (0.0, 1.0)]
    items.sort(key=lambda i: i.key[::-1])
    for item in items[:limit]:
        yield LabelledInput(spec, item.source, item.targets[0] == 1.0, item.key, item.content)


def read_prompts() -> Iterator[LabelledInput]:
    """Yields prompts to refuse and to answer; of sets without labels the half that trains nothing."""
    for spec in PROMPT_SETS:
        samples = [row.sample for row in resolve(spec, "data").rows()]
        is_labelled = any(sample.expect == "refuse" for sample in samples)
        if not is_labelled:
            samples = [s for s in samples if assign_half(s.prompt) == "report"]
            samples = random.Random(0).sample(samples, HARMLESS_PROMPTS)
        for sample in samples:
            key, content = hash_prompt(sample.prompt), ModerationInput((sample.prompt,))
            harmful = sample.expect == "refuse"
            yield LabelledInput(f"prompts of {spec}", spec, harmful, key, content)


def read_toxigen(limit: int) -> Iterator[LabelledInput]:
    """Yields statements about groups of people that people found harmless."""
    rows = list(resolve("toxigen", "data").rows())
    rows.sort(key=lambda r: hash_prompt(r.sample.prompt)[::-1])
    for row in rows[:limit]:
        verdicts = {j.question: j.verdict for j in row.judgements}
        group = row.sample.tags.get("group") or row.sample.tags.get("target_group") or "?"
        if verdicts.get("harmful_prompt") is False:
            content = ModerationInput((row.sample.prompt,))
            yield LabelledInput("toxigen", group, False, hash_prompt(row.sample.prompt), content)


def find_learned_rows(rows: Sequence[LabelledInput], lineage: Lineage) -> list[int]:
    """Returns the numbers of the rows whose prompt the judge, or a judge behind it, learned.

    ToxiGen's statements stay: it is asked about the groups, not about new statements.
    """
    learned = set(lineage.prompts).union(*(judge.prompts for judge in ancestors(lineage)))
    return [n for n, row in enumerate(rows) if row.data != "toxigen" and row.key in learned]


def share(flags: Sequence[bool]) -> dict[str, Any]:
    """Returns the share that is flagged, with its interval."""
    return {"n": len(flags), "flagged": rounded(wilson(sum(flags), len(flags)))}


def rounded(interval: Interval | None) -> list[float] | None:
    """Returns estimate and bounds with three digits."""
    if interval is None:
        return None
    return [round(value, 3) for value in (interval.estimate, interval.lower, interval.upper)]


def describe_set(rows: Sequence[LabelledInput], p: np.ndarray, flagged: np.ndarray) -> Any:
    """Returns the figures of a set with both labels."""
    y = np.array([row.harmful for row in rows])
    scores = classification_scores(
        flagged.tolist(), y.tolist(), p.tolist(), [row.key for row in rows]
    )
    figures = {name: rounded(getattr(scores, name)) for name in ("auroc", "f1", "recall")}
    alarms = share(flagged[~y].tolist())["flagged"]
    return {"n": len(y), "positive": int(y.sum()), **figures, "alarms": alarms, "ece": ece(p, y)}


def make_table(rows: Sequence[LabelledInput], p: np.ndarray, flagged: np.ndarray) -> Any:
    """Returns the table of all sets."""
    table: dict[str, Any] = {}
    by_set: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        by_set[row.data].append(number)
    for data, members in by_set.items():
        chosen = [rows[n] for n in members]
        if any(row.harmful for row in chosen):
            table[data] = describe_set(chosen, p[members], flagged[members])
            continue
        flags = flagged[members].tolist()
        parts: dict[str, list[bool]] = defaultdict(list)
        for row, flag in zip(chosen, flags, strict=True):
            parts[row.part].append(flag)
            if data == "benign answers":
                parts[row.part.split()[0]].append(flag)
        table[data] = {"all": share(flags)} | {part: share(parts[part]) for part in sorted(parts)}
    return table


def main() -> None:
    """Scores all rows and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--answers", nargs="*", type=Path, default=[])
    parser.add_argument("--limit", type=int, default=3_000, help="rows of each labelled set")
    parser.add_argument(
        "--data", nargs="*", default=[*LABELLED_SETS, "artifacts", "prompts", "toxigen"]
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    scorer = shared_scorer(options.judge.removeprefix("moderation:"))
    rows = list(read_model_answers(options.answers)) if options.answers else []
    for spec in options.data:
        if spec == "artifacts":
            rows += read_artifacts()
        elif spec == "prompts":
            rows += read_prompts()
        elif spec == "toxigen":
            rows += read_toxigen(options.limit)
        else:
            rows += read_labelled_set(spec, options.limit)
    learned = set(find_learned_rows(rows, scorer.settings.lineage))
    struck = Counter(rows[n].data for n in learned)
    rows = [row for n, row in enumerate(rows) if n not in learned]
    scores = scorer.score([row.content for row in rows])
    scored = [(r, s) for r, s in zip(rows, scores, strict=True) if isinstance(s, ModerationScore)]
    unscored = [r.data for r, s in zip(rows, scores, strict=True) if isinstance(s, Failure)]
    p = np.array([s.harmful for _, s in scored])
    flagged = np.array([s.flagged for _, s in scored])
    rows = [row for row, _ in scored]
    table = {
        "judge": options.judge,
        "hash": scorer.hash,
        "threshold": scorer.thresholds.harmful["pair"],
        "struck": dict(struck),
        "unscored": {data: unscored.count(data) for data in sorted(set(unscored))},
        "sets": make_table(rows, p, flagged),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.json").write_text(json.dumps(table, indent=1) + "\n")
    with (options.out / "scores.jsonl").open("w", encoding="utf-8") as stream:
        for row, probability in zip(rows, p.tolist(), strict=True):
            fields = (row.data, row.part, row.harmful, row.key, round(probability, 5))
            stream.write(json.dumps(fields) + "\n")
    for data, figures in table["sets"].items():
        print(data, json.dumps(figures))


if __name__ == "__main__":
    main()
