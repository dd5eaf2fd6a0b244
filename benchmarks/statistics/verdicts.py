"""Verdicts in simulated worlds: how often a claim is made that is wrong, and that is right.

    python benchmarks/statistics/verdicts.py --draws 4000 --out benchmarks/statistics/verdicts.json

A *wrong* cell is a world in which the claim is false, on the boundary where it is hardest; its
share of claims is to stay at 2.5 % (certificates: 5 %, their delta). It fails if the exact lower
bound of that share, at 5 % over all cells together (Bonferroni), lies above. A *power* cell is a
world with a real effect, stated here beforehand, where the claim is to be made in 80 % or more. A
*coverage* cell counts intervals that hold the truth. The seed of a cell is a checksum of its name.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from truing.analysis.claim_decisions import ChangeRule, decide_change
from truing.analysis.claim_evidence import ChangeEvidence, PairedPrompts
from truing.analysis.deltas import PairCounts
from truing.analysis.judge_facts import JudgeFacts
from truing.analysis.prompt_counts import PromptCounts
from truing.core.types import Lineage
from truing.runs.folder import JudgeRecord
from truing.stats.agreement import krippendorff_alpha
from truing.stats.agreement_intervals import BootstrapOptions
from truing.stats.classification import classification_scores
from truing.stats.conformal import anytime_p_value
from truing.stats.intervals import Interval, wilson
from truing.stats.judge_error import corrected_difference, ppi_mean

Flags = NDArray[np.bool_]
RULE = ChangeRule(about_harm=True)


@dataclass(frozen=True)
class World:
    """Two models and their judge; pairs are (baseline, variant).

    `harm` is the true rate on each prompt, `spread` how far the rates of two halves of the prompts
    lie apart (a mixture of sets). `silent` is the share of the variant's harmful answers that the
    judge cannot score. `labels` are drawn in each run, `looks` times one batch. `second` is another
    judge's (sensitivity, false alarms), the same on both models. `answers` to a prompt have
    correlation 1/2.
    """

    harm: tuple[float, float]
    sensitivity: tuple[float, float] = (0.9, 0.9)
    false_alarms: tuple[float, float] = (0.05, 0.05)
    n: int = 400
    answers: int = 1
    spread: float = 0.0
    silent: float = 0.0
    labels: int = 0
    looks: int = 1
    second: tuple[float, float] | None = None
    card: bool = True
    claims: bool = False  # whether the claim "harm fell" is true
    breaks: str = ""  # the assumption of claims without labels that this world breaks


WORLDS = {
    "equal errors": World((0.3, 0.3)),
    "rare harm": World((0.03, 0.03), n=1000),
    "mixture of sets": World((0.3, 0.3), spread=0.5),
    "fewer false alarms on the variant": World((0.3, 0.3), false_alarms=(0.2, 0.05)),
    "judge misses five points more": World((0.3, 0.3), (0.9, 0.85)),
    "five points more, harm rises": World((0.3, 0.35), (0.9, 0.85)),
    "missing not at random": World((0.3, 0.3), silent=0.5),
    "missing not at random, second judge": World((0.3, 0.3), silent=0.5, second=(0.8, 0.1)),
    "25 answers to each of 84 prompts": World((0.5, 0.5), (1, 1), (0, 0), n=84, answers=25),
    "gaming, second judge unmoved": World((0.3, 0.3), (0.9, 0.5), second=(0.8, 0.1)),
    "gaming, no second judge, no card": World((0.3, 0.3), (0.9, 0.5), card=False),
    "gaming, 300 labels": World((0.3, 0.3), (0.9, 0.5), labels=300),
    "harm rises, judge misses it, 300 labels": World((0.3, 0.35), (0.9, 0.45), labels=300),
    "trained on half of the prompts, 300 labels": World((0.3, 0.3), (0.95, 0.7), labels=300),
    "six looks at 100 labels each": World((0.3, 0.3), (0.9, 0.6), n=1200, labels=100, looks=6),
    "gaming beyond the card, no labels": World(
        (0.3, 0.3), (0.9, 0.5), breaks="sensitivity differs by more than the card leaves open"
    ),
    "power: 30 to 15 %, card": World((0.3, 0.15), claims=True),
    "power: 30 to 15 %, second judge": World(
        (0.3, 0.15), second=(0.8, 0.1), card=False, claims=True
    ),
    "power: 30 to 15 %, 300 labels": World((0.3, 0.15), labels=300, claims=True),
    "power: 30 to 10 %, gaming, 300 labels": World((0.3, 0.1), (0.9, 0.5), labels=300, claims=True),
    "power: 30 to 15 %, six looks at 100 labels": World(
        (0.3, 0.15), n=1200, labels=100, looks=6, claims=True
    ),
    "power: 60 to 20 %, 25 answers to 84 prompts": World(
        (0.6, 0.2), (1, 1), (0, 0), n=84, answers=25, claims=True
    ),
}


@dataclass(frozen=True)
class CellResult:
    """`share` of the draws in which the claim was made, or the interval held the truth."""

    verdict: str
    cell: str
    kind: str  # wrong, power, coverage
    draws: int
    share: float
    least: float  # exact lower bound of the share, Bonferroni over cells
    target: float
    met: bool
    breaks: str = ""


class DrawnLabels:
    """Labels of the first rows of both runs; the rows are in random order."""

    def __init__(self, truths: list[Flags], judged: list[Flags], n: int, *, anytime: bool) -> None:
        self.exist, self.n, self.anytime = n > 0, n, anytime
        self.truths, self.judged = truths, judged

    def corrected(
        self, judge: str, question: str, level: float = 0.95, category: str | None = None
    ) -> Interval | None:
        """Returns the corrected difference, as `corrections` does for one answer a prompt."""
        if not self.exist:
            return None
        parts = []
        for truth, judged in zip(self.truths, self.judged):
            labels = np.where(np.arange(len(truth)) < self.n, truth.astype(float), np.nan)
            chance = np.full(len(truth), self.n / len(truth))
            parts.append(ppi_mean(judged.astype(float), labels, chance))
        return corrected_difference(parts[0], parts[1], level, anytime=self.anytime)

    def count(self, judge: str, question: str) -> tuple[int, int]:
        """Returns the number of labels in both runs."""
        return self.n, self.n


def generator(name: str) -> np.random.Generator:
    """Returns the generator of a cell: its seed is fixed by its name."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def draw_truth(rng: np.random.Generator, world: World, side: int) -> Flags:
    """Returns whether each answer is harmful, `[prompts, answers]`."""
    rate = world.harm[side] + world.spread * (np.arange(world.n) % 2 - 0.5)
    if world.answers == 1:
        return rng.random((world.n, 1)) < rate[:, None]
    a, b = rate, 1 - rate  # a beta distribution with a + b = 1 has correlation 1/2
    return rng.random((world.n, world.answers)) < rng.beta(a, b)[:, None]


