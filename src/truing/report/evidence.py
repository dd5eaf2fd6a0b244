"""Evidence: what runs say about each item of a framework, and what they do not.

Every figure names its run, its judge and how many answers it rests on. An item without figures is
*not tested*, in so many words: a framework's page must not look complete because it is long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct

from truing.analysis.attack_success import attack_results
from truing.analysis.claims import Claim
from truing.analysis.rates import AXIS_TITLES, CorrectedRate, Rate
from truing.core.taxonomy import load_taxonomy
from truing.report.frameworks import Framework, FrameworkItem
from truing.report.report_data import ReportData, Variant
from truing.runs.folder import Run
from truing.stats.intervals import Interval

Status = Literal["measured", "not trusted", "documented", "not tested", "for the provider to state"]
"""`not trusted`: all figures are struck, or of runs that are not complete. `documented`: there are
statements and no figures."""


class EvidenceFigure(Struct, frozen=True, kw_only=True):
    """A rate as evidence.

    Attributes:
        figure: `corrected` by labels if the run has them, else `raw`.
        estimate, lower, upper: the rate and its 95 % interval, as shares.
        n: number of answers that it is about, `unscored` of them without a verdict.
        run: path of the run folder.
        struck: why the judge may not measure this model; empty if it may.
        complete: whether the run is complete.
    """

    variant: str
    data: str
    question: str
    category: str | None
    judge: str
    figure: str
    estimate: float
    lower: float
    upper: float
    n: int
    unscored: int
    run: str
    struck: str = ""
    complete: bool = True


class ItemEvidence(Struct, frozen=True, kw_only=True):
    """What the runs say about one item. `gaps` are parts of it that no run asked about."""

    id: str
    name: str
    status: Status
    figures: tuple[EvidenceFigure, ...] = ()
    statements: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()
    rails: tuple[str, ...] = ()
    outside: str = ""


class Evidence(Struct, frozen=True, kw_only=True):
    """The evidence of some runs for a framework."""

    framework: str
    title: str
    source: str
    note: str
    created: str
    version: str
    items: tuple[ItemEvidence, ...]
    claims: tuple[Claim, ...] = ()


def collect_evidence_for(framework: Framework, report: ReportData) -> Evidence:
    """Returns the evidence of a report's runs for a framework."""
    attacks = list(_attack_figures(report.variants)) if _asks_for_attacks(framework) else []
    return Evidence(
        framework=framework.name,
        title=framework.title,
        source=framework.source,
        note=framework.note,
        created=report.created,
        version=report.version,
        items=tuple(_collect_item(item, report, attacks) for item in framework.item),
        claims=report.claims,
    )


def _asks_for_attacks(framework: Framework) -> bool:
    return any(item.attacks for item in framework.item)


def _collect_item(
    framework_item: FrameworkItem, report: ReportData, attacks: Sequence[EvidenceFigure]
) -> ItemEvidence:
    figures: list[EvidenceFigure] = []
    gaps: list[str] = []
    for question in framework_item.questions:
        new_figures = list(
            _rate_figures(report.variants, question, None, framework_item.judge or None)
        )
        figures += new_figures
        gaps += [] if new_figures else [AXIS_TITLES.get(question, question.replace("_", " "))]
    for category in framework_item.categories:
        # Harm in answers to prompts of the category; where no behaviour is expected, in all.
        new_figures = list(_rate_figures(report.variants, "attack_success", category))
        new_figures = new_figures or list(_rate_figures(report.variants, "harmful", category))
        figures += new_figures
        gaps += [] if new_figures else [f"harm by prompts of {category}"]
    if framework_item.attacks:
        figures += attacks
        gaps += [] if attacks else ["attacks"]
    statements = [line for fact in framework_item.facts for line in describe_fact(fact, report)]
    return ItemEvidence(
        id=framework_item.id,
        name=framework_item.name,
        status=_item_status(framework_item, figures, statements),
        figures=tuple(figures),
        statements=tuple(statements),
        gaps=tuple(gaps),
        rails=framework_item.rails,
        outside=framework_item.outside,
    )


