"""Coverage and width of the intervals, simulated on a grid.

    python benchmarks/statistics/coverage.py --draws 10000 --out benchmarks/statistics/results.json

A cell is one method at one rate, number of rows, judge error and cluster size. An approximate
method is *in scope* where n p (1 - p) >= 5 (n counts rows, labels or pairs) and there are 30
clusters or more; cells out of scope are printed too. Aims: approximate methods cover 94 to 96.5 %
on average and 93 % in every cell in scope, exact and anytime methods 94.5 % in every cell.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import platform
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from truing.stats import judge_error, paired, sequential
from truing.stats.intervals import (
    Interval,
    clopper_pearson,
    cluster_bootstrap,
    clustered_wilson,
    macro_average,
    normal_quantile,
    wilson,
)
from truing.stats.pooling import partial_pooling

GARAK = (0.92, 0.39)
JUDGES = ((0.92, 0.39), (0.8, 0.95), (0.6, 0.99), (0.5, 0.5))


@dataclass(frozen=True)
class Cell:
    """A method, its kind (approximate, exact, anytime, naive) and a point on the grid."""

    method: str
    kind: str
    rate: float
    n: int
    more: dict = field(default_factory=dict)


@dataclass
class CellResult:
    """Coverage and mean width; `scope` is false where the method promises no coverage."""

    cell: Cell
    coverage: float
    width: float
    scope: bool
    note: str = ""


def cell_generator(cell: Cell) -> np.random.Generator:
    """Returns a generator seeded by the cell, whatever the order of the cells."""
    return np.random.default_rng(
        zlib.crc32(f"{cell.method} {cell.rate} {cell.n} {cell.more}".encode())
    )


def coverage_and_width(
    intervals: list[Interval], truths: np.ndarray | float
) -> tuple[float, float]:
    """Returns the share of intervals that contain the truth, and their mean width."""
    low = np.array([i.lower for i in intervals])
    high = np.array([i.upper for i in intervals])
    inside = (low <= np.asarray(truths) + 1e-12) & (np.asarray(truths) <= high + 1e-12)
    return float(inside.mean()), float((high - low).mean())


def rows(cell: Cell, draws: int) -> CellResult:
    """Simulates independent rows."""
    make = wilson if cell.method == "wilson" else clopper_pearson
    table = [make(k, cell.n) for k in range(cell.n + 1)]
    events_drawn = cell_generator(cell).binomial(cell.n, cell.rate, draws)
    cover, width = coverage_and_width([table[k] for k in events_drawn], cell.rate)
    return CellResult(
        cell, cover, width, cell.n * cell.rate * (1 - cell.rate) >= 5 or cell.kind == "exact"
    )


def clusters(cell: Cell, draws: int) -> CellResult:
    """Simulates m answers per prompt with intra-class correlation rho (beta-binomial)."""
    random, m, rho = cell_generator(cell), cell.more["answers"], cell.more["rho"]
    a = cell.rate * (1 - rho) / rho if rho else None
    intervals = []
    for _ in range(draws):
        p = cell.rate if a is None else random.beta(a, a * (1 - cell.rate) / cell.rate, cell.n)
        events = random.binomial(m, p, cell.n)
        if cell.method == "cluster bootstrap":
            intervals.append(
                cluster_bootstrap(
                    events, np.full(cell.n, m), draws=400, seed=int(random.integers(2**31))
                )
            )
        else:
            kinds = Counter(events.tolist())
            intervals.append(
                clustered_wilson(list(kinds), [m] * len(kinds), times=list(kinds.values()))
            )
    cover, width = coverage_and_width(intervals, cell.rate)
    effect = 1 + (m - 1) * rho
    scope = cell.n >= 30 and cell.n * m / effect * cell.rate * (1 - cell.rate) >= 5
    return CellResult(cell, cover, width, scope)


def draw_verdicts(
    random: np.random.Generator, truth: np.ndarray, judge: tuple[float, float]
) -> np.ndarray:
    return np.where(
        truth, random.random(truth.shape) < judge[0], random.random(truth.shape) > judge[1]
    )


def corrected(cell: Cell, draws: int) -> CellResult:
    """Simulates labels drawn in a run: even, weighted to unsure rows, or in clusters."""
    random, total, judge = cell_generator(cell), cell.more["rows"], tuple(cell.more["judge"])
    design, intervals, names = cell.more["design"], [], Counter()
    for _ in range(draws):
        groups = None
        if design == "clusters":
            m = 4
            p = random.beta(cell.rate, 1 - cell.rate, total // m)  # rho = 1/2
            truth = random.random(total) < np.repeat(p, m)
            groups = np.repeat(np.arange(total // m), m)
        else:
            truth = random.random(total) < cell.rate
        judged = draw_verdicts(random, truth, judge).astype(float)
        chance = np.full(total, cell.n / total)
        if design == "weighted":
            unsure = np.where(judged == 1, 1.0, 0.25)
            chance = cell.n * (0.5 / total + 0.5 * unsure / unsure.sum())
        reached = np.cumsum(chance[order := random.permutation(total)])
        picked = order[
            np.floor(reached + (u := random.random())) > np.floor(reached - chance[order] + u)
        ]
        labels = np.full(total, np.nan)
        labels[picked] = truth[picked]
        interval = judge_error.corrected_rate(judged, labels, chance, groups)
        names[interval.method] += 1
        intervals.append(interval)
    cover, width = coverage_and_width(intervals, cell.rate)
    return CellResult(
        cell,
        cover,
        width,
        cell.n * cell.rate * (1 - cell.rate) >= 5,
        ", ".join(f"{k} {v}" for k, v in names.items()),
    )


def naive(cell: Cell, draws: int) -> CellResult:
    """Simulates the raw rate of a judge that errs, taken for the true rate (Wilson)."""
    se, sp = cell.more["judge"]
    table = [wilson(k, cell.n) for k in range(cell.n + 1)]
    seen = cell.rate * se + (1 - cell.rate) * (1 - sp)
    events_drawn = cell_generator(cell).binomial(cell.n, seen, draws)
    cover, width = coverage_and_width([table[k] for k in events_drawn], cell.rate)
    return CellResult(cell, cover, width, False, f"says {100 * seen:.0f} % on average")


def transported(cell: Cell, draws: int) -> CellResult:
    """Simulates error rates from a card; `shift` moves the true ones away from the card's."""
    random, (se, sp), m, shift = (
        cell_generator(cell),
        cell.more["judge"],
        cell.more["card"],
        cell.more["shift"],
    )
    seen = cell.rate * min(1, se + shift) + (1 - cell.rate) * (1 - min(1, sp + shift))
    intervals, refused = [], 0
    for k, a, b in zip(
        random.binomial(cell.n, seen, draws),
        random.binomial(m, se, draws),
        random.binomial(m, sp, draws),
    ):
        card = judge_error.JudgeErrorRates(
            sensitivity=a / m, specificity=b / m, positives=m, negatives=m
        )
        estimate = judge_error.transported_rate(float(k), cell.n, card)
        if estimate.interval is None or estimate.band is None:
            refused += 1
        else:
            intervals.append(
                Interval(estimate.interval.estimate, *estimate.band)
                if cell.method.endswith("band")
                else estimate.interval
            )
    if not intervals:
        return CellResult(cell, float("nan"), float("nan"), False, "always refused")
    cover, width = coverage_and_width(intervals, cell.rate)
    scope = (
        cell.n * cell.rate * (1 - cell.rate) >= 5
        and refused < 0.05 * draws
        and (not shift or "band" in cell.method)
    )
    return CellResult(cell, cover, width, scope, f"refused {100 * refused / draws:.1f} %")


