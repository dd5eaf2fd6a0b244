"""Routes of the agreement page and of adjudication."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response, get, post
from sqlalchemy import select

from truing.annotation import agreement, queue
from truing.annotation.adjudication import decode_grades, list_disputes, save_adjudication
from truing.annotation.review_items import decode_targets
from truing.annotation.store import RequestRejected, Transaction
from truing.annotation.study import decode_list
from truing.annotation.tables import Adjudication, Rating, ReviewItem
from truing.core.types import Conversation
from truing.serve.annotation.app_state import AppState
from truing.serve.annotation.routes_review import MAX_RESPONSES, parse_assessment
from truing.serve.annotation.session import AppRequest, PathParam, require_session

_MAX_ON_AGREEMENT_PAGE, _MAX_LISTED = 50, 200


class AgreementCache:
    """The newest agreement summary; computed again when a rating was added or withdrawn."""

    def __init__(self) -> None:
        self._version: tuple[int, float, int] | None = None
        self._summary: agreement.AgreementSummary | None = None

    async def get(self, state: AppState) -> agreement.AgreementSummary:
        """Returns the summary of the current ratings."""
        version = await state.read(agreement.ratings_version)
        if self._summary is None or version != self._version:
            ratings = await state.read(agreement.load_ratings)
            self._summary = await state.run_in_slow_pool(
                agreement.measure_agreement, ratings, state.study.categories().ids
            )
            self._version = version
        return self._summary


@get("/agreement")
async def agreement_page(request: AppRequest) -> Response[Any]:
    """Shows alpha with intervals, by category and by rater, and the widest disputes."""
    session = await require_session(request, "adjudicator", "admin")
    state = session.state
    cache: AgreementCache = request.app.state.agreement
    disputes = await state.read(lambda tx: list_disputes(tx))
    return session.render(
        "agreement.html",
        summary=await cache.get(state),
        disputes=disputes[:_MAX_ON_AGREEMENT_PAGE],
        n_disputes=len(disputes),
        progress=await state.read(queue.count_progress),
        names={c.id: c.name for c in state.study.categories().categories},
    )


@get("/disputes")
async def disputes_page(request: AppRequest) -> Response[Any]:
    """Lists items whose raters differ, the widest first."""
    session = await require_session(request, "adjudicator")
    disputes = await session.state.read(lambda tx: list_disputes(tx, include_settled=True))
    n_open = sum(not d.settled for d in disputes)
    return session.render("disputes.html", disputes=disputes[:_MAX_LISTED], n_open=n_open)


@get("/disputes/{item_id:str}")
async def dispute_page(request: AppRequest, item_id: PathParam) -> Response[Any]:
    """Shows an item with its ratings; the raters stay anonymous."""
    session = await require_session(request, "adjudicator")
    values = await session.state.read(lambda tx: _load_dispute(tx, item_id, session.user.id))
    categories = session.state.study.categories().categories
    return session.render("dispute.html", categories=categories, **values)


def _load_dispute(tx: Transaction, item_id: str, person_id: str) -> dict[str, Any]:
    review_item = tx.session.get(ReviewItem, item_id)
    if review_item is None or review_item.gold is not None:
        raise RequestRejected("missing", "There is no such item.")
    # Ordered by random ids: the order must not tell who rated first.
    ratings = tx.session.scalars(
        select(Rating).where(Rating.item_id == item_id, Rating.counted).order_by(Rating.id)
    )
    decision = tx.session.get(Adjudication, item_id)
    decided = None
    if decision is not None:
        decided = {
            "grades": decode_grades(decision.grades),
            "categories": decode_list(decision.categories),
            "reason": decision.reason,
            "by_user": decision.person_id == person_id,
        }
    return {
        "item": item_id,
        "conversation": msgspec.json.decode(review_item.conversation, type=Conversation),
        "ratings": [
            {
                "grades": decode_grades(r.grades),
                "categories": decode_list(r.categories),
                "note": r.note,
            }
            for r in ratings
        ],
        "targets": {t.message_index: n for n, t in enumerate(decode_targets(review_item))},
        "decided": decided,
    }


@post("/disputes/{item_id:str}")
async def decide_dispute(request: AppRequest, item_id: PathParam) -> Response[Any]:
    """Stores a decision; the ratings stay as they are."""
    session = await require_session(request, "adjudicator")
    form = await session.read_form()
    n_responses = len(form.with_prefix("grade-"))
    assessment = parse_assessment(form, min(n_responses, MAX_RESPONSES))
    if not assessment.note.strip():
        raise RequestRejected("invalid", "Give a reason, in a line.")
    user_id, study = session.user.id, session.state.study
    await session.state.write(lambda tx: save_adjudication(tx, item_id, user_id, assessment, study))
    return session.redirect("/disputes")


HANDLERS = (agreement_page, disputes_page, dispute_page, decide_dispute)
