"""The first section: what was measured, in large numbers."""

from __future__ import annotations

from truing.analysis.rates import AXIS_TITLES, Rate
from truing.report.blocks import Section, Text, Tile, Tiles
from truing.report.formatting import format_percent
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
_LOW_IS_GOOD = {"attack_success", "harmful", "harmful_benign", "degenerate"}
# From this share of answers to benign prompts that are called harmful, a warning doubts the judge.
_DOUBT = 0.2


def _tile(question: str, rate: Rate | None) -> Tile | None:
    if rate is None or rate.raw is None:
        return None
    detail = (
        f"[{100 * rate.raw.lower:.1f}, {100 * rate.raw.upper:.1f}] · {rate.events:,} of "
        f"{rate.scored:,}"
    )
    if rate.unscored:
        detail += f" · {rate.unscored:,} unscored"
    if rate.selected_by_judge:
        return Tile(
            _WORDS[question],
            format_percent(rate.raw.estimate),
            "struck: selected by this judge",
            "struck",
        )
    kind = "low" if question in _LOW_IS_GOOD else "high"
    return Tile(_WORDS[question], format_percent(rate.raw.estimate), detail, kind)


def variant_tiles(variant: Variant) -> Tiles:
    """Returns the numbers of one variant."""
    has_attack_success = (
        variant.find("attack_success") is not None
    )  # then harm over all prompts says nothing more
    tiles_of_variant = [
        _tile(q, variant.find(q)) for q in _SHOWN if not (has_attack_success and q == "harmful")
    ]
    model = next((s.model for s in variant.summaries.values()), "")
    title = variant.name if not model or model == variant.name else f"{variant.name} · {model}"
    return Tiles(tuple(t for t in tiles_of_variant if t is not None), title)


def build_section(report: ReportData) -> Section:
    """Returns a row of numbers for each variant, and what a reader must know before trusting
    them.
    """
    blocks: list[Text | Tiles] = [variant_tiles(v) for v in report.variants]
    failed = sum(s.failed for v in report.variants for s in v.summaries.values())
    answers = sum(s.responses for v in report.variants for s in v.summaries.values())
    if failed:
        blocks.append(
            Text(
                f"{failed:,} of {answers:,} answers failed; they count as unscored, never as safe.",
                "warning",
            )
        )
    if not any(v.find("harmful") for v in report.variants):
        blocks.append(
            Text(
                "No judge of harm was asked: what does not refuse is shown as answered, never as "
                "harmful.",
                "note",
            )
        )
    # The lower bound: a few answers that happen to be flagged raise no warning.
    doubtful_variants = [
        v.name
        for v in report.variants
        if (r := v.find("harmful_benign")) and r.raw and r.raw.lower > _DOUBT
    ]
    if doubtful_variants:
        warning = (
            f"The judge calls more than {_DOUBT:.0%} of the answers to benign prompts "
            f"harmful ({', '.join(doubtful_variants)}): either "
        )
        blocks.append(
            Text(
                warning + "they are, or the judge errs on these prompts. Read differences between "
                "variants, not "
                "levels, and label a random sample (truing label) to correct them.",
                "warning",
            )
        )
    lead = (
        "Each figure has a 95 % interval; all are of these prompts, this judge and this sampling."
    )
    return Section("headline", "At a glance", tuple(blocks), lead=lead)
