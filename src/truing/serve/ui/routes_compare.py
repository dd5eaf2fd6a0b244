"""Routes that compare two runs: what may be claimed, the differences, the rows that changed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from litestar import Response, get
from msgspec import Struct

from truing.analysis.comparison import Comparison
from truing.analysis.deltas import Delta
from truing.analysis.rates import AXIS_TITLES, PREDICTED_SUFFIX
from truing.report.blocks import Cell
from truing.report.formatting import category_label, format_percent
from truing.report.sections.changes import delta_cell
from truing.serve.ui.app_state import UiState
from truing.serve.ui.background import Fault, Pending
from truing.serve.ui.run_state import RunState
from truing.serve.ui.session import AppRequest, open_session, with_query

_MAX_CATEGORIES = 60


class DeltaRow(Struct, frozen=True):
    """One difference as a line of a table."""

    question: str
    category: str
    judge: str
    rates: str
    change: Cell
    to_no: int
    to_yes: int
    unscored: int


@get("/compare")
async def compare_page(request: AppRequest) -> Response[Any]:
    """Compares any two runs of the folder; without two, offers them."""
    session = open_session(request)
    values = request.query_params
    content = await session.state.run(
        _collect, session.state, values.get("a", "")[:20], values.get("b", "")[:20]
    )
    fault = content["fault"]
    return session.render("compare.html", status=422 if fault else 200, **content)


def _collect(state: UiState, a_id: str, b_id: str) -> dict[str, Any]:
    states = [run for run in state.list_states() if run.readable]
    content: dict[str, Any] = {
        "states": states,
        "a_id": a_id,
        "b_id": b_id,
        "comparison": None,
        "fault": "",
        "pending": False,
    }
    if not a_id or not b_id:
        return content
    if a_id == b_id:
        return content | {"fault": "Choose two different runs."}
    runs = [state.find_run(id_) for id_ in (a_id, b_id)]
    for run in runs:
        if not run.readable:
            return content | {"fault": f"{run.name}: {run.reason or run.status}"}
    comparison = state.comparisons.get(runs[0], runs[1])
    if isinstance(comparison, Pending):
        return content | {"pending": True}
    if isinstance(comparison, Fault):
        return content | {"fault": comparison.message}
    return content | _describe(comparison, runs[0], runs[1])


def _describe(comparison: Comparison, first: RunState, second: RunState) -> dict[str, Any]:
    judged_deltas = [d for d in comparison.deltas if not d.question.endswith(PREDICTED_SUFFIX)]
    changed = Counter(flip.question for flip in comparison.flips)
    return {
        "comparison": comparison,
        "a": first,
        "b": second,
        "overall": [
            _delta_row(d, comparison) for d in judged_deltas if d.category is None and d.judge
        ],
        "by_category": [
            _delta_row(d, comparison) for d in judged_deltas if d.category is not None and d.n_pairs
        ][:_MAX_CATEGORIES],
        "n_changed": changed["outcome"],
        "changed_path": with_query(f"/runs/{first.id}/rows", beside=[second.id], flips="1"),
    }


def _delta_row(delta: Delta, comparison: Comparison) -> DeltaRow:
    rates = "–"
    if delta.rate_a is not None and delta.rate_b is not None:
        rates = f"{format_percent(delta.rate_a)} → {format_percent(delta.rate_b)}"
    question = AXIS_TITLES.get(delta.question, delta.question)
    return DeltaRow(
        question + (f", {delta.group} prompts" if delta.group else ""),
        category_label(delta.category, comparison.taxonomy) if delta.category else "",
        delta.judge,
        rates,
        delta_cell(delta),
        delta.to_no,
        delta.to_yes,
        delta.unscored,
    )


HANDLERS = (compare_page,)
