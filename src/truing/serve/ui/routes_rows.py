"""Routes of a run's rows: a filtered page of them, and one row with all its texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import numpy as np
from litestar import Response, get
from msgspec import Struct, structs

from truing.analysis.label_draws import LabelDraw, read_draws
from truing.analysis.outcomes import OUTCOME_NAMES
from truing.annotation.store import RequestRejected
from truing.core.errors import RunError
from truing.report.assembly import has_only_builtin_data
from truing.runs.folder import Run
from truing.serve.forms import parse_whole_number
from truing.serve.ui import people
from truing.serve.ui.app_state import UiState
from truing.serve.ui.background import Fault, Pending
from truing.serve.ui.row_reader import Mask, RowFilter, RunChanged
from truing.serve.ui.row_views import view_rows
from truing.serve.ui.run_state import RunState
from truing.serve.ui.session import (
    AppRequest,
    PathParam,
    RequestSession,
    open_session,
    with_query,
)
from truing.serve.ui.side_by_side import (
    MAX_VARIANTS,
    OpenRun,
    comparable_runs,
    select_rows,
)

_MAX_WORDS_CHARACTERS = 300
_FILTER_FLAGS = ("disagrees", "unscored", "flips")


class NotReady(Exception):
    """The index of a run is still being built (`share` of it is done), or cannot be built."""

    def __init__(self, run: RunState, share: float = 0.0, fault: str = "") -> None:
        super().__init__(run.name)
        self.run, self.share, self.fault = run, share, fault


class RowsQuery(Struct, frozen=True, kw_only=True):
    """The query of a page of rows: the filter, the ids of the runs beside the first, the page."""

    row_filter: RowFilter
    other_runs: tuple[str, ...]
    page: int

    def path(self, base: str, **changes: Any) -> str:
        """Returns a link with this query, changed in some parameters."""
        query = (
            structs.asdict(self.row_filter)
            | {"beside": self.other_runs, "page": self.page}
            | changes
        )
        query |= {name: "1" if query[name] else "" for name in _FILTER_FLAGS}
        if query["page"] == 1:
            query["page"] = None
        return with_query(base, **query)


def read_query(request: AppRequest) -> RowsQuery:
    """Returns the query of a request; what cannot be read is left out."""
    query = request.query_params

    def number(name: str) -> int | None:
        return parse_whole_number(query.get(name, ""), 8)

    outcome = query.get("outcome", "")
    return RowsQuery(
        row_filter=RowFilter(
            outcome=outcome if outcome in OUTCOME_NAMES else "",
            category=query.get("category", "")[:200],
            judge=number("judge"),
            verdict=query.get("verdict", "")[:10],
            disagrees=bool(query.get("disagrees")),
            unscored=bool(query.get("unscored")),
            flips=bool(query.get("flips")),
            words=query.get("words", "")[:_MAX_WORDS_CHARACTERS],
        ),
        other_runs=tuple(dict.fromkeys(query.getall("beside", [])))[: MAX_VARIANTS - 1],
        page=max(1, number("page") or 1),
    )


def open_runs(state: UiState, id_: str, other_runs: tuple[str, ...]) -> list[OpenRun]:
    """Returns the open indexes of a run and of others on the same data, by their ids.

    Raises NotReady, and RequestRejected if the first run is not there; another that has gone, or
    is on other data, is left out.
    """
    first = state.find_run(id_)
    index = _open_index(state, first)
    opened = [OpenRun(first, index, np.arange(index.size, dtype=np.int32))]
    for other_id in other_runs:
        try:
            other = state.find_run(other_id)
        except RequestRejected:
            continue
        if other.id == first.id or other.manifest.data_key != first.manifest.data_key:
            continue
        other_index = _open_index(state, other)
        rows = state.alignments.get(index, other_index)
        if isinstance(rows, Pending):
            raise NotReady(other)
        if isinstance(rows, Fault):
            raise NotReady(other, fault=rows.message)
        opened.append(OpenRun(other, other_index, rows))
    return opened


def _open_index(state: UiState, run: RunState) -> Any:
    if not run.readable:
        raise NotReady(run, fault=run.reason)
    index = state.indexes.get(run)
    if isinstance(index, Pending):
        raise NotReady(run, share=index.share)
    if isinstance(index, Fault):
        raise NotReady(run, fault=index.message)
    return index


async def render_rows(
    session: RequestSession, template: str, collect: Callable[[], dict[str, Any]], id_: str
) -> Response[Any]:
    """Returns a page of rows, or one that waits for the index, or says what is damaged."""

    def collect_or_reindex() -> dict[str, Any]:
        try:
            return collect()
        except RunChanged as error:
            run = session.state.find_run(id_)
            session.state.indexes.forget(run)
            raise NotReady(run) from error
        except RunError as error:
            raise NotReady(session.state.find_run(id_), fault=str(error)) from error

    try:
        page_values = await session.state.run(collect_or_reindex)
    except NotReady as wait:
        return session.render(
            "waiting.html",
            run=wait.run,
            share=wait.share,
            fault=wait.fault,
            status=200 if not wait.fault else 422,
        )
    return session.render(template, **page_values)


@get("/runs/{id_:str}/rows")
async def rows_page(request: AppRequest, id_: PathParam) -> Response[Any]:
    """Shows a page of the rows that a filter selects."""
    session = open_session(request)
    query = read_query(request)
    return await render_rows(
        session, "rows.html", lambda: _collect_rows(session.state, id_, query), id_
    )


def _collect_rows(state: UiState, id_: str, query: RowsQuery) -> dict[str, Any]:
    runs = open_runs(state, id_, query.other_runs)
    first = runs[0]
    mask = select_rows(runs, query.row_filter)
    selected = np.flatnonzero(mask)
    per_page = state.options.rows_per_page
    n_pages = max(1, -(-len(selected) // per_page))
    page = min(query.page, n_pages)
    row_base = query.path(f"/runs/{id_}/row", page=None)
    row_positions = selected[(page - 1) * per_page : page * per_page].tolist()
    base = f"/runs/{id_}/rows"
    return {
        **_shared_values(state, runs, query),
        "rows": view_rows(runs, row_positions, whole=False),
        "n_selected": len(selected),
        "outcome_counts": _count_without_outcome(runs, query.row_filter, mask),
        "page": page,
        "n_pages": n_pages,
        "previous": query.path(base, page=page - 1) if page > 1 else "",
        "next": query.path(base, page=page + 1) if page < n_pages else "",
        "other_run_choices": comparable_runs(first.state, state.list_states())[:50],
        "row_path": lambda row: _add_key(row_base, row.sample_id, row.index),
    }


def _add_key(path: str, sample_id: str, index: int) -> str:
    mark = "&" if "?" in path else "?"
    return f"{path}{mark}{urlencode({'sample': sample_id, 'index': index})}"


def _count_without_outcome(
    runs: list[OpenRun], row_filter: RowFilter, mask: Mask
) -> dict[str, int]:
    """Returns how many rows each outcome would select, the other filters being as they are."""
    if row_filter.outcome:
        mask = select_rows(runs, structs.replace(row_filter, outcome=""))
    return runs[0].index.count_outcomes(mask)


def _shared_values(state: UiState, runs: list[OpenRun], query: RowsQuery) -> dict[str, Any]:
    first = runs[0]
    meta = first.index.meta
    return {
        "run": first.state,
        "runs": runs,
        "query": query,
        "row_filter": query.row_filter,
        "meta": meta,
        "taxonomy": meta.taxonomy,
        "categories": tuple(dict.fromkeys((*meta.prompt_categories, *meta.judged_categories))),
        "texts_hidden": not shows_texts(runs),
    }


def shows_texts(runs: list[OpenRun]) -> bool:
    """Returns whether texts are shown without being asked for: built-in data are mild."""
    return all(has_only_builtin_data(Run(run.state.path)) for run in runs)


@get("/runs/{id_:str}/row")
async def row_page(request: AppRequest, id_: PathParam) -> Response[Any]:
    """Shows one row with its whole texts and all verdicts and reasons."""
    session = open_session(request)
    query = read_query(request)
    sample = request.query_params.get("sample", "")[:1000]
    number = parse_whole_number(request.query_params.get("index", ""), 5) or 0
    return await render_rows(
        session,
        "row.html",
        lambda: _collect_row(session.state, id_, query, (sample, number)),
        id_,
    )


def _collect_row(
    state: UiState, id_: str, query: RowsQuery, key: tuple[str, int]
) -> dict[str, Any]:
    runs = open_runs(state, id_, query.other_runs)
    index = runs[0].index
    row = index.find(*key)
    if row is None:
        raise RequestRejected("missing", "This run has no such row.")
    selected = np.flatnonzero(select_rows(runs, query.row_filter))
    place = int(np.searchsorted(selected, row))
    is_selected = place < len(selected) and selected[place] == row
    before = int(selected[place - 1]) if place > 0 else None
    behind = place + 1 if is_selected else place
    after = int(selected[behind]) if behind < len(selected) else None
    per_page = state.options.rows_per_page

    def link(number: int | None) -> str:
        if number is None:
            return ""
        return _add_key(query.path(f"/runs/{id_}/row", page=None), *index.key_of(number))

    run = Run(runs[0].state.path)
    return {
        **_shared_values(state, runs, query),
        "row": view_rows(runs, [row], whole=True)[0],
        "labels": _describe_labels(run, key),
        "notes": list(people.read_notes(run).get(key, {}).values()),
        "place": place + 1 if is_selected else 0,
        "n_selected": len(selected),
        "before": link(before),
        "after": link(after),
        "self_path": link(row),
        "list_path": query.path(f"/runs/{id_}/rows", page=1 + place // per_page),
    }


def _describe_labels(run: Run, key: people.RowKey) -> list[dict[str, Any]]:
    """Returns for each question for which the row was drawn what people say."""
    described = []
    for question in dict.fromkeys(d.question for d in read_draws(run) if _is_row(d, key)):
        labels = people.read_labels_of(run, question).get(key, {})
        described.append(
            {
                "question": question,
                "labels": people.describe_labels(labels),
                "vote": people.describe_vote(labels) if labels else "",
                "differ": people.differ(labels.values()),
            }
        )
    return described


def _is_row(draw: LabelDraw, key: people.RowKey) -> bool:
    return (draw.sample_id, draw.index) == key


HANDLERS = (rows_page, row_page)