def pairs(cell: Cell, draws: int) -> CellResult:
    """Simulates the same prompts twice; `down` and `up` are the shares that change."""
    random, down, up = cell_generator(cell), cell.more["down"], cell.more["up"]
    both = max(0.0, cell.rate - down)
    table = random.multinomial(cell.n, [both, down, up, 1 - both - down - up], draws)
    intervals = []
    for a, b, c, d in table.tolist():
        if cell.method == "newcombe paired":
            intervals.append(paired.newcombe_paired(paired.PairedTable(a, b, c, d)))
        else:
            intervals.append(
                paired.paired_mean(
                    [1.0] * (a + b) + [0.0] * (c + d), [1.0] * a + [0.0] * b + [1.0] * c + [0.0] * d
                )
            )
    cover, width = coverage_and_width(intervals, up - down)
    return CellResult(cell, cover, width, cell.n * (down + up) >= 5)


def test_size(cell: Cell, draws: int) -> CellResult:
    """Returns one minus the false positive rate of the exact McNemar test as the coverage."""
    random, change = cell_generator(cell), cell.more["changed"]
    k = random.binomial(cell.n, change, draws)
    b = random.binomial(k, 0.5)
    wrong = np.mean([paired.mcnemar_exact(int(x), int(y - x)) < 0.05 for x, y in zip(b, k)])
    return CellResult(cell, 1 - float(wrong), float("nan"), True)


