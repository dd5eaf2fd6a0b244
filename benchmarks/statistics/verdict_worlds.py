"""Simulated worlds for `verdicts.py`: two models, their judges, labels and looks, as arrays.

All arrays have a first axis of draws. `pairs` of verdicts are (baseline, variant).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Pair = tuple[float, float]
RULES = {
    "fell": 0.0,
    "rose": 0.0,
    "fell by 5 points": -0.05,
    "harm not worse by 5 points": 0.05,
    "side effect not worse by 5 points": 0.05,
    "side effect worse by 5 points": 0.05,
}
"""Claim -> limit of its rule. "rose" and "worse" are the opposites, shown."""
OPPOSITES = ("rose", "side effect worse by 5 points")


@dataclass(frozen=True)
class World:
    """Two models and their judge; pairs are (baseline, variant).

    `harm` is the true rate on each prompt, `spread` how far the rates of two halves of the prompts
    lie apart (a mixture of sets). `silent` is the share of the variant's harmful answers that the
    judge cannot score. `labels` are drawn in each run, `looks` times one batch; `fixed`: their
    number was fixed beforehand. `second` is another judge's (sensitivities, false alarms).
    `answers` to a prompt have correlation 1/2. `stopped`: the run may be stopped after each prompt.
    """

    harm: Pair
    sensitivity: Pair = (0.9, 0.9)
    false_alarms: Pair = (0.05, 0.05)
    n: int = 400
    answers: int = 1
    spread: float = 0.0
    silent: float = 0.0
    labels: int = 0
    looks: int = 1
    fixed: bool = False
    second: tuple[Pair, Pair] | None = ((0.8, 0.8), (0.1, 0.1))
    card: bool = False
    stopped: bool = False
    claim: str = "fell"
    is_true: bool = False

    @property
    def about_harm(self) -> bool:
        """Whether the claim is about harm, and not about a side effect."""
        return not self.claim.startswith("side effect")


GAMED, PERFECT = (0.9, 0.5), ((1.0, 1.0), (0.0, 0.0))
ALONE, BY_LABELS = {"second": None}, {"second": None, "labels": 300}
SIDE, WORSE = "side effect not worse by 5 points", "side effect worse by 5 points"
WORLDS = {
    # Harm is the same or rises, and "fell" is wrong.
    "equal errors": World((0.3, 0.3)),
    "equal errors, card": World((0.3, 0.3), card=True),
    "rare harm": World((0.03, 0.03), n=1000),
    "mixture of sets": World((0.3, 0.3), spread=0.5),
    "fewer false alarms on the variant": World((0.3, 0.3), false_alarms=(0.2, 0.05)),
    "both judges alarm less on the variant": World(
        (0.3, 0.3), false_alarms=(0.2, 0.05), second=((0.8, 0.8), (0.2, 0.05))
    ),
    "both judges miss five points more, card": World(
        (0.3, 0.3), (0.9, 0.85), second=((0.8, 0.75), (0.1, 0.1)), card=True
    ),
    "both judges miss five points more": World(
        (0.3, 0.3), (0.9, 0.85), second=((0.8, 0.75), (0.1, 0.1))
    ),
    "both miss five points more, harm rises, card": World(
        (0.3, 0.35), (0.9, 0.85), second=((0.8, 0.75), (0.1, 0.1)), card=True
    ),
    "missing not at random": World((0.3, 0.3), silent=0.5),
    "25 answers to each of 84 prompts": World(
        (0.5, 0.5), (1, 1), (0, 0), n=84, answers=25, second=PERFECT
    ),
    "gaming, second judge unmoved": World((0.3, 0.3), GAMED),
    "gaming, second judge unmoved, card": World((0.3, 0.3), GAMED, card=True),
    "gaming, a card alone": World((0.3, 0.3), GAMED, card=True, **ALONE),
    "gaming, 300 labels": World((0.3, 0.3), GAMED, **BY_LABELS),
    "gaming, 300 labels fixed beforehand": World((0.3, 0.3), GAMED, fixed=True, **BY_LABELS),
    "harm rises, judge misses it, 300 labels": World((0.3, 0.35), (0.9, 0.45), **BY_LABELS),
    "trained on half of the prompts, 300 labels": World((0.3, 0.3), (0.95, 0.7), **BY_LABELS),
    "six looks at 100 labels each": World(
        (0.3, 0.3), (0.9, 0.6), n=1200, second=None, labels=100, looks=6
    ),
    "a run stopped after any prompt": World((0.3, 0.3), stopped=True),
    # The other claims, on the boundary where they are false.
    "no rise": World((0.3, 0.3), claim="rose"),
    "no rise, false alarms rise": World((0.3, 0.3), false_alarms=(0.05, 0.2), claim="rose"),
    "no rise, 300 labels, judge finds more": World(
        (0.3, 0.3), (0.5, 0.9), claim="rose", **BY_LABELS
    ),
    "fell by exactly 5 points": World((0.35, 0.30), claim="fell by 5 points"),
    "fell by exactly 5 points, 300 labels": World(
        (0.35, 0.30), claim="fell by 5 points", **BY_LABELS
    ),
    "harm rose by exactly 5 points": World((0.3, 0.35), claim="harm not worse by 5 points"),
    "harm rose by exactly 5 points, card": World(
        (0.3, 0.35), claim="harm not worse by 5 points", card=True
    ),
    "side effect rose by exactly 5 points": World(
        (0.05, 0.10), (1, 1), (0, 0), claim=SIDE, **ALONE
    ),
    "side effect rose by 5 points, judge with a card": World(
        (0.05, 0.10), claim=SIDE, card=True, **ALONE
    ),
    "side effect rose by 5 points, judge without a card": World((0.05, 0.10), claim=SIDE, **ALONE),
    "side effect rose by 5 points, half of it unscored": World(
        (0.05, 0.10), (1, 1), (0, 0), silent=0.5, claim=SIDE, **ALONE
    ),
    "side effect, exactly 5 points worse": World(
        (0.05, 0.10), (1, 1), (0, 0), claim=WORSE, **ALONE
    ),
    # Real effects, stated beforehand.
    "power: 30 to 15 %, second judge": World((0.3, 0.15), is_true=True),
    "power: 30 to 12 %, second judge and card": World((0.3, 0.12), card=True, is_true=True),
    "power: 30 to 15 %, 300 labels": World((0.3, 0.15), is_true=True, **BY_LABELS),
    "power: 30 to 15 %, 300 labels fixed beforehand": World(
        (0.3, 0.15), fixed=True, is_true=True, **BY_LABELS
    ),
    "power: 30 to 10 %, gaming, 300 labels": World((0.3, 0.1), GAMED, is_true=True, **BY_LABELS),
    "power: 30 to 15 %, six looks at 100 labels": World(
        (0.3, 0.15), n=1200, second=None, labels=100, looks=6, is_true=True
    ),
    "power: 60 to 20 %, 25 answers to 84 prompts": World(
        (0.6, 0.2), (1, 1), (0, 0), n=84, answers=25, second=PERFECT, is_true=True
    ),
    "power: 40 to 15 %, a run stopped after any prompt": World(
        (0.4, 0.15), stopped=True, is_true=True
    ),
    "power: 15 to 30 %": World((0.15, 0.3), claim="rose", is_true=True),
    "power: 35 to 12 %, by 5 points": World((0.35, 0.12), claim="fell by 5 points", is_true=True),
    "power: 10 to 5 %, harm not worse": World(
        (0.1, 0.05), claim="harm not worse by 5 points", card=True, n=1000, is_true=True
    ),
    "power: side effect 2 % in both": World(
        (0.02, 0.02), (1, 1), (0, 0), claim=SIDE, is_true=True, **ALONE
    ),
    "power: side effect 2 % in both, judge with a card": World(
        (0.02, 0.02), claim=SIDE, card=True, n=800, is_true=True, **ALONE
    ),
    "power: side effect 5 to 20 %": World(
        (0.05, 0.20), (1, 1), (0, 0), claim=WORSE, is_true=True, **ALONE
    ),
}


class Verdicts(NamedTuple):
    """Events among `[draws, prompts, answers]` in both runs, and which answers were scored."""

    events: tuple[Flags, Flags]
    scored: tuple[Flags, Flags]


class CardCounts(NamedTuple):
    """Rows that the judge got right of `rows` of each kind, on other data; [draws]."""

    caught: NDArray[np.int64]
    let_pass: NDArray[np.int64]
    rows: int


class DrawnWorld(NamedTuple):
    """Draws of one world. `truths` are [draws, prompts, answers]."""

    truths: tuple[Flags, Flags]
    first: Verdicts
    control: Verdicts | None
    second: Verdicts | None
    card: CardCounts | None


def draw_world(rng: np.random.Generator, world: World, draws: int) -> DrawnWorld:
    """Draws both runs, their judges and a card measured on the baseline's kind of answers."""
    truths = tuple(_draw_truth(rng, world, side, draws) for side in (0, 1))
    scored = np.ones(truths[0].shape, bool)
    judged = [_judge(rng, t, world.sensitivity[i], world.false_alarms[i]) for i, t in _each(truths)]
    heard = scored & ~(truths[1] & (rng.random(scored.shape) < world.silent))
    first = Verdicts((judged[0], judged[1] & heard), (scored, heard))
    control = None
    if world.about_harm and not world.stopped:
        benign = np.zeros(scored.shape, bool)
        alarms = [_judge(rng, benign, 0.0, world.false_alarms[i]) for i in (0, 1)]
        control = Verdicts((alarms[0], alarms[1]), (scored, scored))
    second = None
    if world.second is not None:
        sensitivity, false_alarms = world.second
        seen = [_judge(rng, t, sensitivity[i], false_alarms[i]) for i, t in _each(truths)]
        second = Verdicts((seen[0], seen[1]), (scored, scored))
    card = None
    if world.card:
        caught = rng.binomial(500, world.sensitivity[0], draws)
        card = CardCounts(caught, rng.binomial(500, 1 - world.false_alarms[0], draws), 500)
    return DrawnWorld((truths[0], truths[1]), first, control, second, card)


def _each(truths: tuple[Flags, ...]) -> enumerate[Flags]:
    return enumerate(truths)


def _draw_truth(rng: np.random.Generator, world: World, side: int, draws: int) -> Flags:
    rate = world.harm[side] + world.spread * (np.arange(world.n) % 2 - 0.5)
    if world.answers == 1:
        return rng.random((draws, world.n, 1)) < rate[:, None]
    # A beta distribution with a + b = 1 has correlation 1/2.
    of_prompt = rng.beta(rate, 1 - rate, (draws, world.n))
    return rng.random((draws, world.n, world.answers)) < of_prompt[:, :, None]


def _judge(rng: np.random.Generator, truth: Flags, sensitivity: float, alarms: float) -> Flags:
    return rng.random(truth.shape) < np.where(truth, sensitivity, alarms)
