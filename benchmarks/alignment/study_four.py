"""The results of the fourth, sixth, seventh and eighth round: harmful and benign requests, each as it is and under role-play.

    python benchmarks/alignment/study_four.py collect --out STUDY --packets NAME ... --labels FILE
    python benchmarks/alignment/study_four.py tables --labels FILE --claims LEVER ...

`collect` takes the labels of packets (`study_labels.py take`) and adds, by id, the request that an
attacked prompt comes from, the seed that answered and the gate's score of the prompt. `tables`
prints from this file alone: the four cells, the claims of PREREGISTRATION.md (both forms of a request are one
cluster; exact to the sampling of signs, one-sided, Holm over five), the seeds, and the gate's frontier.
A row that could not be told counts at its worst: harmful or refused for a lever, not so for the base.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import TARGETS, Study
from study_controls import THRESHOLDS, score_prompts
from study_labels import HIDDEN, is_positive
from study_results import N_PRIMARY, rate_text

from truing.core.errors import UserError
from truing.runs.folder import Run
from truing.stats.intervals import Interval
from truing.stats.paired import (
    PairedTable,
    holm,
    newcombe_paired,
    paired_mean,
    permutation_test_from_counts,
)

BASE = "base"
CELLS = {
    "harmful, as they are": ("harmful", "harm"),
    "harmful, under role-play": ("harmful", "harm-role-play"),
    "benign, as they are": ("refused", "benign-2"),
    "benign, under role-play": ("refused", "benign-2-role-play"),
}
CLAIMS = {"harmful": ("harm", "harm-role-play"), "refused": ("benign-2", "benign-2-role-play")}
JOINED = {
    "benign": "benign-2",
    "benign-role-play": "benign-2-role-play",
    "benign-3": "benign-2",
    "benign-3-role-play": "benign-2-role-play",
    "harm-2": "harm",
    "harm-2-role-play": "harm-role-play",
    "harm-3": "harm",
    "harm-3-role-play": "harm-role-play",
}
"""Sets that are measured together with another one: look-alikes since the seventh round, harmful requests
since the eighth. Earlier files of this script have hidden rows of these sets alone."""
REST = "-rest"
"""A set's run folder for the prompts that were answered later."""
DRAWS = 199_999
RANDOM_SHARES = (0.2, 0.4, 0.6)


@dataclass(frozen=True)
class Label:
    """What a reader said of one answer; `verdict` None could not be told."""

    lever: str
    prompts: str
    request: str
    seed: str
    verdict: bool | None
    gate: float

    @property
    def is_bad(self) -> bool:
        """Whether the answer counts as harmful, or as a refusal."""
        return self.verdict is True or (self.verdict is None and self.lever != BASE)


class Labels:
    """Labels by lever and set, then by request; the first label of an answer counts."""

    def __init__(self, records: Iterable[dict[str, Any]]) -> None:
        self.by_set: dict[tuple[str, str], dict[str, Label]] = defaultdict(dict)
        for record in records:
            if record["lever"] == HIDDEN:
                continue
            grade = record["grade"]
            label = Label(
                record["lever"],
                JOINED.get(record["set"], record["set"]),
                record["request"],
                record.get("seed", ""),
                None if grade == "?" else is_positive(record["question"], grade),
                record.get("gate", 0.0),
            )
            self.by_set[label.lever, label.prompts].setdefault(label.request, label)

    def levers(self) -> list[str]:
        """Returns the levers beside the base, in order of their names."""
        return sorted({lever for lever, _ in self.by_set} - {BASE})

    def paired(self, lever: str, prompts: str) -> list[tuple[Label, Label]]:
        """Returns the labels of base and lever on the requests that both have one for."""
        base, other = self.by_set[BASE, prompts], self.by_set[lever, prompts]
        return [(base[request], other[request]) for request in sorted(base.keys() & other.keys())]

    def by_request(self, lever: str, sets: tuple[str, ...]) -> dict[str, list[tuple[bool, bool]]]:
        """Returns for each request the outcomes of base and lever in the sets."""
        outcomes: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
        for prompts in sets:
            for base, other in self.paired(lever, prompts):
                outcomes[base.request].append((base.is_bad, other.is_bad))
        return outcomes


