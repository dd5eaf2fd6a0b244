"""Routes of sign-in and sign-out."""

from __future__ import annotations

from typing import Any

from litestar import MediaType, Response, get, post

from truing.annotation.people import check_phrase
from truing.annotation.store import RequestRejected
from truing.serve.forms import read_fields
from truing.serve.ui.app_state import UiState
from truing.serve.ui.session import AppRequest, open_session, session_cookie

_EVERYBODY = "everybody"


def render_sign_in(request: AppRequest, *, status: int, error: str = "") -> Response[str]:
    """Returns the page for who may not look: a form for the password, or what to do."""
    state: UiState = request.app.state.ui
    has_password = state.options.password_hash is not None
    html = state.render(
        "sign-in.html",
        csrf="",
        path="",
        person="",
        has_password=has_password,
        error=error,
        signed_out=True,
    )
    return Response(html, media_type=MediaType.HTML, status_code=status)


@get("/sign-in")
async def sign_in_page(request: AppRequest) -> Response[Any]:
    """Shows the form for the password."""
    try:
        return open_session(request).redirect("/")
    except RequestRejected:
        return render_sign_in(request, status=200)


@post("/sign-in", status_code=200)
async def sign_in(request: AppRequest) -> Response[Any]:
    """Checks the password. The form needs no token: whoever knows the password may sign in."""
    state: UiState = request.app.state.ui
    form = await read_fields(request, state.options.body_seconds)
    password_hash = state.options.password_hash
    if password_hash is None:
        raise RequestRejected("missing", "This app has no password; open the link it printed.")
    # By address, and over all addresses: a password is one for everybody.
    state.sign_in_throttle.check(request.client.host if request.client else "unknown")
    state.password_throttle.check(_EVERYBODY)
    with state.hashing.place():
        matches = await state.hashing.run(check_phrase, password_hash, form.text("password"))
    if not matches:
        return render_sign_in(request, status=401, error="That is not the password.")
    cookie = session_cookie(request, state.new_session())
    return Response(b"", status_code=303, headers={"location": "/"}, cookies=[cookie])


@post("/sign-out", status_code=200)
async def sign_out(request: AppRequest) -> Response[Any]:
    """Ends the session on the server, so that a copy of its cookie opens nothing either."""
    session = open_session(request)
    await session.read_form()
    session.state.end_session(session.token)
    cookie = session_cookie(request, "")
    return Response(b"", status_code=303, headers={"location": "/sign-in"}, cookies=[cookie])


HANDLERS = (sign_in_page, sign_in, sign_out)
