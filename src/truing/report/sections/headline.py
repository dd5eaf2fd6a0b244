"""The first section: what may be said, and what was measured on each data set, in large numbers."""

from __future__ import annotations

from collections.abc import Iterator

from truing.analysis.claim_analyses import CARD_MARGIN
from truing.analysis.comparison import Comparison
from truing.analysis.rates import AXIS_TITLES, SMALL_SAMPLE_SIZE, Rate
from truing.analysis.summary import RunSummary
from truing.report.blocks import Cell, Grid, Section, Table, Text, Tile, Tiles
from truing.report.formatting import axis_title, format_percent
from truing.report.report_data import ReportData, Variant

_SHOWN = (
    "attack_success",
    "harmful",
    "harmful_benign",
    "refuses_harmful",
    "answers_benign",
    "passes_checks",
    "degenerate",
)
_WORDS = {
    **AXIS_TITLES,
    "harmful": "harmful answers",
    "degenerate": "degenerate answers",
    "harmful_benign": "harmful answers to benign prompts",
}
_HARM = {"attack_success", "harmful", "harmful_benign"}
_LOW_IS_GOOD = {*_HARM, "degenerate"}
# From this share of answers to benign prompts that are called harmful, a warning doubts the judge.
# A convention of this report, from no paper: four times the points by which a judge's error rates
# are taken to differ between models anyway (`CARD_MARGIN`).
_DOUBT = 4 * CARD_MARGIN


def _tile(name: str, rate: Rate | None) -> Tile | None:
    if rate is None or rate.raw is None:
        return None
    if rate.selected_by_judge:
        detail = f"struck: {rate.struck or 'selected by this judge'}"
        return Tile(name, format_percent(rate.raw.estimate), detail, "struck")
    kind = "low" if rate.question in _LOW_IS_GOOD else "high"
    unscored = f" · {rate.unscored:,} unscored" if rate.unscored else ""
    # Judges of harm differ most, and variants may be judged by different ones.
    by_judge = f" · by {rate.judge}" if rate.question in _HARM else ""
    corrected = rate.corrected
    if corrected is not None:
        # Labels replace the judge's rate, which stays beside it.
        detail = (
            f"[{100 * corrected.lower:.1f}, {100 * corrected.upper:.1f}] · corrected by "
            f"{corrected.labels:,} labels ({rate.judge}: {format_percent(rate.raw.estimate)})"
        )
        return Tile(name, format_percent(corrected.estimate), detail + unscored, kind)
    counts = f"{rate.events:,} of {rate.scored:,}"
    if rate.scored < SMALL_SAMPLE_SIZE:
        return Tile(name, counts, "too few for a percentage" + unscored + by_judge, kind)
    detail = (
        f"[{100 * rate.raw.lower:.1f}, {100 * rate.raw.upper:.1f}] · {counts}{unscored}{by_judge}"
    )
    return Tile(name, format_percent(rate.raw.estimate), detail, kind)


def variant_tiles(variant: Variant, data: str) -> Tiles:
    """Returns the numbers of one variant on one data set."""
    summary = variant.summaries[data]
    has_attack_success = _find(summary, "attack_success") is not None
    tiles = [
        _tile(axis_title(summary, question, _WORDS[question]), _find(summary, question))
        for question in _SHOWN
        # Harm over all prompts says nothing more than harm on harmful ones.
        if not (has_attack_success and question == "harmful")
    ]
    parts = [variant.name, *([summary.model] if summary.model != variant.name else []), data]
    return Tiles(tuple(t for t in tiles if t is not None), " · ".join(p for p in parts if p))


def _find(summary: RunSummary, question: str) -> Rate | None:
    rate = summary.find(question)
    return rate if rate is not None and rate.n else None


def _summaries(report: ReportData) -> Iterator[tuple[Variant, str, RunSummary]]:
    for data in report.data:
        for variant in report.variants:
            if data in variant.summaries:
                yield variant, data, variant.summaries[data]


def claim_cell(comparison: Comparison) -> Cell:
    """Returns the word of a conclusion, such as "safer", with the reason on hover."""
    word = comparison.claim.word
    kind = {"safer": "good", "more harmful": "bad", "not safer": "bad"}.get(word, "quiet")
    reason = comparison.claims[0].reason if comparison.claims else ""
    return Cell(word, kind, reason)


def _claims_table(report: ReportData) -> Table | None:
    grid = Grid(["variant", "data", f"against {report.baseline}", "because", "would settle it"])
    for variant, by_data in report.comparisons.items():
        for data, comparison in by_data.items():
            if not comparison.claims:
                continue
            claim = comparison.claims[0]
            grid.add(
                variant,
                data,
                claim_cell(comparison),
                Cell(claim.short_reason or claim.reason, "sentence", claim.reason),
                claim.needs or "–",
            )
    return grid.table("What may be said") if grid.rows else None


def _warnings(report: ReportData) -> list[Text]:
    texts: list[Text] = []
    failed = sum(s.failed for _, _, s in _summaries(report))
    answers = sum(s.responses for _, _, s in _summaries(report))
    if failed:
        counts = f"{failed:,} of {answers:,} answers failed"
        texts.append(Text(f"{counts}; they count as unscored, never as safe.", "warning"))
    for variant, data, summary in _summaries(report):
        if not summary.complete:
            text = f"The run of {variant.name} on {data} is not complete: every figure may change."
            texts.append(Text(text, "warning"))
    if not any(_find(s, "harmful") for _, _, s in _summaries(report)):
        text = (
            "No judge of harm was asked: what does not refuse is shown as answered, never as "
            "harmful."
        )
        texts.append(Text(text, "note"))
    texts += _doubts(report)
    strikes: dict[str, list[str]] = {}
    for _, data, summary in _summaries(report):
        for relation in summary.lineage:
            # What chose or trained a variant is said where its figures are struck.
            if relation.consequence == "strike" and relation.kind.endswith("and prompts"):
                of_text = strikes.setdefault(relation.text, [])
                if data not in of_text:
                    of_text.append(data)
    for relation_text, sets in strikes.items():
        text = f"{relation_text} ({', '.join(sets)}): its figures there are struck."
        texts.append(Text(text, "warning"))
    return texts


def _doubts(report: ReportData) -> list[Text]:
    # The lower bound: a few answers that happen to be flagged raise no warning.
    doubtful = [
        variant.name if len(report.data) == 1 else f"{variant.name} on {data}"
        for variant, data, summary in _summaries(report)
        if (rate := _find(summary, "harmful_benign"))
        and rate.raw
        and rate.corrected is None
        and rate.raw.lower > _DOUBT
    ]
    if not doubtful:
        return []
    text = (
        f"The judge calls more than {_DOUBT:.0%} of the answers to benign prompts harmful "
        f"({', '.join(doubtful)}), a limit by convention: either they are, or the judge errs on "
        "these prompts. Its errors may differ by variant, so neither levels nor differences can be "
        "read off its verdicts; what is said of differences is net of what changed on benign "
        "prompts. Labels of a random sample (truing label) correct both."
    )
    return [Text(text, "warning")]


def build_section(report: ReportData) -> Section:
    """Returns what may be said, then a row of numbers for each variant on each data set, and what
    a reader must know before trusting them.
    """
    table = _claims_table(report)
    blocks: list[Text | Tiles | Table] = [table] if table is not None else []
    blocks += [variant_tiles(variant, data) for variant, data, _ in _summaries(report)]
    blocks += _warnings(report)
    lead = (
        "Each figure has a 95 % interval; all are of these prompts, this judge and this sampling."
    )
    return Section("headline", "At a glance", tuple(blocks), lead=lead)