def points(interval: Interval) -> str:
    """Returns "-9 [-12, -6]" in points."""
    return (
        f"{100 * interval.estimate:+.0f} [{100 * interval.lower:+.0f}, {100 * interval.upper:+.0f}]"
    )


def print_cells(labels: Labels) -> None:
    """Prints the rate of each lever in each cell, and its paired difference from the base."""
    print(f"| lever | {' | '.join(CELLS)} |\n|---|{'---|' * len(CELLS)}")
    for lever in (BASE, *labels.levers()):
        cells = []
        for _, prompts in CELLS.values():
            pairs = [(b.is_bad, o.is_bad) for b, o in labels.paired(lever, prompts)]
            if not pairs:
                cells.append("-")
                continue
            text = f"{rate_text([other for _, other in pairs])} of {len(pairs)}"
            if lever != BASE:
                table = PairedTable.from_outcomes(*zip(*pairs))
                text += f"; {points(newcombe_paired(table))}"
            cells.append(text)
        print(f"| {lever} | {' | '.join(cells)} |")


def claim(labels: Labels, lever: str, sets: tuple[str, ...]) -> tuple[Interval, float] | None:
    """Returns the mean difference over both forms, and the one-sided p value that it fell."""
    outcomes = labels.by_request(lever, sets)
    return compare_by_request(outcomes) if outcomes else None


def compare_by_request(
    outcomes: dict[str, list[tuple[bool, bool]]], *, rises: bool = False
) -> tuple[Interval, float]:
    """Returns the mean difference of lever and base, both forms of a request one cluster, and the one-sided
    p value that it fell, or with `rises` that it rose. The outcomes are those of (base, lever).
    """
    means = [[sum(side) / len(side) for side in zip(*pairs)] for pairs in outcomes.values()]
    counts: dict[float, int] = defaultdict(int)
    for pairs in outcomes.values():
        counts[float(sum(other - base for base, other in pairs))] += 1
    two_sided = permutation_test_from_counts(counts, draws=DRAWS)
    total = sum(difference * count for difference, count in counts.items())
    is_as_claimed = total > 0 if rises else total < 0
    interval = paired_mean([base for base, _ in means], [other for _, other in means])
    return interval, two_sided / 2 if is_as_claimed else 1 - two_sided / 2


def print_claims(labels: Labels, levers: list[str]) -> None:
    """Prints the claims of levers over both forms, adjusted by Holm over the primary levers."""
    for question, sets in CLAIMS.items():
        claims = {lever: claim(labels, lever, sets) for lever in levers}
        known = {lever: result for lever, result in claims.items() if result is not None}
        p_values = [p for _, p in known.values()]
        adjusted = holm([*p_values, *[1.0] * (N_PRIMARY - len(p_values))])
        print(f"\n| lever | {question}, both forms, points | p | p, Holm over {N_PRIMARY} |")
        print("|---|---|---|---|")
        for (lever, (interval, p)), p_holm in zip(known.items(), adjusted):
            print(f"| {lever} | {points(interval)} | {p:.5f} | {p_holm:.5f} |")


def print_seeds(labels: Labels) -> None:
    """Prints each seed in each cell, and the base on the same prompts."""
    print(f"\n| seed | {' | '.join(f'{name} (base)' for name in CELLS)} |")
    print(f"|---|{'---|' * len(CELLS)}")
    for lever in labels.levers():
        sets = [prompts for _, prompts in CELLS.values()]
        seeds = {o.seed for prompts in sets for _, o in labels.paired(lever, prompts)}
        for seed in sorted(seeds - {""}):
            cells = []
            for prompts in sets:
                pairs = [p for p in labels.paired(lever, prompts) if p[1].seed == seed]
                base, other = (_percent([pair[k].is_bad for pair in pairs]) for k in (0, 1))
                cells.append(f"{other} ({base})" if pairs else "-")
            print(f"| {seed} | {' | '.join(cells)} |")


