"""Agreement, live, and adjudication: disagreements first, the dissent kept."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from litestar import Response, get, post
from sqlalchemy import select

from truing.annotation import agreement, queue
from truing.annotation.adjudication import adjudicate, disputes, grades_of
from truing.annotation.store import Refused, Tx
from truing.annotation.study import as_list
from truing.annotation.tables import Adjudication, Item, Rating
from truing.core.types import Conversation
from truing.serve.annotation.app_state import House
from truing.serve.annotation.routes_review import opinion
from truing.serve.annotation.session import Asked, enter


class Board:
    """The newest computed agreement, by the stamp of the ratings that it was computed from."""

    def __init__(self) -> None:
        self._stamp: tuple[int, float] | None = None
        self._shown: agreement.Agreement | None = None

    async def look(self, house: House) -> agreement.Agreement:
        """Computed anew where a rating has come or gone since."""
        now = await house.read(agreement.stamp)
        if self._shown is None or now != self._stamp:
            said = await house.read(agreement.opinions)
            self._shown = await house.slowly(agreement.measure, said, house.study.categories().ids)
            self._stamp = now
        return self._shown


@get("/agreement")
async def agreement_page(request: Asked) -> Response[Any]:
    """Alpha with its interval, by category and by rater, and the widest disagreements."""
    visit = await enter(request, "adjudicator", "admin")
    house = visit.house
    found = await request.app.state.board.look(house)
    wide = await house.read(lambda tx: disputes(tx))
    progress = await house.read(queue.progress)
    names = {c.id: c.name for c in house.study.categories().categories}
    return visit.page(
        "agreement.html",
        found=found,
        disputes=wide[:50],
        total=len(wide),
        progress=progress,
        names=names,
    )


@get("/disputes")
async def list_(request: Asked) -> Response[Any]:
    """Where raters differ, the widest first."""
    visit = await enter(request, "adjudicator")
    found = await visit.house.read(lambda tx: disputes(tx, settled=True))
    return visit.page("disputes.html", disputes=found[:200], open=sum(not d.settled for d in found))


@get("/disputes/{item_id:str}")
async def dispute(request: Asked, item_id: str) -> Response[Any]:
    """One item with everything that was said of it; raters by letters."""
    visit = await enter(request, "adjudicator")

    def work(tx: Tx) -> dict[str, Any]:
        found = tx.session.get(Item, item_id)
        if found is None or found.gold is not None:
            raise Refused("missing", "There is no such item.")
        ratings = tx.session.scalars(
            select(Rating).where(Rating.item_id == item_id, Rating.counted).order_by(Rating.id)
        )
        known = tx.session.get(Adjudication, item_id)
        said = [
            {"grades": grades_of(r), "categories": as_list(r.categories), "note": r.note}
            for r in ratings
        ]
        return {
            "item": item_id,
            "conversation": msgspec.json.decode(found.conversation, type=Conversation),
            "said": said,
            "targets": {t.at: n for n, t in enumerate(queue.targets_of(found))},
            "decided": None
            if known is None
            else {
                "grades": json.loads(known.grades),
                "categories": as_list(known.categories),
                "reason": known.reason,
                "mine": known.person_id == visit.me.id,
            },
        }

    values = await visit.house.read(work)
    return visit.page(
        "dispute.html", categories=visit.house.study.categories().categories, **values
    )


@post("/disputes/{item_id:str}")
async def decide(request: Asked, item_id: str) -> Response[Any]:
    """Takes a decision; the ratings stay as they are."""
    visit = await enter(request, "adjudicator")
    form, house = await visit.form(), visit.house
    said = opinion(form, min(len(form.starting("grade-")), 200))
    if not said.note.strip():
        raise Refused("invalid", "Say in a line why.")
    await house.write(lambda tx: adjudicate(tx, item_id, visit.me.id, said, house.study))
    return visit.go("/disputes")


HANDLERS = (agreement_page, list_, dispute, decide)
