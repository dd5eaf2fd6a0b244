"""Selects the rows that a report shows: flips, unscored and harmful answers, and a seeded sample.

Texts are read only where they may be shown, and only those of the rows that are shown.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from truing.analysis.outcomes import outcome_codes, outcome_name
from truing.analysis.verdict_table import ABSENT, EXPECTS, read_verdict_table
from truing.report.report_data import RowView, Variant
from truing.runs.folder import Run

MAX_ROWS = 1500
SAMPLE_SIZE = 60
_MAX_TEXT_CHARACTERS = 1200  # of each text in the report; the rest is in the run folder

Key = tuple[str, int]


def read_outcomes(run: Run | str) -> dict[Key, str]:
    """Returns the outcome of each answer by (sample id, index)."""
    columns = read_verdict_table(run, ids=True)
    ids = columns.ids or []
    rows_with_text: dict[Key, str] = {}
    for index, layers in enumerate(outcome_codes(columns)):
        for position, (state, *verdicts) in enumerate(zip(*layers)):
            if state != ABSENT:
                rows_with_text[(ids[position], index)] = outcome_name(state, *verdicts)
    return rows_with_text


def _select_reasons(
    outcomes_by_variant: Mapping[str, Mapping[Key, str]], flips: set[Key]
) -> dict[Key, str]:
    keys: dict[Key, None] = {k: None for outcomes in outcomes_by_variant.values() for k in outcomes}
    reasons: dict[Key, str] = {k: "flip" for k in keys if k in flips}
    # A row is listed once, under the first reason that applies.
    for name in ("unscored", "harmful", "degenerate"):
        for key in keys:
            if key not in reasons and any(
                outcomes.get(key) == name for outcomes in outcomes_by_variant.values()
            ):
                reasons[key] = name
    without_reason = [k for k in keys if k not in reasons]
    # A fixed seed: the same runs give the same report.
    for key in random.Random(0).sample(without_reason, min(SAMPLE_SIZE, len(without_reason))):
        reasons[key] = "sample"
    return reasons


def _row_views(data: str, variants: Sequence[Variant], flips: set[Key]) -> Iterator[RowView]:
    outcomes_by_variant = {v.name: read_outcomes(v.runs[data]) for v in variants if data in v.runs}
    reasons = _select_reasons(outcomes_by_variant, flips)
    columns = read_verdict_table(next(v.runs[data] for v in variants if data in v.runs))
    order = {"flip": 0, "unscored": 1, "harmful": 2, "degenerate": 3, "sample": 4}
    for (sample_id, index), reason in sorted(reasons.items(), key=lambda kv: order[kv[1]]):
        position = columns.position_of(sample_id)
        if position is None:
            continue
        yield RowView(
            sample_id=sample_id,
            index=index,
            data=data,
            why=reason,
            categories=columns.categories(position),
            expect=EXPECTS[columns.expect_ids[position]],
            outcomes={
                n: outcomes[(sample_id, index)]
                for n, outcomes in outcomes_by_variant.items()
                if (sample_id, index) in outcomes
            },
        )


def _add_texts(
    row: RowView, prompts: Mapping[str, str], texts: Mapping[str, Mapping[Key, str]]
) -> RowView:
    key = (row.sample_id, row.index)
    shown_texts = {name: outcomes[key] for name, outcomes in texts.items() if key in outcomes}
    return replace(row, prompt=prompts.get(row.sample_id, ""), texts=shown_texts)


def select_rows(
    variants: Sequence[Variant],
    comparisons: Mapping[str, Mapping[str, Any]],
    *,
    with_text: bool,
    most: int = MAX_ROWS,
) -> tuple[list[RowView], int]:
    """Returns the rows to show, at most `most`, and the number of rows left out."""
    rows: list[RowView] = []
    for data in dict.fromkeys(d for v in variants for d in v.runs):
        flips = {
            (f.sample_id, f.index)
            for by_data in comparisons.values()
            if data in by_data
            for f in by_data[data].flips
        }
        rows += _row_views(data, variants, flips)
    left_out = max(0, len(rows) - most)
    if left_out:
        order = {"flip": 0, "unscored": 1, "harmful": 2, "degenerate": 3, "sample": 4}
        rows = sorted(rows, key=lambda r: order[r.why])[:most]
    if not with_text:
        return rows, left_out
    rows_with_text: list[RowView] = []
    for data in dict.fromkeys(r.data for r in rows):
        shown = [r for r in rows if r.data == data]
        keys = {(r.sample_id, r.index) for r in shown}
        names = {k[0] for k in keys}
        first = next(v for v in variants if data in v.runs)
        # A second pass over the files, so that texts of rows that are not shown are never kept.
        prompts = {
            s.id: s.prompt[:_MAX_TEXT_CHARACTERS]
            for s in Run(first.runs[data]).samples()
            if s.id in names
        }
        texts = {
            v.name: {
                (r.sample_id, r.index): r.text[:_MAX_TEXT_CHARACTERS]
                for r in Run(v.runs[data]).responses()
                if (r.sample_id, r.index) in keys
            }
            for v in variants
            if data in v.runs
        }
        rows_with_text += [_add_texts(r, prompts, texts) for r in shown]
    return rows_with_text, left_out