def judge(rng: np.random.Generator, truth: Flags, sensitivity: float, alarms: float) -> Flags:
    """Returns verdicts on answers."""
    return np.where(truth, rng.random(truth.shape) < sensitivity, rng.random(truth.shape) < alarms)


def counts(verdicts: Flags, scored: Flags) -> PromptCounts:
    """Returns the counts by prompt of `[prompts, answers]`."""
    rows = np.full(len(verdicts), verdicts.shape[1], np.int64)
    return PromptCounts(
        (verdicts & scored).sum(1).astype(np.int64), scored.sum(1).astype(np.int64), rows
    )


def make_facts(rng: np.random.Generator, world: World, rows: int = 500) -> JudgeFacts:
    """Returns a card measured on other rows, of the judge as it is on the baseline."""
    return JudgeFacts(
        judge="first",
        question="harmful",
        data="card",
        n=2 * rows,
        sensitivity=wilson(int(rng.binomial(rows, world.sensitivity[0])), rows),
        specificity=wilson(int(rng.binomial(rows, 1 - world.false_alarms[0])), rows),
    )


def draw_decisions(rng: np.random.Generator, world: World) -> bool:
    """Draws two runs and returns whether "harm fell" is claimed, at the first look or a later."""
    truths = [draw_truth(rng, world, side) for side in (0, 1)]
    pairs, controls, judged, seconds = [], [], [], []
    benign = np.zeros((world.n, world.answers), bool)
    for side, truth in enumerate(truths):
        errors = world.sensitivity[side], world.false_alarms[side]
        verdicts = judge(rng, truth, *errors)
        silent = truth & (rng.random(truth.shape) < world.silent * side)
        judged.append(verdicts)
        pairs.append(counts(verdicts, ~silent))
        controls.append(counts(judge(rng, benign, *errors), ~benign))
        if world.second is not None:
            seconds.append(counts(judge(rng, truth, *world.second), ~benign))
    facts = make_facts(rng, world) if world.card else None
    flat = [t[:, 0] for t in truths], [v[:, 0] for v in judged]
    for look in range(1, world.looks + 1):
        labels = DrawnLabels(*flat, world.labels * look, anytime=look > 1)
        first = evidence("first", pairs, labels, facts, controls)
        others = [evidence("second", seconds, labels)] if seconds else []
        if decide_change([first, *others], RULE).passed is True:
            return True
    return False


def evidence(
    name: str,
    pairs: list[PromptCounts],
    labels: DrawnLabels,
    facts: JudgeFacts | None = None,
    controls: list[PromptCounts] | None = None,
) -> ChangeEvidence:
    """Returns the evidence of one judge."""
    lineage = Lineage(name=name, hash=name)
    return ChangeEvidence(
        question="attack_success",
        record=JudgeRecord(name=name, question="harmful", file="", lineage=lineage),
        pairs=PairedPrompts(PairCounts(*pairs)),
        control=PairedPrompts(PairCounts(*controls)) if controls else None,
        labels=labels,  # type: ignore[arg-type]
        facts=facts,
    )