def corrected_difference(cell: Cell, draws: int) -> CellResult:
    """Simulates two models on the same prompts, and a judge whose errors differ between them."""
    random, total = cell_generator(cell), cell.more["rows"]
    intervals = []
    for _ in range(draws):
        hard = random.random(total)
        arms = []
        for rate, judge in ((cell.rate, (0.8, 0.9)), (cell.rate / 2, (0.6, 0.95))):
            truth = np.where(random.random(total) < 0.7, hard < rate, random.random(total) < rate)
            judged = draw_verdicts(random, truth, judge).astype(float)
            labels = np.full(total, np.nan)
            picked = random.choice(total, cell.n, replace=False)
            labels[picked] = truth[picked]
            arms.append(judge_error.ppi_mean(judged, labels, np.full(total, cell.n / total)))
        intervals.append(judge_error.corrected_difference(arms[0], arms[1]))
    cover, width = coverage_and_width(intervals, -cell.rate / 2)
    return CellResult(cell, cover, width, cell.n * cell.rate / 2 * (1 - cell.rate / 2) >= 5)


def ever_rejected(values: np.ndarray, m: np.ndarray, population: int | None) -> np.ndarray:
    """Returns whether each sequence ever rejects its own mean m.

    The bets of `BettingSequence` at one candidate mean, vectorised over the rows.
    """
    draws, steps = values.shape
    up, down, total, var = np.zeros(draws), np.zeros(draws), np.zeros(draws), np.full(draws, 0.25)
    out = np.zeros(draws, bool)
    for t in range(steps):
        at = m if population is None else np.clip((population * m - total) / (population - t), 0, 1)
        bet = np.sqrt(2 * np.log(2 / 0.05) / (var / (t + 1) * (t + 1) * np.log(t + 2)))
        with np.errstate(divide="ignore"):
            high, low = np.minimum(bet, 0.5 / at), np.minimum(bet, 0.5 / (1 - at))
        up += np.log1p(high * (values[:, t] - at))
        down += np.log1p(-low * (values[:, t] - at))
        total += values[:, t]
        var += (values[:, t] - (total + 0.5) / (t + 2)) ** 2
        out |= np.maximum(up, down) >= np.log(2 / 0.05)
    return out


def betting(cell: Cell, draws: int) -> CellResult:
    """Simulates looks after every draw.

    Coverage is of the whole path, so that any stopping rule has at least this coverage.
    """
    random, n, population = cell_generator(cell), cell.n, cell.more.get("population")
    if population:
        events = round(population * cell.rate)
        values = np.zeros((draws, population))
        values[:, :events] = 1.0
        values = random.permuted(values, axis=1)[:, :n]
    else:
        values = (random.random((draws, n)) < cell.rate).astype(float)
    missed = ever_rejected(values, np.full(draws, cell.rate), population)
    widths = []
    for path in values[:20]:
        sequence = sequential.BettingSequence(population=population)
        for value in path:
            sequence.add(value)
        widths.append(sequence.interval().width)
    fixed = np.mean([wilson(float(v.sum()), n).width for v in values[:20]])
    return CellResult(
        cell,
        1 - float(missed.mean()),
        float(np.mean(widths)),
        True,
        f"Wilson at this n alone: {fixed:.3f}",
    )


