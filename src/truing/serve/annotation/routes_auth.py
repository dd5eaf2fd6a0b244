"""Routes of sign-in, sign-out and invitations."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post

from truing.annotation import people
from truing.annotation.people import NewLogin
from truing.annotation.sign_in_limits import reserve_guess
from truing.annotation.store import RequestRejected, Transaction
from truing.annotation.study import decode_list
from truing.annotation.tables import Person
from truing.serve.annotation.session import (
    AppRequest,
    PathParam,
    RequestSession,
    open_session,
)
from truing.serve.forms import FormData


@get("/sign-in")
async def sign_in_page(request: AppRequest) -> Response[Any]:
    """Shows the sign-in form."""
    session = await open_session(request)
    if session.signed_in:
        return session.redirect("/")
    return session.render("sign-in.html", error="", name="")


@post("/sign-in")
async def sign_in(request: AppRequest) -> Response[Any]:
    """Signs in; an unknown name and a wrong phrase get the same answer in the same time."""
    session = await open_session(request)
    form = await session.read_form()
    name, phrase = form.text("pseudonym"), form.text("phrase")
    login = await _check_sign_in(session, name, phrase)
    if login is None:
        message = "That pseudonym and pass phrase do not belong together."
        if session.from_script:
            raise RequestRejected("invalid", message)
        return session.render("sign-in.html", status=401, error=message, name=name[:64])
    return session.redirect("/", login=login)


async def _check_sign_in(session: RequestSession, name: str, phrase: str) -> NewLogin | None:
    """Returns the login of a name and phrase, or none if they do not belong together."""
    state, browser_token = session.state, session.browser_token
    stored = await state.read(lambda tx: people.find_credentials(tx, name, browser_token))
    known = stored.known_browser is not None
    state.sign_in_throttle.check(stored.known_browser or session.address)
    hashing = state.trusted_hashing if known else state.guess_hashing
    with hashing.place():
        # Counted before it is checked: of many guesses at once, no more than allowed are checked.
        guess = await state.write(
            lambda tx: reserve_guess(tx, name, session.address, stored.known_browser)
        )
        matches = await hashing.run(people.check_phrase, stored.phrase_hash, phrase)
    return await state.write(
        lambda tx: people.complete_sign_in(tx, stored, matches, guess, session.login_token)
    )


@post("/sign-out")
async def sign_out(request: AppRequest) -> Response[Any]:
    """Ends this login and releases the person's leases."""
    session = await open_session(request)
    await session.read_form()

    def end_login(tx: Transaction) -> None:
        people.release_leases(tx, session.user.id)
        people.sign_out(tx, session.token)

    await session.state.write(end_login)
    return session.redirect("/sign-in", sign_out=True)


@get("/join/{token:str}")
async def join_page(request: AppRequest, token: PathParam) -> Response[Any]:
    """Shows an invitation. That does not use it up, since link previews open it too."""
    session = await open_session(request)
    session.state.sign_in_throttle.check(session.address)
    try:
        roles, pseudonym = await session.state.read(lambda tx: _describe_invitation(tx, token))
    except RequestRejected as error:
        if error.kind == "used":
            await session.state.write(lambda tx: people.record_link_reuse(tx, token))
        raise
    name = pseudonym or people.suggest_pseudonym()
    return session.render("join.html", roles=roles, known=pseudonym, name=name, error="")


def _describe_invitation(tx: Transaction, token: str) -> tuple[list[str], str]:
    """Returns the roles of an invitation and, if it resets a pass phrase, the pseudonym."""
    invitation = people.find_invitation(tx, token)
    roles = decode_list(invitation.roles)
    if invitation.person_id is None:
        return roles, ""
    person = tx.session.get(Person, invitation.person_id)
    return roles, "" if person is None else person.pseudonym


@post("/join/{token:str}")
async def join(request: AppRequest, token: PathParam) -> Response[Any]:
    """Creates the account of an invitation (or sets a new pass phrase) and signs in."""
    session = await open_session(request)
    form = await session.read_form()
    session.state.sign_in_throttle.check(session.address)
    try:
        login, is_new = await _accept_invitation(session, token, form)
        return session.redirect("/consent" if is_new else "/", login=login)
    except RequestRejected as error:
        if error.kind == "used":
            await session.state.write(lambda tx: people.record_link_reuse(tx, token))
        if error.kind != "invalid" or session.from_script:
            raise
        # A mistake in the form: show it again with what was entered.
        roles, pseudonym = await session.state.read(lambda tx: _describe_invitation(tx, token))
        name = pseudonym or form.text("pseudonym")[:64]
        return session.render(
            "join.html", status=422, roles=roles, known=pseudonym, name=name, error=str(error)
        )


async def _accept_invitation(
    session: RequestSession, token: str, form: FormData
) -> tuple[NewLogin, bool]:
    """Returns (the login, whether the account is new)."""
    state = session.state
    if form.text("phrase") != form.text("again"):
        raise RequestRejected("invalid", "The two pass phrases differ.")
    # Checks the link first: hashing is slow, and must not run for every guessed link.
    _, pseudonym = await state.read(lambda tx: _describe_invitation(tx, token))
    with state.trusted_hashing.place():
        phrase_hash = await state.trusted_hashing.run(people.hash_phrase, form.text("phrase"))

    def accept(tx: Transaction) -> NewLogin:
        person_id = people.accept_invitation(tx, token, form.text("pseudonym"), phrase_hash)
        people.sign_out(tx, session.login_token)  # of whoever used this browser before
        return people.sign_in(tx, person_id)

    return await state.write(accept), not pseudonym


HANDLERS = (sign_in_page, sign_in, sign_out, join_page, join)
