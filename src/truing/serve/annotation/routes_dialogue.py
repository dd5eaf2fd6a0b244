"""The chat: a message, a pair of answers that stream in, a pick, and at the end the closing form."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post
from litestar.response import Stream

from truing.annotation import dialogues
from truing.annotation.store import Refused, Tx
from truing.serve.annotation.session import Asked, Form, enter

_STREAM = {"cache-control": "no-store", "x-accel-buffering": "no"}


@post("/dialogues")
async def begin(request: Asked) -> Response[Any]:
    """Opens a dialogue."""
    visit = await enter(request, "redteamer")
    form, house = await visit.form(), visit.house
    names = tuple(house.models)
    made = await house.write(
        lambda tx: dialogues.begin(tx, visit.me.id, names, house.study, form.text("key"))
    )
    return visit.go(f"/dialogues/{made}")


@get("/dialogues/{dialogue:str}")
async def page(request: Asked, dialogue: str) -> Response[Any]:
    """A dialogue as its author sees it."""
    visit = await enter(request, "redteamer")
    seen = await visit.house.read(lambda tx: dialogues.view(tx, dialogue, visit.me.id))
    return visit.page("dialogue.html", dialogue=seen)


@post("/dialogues/{dialogue:str}/say")
async def say(request: Asked, dialogue: str) -> Response[Any]:
    """Adds a message; its page opens the stream of answers."""
    visit = await enter(request, "redteamer")
    form, house = await visit.form(), visit.house
    text, key = form.text("message"), form.text("key")
    await house.write(lambda tx: dialogues.say(tx, dialogue, visit.me.id, text, key, house.study))
    return visit.go(f"/dialogues/{dialogue}#now")


@get("/dialogues/{dialogue:str}/turns/{turn:str}/stream")
async def stream(request: Asked, dialogue: str, turn: str) -> Stream:
    """The pair of a turn as server-sent events; starts what is missing, joins what is under way."""
    visit = await enter(request, "redteamer")
    house = visit.house

    def work(tx: Tx) -> tuple[tuple[dialogues.Job, ...], dict[str, str]]:
        missing = dialogues.jobs(tx, dialogue, visit.me.id, turn, house.study)
        seen = dialogues.view(tx, dialogue, visit.me.id)
        shown = next(t for t in seen.turns if t.id == turn)
        return missing, {s.letter: s.text for s in shown.sides if s.ready}

    missing, known = await house.read(work)
    pair = house.live.start(turn, missing, known)
    return Stream(pair.watch(), media_type="text/event-stream", headers=_STREAM)


@post("/dialogues/{dialogue:str}/turns/{turn:str}/pick")
async def pick(request: Asked, dialogue: str, turn: str) -> Response[Any]:
    """Takes the pick of a turn."""
    visit = await enter(request, "redteamer")
    form, house = await visit.form(), visit.house
    side = form.text("pick")
    await house.write(
        lambda tx: dialogues.choose(tx, dialogue, visit.me.id, turn, side, house.study)
    )
    return visit.go(f"/dialogues/{dialogue}#now")


@get("/dialogues/{dialogue:str}/end")
async def end_page(request: Asked, dialogue: str) -> Response[Any]:
    """The closing form: every response once more, graded."""
    visit = await enter(request, "redteamer")
    seen = await visit.house.read(lambda tx: dialogues.view(tx, dialogue, visit.me.id))
    if seen.state == "open" and not any(t.picked for t in seen.turns):
        raise Refused("order", "Pick a response in at least one turn first, or leave the dialogue.")
    return visit.page(
        "end.html", dialogue=seen, categories=visit.house.study.categories().categories
    )


@post("/dialogues/{dialogue:str}/end")
async def end(request: Asked, dialogue: str) -> Response[Any]:
    """Takes the closing form and puts the dialogue into the review queue."""
    visit = await enter(request, "redteamer")
    form, house = await visit.form(), visit.house
    closing = _closing(form)
    await house.write(lambda tx: dialogues.finish(tx, dialogue, visit.me.id, closing, house.study))
    return visit.go(f"/dialogues/{dialogue}")


def _closing(form: Form) -> dialogues.Closing:
    rating = form.number("rating")
    if rating is None:
        raise Refused("invalid", "Say how far you came, from 0 to 4.")
    grades = {
        name: int(value)
        for name, value in form.starting("grade-").items()
        if value in ("1", "2", "3", "4", "5")
    }
    return dialogues.Closing(
        rating=rating,
        grades=grades,
        categories=tuple(dict.fromkeys(form.many("category"))),
        goal=form.text("goal"),
    )


@post("/dialogues/{dialogue:str}/leave")
async def leave(request: Asked, dialogue: str) -> Response[Any]:
    """Abandons a dialogue; it is neither reviewed nor exported."""
    visit = await enter(request, "redteamer")
    await visit.form()
    await visit.house.write(lambda tx: dialogues.leave(tx, dialogue, visit.me.id))
    return visit.go("/")


HANDLERS = (begin, page, say, stream, pick, end_page, end, leave)
