"""Verdicts in simulated worlds: how often a claim is made that is wrong, and that is right.

    python benchmarks/statistics/verdicts.py --draws 4000 --out benchmarks/statistics/verdicts.json
    python benchmarks/statistics/verdicts.py --check 30     # the arrays against the engine itself

A *wrong* cell is a world in which the claim is false, on the boundary where it is hardest; its
share of claims is to stay at 2.5 % (certificates: 5 %, their delta). It fails if the exact lower
bound of that share, at 5 % over all cells together (Bonferroni), lies above. A *power* cell is a
world with a real effect, stated in `verdict_worlds.py` beforehand, where the claim is to be made in
80 % or more. A *coverage* cell counts intervals that hold the truth: 93.5 % or more, and at most 98
% where three events or more are expected. The seed of a cell is a checksum of its name.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.special import betaincinv

sys.path.insert(0, str(Path(__file__).parent))

from verdict_arrays import clustered_wilson_lower_upper, decide
from verdict_engine import decide_by_engine
from verdict_worlds import WORLDS, World, draw_world

from truing.stats.agreement import krippendorff_alpha
from truing.stats.agreement_intervals import BootstrapOptions
from truing.stats.conformal import anytime_p_value

MOST_COVERAGE = 0.98
LEAST_EVENTS = 3  # expected, for a coverage of at most 98 %
_CELLS_OF_AN_ARRAY = 400_000  # draws times prompts times answers that are simulated at a time


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


@dataclass(frozen=True)
class Cell:
    """What is simulated: `run(draws)` returns the share. `exact`: at most 98 % is wanted too."""

    verdict: str
    name: str
    kind: str
    target: float
    run: Callable[[int], float]
    exact: bool = False


def generator(name: str) -> np.random.Generator:
    """Returns the generator of a cell: its seed is fixed by its name."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def share_of_claims(name: str, world: World, draws: int) -> float:
    """Returns how often the claim of a world is made."""
    rng, claimed, left = generator(name), 0, draws
    size = max(1, _CELLS_OF_AN_ARRAY // (world.n * world.answers))
    while left:
        drawn = draw_world(rng, world, min(size, left))
        claimed += int(decide(world, drawn).sum())
        left -= min(size, left)
    return claimed / draws


def share_of_certificates(name: str, rate: float, draws: int) -> float:
    """Returns how often 5 % is certified at one of 20 looks, every 25 labels, at a true rate."""
    events = generator(name).binomial(25, rate, (draws, 20)).cumsum(1)
    largest = np.array([_largest_certified(25 * look) for look in range(1, 21)])
    return float((events <= largest).any(1).mean())


def _largest_certified(n: int) -> int:
    return max((k for k in range(n + 1) if anytime_p_value(k, n, 0.05) <= 0.05), default=-1)


def coverage_of_alpha(name: str, alpha: float, n: int, raters: int, draws: int) -> float:
    """Returns how often Krippendorff's interval holds the alpha of raters who copy or guess."""
    rng = generator(name)
    ratings = rng.random((draws, raters, n)) < 0.5
    copied = rng.random((draws, n)) < alpha
    ratings = np.where(copied[:, None, :], ratings[:, :1, :], ratings)
    # Two values: the items count by their number of ones, and either value may be called one.
    ones = ratings.sum(1)
    counts = np.stack([(ones == k).sum(1) for k in range(raters + 1)], axis=1)
    counts = np.where((counts[:, 0] < counts[:, -1])[:, None], counts[:, ::-1], counts)
    distinct, times = np.unique(counts, axis=0, return_counts=True)
    covered = 0
    for kinds, repeats in zip(distinct, times.tolist()):
        items = [
            [1] * k + [0] * (raters - k) for k, m in enumerate(kinds.tolist()) for _ in range(m)
        ]
        options = BootstrapOptions(seed=zlib.crc32(kinds.tobytes()))
        i = krippendorff_alpha(np.array(items, float).T, options=options)
        # Undefined: all ratings are one value, of which nothing is said.
        covered += repeats * bool(np.isnan(i.estimate) or i.lower <= alpha <= i.upper)
    return covered / draws


def coverage_of_cards(name: str, n: int, draws: int) -> float:
    """Returns how often a card's interval of a sensitivity of 0.8 holds it; errors go by prompt."""
    rng = generator(name)
    caught = rng.binomial(5, rng.beta(0.8, 0.2, (draws, n)))
    lower, upper = clustered_wilson_lower_upper(caught, 5)
    return float(((lower <= 0.8) & (upper >= 0.8)).mean())


def all_cells() -> list[Cell]:
    """Returns all cells."""
    cells = []
    for name, world in WORLDS.items():
        kind, target = ("power", 0.8) if world.is_true else ("wrong", 0.025)

        def claims(draws: int, name: str = name, world: World = world) -> float:
            return share_of_claims(name, world, draws)

        cells.append(Cell(world.claim, name, kind, target, claims))
    for rate, kind, target in ((0.05, "wrong", 0.05), (0.01, "power", 0.8)):
        name = f"20 looks, every 25 labels, {100 * rate:g} % harm"

        def certificates(draws: int, name: str = name, rate: float = rate) -> float:
            return share_of_certificates(name, rate, draws)

        cells.append(Cell("certify 5 %", name, kind, target, certificates))
    for n in (10, 20, 50, 200):
        for alpha in (0.3, 0.7, 0.95):
            for raters in (2, 3):
                name = f"{n} items, alpha {alpha}, {raters} raters"

                def alphas(
                    draws: int, name: str = name, a: float = alpha, n: int = n, r: int = raters
                ) -> float:
                    return coverage_of_alpha(name, a, n, r, draws)

                # Items that two raters do not copy differ half of the time.
                exact = n * (1 - alpha) / 2 >= LEAST_EVENTS
                cells.append(Cell("agreement", name, "coverage", 0.935, alphas, exact))
    for n in (50, 100, 300):
        name = f"{n} prompts, 5 answers each"

        def cards(draws: int, name: str = name, n: int = n) -> float:
            return coverage_of_cards(name, n, draws)

        cells.append(Cell("card", name, "coverage", 0.935, cards, exact=True))
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
    cells = [cell for cell in all_cells() if only in f"{cell.verdict} {cell.name}"]
    for cell in cells:
        start, share = time.process_time(), cell.run(draws)
        error = 0.05 / len(cells)
        least = exact_bound(share, draws, error, upper=False)
        if cell.kind == "wrong":
            met = least <= cell.target
        else:
            met = exact_bound(share, draws, error, upper=True) >= cell.target
        if cell.exact:
            met = met and least <= MOST_COVERAGE
        results.append(
            CellResult(cell.verdict, cell.name, cell.kind, draws, share, least, cell.target, met)
        )
        print(
            f"{cell.verdict:33} {cell.name:50} {cell.kind:8} {100 * share:5.1f} %  least "
            f"{100 * least:5.1f} %  {'met' if met else 'NOT MET'}  "
            f"{time.process_time() - start:.1f} s",
            flush=True,
        )
    return results


def check_engine(draws: int, only: str = "") -> int:
    """Returns in how many draws, over all worlds, the arrays decide unlike the engine."""
    unlike = 0
    for name, world in WORLDS.items():
        if only not in name:
            continue
        drawn = draw_world(generator(f"check {name}"), world, draws)
        by_arrays = decide(world, drawn)
        by_engine = [decide_by_engine(world, drawn, i) for i in range(draws)]
        differ = int((by_arrays != np.array(by_engine)).sum())
        unlike += differ
        print(f"{name:50} {differ} of {draws} unlike, {sum(by_engine)} claims", flush=True)
    return unlike


def main() -> None:
    """Measures all cells and writes them as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--only", default="")
    parser.add_argument("--check", type=int, default=0, help="draws of each world by the engine")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.check:
        sys.exit(1 if check_engine(options.check, options.only) else 0)
    results = measure(options.draws, options.only)
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