def peeking(cell: Cell, draws: int) -> CellResult:
    """Simulates repeated looks at Wilson's interval, which is made for one look."""
    values = cell_generator(cell).random((draws, cell.n)) < cell.rate
    z, n = normal_quantile(), np.arange(1, cell.n + 1)
    p = np.cumsum(values, 1) / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    inside = ((centre - half <= cell.rate) & (cell.rate <= centre + half))[:, 29:].all(1)
    return CellResult(
        cell,
        float(inside.mean()),
        float(2 * half[:, -1].mean()),
        False,
        "looked at after each row from the 30th",
    )


def groups(cell: Cell, draws: int) -> CellResult:
    """Simulates the macro average and the partial pooling of fourteen categories of n rows."""
    random = cell_generator(cell)
    rates = np.clip(random.beta(cell.rate * 10, (1 - cell.rate) * 10, 14), 0.005, 0.995)
    events_drawn = random.binomial(cell.n, rates, (draws, 14))
    if cell.method == "macro average":
        table = [wilson(k, cell.n) for k in range(cell.n + 1)]
        intervals = [macro_average([table[k] for k in row]) for row in events_drawn]
        cover, width = coverage_and_width(intervals, float(rates.mean()))
        return CellResult(cell, cover, width, 14 * cell.n * cell.rate * (1 - cell.rate) >= 5)
    covers, widths = [], []
    for row in events_drawn:
        cover, width = coverage_and_width(partial_pooling(row.tolist(), [cell.n] * 14), rates)
        covers.append(cover)
        widths.append(width)
    return CellResult(
        cell,
        float(np.mean(covers)),
        float(np.mean(widths)),
        False,
        "mean over 14 categories, 30 draws",
    )


Work = tuple[Callable[[Cell, int], CellResult], Cell]


def grid() -> Iterator[Work]:
    """Yields all cells with their simulations."""
    for p, n in itertools.product((0.01, 0.05, 0.1, 0.3, 0.5), (50, 100, 300, 1000)):
        yield rows, Cell("wilson", "approximate", p, n)
        yield rows, Cell("clopper-pearson", "exact", p, n)
    for p, k, rho in itertools.product((0.05, 0.2, 0.5), (10, 30, 100), (0.0, 0.3, 0.8)):
        yield (
            clusters,
            Cell("cluster-robust wilson", "approximate", p, k, {"answers": 5, "rho": rho}),
        )
    for p, k, rho in itertools.product((0.2, 0.5), (30, 100), (0.3,)):
        yield clusters, Cell("cluster bootstrap", "approximate", p, k, {"answers": 5, "rho": rho})
    for p, n, judge in itertools.product((0.05, 0.2, 0.5), (100, 300), JUDGES):
        yield (
            corrected,
            Cell(
                "corrected", "approximate", p, n, {"rows": 2000, "judge": judge, "design": "even"}
            ),
        )
    for p, n, design in itertools.product((0.1, 0.3), (150, 400), ("weighted", "clusters")):
        yield (
            corrected,
            Cell(
                f"corrected, {design}",
                "approximate",
                p,
                n,
                {"rows": 2000, "judge": (0.8, 0.9), "design": design},
            ),
        )
    for p, judge in itertools.product((0.01, 0.05, 0.2, 0.5), JUDGES):
        yield naive, Cell("raw rate of the judge", "naive", p, 1000, {"judge": judge})
    for p, judge, card in itertools.product((0.05, 0.2, 0.5), (GARAK, (0.8, 0.95)), (100, 500)):
        yield (
            transported,
            Cell(
                "transported", "approximate", p, 1000, {"judge": judge, "card": card, "shift": 0.0}
            ),
        )
    for p, judge, shift in itertools.product((0.05, 0.2, 0.5), (GARAK, (0.8, 0.9)), (-0.05, 0.05)):
        more = {"judge": judge, "card": 500, "shift": shift}
        yield transported, Cell("transported", "approximate", p, 1000, more)
        yield transported, Cell("transported, band", "exact", p, 1000, more)
    for p, n, (down, up) in itertools.product(
        (0.1, 0.5), (60, 100, 300), ((0.05, 0.05), (0.1, 0.02), (0.02, 0.2))
    ):
        yield pairs, Cell("newcombe paired", "approximate", p, n, {"down": down, "up": up})
        yield pairs, Cell("paired by prompt", "approximate", p, n, {"down": down, "up": up})
    for n, change in itertools.product((50, 300), (0.05, 0.2)):
        yield test_size, Cell("mcnemar exact", "exact", 0.5, n, {"changed": change})
    for p, n in itertools.product((0.2, 0.5), (100, 300)):
        yield (
            corrected_difference,
            Cell("corrected difference", "approximate", p, n, {"rows": 1500}),
        )
    for p, n in itertools.product((0.02, 0.1, 0.5), (100, 1000)):
        yield betting, Cell("betting sequence", "anytime", p, n)
        yield peeking, Cell("wilson, peeked at", "naive", p, n)
    for p, n in itertools.product((0.1, 0.5), (250, 480)):
        yield betting, Cell("betting without replacement", "anytime", p, n, {"population": 500})
    for p, n in itertools.product((0.1, 0.3), (10, 40)):
        yield groups, Cell("macro average", "approximate", p, n)
        if n == 10:
            yield groups, Cell("partial pooling", "approximate", p, n)


