"""Routes of the list of runs, and of one run's figures."""

from __future__ import annotations

from typing import Any

from litestar import Response, get
from msgspec import Struct

from truing.analysis.summary import RunSummary
from truing.report.blocks import Cell
from truing.serve.forms import parse_whole_number
from truing.serve.ui.app_state import UiState
from truing.serve.ui.background import Fault, Pending
from truing.serve.ui.figures import LISTED_TITLES, listed_cells, rate_rows
from truing.serve.ui.judge_choices import SUGGESTED
from truing.serve.ui.run_state import RunState
from truing.serve.ui.session import AppRequest, PathParam, open_session, with_query
from truing.serve.ui.side_by_side import comparable_runs, is_sibling

RUNS_PER_PAGE = 50
_SLOW_REFRESH, _FAST_REFRESH = 15, 2
_MAX_SHOWN_SIBLINGS = 3


class ListedRun(Struct, frozen=True, kw_only=True):
    """A line of the list; `cells` are empty as long as the figures are being computed."""

    state: RunState
    cells: tuple[Cell, ...] = ()
    answers: int = 0
    fault: str = ""
    pending: bool = False


@get("/")
async def runs_page(request: AppRequest) -> Response[Any]:
    """Lists the runs of the folder with their figures."""
    session = open_session(request)
    if "token" in request.query_params:  # not into the history of the browser
        return session.redirect("/")
    words = request.query_params.get("q", "")[:200]
    page = max(1, parse_whole_number(request.query_params.get("page", ""), 6) or 1)
    values = await session.state.run(_list_runs, session.state, words, page)
    return session.render("runs.html", titles=LISTED_TITLES, words=words, **values)


def _list_runs(state: UiState, words: str, page: int) -> dict[str, Any]:
    scan = state.scan()
    names = [(id_, path) for id_, path in scan.runs.items() if _matches(path.as_posix(), words)]
    n_pages = max(1, -(-len(names) // RUNS_PER_PAGE))
    page = min(max(1, page), n_pages)
    start = (page - 1) * RUNS_PER_PAGE
    page_of_names = names[start : start + RUNS_PER_PAGE]
    runs = [list_run(state, state.read_state(id_, path)) for id_, path in page_of_names]
    runs = [run for run in runs if run.state.status != "gone"]
    is_moving = any(run.pending or run.state.status == "running" for run in runs)
    return {
        "runs": runs,
        "cut": scan.cut,
        "n_runs": len(scan.runs),
        "n_found": len(names),
        "page": page,
        "n_pages": n_pages,
        "refresh": _FAST_REFRESH if is_moving else _SLOW_REFRESH,
        "previous": with_query("/", q=words, page=page - 1) if page > 1 else "",
        "next": with_query("/", q=words, page=page + 1) if page < n_pages else "",
    }


def _matches(name: str, words: str) -> bool:
    return all(word in name.casefold() for word in words.casefold().split())


def list_run(state: UiState, run: RunState) -> ListedRun:
    """Returns a run with its figures, as far as they are known."""
    if not run.readable:
        return ListedRun(state=run)
    summary = state.figures.get(run)
    if isinstance(summary, Pending):
        return ListedRun(state=run, answers=run.answers, pending=True)
    if isinstance(summary, Fault):
        return ListedRun(state=run, answers=run.answers, fault=summary.message)
    answers = max(summary.responses, run.answers)
    return ListedRun(state=run, cells=listed_cells(summary), answers=answers)


@get("/runs/{id_:str}")
async def run_page(request: AppRequest, id_: PathParam) -> Response[Any]:
    """Shows the figures of one run, and what can be done with it."""
    session = open_session(request)
    values = await session.state.run(_describe_run, session.state, id_)
    return session.render("run.html", **values)


def _describe_run(state: UiState, id_: str) -> dict[str, Any]:
    run = state.find_run(id_)
    listed = list_run(state, run)
    summary = state.figures.get(run) if run.readable else None
    other_runs = comparable_runs(run, state.list_states())
    return {
        "run": run,
        "listed": listed,
        "summary": summary if isinstance(summary, RunSummary) else None,
        "rates": rate_rows(summary) if isinstance(summary, RunSummary) else [],
        "outcomes": _overall_outcomes(summary) if isinstance(summary, RunSummary) else [],
        "others": other_runs[:50],
        "rules": [p.as_posix() for p in state.scan().files if p.suffix == ".toml"][:200],
        "has_report": (run.path / "report.html").is_file(),
        "judges": (*SUGGESTED, *state.judges.named),
        "jobs": state.jobs.newest(run.id)[:5],
        "rows_path": rows_path(run, other_runs),
        "refresh": _FAST_REFRESH if listed.pending or run.status == "running" else 0,
    }


def rows_path(run: RunState, other_runs: list[RunState]) -> str:
    """Returns the link to the rows of a run, beside those of the other variants of its plan."""
    siblings = [other.id for other in other_runs if is_sibling(run, other)][:_MAX_SHOWN_SIBLINGS]
    return with_query(f"/runs/{run.id}/rows", beside=siblings)


def _overall_outcomes(summary: RunSummary) -> list[tuple[str, int]]:
    for counts in summary.outcomes:
        if counts.category is None and counts.expect is None:
            names = (
                "harmful",
                "degenerate",
                "unscored",
                "refused",
                "abstained",
                "blocked",
                "answered",
            )
            return [(name, getattr(counts, name)) for name in names if getattr(counts, name)]
    return []


HANDLERS = (runs_page, run_page)
