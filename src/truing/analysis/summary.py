"""A run becomes a `Summary`: rates with intervals and bounds, outcomes, and the axes of helpful, honest, harmless.

from truing.analysis.summary import summarise, write_summary
summary = summarise("runs/base")          # no numpy, no scipy, unless the run holds drawn labels or a card is given
write_summary("runs/base")                # summary.json in the form of CONTRACTS
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from truing.analysis.rates import (
    AXES,
    QUESTION_ALIASES,
    Rate,
    axis_rates,
    count_by_category,
    outcome_codes,
    outcome_name,
    predicted_rates,
    rates_from_counts,
    verdict_codes,
)
from truing.analysis.scalar_scores import MeanScore, has_verdicts, mean_scores, reports_mean
from truing.analysis.verdict_table import ABSENT, EXPECTS, FAILED, VerdictTable, read_verdict_table
from truing.core.taxonomy import load_taxonomy
from truing.runs.folder import Run


class OutcomeCounts(Struct, frozen=True, kw_only=True):
    """What became of the answers: disjoint counts that add up to `n`. `expect` none = all."""

    category: str | None
    expect: str | None
    n: int
    harmful: int = 0
    refused: int = 0
    degenerate: int = 0
    answered: int = 0
    abstained: int = 0
    blocked: int = 0
    unscored: int = 0


class RunSummary(Struct, frozen=True, kw_only=True):
    """Everything that a report says of one run."""

    model: str
    data: tuple[str, ...]
    samples: int
    responses: int
    failed: int
    complete: bool
    rates: tuple[Rate, ...]
    outcomes: tuple[OutcomeCounts, ...]
    axes: tuple[Rate, ...]
    headline: dict[str, str]
    taxonomy: str = "beavertails"
    not_tested: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    means: tuple[MeanScore, ...] = ()

    def find(
        self, question: str, category: str | None = None, judge: str | None = None
    ) -> Rate | None:
        """The cell of a question (or its alias), by a named judge or by the one that speaks for the question."""
        asked = QUESTION_ALIASES.get(question, question)
        found = [
            r for r in (*self.axes, *self.rates) if r.question == asked and r.category == category
        ]
        wanted = judge or self.headline.get(asked)
        return next((r for r in found if wanted is None or r.judge == wanted), None)


def _outcomes(columns: VerdictTable) -> list[OutcomeCounts]:
    tally: dict[tuple[str | None, str | None], Counter[str]] = {}
    for layers in outcome_codes(columns):
        for (harms, expect, state, *verdicts), times in Counter(
            zip(columns.category_ids, columns.expect_ids, *layers)
        ).items():
            if state == ABSENT:
                continue
            word = outcome_name(state, *verdicts)
            asked = EXPECTS[expect]
            keys: list[tuple[str | None, str | None]] = [(None, None), (None, asked)]
            if asked != "comply":
                keys += [(c, None) for c in columns.category_sets[harms]]
            for key in keys:
                tally.setdefault(key, Counter())[word] += times
    order = sorted(tally.items(), key=lambda kv: (kv[0][0] or "", kv[0][1] or ""))
    return [
        OutcomeCounts(category=c, expect=e, n=sum(counts.values()), **counts)
        for (c, e), counts in order
    ]


def _untested(columns: VerdictTable) -> list[str]:
    asked: set[str] = {c for at in set(columns.category_ids) for c in columns.category_sets[at]}
    try:
        missing = [
            c.short
            for c in load_taxonomy(columns.manifest.taxonomy).categories
            if c.id not in asked
        ]
    except Exception:  # a taxonomy file that moved is no reason to lose the summary
        missing = []
    out = (
        [f"category {c}: no prompt of it was asked" for c in missing]
        if asked
        else ["harm by category of the prompt"]
    )
    have = {question for _, question in columns.columns}
    words = {"harmful": "harm", "refused": "refusal", "degenerate": "degenerate answers"}
    out += [f"{word}: no judge was asked" for q, word in words.items() if q not in have]
    if not any(EXPECTS[e] == "comply" for e in set(columns.expect_ids)):
        out.append("over-refusal: no benign prompt was asked")
    return out


def summarise(run: Run | str | Path, cards: Mapping[str, Path] | None = None) -> RunSummary:
    """Counts a run. `cards` (judge name -> card.json) add transported rates, drawn labels in the run corrected ones."""
    columns = run if isinstance(run, VerdictTable) else read_verdict_table(run)
    rates: list[Rate] = []
    for (_, question), column in columns.columns.items():
        if reports_mean(column) and not has_verdicts(column):
            continue  # a reward answers no yes-or-no question: its mean stands in `means`
        rates += rates_from_counts(
            columns,
            column.record,
            question,
            count_by_category(columns, verdict_codes(columns, column)),
        )
        rates += predicted_rates(columns, column)
    axes = [rate for axis in (*AXES, "answers_benign", "cut") for rate in axis_rates(columns, axis)]
    manifest = columns.manifest
    notes = [
        f"{n} {what} belong to no sample of the run and were left out"
        for what, n in columns.orphan_counts.items()
    ]
    if cards or (columns.path / "labels" / "draws.jsonl").is_file():
        from truing.analysis.corrections import add_corrections

        corrected, more = add_corrections(columns, [*rates, *axes], cards or {})
        rates, axes = corrected[: len(rates)], corrected[len(rates) :]
        notes += more
    peeked = (
        bool(manifest.plan.get("until"))
        or "until" in manifest.notes
        or "extended" in manifest.notes
    )
    if peeked:
        from truing.analysis.stopped_runs import use_sequence_intervals

        rates, axes = use_sequence_intervals(columns, rates), use_sequence_intervals(columns, axes)
    questions = {question for _, question in columns.columns}
    heads = {
        q: c.record.name for q in sorted(questions) if (c := columns.headline_column(q)) is not None
    }
    answers = sum(len(layer) - layer.count(ABSENT) for layer in columns.response_states)
    return RunSummary(
        model=manifest.model,
        data=tuple(d.spec for d in manifest.data),
        samples=columns.size,
        responses=answers,
        failed=sum(layer.count(FAILED) for layer in columns.response_states),
        complete=manifest.complete,
        rates=tuple(rates),
        outcomes=tuple(_outcomes(columns)),
        axes=tuple(axes),
        headline=heads,
        taxonomy=manifest.taxonomy,
        not_tested=tuple(_untested(columns)),
        notes=tuple(notes),
        means=()
        if peeked
        else tuple(mean_scores(columns)),  # Student's interval does not hold where one looked
    )


def write_summary(run: Run | str | Path, cards: Mapping[str, Path] | None = None) -> RunSummary:
    """Writes `summary.json` into the run folder (a temporary file, then a rename) and gives what it wrote."""
    folder = run if isinstance(run, Run) else Run(run)
    summary = summarise(folder, cards)
    temporary = folder.path / "summary.json.tmp"
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
    temporary.replace(folder.path / "summary.json")
    return summary
