"""Routes by which people label drawn rows, and leave thumbs and notes."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post

from truing.annotation.store import RequestRejected
from truing.runs.folder import Run
from truing.serve.forms import FormData, parse_whole_number
from truing.serve.ui import people
from truing.serve.ui.app_state import UiState
from truing.serve.ui.routes_rows import NotReady, open_runs, render_rows, shows_texts
from truing.serve.ui.row_views import view_rows
from truing.serve.ui.session import AppRequest, PathParam, RequestSession, open_session, with_query

_VERDICTS = {"yes": True, "no": False, "unclear": None}


@get("/runs/{id_:str}/label")
async def label_page(request: AppRequest, id_: PathParam) -> Response[Any]:
    """Shows the next drawn row without a label, or one that is named, and how far the labels are.

    The verdicts of judges and of other people are not shown: they would bias the label.
    """
    session = open_session(request)
    values = request.query_params
    question = people.check_question(values.get("question", "") or "harmful")
    relabel = bool(values.get("again"))
    key = _read_key(values.get("sample", ""), values.get("index", "0"))
    return await render_rows(
        session,
        "label.html",
        lambda: _collect_label_page(session, id_, question, relabel=relabel, key=key),
        id_,
    )


def _read_key(sample: str, index: str) -> people.RowKey | None:
    return (sample[:1000], parse_whole_number(index, 5) or 0) if sample else None


def _collect_label_page(
    session: RequestSession,
    id_: str,
    question: str,
    *,
    relabel: bool,
    key: people.RowKey | None,
) -> dict[str, Any]:
    state = session.state
    runs = open_runs(state, id_, ())
    run = Run(runs[0].state.path)
    labels = people.read_label_state(run, question, session.person, relabel=relabel)
    if key is None and session.person and labels.waiting:
        key = (labels.waiting[0].sample_id, labels.waiting[0].index)
    row = None
    if key is not None and session.person:
        number = runs[0].index.find(*key)
        if number is None:
            raise RequestRejected("missing", "This run has no such row.")
        row = view_rows(runs, [number], whole=True)[0]
    judged = dict.fromkeys(j.question for j in runs[0].index.meta.judges)
    notice = request_notice(session.request)
    return {
        "run": runs[0].state,
        "labels": labels,
        "row": row,
        "question": question,
        "questions": tuple(dict.fromkeys((*people.QUESTIONS, *judged, question))),
        "relabel": relabel,
        "notice": notice,
        "conflicts": [(key, _describe(labels.labels[key])) for key in labels.conflicts[:50]],
        "texts_hidden": not shows_texts(runs),
    }


def request_notice(request: AppRequest) -> dict[str, str] | None:
    """Returns the row that was labelled last and differently by somebody else, if there is one."""
    values = request.query_params
    if not values.get("conflict"):
        return None
    return {"sample": values["conflict"][:1000], "index": values.get("conflict_index", "0")[:5]}


def _describe(labels: Any) -> str:
    labels_text = ", ".join(f"{name}: {word}" for name, word in people.describe_labels(labels))
    return f"{labels_text} ({people.describe_vote(labels)})"


@post("/name")
async def set_name(request: AppRequest) -> Response[Any]:
    """Keeps the name under which this browser labels."""
    session = open_session(request)
    form = await session.read_form()
    name = people.check_name(form.text("name"))
    return session.redirect(_local_path(form.text("back")), name=name)


def _local_path(path: str) -> str:
    """Returns a path of this app; anything else could lead to another site."""
    is_local = path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable()
    return path if is_local else "/"


def require_person(session: RequestSession) -> str:
    """Returns the name of the person; raises RequestRejected if the browser has none yet."""
    if not session.person:
        raise RequestRejected("invalid", "Give your name first.")
    return people.check_name(session.person)


def find_readable_run(state: UiState, id_: str) -> Run:
    """Returns a run that can be read; raises NotReady with the reason otherwise."""
    run_state = state.find_run(id_)
    if not run_state.readable:
        raise NotReady(run_state, fault=run_state.reason)
    return Run(run_state.path)


@post("/runs/{id_:str}/draw")
async def draw(request: AppRequest, id_: PathParam) -> Response[Any]:
    """Draws rows at random for people to label."""
    session = open_session(request)
    form = await session.read_form()
    question = people.check_question(form.text("question"))
    n, active, fixed = form.integer("n"), bool(form.text("active")), bool(form.text("fixed"))

    def draw_rows() -> None:
        run = find_readable_run(session.state, id_)
        people.draw_more(run, n, question, active=active, fixed=fixed)

    await session.state.run(draw_rows)
    return session.redirect(with_query(f"/runs/{id_}/label", question=question))


@post("/runs/{id_:str}/label")
async def store_label(request: AppRequest, id_: PathParam) -> Response[Any]:
    """Stores a label; a differing one of somebody else is shown on the next page."""
    session = open_session(request)
    form = await session.read_form()
    person = require_person(session)
    question = people.check_question(form.text("question"))
    key = _form_key(form)
    if form.text("verdict") not in _VERDICTS:
        raise RequestRejected("invalid", "Say yes, no, or that it cannot be told.")
    verdict = _VERDICTS[form.text("verdict")]

    def store() -> bool:
        run = find_readable_run(session.state, id_)
        other_verdicts = people.store_label(run, key, question, person, verdict)
        return people.differ([verdict, *other_verdicts.values()])

    differs = await session.state.run(store)
    conflict = {"conflict": key[0], "conflict_index": key[1]} if differs else {}
    relabel = bool(form.text("again"))
    path = with_query(f"/runs/{id_}/label", question=question, again=relabel and "1", **conflict)
    return session.redirect(path)


def _form_key(form: FormData) -> people.RowKey:
    index = form.integer("index")
    if not form.text("sample") or index is None:
        raise RequestRejected("invalid", "The form names no row.")
    return form.text("sample"), index


@post("/runs/{id_:str}/note")
async def store_note(request: AppRequest, id_: PathParam) -> Response[Any]:
    """Stores a thumb and a note on a row."""
    session = open_session(request)
    form = await session.read_form()
    person, key = require_person(session), _form_key(form)
    index = await session.state.run(lambda: open_runs(session.state, id_, ())[0].index)
    if index.find(*key) is None:
        raise RequestRejected("missing", "This run has no such row.")

    def store() -> None:
        run = find_readable_run(session.state, id_)
        people.store_note(run, key, person, form.text("thumb"), form.text("note"))

    await session.state.run(store)
    return session.redirect(_local_path(form.text("back")) + "#notes")


HANDLERS = (label_page, set_name, draw, store_label, store_note)
