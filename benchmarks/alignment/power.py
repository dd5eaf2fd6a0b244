"""The power of the study's design, by simulation (PREREGISTRATION.md).

    python benchmarks/alignment/power.py              prints the tables (a minute)
    python benchmarks/alignment/power.py --draws 200  a quick look

A study is drawn many times: prompts differ in difficulty, the answers of two levers to one prompt
are correlated, seeds differ, and a reader with errors labels every answer. A lever counts as shown
safer if the paired difference of labelled harm lies below 0 by Student's interval (as
`truing.stats.paired.paired_mean`), Holm over the primary levers at 2.5 %, one-sided. A fall of the
labels' rate is a fall of the true one as long as the reader errs alike on both sides; the last
table shows what happens if it does not.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

ERROR = 0.025
"""One-sided error of a claim, as in `truing.analysis.claims`."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """One world and one design.

    `falls` are the relative falls of harm of the primary levers, `correlation` that of two levers'
    latent answers to one prompt, `seed_spread` the standard deviation of the fall over training
    seeds, of which each prompt gets one in turn. Reader: sensitivity and specificity, and
    `lever_sensitivity` where the reader finds less on the levers' side.
    """

    base_rate: float = 0.35
    falls: tuple[float, ...] = (0.33, 0.33, 0.33, 0.0, 0.0)
    prompts: int = 250
    correlation: float = 0.5
    seeds: int = 3
    seed_spread: float = 0.08
    sensitivity: float = 0.85
    specificity: float = 0.92
    lever_sensitivity: float | None = None


def draw_labels(design: Design, rng: np.random.Generator, draws: int) -> tuple[Matrix, Matrix]:
    """Returns the labels of the base, [draws, prompts], and of the levers, [draws, levers, prompts]."""
    levers, n = len(design.falls), design.prompts
    shared = rng.standard_normal((draws, 1, n)) * np.sqrt(design.correlation)
    own = rng.standard_normal((draws, levers + 1, n)) * np.sqrt(1 - design.correlation)
    falls = np.zeros((draws, levers + 1, n))
    by_seed = np.asarray(design.falls)[None, :, None] + design.seed_spread * (
        rng.standard_normal((draws, levers, design.seeds)) * (np.asarray(design.falls) > 0)[:, None]
    )
    falls[:, 1:] = by_seed[:, :, np.arange(n) % design.seeds]
    rates = np.clip(design.base_rate * (1 - falls), 0.001, 0.999)
    harmful = shared + own < special.ndtri(rates)
    found = np.full((levers + 1, 1), design.sensitivity)
    if design.lever_sensitivity is not None:
        found[1:] = design.lever_sensitivity
    labels = rng.random(harmful.shape) < np.where(harmful, found, 1 - design.specificity)
    return labels[:, 0].astype(float), labels[:, 1:].astype(float)


def p_values(base: Matrix, levers: Matrix) -> Matrix:
    """Returns the one-sided p values of a fall, [draws, levers], as `paired_mean` has them."""
    differences = levers - base[:, None]
    n = differences.shape[-1]
    mean = differences.mean(-1)
    # The added pseudo-pair of `paired_mean`: no difference at all still has a width.
    squares = ((differences - mean[..., None]) ** 2).sum(-1) + 1.0
    return np.asarray(stats.t.cdf(mean / np.sqrt(squares / (n - 1) / n), n - 1))


def shown_by_holm(p: Matrix) -> NDArray[np.bool_]:
    """Returns which levers are shown by Holm's procedure, [draws, levers]."""
    order = np.argsort(p, axis=1)
    ordered = np.take_along_axis(p, order, 1)
    passed = ordered <= ERROR / (p.shape[1] - np.arange(p.shape[1]))
    passed = np.logical_and.accumulate(passed, axis=1)
    shown = np.zeros_like(passed)
    np.put_along_axis(shown, order, passed, 1)
    return shown


def power(design: Design, draws: int) -> tuple[float, float, float]:
    """Returns the power for one lever that works, for two or more, and the share of false claims."""
    rng = np.random.default_rng(21)
    shown = shown_by_holm(p_values(*draw_labels(design, rng, draws)))
    works = np.asarray(design.falls) > 0
    one = float(shown[:, works].mean()) if works.any() else 0.0
    two = float((shown[:, works].sum(1) >= 2).mean())
    false = float(shown[:, ~works].any(1).mean()) if (~works).any() else 0.0
    return one, two, false


def power_not_worse(
    rate: float, change: float, prompts: int, margin: float, draws: int, correlation: float = 0.6
) -> float:
    """Returns the power to show that answers to benign prompts fell by less than the margin."""
    rng = np.random.default_rng(22)
    shared = rng.standard_normal((draws, 1, prompts)) * np.sqrt(correlation)
    own = rng.standard_normal((draws, 2, prompts)) * np.sqrt(1 - correlation)
    limits = special.ndtri(np.array([rate, max(0.001, rate + change)]))[None, :, None]
    refused = (shared + own < limits).astype(float)
    difference = refused[:, 1] - refused[:, 0]
    squares = ((difference - difference.mean(1)[:, None]) ** 2).sum(1) + 1.0
    error = np.sqrt(squares / (prompts - 1) / prompts)
    upper = difference.mean(1) + stats.t.ppf(1 - ERROR, prompts - 1) * error
    return float((upper < margin).mean())


def print_rows(header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Prints a Markdown table."""
    names = list(header)
    for line in (names, ["---"] * len(names), *rows):
        print("| " + " | ".join(map(str, line)) + " |")
    print()


def main() -> None:
    """Prints the tables of the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    rows: list[list[object]] = []
    for rate in (0.2, 0.3, 0.4, 0.5):
        for fall in (0.25, 0.33, 0.5):
            design = Design(base_rate=rate, falls=(fall, fall, fall, 0.0, 0.0))
            one, two, false = power(design, draws)
            one_of_400 = power(replace(design, prompts=400), draws)[0]
            cells = [f"{100 * x:.0f}" for x in (one, two, false, one_of_400)]
            rows.append([f"{100 * rate:.0f}", f"{100 * fall:.0f}", *cells])
    names = ("base harmful %", "falls by %", "one lever", "two of three", "false claims")
    print_rows((*names, "one lever, 400 prompts"), rows)

    rows = []
    for sensitivity, specificity in ((1.0, 1.0), (0.85, 0.92), (0.75, 0.9), (0.65, 0.85)):
        design = Design(sensitivity=sensitivity, specificity=specificity)
        one, two, _ = power(design, draws)
        rows.append([sensitivity, specificity, f"{100 * one:.0f}", f"{100 * two:.0f}"])
    print_rows(("sensitivity", "specificity", "one lever", "two of three"), rows)

    rows = []
    for lower in (0.85, 0.8, 0.75, 0.65):
        design = Design(falls=(0.0,) * 5, lever_sensitivity=lower)
        false = power(design, draws)[2]
        rows.append([lower, f"{100 * false:.0f}"])
    print_rows(("sensitivity on the levers' side (0.85 on the base's)", "any false claim %"), rows)

    rows = []
    for rate, change in ((0.3, 0.0), (0.3, -0.05), (0.3, -0.1), (0.05, 0.0), (0.02, 0.0)):
        cells = [
            f"{100 * power_not_worse(rate, change, n, margin, draws):.0f}"
            for n, margin in ((150, 0.05), (850, 0.03))
        ]
        rows.append([f"{100 * rate:.0f}", f"{100 * change:+.0f}", *cells])
    print_rows(("refused %", "change, points", "150 at 5 points", "850 at 3 points"), rows)


if __name__ == "__main__":
    main()
