"""A person's own pages: home, consent, settings, rest, help."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post

from truing.annotation import dialogues, overview, people, queue, wellbeing
from truing.annotation.adjudication import disputes
from truing.annotation.store import Refused, Tx
from truing.annotation.tables import Person
from truing.serve.annotation.session import Asked, arrive, enter


@get("/")
async def home(request: Asked) -> Response[Any]:
    """What this person can do now."""
    visit = await arrive(request)
    if not visit.signed_in:
        return visit.go("/sign-in")
    me = visit.me
    if not me.consented and me.works:
        return visit.go("/consent")

    def work(tx: Tx) -> dict[str, Any]:
        return {
            "mine": dialogues.mine(tx, me.id) if "redteamer" in me.roles else [],
            "left": queue.left_for(tx, me.id) if "rater" in me.roles else 0,
            "rated": queue.rated_by(tx, me.id) if "rater" in me.roles else 0,
            "disputes": len(disputes(tx)) if "adjudicator" in me.roles else 0,
            "flags": overview.open_flags(tx) if "admin" in me.roles else 0,
        }

    return visit.page("home.html", **await visit.house.read(work))


@get("/consent")
async def consent_page(request: Asked) -> Response[Any]:
    """The categories, each to be agreed to or not."""
    visit = await enter(request)

    def work(tx: Tx) -> tuple[set[str], bool]:
        person = tx.session.get_one(Person, visit.me.id)
        return wellbeing.opted_out(tx, person.id), person.unsorted

    out, unsorted = await visit.house.read(work)
    return visit.page(
        "consent.html",
        categories=visit.house.study.categories().categories,
        out=out,
        unsorted=unsorted,
    )


@post("/consent")
async def consent(request: Asked) -> Response[Any]:
    """Records what the person agrees to see; holds from the next item on."""
    visit = await enter(request)
    form = await visit.form()

    def work(tx: Tx) -> None:
        person = tx.session.get_one(Person, visit.me.id)
        unsorted = bool(form.text("unsorted"))
        wellbeing.consent(
            tx, person, form.many("category"), unsorted=unsorted, study=visit.house.study
        )

    await visit.house.write(work)
    return visit.go("/")


@get("/settings")
async def settings_page(request: Asked) -> Response[Any]:
    """Blur, optional facts, deletion."""
    visit = await enter(request)
    facts = await visit.house.read(lambda tx: wellbeing.described(tx, visit.me.id))
    saved = "saved" in request.query_params
    return visit.page("settings.html", questions=wellbeing.QUESTIONS, facts=facts, saved=saved)


@post("/settings")
async def settings(request: Asked) -> Response[Any]:
    """Keeps blur and optional facts."""
    visit = await enter(request)
    form = await visit.form()

    def work(tx: Tx) -> None:
        person = tx.session.get_one(Person, visit.me.id)
        person.blur = bool(form.text("blur"))
        wellbeing.describe(tx, person, form.starting("fact-"))

    await visit.house.write(work)
    return visit.go("/settings?saved=1")


@post("/settings/phrase")
async def phrase(request: Asked) -> Response[Any]:
    """Changes the pass phrase; every other browser is signed out."""
    visit = await enter(request)
    form = await visit.form()
    visit.house.doors.check(visit.address)
    stored = await visit.house.read(lambda tx: tx.session.get_one(Person, visit.me.id).phrase_hash)
    if not await visit.house.slowly(people.check_phrase, stored, form.text("old")):
        raise Refused("invalid", "The present pass phrase is not right.")
    hashed = await visit.house.slowly(people.hash_phrase, form.text("new"))
    token = await visit.house.write(lambda tx: people.change_phrase(tx, visit.me.id, hashed))
    return visit.go("/settings?saved=1", session=token)


@post("/settings/delete")
async def delete(request: Asked) -> Response[Any]:
    """Deletes the account; its work stays without a name or goes too, as the person says."""
    visit = await enter(request)
    form = await visit.form()
    if form.text("sure") != visit.me.pseudonym:
        raise Refused("invalid", "Type your pseudonym to delete the account.")
    await visit.house.write(
        lambda tx: people.forget(tx, visit.me.id, withdraw=bool(form.text("withdraw")))
    )
    return visit.go("/goodbye", session="")


@get("/goodbye")
async def goodbye(request: Asked) -> Response[Any]:
    """After a deletion."""
    return (await arrive(request)).page("goodbye.html")


@post("/rest")
async def rest(request: Asked) -> Response[Any]:
    """A pause: what the person holds goes back, nothing else changes."""
    visit = await enter(request)
    await visit.form()
    await visit.house.write(lambda tx: people.release_all(tx, visit.me.id))
    return visit.go("/rest")


@get("/rest")
async def rest_page(request: Asked) -> Response[Any]:
    """A quiet page: how long a break lasts, whom to turn to."""
    return (await enter(request)).page("rest.html")


@get("/help")
async def help_page(request: Asked) -> Response[Any]:
    """What this is, the keys, help contacts."""
    return (await arrive(request)).page("help.html")


HANDLERS = (
    home,
    consent_page,
    consent,
    settings_page,
    settings,
    phrase,
    delete,
    goodbye,
    rest,
    rest_page,
    help_page,
)
