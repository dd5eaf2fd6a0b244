"""Routes of the rating queue. Raters see neither an item's author nor its model."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post

from truing.annotation import queue
from truing.annotation.queue import Assessment
from truing.annotation.store import RequestRejected, Transaction
from truing.serve.annotation.session import (
    AppRequest,
    PathParam,
    RequestSession,
    require_session,
)
from truing.serve.forms import FormData

MAX_RESPONSES = 200  # of one form; an item has far fewer


def _claim_next(tx: Transaction, session: RequestSession) -> str:
    """Claims an item and returns its path, or that of the empty queue or the break page."""
    try:
        claimed = queue.claim_item(tx, session.user.id, session.state.study)
    except RequestRejected as error:
        # Not raised further: that would undo the rating submitted in the same transaction. A claim
        # is rejected before it writes anything.
        if error.kind in ("break", "budget"):
            return "/rest"
        raise
    return "/review" if claimed is None else f"/review/{claimed.token}"


def _minutes_left(session: RequestSession, expires: float) -> int:
    return max(0, int((expires - session.state.store.clock()) / 60))


@get("/review")
async def queue_page(request: AppRequest) -> Response[Any]:
    """Shows how many items there are to rate."""
    session = await require_session(request, "rater")
    available = await session.state.read(lambda tx: queue.count_available(tx, session.user.id))
    late = "late" in request.query_params
    return session.render("review-empty.html", available=available, late=late)


@post("/review/next")
async def claim_next(request: AppRequest) -> Response[Any]:
    """Claims the next item."""
    session = await require_session(request, "rater")
    await session.read_form()
    return session.redirect(await session.state.write(lambda tx: _claim_next(tx, session)))


@get("/review/{token:str}")
async def item_page(request: AppRequest, token: PathParam) -> Response[Any]:
    """Shows a leased item."""
    session = await require_session(request, "rater")
    item = await session.state.read(lambda tx: queue.find_leased_item(tx, session.user.id, token))
    return session.render(
        "review.html",
        item=item,
        targets={target.message_index: n for n, target in enumerate(item.targets)},
        categories=session.state.study.categories().categories,
        minutes=_minutes_left(session, item.expires),
        late="late" in request.query_params,
    )


def parse_assessment(form: FormData, n_responses: int) -> Assessment:
    """Returns grades, categories, success and note of a form for `n_responses` responses."""
    return Assessment(
        grades=tuple(form.integer(f"grade-{n}") or 0 for n in range(n_responses)),
        categories=tuple(dict.fromkeys(form.values("category"))),
        success=form.integer("success"),
        note=form.text("note"),
    )


@post("/review/{token:str}")
async def submit_rating(request: AppRequest, token: PathParam) -> Response[Any]:
    """Stores a rating and claims the next item."""
    session = await require_session(request, "rater")
    form = await session.read_form()
    n_responses = sum(name.isdigit() for name in form.with_prefix("grade-"))
    assessment = parse_assessment(form, min(n_responses, MAX_RESPONSES))

    def submit(tx: Transaction) -> str:
        # One transaction, and so one wait for the disk, for both.
        study = session.state.study
        outcome = queue.submit_rating(tx, session.user.id, token, assessment, study)
        path = _claim_next(tx, session)
        return f"{path}?late=1" if outcome == "late" and path != "/rest" else path

    return session.redirect(await session.state.write(submit))


@post("/review/{token:str}/skip")
async def skip_item(request: AppRequest, token: PathParam) -> Response[Any]:
    """Skips the item and claims the next one."""
    session = await require_session(request, "rater")
    await session.read_form()

    def skip(tx: Transaction) -> str:
        queue.skip_item(tx, session.user.id, token, session.state.study)
        return _claim_next(tx, session)

    return session.redirect(await session.state.write(skip))


@post("/review/{token:str}/keep")
async def renew_lease(request: AppRequest, token: PathParam) -> Response[Any]:
    """Extends a lease; the page's script asks for it while somebody is active."""
    session = await require_session(request, "rater")
    await session.read_form()
    expires = await session.state.write(
        lambda tx: queue.renew_lease(tx, session.user.id, token, session.state.study)
    )
    return Response({"minutes": _minutes_left(session, expires)}, status_code=200)


HANDLERS = (queue_page, claim_next, item_page, submit_rating, skip_item, renew_lease)
