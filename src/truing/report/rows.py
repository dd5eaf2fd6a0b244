"""Which rows a report shows: flips first, then what could not be scored, harmful ones, and a seeded sample.

Texts are read only where they may be shown, and only those of the rows that are shown.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from truing.analysis.rates import outcome_codes, outcome_name
from truing.analysis.verdict_table import ABSENT, EXPECTS, read_verdict_table
from truing.report.report_data import RowView, Variant
from truing.runs.folder import Run

MAX_ROWS = 1500
SAMPLE_SIZE = 60
_CHARACTERS = 1200  # of each text in the report; the rest stands in the run folder

Key = tuple[str, int]


def read_outcomes(run: Run | str) -> dict[Key, str]:
    """(sample id, index) -> the one word for that answer."""
    columns = read_verdict_table(run, ids=True)
    ids = columns.ids or []
    out: dict[Key, str] = {}
    for index, layers in enumerate(outcome_codes(columns)):
        for at, (state, *verdicts) in enumerate(zip(*layers)):
            if state != ABSENT:
                out[(ids[at], index)] = outcome_name(state, *verdicts)
    return out


def _reasons(words: Mapping[str, Mapping[Key, str]], flips: set[Key]) -> dict[Key, str]:
    keys: dict[Key, None] = {k: None for of in words.values() for k in of}
    why: dict[Key, str] = {k: "flip" for k in keys if k in flips}
    for name in ("unscored", "harmful", "degenerate"):
        for key in keys:
            if key not in why and any(of.get(key) == name for of in words.values()):
                why[key] = name
    rest = [k for k in keys if k not in why]
    for key in random.Random(0).sample(rest, min(SAMPLE_SIZE, len(rest))):
        why[key] = "sample"
    return why


def _views(data: str, variants: Sequence[Variant], flips: set[Key]) -> Iterator[RowView]:
    words = {v.name: read_outcomes(v.runs[data]) for v in variants if data in v.runs}
    why = _reasons(words, flips)
    columns = read_verdict_table(next(v.runs[data] for v in variants if data in v.runs))
    order = {"flip": 0, "unscored": 1, "harmful": 2, "degenerate": 3, "sample": 4}
    for (sample_id, index), reason in sorted(why.items(), key=lambda kv: order[kv[1]]):
        at = columns.position_of(sample_id)
        if at is None:
            continue
        yield RowView(
            sample_id=sample_id,
            index=index,
            data=data,
            why=reason,
            categories=columns.categories(at),
            expect=EXPECTS[columns.expect_ids[at]],
            outcomes={
                n: of[(sample_id, index)] for n, of in words.items() if (sample_id, index) in of
            },
        )


def _with_text(
    row: RowView, prompts: Mapping[str, str], texts: Mapping[str, Mapping[Key, str]]
) -> RowView:
    key = (row.sample_id, row.index)
    said = {name: of[key] for name, of in texts.items() if key in of}
    return replace(row, prompt=prompts.get(row.sample_id, ""), texts=said)


def select_rows(
    variants: Sequence[Variant],
    comparisons: Mapping[str, Mapping[str, Any]],
    *,
    with_text: bool,
    most: int = MAX_ROWS,
) -> tuple[list[RowView], int]:
    """The rows to show (at most `most`) and the number of those left out."""
    rows: list[RowView] = []
    for data in dict.fromkeys(d for v in variants for d in v.runs):
        flips = {
            (f.sample_id, f.index)
            for by_data in comparisons.values()
            if data in by_data
            for f in by_data[data].flips
        }
        rows += _views(data, variants, flips)
    left = max(0, len(rows) - most)
    if left:
        order = {"flip": 0, "unscored": 1, "harmful": 2, "degenerate": 3, "sample": 4}
        rows = sorted(rows, key=lambda r: order[r.why])[:most]
    if not with_text:
        return rows, left
    out: list[RowView] = []
    for data in dict.fromkeys(r.data for r in rows):
        shown = [r for r in rows if r.data == data]
        keys = {(r.sample_id, r.index) for r in shown}
        names = {k[0] for k in keys}
        first = next(v for v in variants if data in v.runs)
        prompts = {
            s.id: s.prompt[:_CHARACTERS] for s in Run(first.runs[data]).samples() if s.id in names
        }
        texts = {
            v.name: {
                (r.sample_id, r.index): r.text[:_CHARACTERS]
                for r in Run(v.runs[data]).responses()
                if (r.sample_id, r.index) in keys
            }
            for v in variants
            if data in v.runs
        }
        out += [_with_text(r, prompts, texts) for r in shown]
    return out, left