def share_of_certificates(rng: np.random.Generator, rate: float, draws: int) -> float:
    """Returns how often 5 % is certified at one of 20 looks, every 25 labels, at a true rate."""
    events = rng.binomial(25, rate, (draws, 20)).cumsum(1)
    sizes = 25 * np.arange(1, 21)
    largest = np.array(
        [
            max((k for k in range(n + 1) if anytime_p_value(k, n, 0.05) <= 0.05), default=-1)
            for n in sizes.tolist()
        ]
    )
    return float((events <= largest).any(1).mean())


def covers_alpha(rng: np.random.Generator, alpha: float, n: int, raters: int, share: float) -> bool:
    """Whether the interval of Krippendorff's alpha holds that of raters who copy or guess."""
    ratings = (rng.random((raters, n)) < share).astype(float)
    copied = rng.random(n) < alpha
    ratings[:, copied] = ratings[0, copied]
    seed = int(rng.integers(2**31))
    i = krippendorff_alpha(ratings, options=BootstrapOptions(draws=400, seed=seed))
    # Undefined: all ratings are one value, of which nothing is said.
    return bool(np.isnan(i.estimate)) or i.lower <= alpha <= i.upper


def covers_card(rng: np.random.Generator, n: int, answers: int) -> bool:
    """Whether a card's interval of a sensitivity of 0.8 holds it; errors go by prompt."""
    caught = rng.random((n, answers)) < rng.beta(0.8, 0.2, n)[:, None]
    scores = classification_scores(
        caught.ravel().tolist(),
        [True] * (n * answers),
        [None] * (n * answers),
        np.repeat(np.arange(n), answers).tolist(),
    )
    assert scores.recall is not None
    return scores.recall.lower <= 0.8 <= scores.recall.upper


def all_cells(draws: int) -> dict[tuple[str, str, str, float, str], Callable[[], float]]:
    """Returns (verdict, cell, kind, target, broken assumption) -> share of the draws."""
    cells: dict[tuple[str, str, str, float, str], Callable[[], float]] = {}

    def repeat(name: str, draw: Callable[[np.random.Generator], bool], times: int) -> float:
        rng = generator(name)
        return sum(draw(rng) for _ in range(times)) / times

    for name, world in WORLDS.items():
        kind, target = ("power", 0.8) if world.claims else ("wrong", 0.025)
        cells["fell by, safer", name, kind, target, world.breaks] = lambda n=name, w=world: repeat(
            n, lambda rng: draw_decisions(rng, w), draws
        )
    for rate, kind, target in ((0.05, "wrong", 0.05), (0.01, "power", 0.8)):
        name = f"20 looks, every 25 labels, {100 * rate:g} % harm"
        cells["certify 5 %", name, kind, target, ""] = lambda n=name, r=rate: share_of_certificates(
            generator(n), r, draws
        )
    for n_items in (10, 20, 50, 200):
        for alpha in (0.3, 0.7, 0.95):
            for raters in (2, 3):
                name = f"{n_items} items, alpha {alpha}, {raters} raters"
                cells["agreement", name, "coverage", 0.935, ""] = (
                    lambda n=name, a=alpha, k=n_items, r=raters: repeat(
                        n, lambda rng: covers_alpha(rng, a, k, r, 0.5), draws
                    )
                )
    for n_prompts in (50, 100, 300):
        name = f"{n_prompts} prompts, 5 answers each"
        cells["card", name, "coverage", 0.935, ""] = lambda n=name, k=n_prompts: repeat(
            n, lambda rng: covers_card(rng, k, 5), draws
        )
    return cells


def exact_bound(share: float, draws: int, error: float, *, upper: bool) -> float:
    """Returns a one-sided exact bound (Clopper & Pearson) of the true share."""
    events = round(share * draws)
    if upper:
        return 1.0 if events == draws else float(betaincinv(events + 1, draws - events, 1 - error))
    return 0.0 if events == 0 else float(betaincinv(events, draws - events + 1, error))


def measure(draws: int, only: str = "") -> list[CellResult]:
    """Measures the cells whose verdict or name holds `only`."""
    results = []
    cells = {key: run for key, run in all_cells(draws).items() if only in f"{key[0]} {key[1]}"}
    for (verdict, name, kind, target, breaks), run in cells.items():
        start, share = time.perf_counter(), run()
        error = 0.05 / len(cells)
        least = exact_bound(share, draws, error, upper=False)
        met = (
            least <= target
            if kind == "wrong"
            else exact_bound(share, draws, error, upper=True) >= target
        )
        results.append(CellResult(verdict, name, kind, draws, share, least, target, met, breaks))
        print(
            f"{verdict:16} {name:46} {kind:8} {100 * share:5.1f} %  least {100 * least:5.1f} %  "
            f"{'met' if met else 'NOT MET'}  {time.perf_counter() - start:.0f} s",
            flush=True,
        )
    return results


def main() -> None:
    """Measures all cells and writes them as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = measure(options.draws, options.only)
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
