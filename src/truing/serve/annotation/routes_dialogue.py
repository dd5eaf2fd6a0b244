"""Routes of the chat: a message, a pair of streamed answers, a pick, and the closing form."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post
from litestar.response import Stream

from truing.annotation import dialogues
from truing.annotation.store import RequestRejected, Transaction
from truing.serve.annotation.session import AppRequest, PathParam, require_session
from truing.serve.forms import FormData

# nginx buffers responses unless told not to, which would hold the events back.
_STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


@post("/dialogues")
async def start_dialogue(request: AppRequest) -> Response[Any]:
    """Starts a dialogue."""
    session = await require_session(request, "redteamer")
    form = await session.read_form()
    user_id, study, key = session.user.id, session.state.study, form.text("key")
    models = tuple(session.state.models)
    dialogue_id = await session.state.write(
        lambda tx: dialogues.start_dialogue(tx, user_id, models, study, key)
    )
    return session.redirect(f"/dialogues/{dialogue_id}")


@get("/dialogues/{dialogue:str}")
async def dialogue_page(request: AppRequest, dialogue: PathParam) -> Response[Any]:
    """Shows a dialogue to its author."""
    session = await require_session(request, "redteamer")
    dialogue_view = await session.state.read(
        lambda tx: dialogues.view_dialogue(tx, dialogue, session.user.id)
    )
    return session.render("dialogue.html", dialogue=dialogue_view)


@post("/dialogues/{dialogue:str}/say")
async def add_message(request: AppRequest, dialogue: PathParam) -> Response[Any]:
    """Adds a message; the page then opens the stream of answers."""
    session = await require_session(request, "redteamer")
    form = await session.read_form()
    user_id, study = session.user.id, session.state.study
    text, key = form.text("message"), form.text("key")
    await session.state.write(
        lambda tx: dialogues.add_turn(tx, dialogue, user_id, text, key, study)
    )
    return session.redirect(f"/dialogues/{dialogue}#now")


@get("/dialogues/{dialogue:str}/turns/{turn:str}/stream")
async def stream_answers(request: AppRequest, dialogue: PathParam, turn: PathParam) -> Stream:
    """Streams the pair of a turn as server-sent events; starts the answers that are missing."""
    session = await require_session(request, "redteamer")
    user_id, state = session.user.id, session.state

    def load(tx: Transaction) -> tuple[tuple[dialogues.GenerationJob, ...], dict[str, str]]:
        jobs = dialogues.list_pending_jobs(tx, dialogue, user_id, turn, state.study)
        view = dialogues.view_dialogue(tx, dialogue, user_id)
        responses = next(t.responses for t in view.turns if t.id == turn)
        return jobs, {r.letter: r.text for r in responses if r.ready}

    jobs, finished = await state.read(load)
    pair = state.live_pairs.start(turn, jobs, finished)
    return Stream(pair.stream_events(), media_type="text/event-stream", headers=_STREAM_HEADERS)


@post("/dialogues/{dialogue:str}/turns/{turn:str}/pick")
async def pick_response(request: AppRequest, dialogue: PathParam, turn: PathParam) -> Response[Any]:
    """Stores which response of a turn is the more harmful."""
    session = await require_session(request, "redteamer")
    form = await session.read_form()
    user_id, study, pick = session.user.id, session.state.study, form.text("pick")
    await session.state.write(
        lambda tx: dialogues.pick_response(tx, dialogue, user_id, turn, pick, study)
    )
    return session.redirect(f"/dialogues/{dialogue}#now")


@get("/dialogues/{dialogue:str}/end")
async def closing_page(request: AppRequest, dialogue: PathParam) -> Response[Any]:
    """Shows the closing form, in which every response gets a grade."""
    session = await require_session(request, "redteamer")
    dialogue_view = await session.state.read(
        lambda tx: dialogues.view_dialogue(tx, dialogue, session.user.id)
    )
    if dialogue_view.state == "open" and not any(turn.picked for turn in dialogue_view.turns):
        raise RequestRejected(
            "order", "Pick a response in at least one turn first, or leave the dialogue."
        )
    categories = session.state.study.categories().categories
    return session.render("end.html", dialogue=dialogue_view, categories=categories)


@post("/dialogues/{dialogue:str}/end")
async def finish_dialogue(request: AppRequest, dialogue: PathParam) -> Response[Any]:
    """Stores the closing form and adds the dialogue to the review queue."""
    session = await require_session(request, "redteamer")
    closing = _parse_closing_form(await session.read_form())
    user_id, study = session.user.id, session.state.study
    await session.state.write(
        lambda tx: dialogues.finish_dialogue(tx, dialogue, user_id, closing, study)
    )
    return session.redirect(f"/dialogues/{dialogue}")


def _parse_closing_form(form: FormData) -> dialogues.ClosingForm:
    rating = form.integer("rating")
    if rating is None:
        raise RequestRejected("invalid", "Rate your own success from 0 to 4.")
    grades = {
        name: int(value)
        for name, value in form.with_prefix("grade-").items()
        if value in ("1", "2", "3", "4", "5")
    }
    return dialogues.ClosingForm(
        rating=rating,
        grades=grades,
        categories=tuple(dict.fromkeys(form.values("category"))),
        goal=form.text("goal"),
    )


@post("/dialogues/{dialogue:str}/leave")
async def abandon_dialogue(request: AppRequest, dialogue: PathParam) -> Response[Any]:
    """Abandons a dialogue; it is neither reviewed nor exported."""
    session = await require_session(request, "redteamer")
    await session.read_form()
    await session.state.write(lambda tx: dialogues.abandon_dialogue(tx, dialogue, session.user.id))
    return session.redirect("/")


HANDLERS = (
    start_dialogue,
    dialogue_page,
    add_message,
    stream_answers,
    pick_response,
    closing_page,
    finish_dialogue,
    abandon_dialogue,
)