def run_cell(work: tuple[Callable[[Cell, int], CellResult], Cell, int]) -> CellResult:
    """Runs one cell, in a worker process."""
    make, cell, draws = work
    return make(cell, 30 if cell.method == "partial pooling" else draws)


def summary(results: list[CellResult]) -> list[dict]:
    """Returns for each method the mean and least coverage in scope, and whether the aim is met."""
    out = []
    for method in dict.fromkeys(f.cell.method for f in results):
        cells = [f for f in results if f.cell.method == method]
        kind = cells[0].cell.kind
        inside = [f.coverage for f in cells if f.scope]
        line = {
            "method": method,
            "kind": kind,
            "cells": len(cells),
            "in scope": len(inside),
            "mean": float(np.mean(inside)) if inside else None,
            "least": min(inside) if inside else None,
        }
        if inside and kind == "approximate":
            line["met"] = bool(0.94 <= line["mean"] <= 0.965 and line["least"] >= 0.93)
        elif inside and kind in ("exact", "anytime"):
            line["met"] = bool(line["least"] >= 0.945)
        out.append(line)
    return out


def table(results: list[CellResult]) -> str:
    """Returns the summary and all cells as Markdown tables."""
    lines = [
        "| method | kind | cells | in scope | mean % | least % | target met |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for s in summary(results):
        mean, least = ("–" if s[k] is None else f"{100 * s[k]:.1f}" for k in ("mean", "least"))
        met = {True: "yes", False: "**no**"}.get(s.get("met"), "–")
        lines.append(
            f"| {s['method']} | {s['kind']} | {s['cells']} | {s['in scope']} "
            f"| {mean} | {least} | {met} |"
        )
    lines += [
        "",
        "| method | rate | n | more | coverage % | width | in scope | note |",
        "|---|---:|---:|---|---:|---:|---|---|",
    ]
    for f in results:
        more = ", ".join(f"{k} {v}" for k, v in f.cell.more.items())
        scope = "yes" if f.scope else "no"
        lines.append(
            f"| {f.cell.method} | {f.cell.rate:g} | {f.cell.n} | {more} "
            f"| {100 * f.coverage:.1f} | {f.width:.3f} | {scope} | {f.note} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs the grid and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, default=Path("results.json"))
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    started = time.monotonic()
    work = [(make, cell, arguments.draws) for make, cell in grid() if arguments.only in cell.method]
    with multiprocessing.get_context("fork").Pool(arguments.processes) as pool:
        results = pool.map(run_cell, work, chunksize=1)
    seconds = time.monotonic() - started
    report = {
        "draws": arguments.draws,
        "seconds": round(seconds),
        "machine": f"{platform.machine()}, {arguments.processes} processes",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "summary": summary(results),
        "cells": [asdict(f) for f in results],
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(table(results) + "\n")
    print(table(results).split("\n\n")[0])
    print(f"{len(results)} cells of {arguments.draws} draws in {seconds:.0f} s")


if __name__ == "__main__":
    main()