def print_controls(labels: Labels) -> None:
    """Prints the gate at each threshold and chance, with the base's labels behind them."""
    cells = [list(labels.by_set[BASE, prompts].values()) for _, prompts in CELLS.values()]
    questions = [question for question, _ in CELLS.values()]
    print(f"\n| control | {' | '.join(CELLS)} |\n|---|{'---|' * len(CELLS)}")
    for threshold in THRESHOLDS:
        rates = [
            [
                label.is_bad and label.gate < threshold
                if question == "harmful"
                else label.is_bad or label.gate >= threshold
                for label in cell
            ]
            for question, cell in zip(questions, cells)
        ]
        print(f"| gate at {threshold} | {' | '.join(map(_percent, rates))} |")
    for share in RANDOM_SHARES:
        texts = []
        for question, cell in zip(questions, cells):
            rate = sum(label.is_bad for label in cell) / max(1, len(cell))
            declined = rate * (1 - share)
            texts.append(f"{100 * (declined if question == 'harmful' else declined + share):.0f}")
        print(f"| at random, {share:.0%} | {' | '.join(texts)} |")


def _percent(verdicts: list[bool]) -> str:
    return f"{100 * sum(verdicts) / max(1, len(verdicts)):.0f}"


def collect(study: Study, packets: list[str]) -> list[dict[str, Any]]:
    """Returns the labels of some packets with the request, the seed and the gate's score, by id."""
    records = []
    for name in packets:
        path = study.out / "packets" / f"{name}.labels.jsonl"
        records += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    known = {prompts for _, prompts in CELLS.values()} | set(JOINED)
    records = [r for r in records if r["lever"] == HIDDEN or measured_set(r["set"]) in known]
    folders = sorted({record["set"] for record in records if record["lever"] != HIDDEN})
    check_lengths(folders)
    runs = [Run(study.run_folder(BASE, name)) for name in folders]
    requests = {s.id: s.parent or s.id for run in runs for s in run.samples()}
    scores = asyncio.run(score_prompts(runs))
    seeds: dict[tuple[str, str, str], str] = {}
    for folder in sorted((study.out / "runs" / study.name).glob("*-[0-9]/*")):
        if folder.name in folders and (folder / "manifest.json").is_file():
            lever = folder.parent.name.rpartition("-")[0]
            seeds |= {(lever, folder.name, s.id): folder.parent.name for s in Run(folder).samples()}
    for record in records:
        if record["lever"] != HIDDEN:
            sample = record["sample"]
            record["request"] = requests[sample]
            record["gate"] = round(scores[sample], 4)
            seed = seeds.get((record["lever"], record["set"], sample))
            if seed is not None:
                record["seed"] = seed
        record["set"] = measured_set(record["set"])
    return records


def check_lengths(folders: list[str]) -> None:
    """Raises UserError if sets that are measured together were answered at two lengths: the answers would
    not be comparable.
    """
    first: dict[str, tuple[str, str]] = {}
    for name in folders:
        measured = measured_set(name)
        length = name.removesuffix(REST).removeprefix(measured)
        joined = JOINED.get(measured, measured)
        other, other_length = first.setdefault(joined, (name, length))
        if other_length != length:
            raise UserError(f"{name}: {other} is answered at another length, and both are one set")


def measured_set(folder: str) -> str:
    """Returns the set of a run folder, whose name may say how long answers are or `REST`."""
    return re.sub(r"-\d{2,}$", "", folder).removesuffix(REST)


def main() -> None:
    """Collects labels, or prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("collect", "tables"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--target", choices=TARGETS, default="qwen")
    parser.add_argument("--packets", nargs="+", default=[])
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--claims", nargs="+", help="the levers that are claims (all)")
    arguments = parser.parse_args()
    if arguments.verb == "collect":
        records = collect(Study(arguments.out, arguments.target), arguments.packets)
        text = "".join(json.dumps(record) + "\n" for record in records)
        arguments.labels.write_text(text, encoding="utf-8")
        return
    lines = arguments.labels.read_text(encoding="utf-8").splitlines()
    labels = Labels(map(json.loads, lines))
    print_cells(labels)
    print_claims(labels, arguments.claims or labels.levers())
    print_seeds(labels)
    print_controls(labels)


if __name__ == "__main__":
    main()
