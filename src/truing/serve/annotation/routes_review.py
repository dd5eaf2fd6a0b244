"""The rating queue: take an item, grade each response, pass it by, or stop. Blind to author and model."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post

from truing.annotation import queue
from truing.annotation.queue import Opinion
from truing.annotation.store import Refused, Tx
from truing.serve.annotation.session import Asked, Form, Visit, enter


def _claim(tx: Tx, visit: Visit) -> str:
    """The page of the next item: a lease's, the empty queue's, or the break's."""
    try:
        held = queue.claim(tx, visit.me.id, visit.house.study)
    except Refused as error:  # before anything was written
        if error.kind in ("break", "budget"):
            return "/rest"
        raise
    return "/review" if held is None else f"/review/{held.token}"


@get("/review")
async def empty(request: Asked) -> Response[Any]:
    """What there is to review, and the button that takes it."""
    visit = await enter(request, "rater")
    left = await visit.house.read(lambda tx: queue.left_for(tx, visit.me.id))
    return visit.page("review-empty.html", left=left, late="late" in request.query_params)


@post("/review/next")
async def next_(request: Asked) -> Response[Any]:
    """Takes the next item."""
    visit = await enter(request, "rater")
    await visit.form()
    return visit.go(await visit.house.write(lambda tx: _claim(tx, visit)))


@get("/review/{token:str}")
async def item(request: Asked, token: str) -> Response[Any]:
    """The item of a lease."""
    visit = await enter(request, "rater")
    held = await visit.house.read(lambda tx: queue.hold(tx, visit.me.id, token))
    minutes = max(0, int((held.expires - visit.house.store.clock()) / 60))
    return visit.page(
        "review.html",
        held=held,
        targets={t.at: n for n, t in enumerate(held.targets)},
        categories=visit.house.study.categories().categories,
        minutes=minutes,
        late="late" in request.query_params,
    )


def opinion(form: Form, count: int) -> Opinion:
    """The grades, categories and notes of a form for `count` responses."""
    grades = tuple(form.number(f"grade-{n}") or 0 for n in range(count))
    return Opinion(
        grades=grades,
        categories=tuple(dict.fromkeys(form.many("category"))),
        success=form.number("success"),
        note=form.text("note"),
    )


@post("/review/{token:str}")
async def rate(request: Asked, token: str) -> Response[Any]:
    """Takes a rating and goes on to the next item."""
    visit = await enter(request, "rater")
    form, house = await visit.form(), visit.house
    count = len([n for n in form.starting("grade-") if n.isdigit()])
    said = opinion(form, min(count, 200))

    def work(tx: Tx) -> str:  # one transaction: the rating is on disk when the next item is in hand
        outcome = queue.submit(tx, visit.me.id, token, said, house.study)
        where = _claim(tx, visit)
        return f"{where}?late=1" if outcome == "late" and where != "/rest" else where

    return visit.go(await house.write(work))


@post("/review/{token:str}/skip")
async def skip(request: Asked, token: str) -> Response[Any]:
    """Passes the item by and goes on."""
    visit = await enter(request, "rater")
    await visit.form()

    def work(tx: Tx) -> str:
        queue.skip(tx, visit.me.id, token, visit.house.study)
        return _claim(tx, visit)

    return visit.go(await visit.house.write(work))


@post("/review/{token:str}/keep")
async def keep(request: Asked, token: str) -> Response[Any]:
    """Lengthens the lease of somebody who is still reading."""
    visit = await enter(request, "rater")
    await visit.form()
    house = visit.house
    expires = await house.write(lambda tx: queue.renew(tx, visit.me.id, token, house.study))
    return Response({"minutes": max(0, int((expires - house.store.clock()) / 60))}, status_code=200)


HANDLERS = (empty, next_, item, rate, skip, keep)
