"""Rates of a lever's runs over all seeds, as cells of a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from truing.core.types import Sample
from truing.runs.folder import Run
from truing.stats.intervals import clustered_wilson
from truing.stats.paired import paired_mean

SampleFilter = Callable[[Sample], bool]
VerdictsBySample = dict[str, list[float]]


def markdown_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Returns the lines of a Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def read_verdicts(run: Path, judge: str, keep: SampleFilter | None = None) -> VerdictsBySample:
    """Returns the verdicts of a judge by sample; unscored answers are left out."""
    samples = {sample.id: sample for sample in Run(run).samples()} if keep else {}
    verdicts: VerdictsBySample = defaultdict(list)
    for j in Run(run).judgements(judge):
        if j.verdict is not None and (keep is None or keep(samples[j.sample_id])):
            verdicts[j.sample_id].append(float(j.verdict))
    return verdicts


def runs_of_all_seeds(run: Path) -> list[Path]:
    """Returns the runs of the same lever on the same prompts, one per seed."""
    lever, part = run.parent, run.name
    further_seeds = sorted(lever.parent.glob(f"{lever.name}-[0-9]/{part}"))
    return [folder for folder in (run, *further_seeds) if (folder / "manifest.json").is_file()]


def pooled_verdicts(run: Path, judge: str, keep: SampleFilter | None = None) -> VerdictsBySample:
    """Returns the verdicts by sample over all seeds."""
    pooled: VerdictsBySample = defaultdict(list)
    for folder in runs_of_all_seeds(run):
        for sample_id, verdicts in read_verdicts(folder, judge, keep).items():
            pooled[sample_id] += verdicts
    return pooled


def rates_by_seed(run: Path, judge: str) -> str:
    """Returns " (30 · 32 · 31)", the rate of each seed in per cent; "" with a single seed."""
    folders = runs_of_all_seeds(run)
    if len(folders) < 2:
        return ""
    rates = []
    for folder in folders:
        verdicts = [v for group in read_verdicts(folder, judge).values() for v in group]
        if verdicts:
            rates.append(f"{100 * sum(verdicts) / len(verdicts):.0f}")
    return f" ({' · '.join(rates)})"


def difference_cell(lever: Path, base: Path, judge: str) -> str:
    """Returns the paired mean difference of the prompts' rates, in points, with its interval."""
    base_verdicts, lever_verdicts = pooled_verdicts(base, judge), pooled_verdicts(lever, judge)
    shared = [sample_id for sample_id in base_verdicts if sample_id in lever_verdicts]
    difference = paired_mean(
        *(
            [sum(verdicts[k]) / len(verdicts[k]) for k in shared]
            for verdicts in (base_verdicts, lever_verdicts)
        )
    )
    return percent_cell(difference.estimate, difference.lower, difference.upper, signed=True)


def percent_cell(estimate: float, lower: float, upper: float, *, signed: bool = False) -> str:
    """Returns "30 [25, 36]" for shares between 0 and 1."""
    sign = "+" if signed else ""
    return f"{100 * estimate:{sign}.0f} [{100 * lower:{sign}.0f}, {100 * upper:{sign}.0f}]"


def rate_cell(groups: Iterable[list[float]], *, complement: bool = False) -> str:
    """Returns a rate in per cent with its interval, clustered by prompt; "-" without answers."""
    scored = [group for group in groups if group]
    if not scored:
        return "-"
    events = [len(group) - sum(group) if complement else sum(group) for group in scored]
    rate = clustered_wilson(events, [len(group) for group in scored])
    return percent_cell(rate.estimate, max(0.0, rate.lower), min(1.0, rate.upper))
