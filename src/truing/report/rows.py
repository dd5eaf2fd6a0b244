"""Selects the rows that a report shows: flips, unscored and harmful answers, and a seeded sample.

Texts are read only where they may be shown, and only those of the rows that are shown.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from truing.analysis.outcomes import OUTCOME_NAMES, outcome_arrays
from truing.analysis.streamed_summary import is_streamed
from truing.analysis.verdict_table import EXPECTS, read_verdict_table
from truing.judges.transcript import text_or_transcript
from truing.report.report_data import RowView, Variant
from truing.runs.folder import Run

MAX_ROWS = 1500
SAMPLE_SIZE = 60
_MAX_TEXT_CHARACTERS = 1200  # of each text in the report; the rest is in the run folder

Key = tuple[str, int]


_ORDER = ("flip", "unscored", "harmful", "degenerate", "sample")


class _Outcomes:
    """The outcomes of one variant, `[answer index, sample]`; samples as in the first variant."""

    def __init__(self, run: Run | str, ids: Sequence[str]) -> None:
        table = read_verdict_table(run, ids=True)
        by_index = outcome_arrays(table)
        self.codes = np.zeros((len(by_index), len(ids)), np.uint8)
        if table.ids == list(ids):
            columns = np.arange(len(ids))
            rows = columns
        else:
            position_of = {id_: position for position, id_ in enumerate(table.ids or [])}
            matches = [(i, position_of[id_]) for i, id_ in enumerate(ids) if id_ in position_of]
            columns, rows = np.array(matches, np.int64).reshape(-1, 2).T
        for index, outcomes in enumerate(by_index):
            self.codes[index, columns] = outcomes[rows]

    def of(self, index: int, number: int) -> str:
        """Returns the outcome of an answer; "absent" if there is none."""
        code = self.codes[index, number] if index < len(self.codes) else 0
        return OUTCOME_NAMES[code]


def _find_reasons(
    variants: Sequence[_Outcomes], flips: set[Key], number_of: Mapping[str, int]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns for each answer, `[index, sample]`, 1 + the position in `_ORDER`; 0: not selected.

    Also the answers of the seeded sample, `[sample size, 2]`, in the order drawn.
    """
    shape = (max(len(v.codes) for v in variants), len(number_of))
    reasons, answered = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    for variant in variants:
        answered[: len(variant.codes)] |= variant.codes > 0
    # A row is listed once, under the first reason that applies.
    for name in ("unscored", "harmful", "degenerate"):
        for variant in variants:
            of_variant = reasons[: len(variant.codes)]
            is_so = (variant.codes == OUTCOME_NAMES.index(name)) & (of_variant == 0)
            of_variant[is_so] = 1 + _ORDER.index(name)
    for sample_id, index in flips:
        if sample_id in number_of and index < len(reasons):
            reasons[index, number_of[sample_id]] = 1
    reasons[~answered] = 0
    # A fixed seed: the same runs give the same report.
    without = np.flatnonzero(answered & (reasons == 0))
    drawn = random.Random(0).sample(range(len(without)), min(SAMPLE_SIZE, len(without)))
    indices, numbers = np.unravel_index(without[np.array(drawn, np.int64)], shape)
    reasons[indices, numbers] = 1 + _ORDER.index("sample")
    return reasons, np.stack([indices, numbers], axis=1)


def _row_views(
    data_name: str, variants: Sequence[Variant], flips: set[Key], most: int
) -> tuple[list[RowView], int]:
    """Returns at most `most` rows, the most important first, and the number of all rows."""
    measured = [variant for variant in variants if data_name in variant.runs]
    columns = read_verdict_table(measured[0].runs[data_name], ids=True)
    ids = columns.ids or []
    outcomes = {variant.name: _Outcomes(variant.runs[data_name], ids) for variant in measured}
    number_of = {sample_id: number for number, sample_id in enumerate(ids)}
    reasons, sample = _find_reasons(list(outcomes.values()), flips, number_of)
    views: list[RowView] = []
    for why, reason in enumerate(_ORDER, 1):
        selected = sample if reason == "sample" else np.argwhere(reasons == why)
        for index, number in selected[: most - len(views)].tolist():
            outcome_by_variant = {
                name: of_variant.of(index, number) for name, of_variant in outcomes.items()
            }
            views.append(
                RowView(
                    sample_id=ids[number],
                    index=index,
                    data=data_name,
                    why=reason,
                    categories=columns.categories(number),
                    expect=EXPECTS[columns.expect_ids[number]],
                    outcomes={
                        n: outcome
                        for n, outcome in outcome_by_variant.items()
                        if outcome != "absent"
                    },
                )
            )
    return views, int((reasons > 0).sum())


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
    """Returns the rows to show, at most `most`, and the number of rows left out.

    Those of a run that is summarised part by part are all left out: to select among them, all its
    ids would have to be in memory.
    """
    rows: list[RowView] = []
    n_rows = n_streamed = 0
    for data_name in dict.fromkeys(d for v in variants for d in v.runs):
        measured = [v for v in variants if data_name in v.runs]
        if any(is_streamed(Run(v.runs[data_name])) for v in measured):
            n_streamed += sum(v.summaries[data_name].responses for v in measured)
            continue
        flips = {
            (f.sample_id, f.index)
            for by_data in comparisons.values()
            if data_name in by_data
            for f in by_data[data_name].flips
        }
        views, n_of_data = _row_views(data_name, variants, flips, most)
        rows += views
        n_rows += n_of_data
    left_out = max(0, n_rows - most) + n_streamed
    if n_rows > most:
        rows = sorted(rows, key=lambda r: _ORDER.index(r.why))[:most]
    if not with_text:
        return rows, left_out
    rows_with_text: list[RowView] = []
    for data_name in dict.fromkeys(r.data for r in rows):
        rows_of_set = [r for r in rows if r.data == data_name]
        keys = {(r.sample_id, r.index) for r in rows_of_set}
        names = {k[0] for k in keys}
        first = next(v for v in variants if data_name in v.runs)
        # A second pass over the files, so that texts of rows that are not shown are never kept.
        prompts = {
            s.id: s.prompt[:_MAX_TEXT_CHARACTERS]
            for s in Run(first.runs[data_name]).samples()
            if s.id in names
        }
        texts = {
            v.name: {
                (r.sample_id, r.index): text_or_transcript(r)[:_MAX_TEXT_CHARACTERS]
                for r in Run(v.runs[data_name]).responses()
                if (r.sample_id, r.index) in keys
            }
            for v in variants
            if data_name in v.runs
        }
        rows_with_text += [_add_texts(r, prompts, texts) for r in rows_of_set]
    return rows_with_text, left_out
