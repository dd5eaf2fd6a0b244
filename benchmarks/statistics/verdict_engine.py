"""The engine's own decision on one draw of a simulated world: `decide_change`, as in reports."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from verdict_worlds import OPPOSITES, RULES, DrawnWorld, Verdicts, World

from truing.analysis.claim_decisions import ChangeRule, decide_change
from truing.analysis.claim_evidence import ChangeEvidence, DrawnPairs, PairedPrompts
from truing.analysis.deltas import PairCounts
from truing.analysis.judge_facts import JudgeFacts
from truing.analysis.prompt_counts import PromptCounts
from truing.core.types import Lineage
from truing.runs.folder import JudgeRecord
from truing.stats.intervals import Interval, wilson
from truing.stats.judge_error import corrected_difference, ppi_mean

Flags = NDArray[np.bool_]


class DrawnLabels:
    """Labels of the first rows of both runs; the rows are in random order."""

    def __init__(self, truths: list[Flags], judged: list[Flags], n: int, *, fixed: bool) -> None:
        self.exist, self.n, self.fixed = n > 0, n, fixed
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
        return corrected_difference(parts[0], parts[1], level, anytime=not self.fixed)

    def count(self, judge: str, question: str) -> tuple[int, int]:
        """Returns the number of labels in both runs."""
        return self.n, self.n


def decide_by_engine(world: World, drawn: DrawnWorld, i: int) -> bool:
    """Returns whether the claim is made in draw `i`, at the first look or at a later one."""
    rule = ChangeRule(limit=RULES[world.claim], about_harm=world.about_harm)
    wanted = world.claim not in OPPOSITES
    flat = [[part[i, :, 0] for part in pair] for pair in (drawn.truths, drawn.first.events)]
    looks = range(1, world.looks + 1)
    stops = range(2, world.n + 1, 20) if world.stopped else [world.n]
    for n in [world.labels * look for look in looks]:
        labels = DrawnLabels(*flat, n, fixed=world.fixed)
        for stop in stops:
            evidence = [_evidence("first", world, drawn, drawn.first, i, labels, stop)]
            if drawn.second is not None:
                evidence.append(_evidence("second", world, drawn, drawn.second, i, labels, stop))
            if decide_change(evidence, rule).passed is wanted:
                return True
    return False


def _evidence(
    name: str,
    world: World,
    drawn: DrawnWorld,
    verdicts: Verdicts,
    i: int,
    labels: DrawnLabels,
    stop: int,
) -> ChangeEvidence:
    is_first = verdicts is drawn.first
    control = drawn.control if is_first else None
    return ChangeEvidence(
        question="attack_success" if world.about_harm else "degenerate",
        record=JudgeRecord(
            name=name, question="harmful", file="", lineage=Lineage(name=name, hash=name)
        ),
        pairs=_paired(verdicts, i, stop, stopped=world.stopped),
        control=_paired(control, i, stop, stopped=False) if control is not None else None,
        labels=labels,  # type: ignore[arg-type]
        facts=_facts(drawn, i) if is_first else None,
    )


def _paired(verdicts: Verdicts, i: int, stop: int, *, stopped: bool) -> PairedPrompts:
    counts, shares = [], []
    for events, scored in zip(verdicts.events, verdicts.scored):
        seen, heard = events[i, :stop], scored[i, :stop]
        rows = np.full(len(seen), seen.shape[1], np.int64)
        counts.append(
            PromptCounts(seen.sum(1).astype(np.int64), heard.sum(1).astype(np.int64), rows)
        )
        shares += [seen.mean(1), (seen | ~heard).mean(1)]
    return PairedPrompts(PairCounts(*counts), DrawnPairs(*shares) if stopped else None)


def _facts(drawn: DrawnWorld, i: int) -> JudgeFacts | None:
    card = drawn.card
    if card is None:
        return None
    return JudgeFacts(
        judge="first",
        question="harmful",
        data="card",
        n=2 * card.rows,
        sensitivity=wilson(int(card.caught[i]), card.rows),
        specificity=wilson(int(card.let_pass[i]), card.rows),
    )