def _item_status(
    framework_item: FrameworkItem, figures: Sequence[EvidenceFigure], statements: Sequence[str]
) -> Status:
    if any(figure.complete and not figure.struck for figure in figures):
        return "measured"
    if figures:
        return "not trusted"
    if statements:
        return "documented"
    return "for the provider to state" if framework_item.provider else "not tested"


def _rate_figures(
    variants: Sequence[Variant], question: str, category: str | None, judge: str | None = None
) -> Iterator[EvidenceFigure]:
    """Yields the rate of each variant on each data set, by `judge` or the one that is quoted."""
    for variant in variants:
        for data_name, summary in variant.summaries.items():
            full_id = category
            if category is not None:
                full_id = load_taxonomy(summary.taxonomy).find(category).id
            rate = summary.find(question, full_id, judge)
            figure = None if rate is None or not rate.n else _figure_of(rate)
            if rate is not None and figure is not None:
                name, interval = figure
                yield EvidenceFigure(
                    variant=variant.name,
                    data=data_name,
                    question=question,
                    category=category,
                    judge=rate.judge,
                    figure=name,
                    estimate=interval.estimate,
                    lower=interval.lower,
                    upper=interval.upper,
                    n=rate.n,
                    unscored=rate.unscored,
                    run=variant.runs[data_name],
                    struck=rate.struck or "",
                    complete=summary.complete,
                )


def _figure_of(rate: Rate) -> tuple[str, Interval | CorrectedRate] | None:
    """Returns the figure that is quoted: the corrected one, if the run has labels, else the raw."""
    if rate.corrected is not None:
        return "corrected", rate.corrected
    return None if rate.raw is None else ("raw", rate.raw)


def _attack_figures(variants: Sequence[Variant]) -> Iterator[EvidenceFigure]:
    """Yields the success of each attack on each variant, over all categories."""
    for variant in variants:
        for data_name, path in variant.runs.items():
            for attack_result in attack_results(Run(path)):
                if attack_result.category is not None or attack_result.success is None:
                    continue
                yield EvidenceFigure(
                    variant=variant.name,
                    data=data_name,
                    question=f"success of {attack_result.attack} ({attack_result.question})",
                    category=None,
                    judge=attack_result.judge,
                    figure="raw",
                    estimate=attack_result.success.estimate,
                    lower=attack_result.success.lower,
                    upper=attack_result.success.upper,
                    n=attack_result.tries,
                    unscored=attack_result.tries - attack_result.scored,
                    run=path,
                    struck=attack_result.struck or "",
                    complete=variant.summaries[data_name].complete,
                )


def describe_fact(fact: str, report: ReportData) -> list[str]:
    """Returns the statements of `frameworks.FACTS` about the runs of a report."""
    manifests = [
        (variant.name, data, manifest)
        for variant in report.variants
        for data, manifest in variant.manifests.items()
    ]
    if fact == "lineage":
        lines = [
            f"{name}: {manifest.model}, hash {manifest.lineage.hash or 'unknown'}"
            for name, _, manifest in manifests
        ]
    elif fact == "data":
        lines = [
            f"{record.spec}: {record.n} prompts, licence {record.licence or 'unknown'}, "
            f"sha256 {record.sha256 or 'unknown'}"
            for _, _, manifest in manifests
            for record in manifest.data
        ]
    elif fact == "evaluation":
        lines = [
            f"{name} on {data}: judged by {', '.join(judge.name for judge in manifest.judges)}"
            + ("" if manifest.complete else "; the run is not complete")
            for name, data, manifest in manifests
        ]
    elif fact == "claims":
        lines = [
            f"{claim.variant} {claim.claim} {claim.baseline or ''}: "
            f"{claim.decision.replace('_', ' ')} ({claim.reason})"
            for claim in report.claims
        ]
    else:
        lines = [
            f"{variant.name} on {data}: not tested: {'; '.join(summary.not_tested)}"
            for variant in report.variants
            for data, summary in variant.summaries.items()
            if summary.not_tested
        ]
    return list(dict.fromkeys(lines))
