"""The way in: an invitation link makes one account; a pseudonym and a pass phrase open it."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post

from truing.annotation import people
from truing.annotation.store import Refused, Tx
from truing.annotation.study import as_list
from truing.annotation.tables import Person
from truing.serve.annotation.session import Asked, Form, Visit, arrive


@get("/sign-in")
async def sign_in_page(request: Asked) -> Response[Any]:
    """The sign-in page; whoever is signed in goes home."""
    visit = await arrive(request)
    return visit.go("/") if visit.signed_in else visit.page("sign-in.html", error="", name="")


@post("/sign-in")
async def sign_in(request: Asked) -> Response[Any]:
    """Checks a pass phrase; a wrong name and a wrong phrase look and take the same."""
    visit = await arrive(request)
    form = await visit.form()
    visit.house.doors.check(visit.address)
    name, house = form.text("pseudonym"), visit.house
    person_id, stored = await house.read(lambda tx: people.stored_phrase(tx, name))
    right = await house.slowly(people.check_phrase, stored, form.text("phrase"))
    if not right or person_id is None:
        await house.write(
            lambda tx: people.audit(tx, None, "sign-in-failed", name.strip().lower()[:64])
        )
        said = "That pseudonym and pass phrase do not belong together."
        if visit.by_script:
            raise Refused("invalid", said)
        return visit.page("sign-in.html", status=401, error=said, name=name[:64])
    token = await house.write(lambda tx: people.sign_in(tx, person_id))
    return visit.go("/", session=token)


@post("/sign-out")
async def sign_out(request: Asked) -> Response[Any]:
    """Ends this login; what the person held goes back to the queue."""
    visit = await arrive(request)
    await visit.form()

    def work(tx: Tx) -> None:
        people.release_all(tx, visit.me.id)
        people.sign_out(tx, visit.token)

    await visit.house.write(work)
    return visit.go("/sign-in", session="")


@get("/join/{token:str}")
async def join_page(request: Asked, token: str) -> Response[Any]:
    """What an invitation offers. Looking at it does not use it up, so that link previews do no harm."""
    visit = await arrive(request)
    visit.house.doors.check(visit.address)
    try:
        roles, known = await visit.house.read(lambda tx: _offer(tx, token))
    except Refused as error:
        if error.kind == "used":
            await visit.house.write(lambda tx: people.note_misuse(tx, token))
        raise
    return visit.page(
        "join.html", roles=roles, known=known, name=known or people.suggest_pseudonym(), error=""
    )


def _offer(tx: Tx, token: str) -> tuple[list[str], str]:
    """The roles of an invitation and, where it renews a pass phrase, the pseudonym."""
    found = people.invitation(tx, token)
    person = tx.session.get(Person, found.person_id) if found.person_id is not None else None
    return as_list(found.roles), "" if person is None else person.pseudonym


@post("/join/{token:str}")
async def join(request: Asked, token: str) -> Response[Any]:
    """Makes the account and signs it in."""
    visit = await arrive(request)
    form = await visit.form()
    visit.house.doors.check(visit.address)
    try:
        session, fresh = await _make(visit, token, form)
        return visit.go("/consent" if fresh else "/", session=session)
    except Refused as error:
        if error.kind == "used":
            await visit.house.write(lambda tx: people.note_misuse(tx, token))
        if error.kind != "invalid" or visit.by_script:
            raise
        roles, known = await visit.house.read(lambda tx: _offer(tx, token))
        name = known or form.text("pseudonym")[:64]
        return visit.page(
            "join.html", status=422, roles=roles, known=known, name=name, error=str(error)
        )


async def _make(visit: Visit, token: str, form: Form) -> tuple[str, bool]:
    house = visit.house
    if form.text("phrase") != form.text("again"):
        raise Refused("invalid", "The two pass phrases differ.")
    _, known = await house.read(lambda tx: _offer(tx, token))  # before the slow hash
    hashed = await house.slowly(people.hash_phrase, form.text("phrase"))

    def work(tx: Tx) -> str:
        return people.sign_in(tx, people.accept(tx, token, form.text("pseudonym"), hashed))

    return await house.write(work), not known


HANDLERS = (sign_in_page, sign_in, sign_out, join_page, join)
