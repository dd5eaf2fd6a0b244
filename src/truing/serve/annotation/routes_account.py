"""Routes of a person's own pages: home, consent, settings, breaks, help."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post

from truing.annotation import dialogues, overview, people, queue, wellbeing
from truing.annotation.adjudication import list_disputes
from truing.annotation.erasure import delete_account as delete_account_rows
from truing.annotation.sign_in_limits import release_guess, reserve_guess
from truing.annotation.store import RequestRejected, Transaction
from truing.annotation.tables import Person
from truing.serve.annotation.session import AppRequest, open_session, require_session


@get("/")
async def home(request: AppRequest) -> Response[Any]:
    """Shows what a person can do, by their roles."""
    session = await open_session(request)
    if not session.signed_in:
        return session.redirect("/sign-in")
    user = session.user
    if not user.consented and user.reads_texts:
        return session.redirect("/consent")

    def load(tx: Transaction) -> dict[str, Any]:
        is_rater = "rater" in user.roles
        return {
            "dialogues": dialogues.list_dialogues(tx, user.id) if "redteamer" in user.roles else [],
            "available": queue.count_available(tx, user.id) if is_rater else 0,
            "rated": queue.count_ratings(tx, user.id) if is_rater else 0,
            "disputes": len(list_disputes(tx)) if "adjudicator" in user.roles else 0,
            "flags": overview.count_open_flags(tx) if "admin" in user.roles else 0,
        }

    return session.render("home.html", **await session.state.read(load))


@get("/consent")
async def consent_page(request: AppRequest) -> Response[Any]:
    """Shows the categories with a checkbox each."""
    session = await require_session(request)

    def load(tx: Transaction) -> tuple[set[str], bool]:
        person = tx.session.get_one(Person, session.user.id)
        return wellbeing.load_opt_outs(tx, person.id), person.unsorted

    opt_outs, unsorted = await session.state.read(load)
    return session.render(
        "consent.html",
        categories=session.state.study.categories().categories,
        opt_outs=opt_outs,
        unsorted=unsorted,
    )


@post("/consent")
async def save_consent(request: AppRequest) -> Response[Any]:
    """Stores what a person agrees to see; it applies from the next item on."""
    session = await require_session(request)
    form = await session.read_form()

    def save(tx: Transaction) -> None:
        wellbeing.record_consent(
            tx,
            tx.session.get_one(Person, session.user.id),
            form.values("category"),
            unsorted=bool(form.text("unsorted")),
            study=session.state.study,
        )

    await session.state.write(save)
    return session.redirect("/")


@get("/settings")
async def settings_page(request: AppRequest) -> Response[Any]:
    """Shows the settings: blur, demographics, pass phrase, deletion."""
    session = await require_session(request)
    answers = await session.state.read(lambda tx: wellbeing.load_demographics(tx, session.user.id))
    return session.render(
        "settings.html",
        questions=wellbeing.DEMOGRAPHIC_QUESTIONS,
        answers=answers,
        saved="saved" in request.query_params,
    )


@post("/settings")
async def save_settings(request: AppRequest) -> Response[Any]:
    """Stores blur and demographics."""
    session = await require_session(request)
    form = await session.read_form()

    def save(tx: Transaction) -> None:
        person = tx.session.get_one(Person, session.user.id)
        person.blur = bool(form.text("blur"))
        wellbeing.save_demographics(tx, person, form.with_prefix("fact-"))

    await session.state.write(save)
    return session.redirect("/settings?saved=1")


@post("/settings/phrase")
async def change_phrase(request: AppRequest) -> Response[Any]:
    """Changes the pass phrase; every other browser is signed out."""
    session = await require_session(request)
    form = await session.read_form()
    state, person_id, user_name = session.state, session.user.id, session.user.pseudonym
    # By person: whoever has somebody's cookie must not guess the phrase from many addresses.
    state.sign_in_throttle.check(person_id)
    stored = await state.read(lambda tx: tx.session.get_one(Person, person_id).phrase_hash)
    with state.trusted_hashing.place():
        guess = await state.write(lambda tx: reserve_guess(tx, user_name, "", person_id))
        if not await state.trusted_hashing.run(people.check_phrase, stored, form.text("old")):
            raise RequestRejected("invalid", "The current pass phrase is not right.")
        new_hash = await state.trusted_hashing.run(people.hash_phrase, form.text("new"))

    def change(tx: Transaction) -> people.NewLogin:
        release_guess(tx, guess)
        return people.change_phrase(tx, person_id, new_hash)

    return session.redirect("/settings?saved=1", login=await state.write(change))


@post("/settings/delete")
async def delete_account(request: AppRequest) -> Response[Any]:
    """Deletes the account; with `withdraw`, the person's ratings and dialogues too."""
    session = await require_session(request)
    form = await session.read_form()
    if form.text("sure") != session.user.pseudonym:
        raise RequestRejected("invalid", "Type your pseudonym to delete the account.")
    withdraw = bool(form.text("withdraw"))
    await session.state.write(
        lambda tx: delete_account_rows(tx, session.user.id, withdraw=withdraw)
    )
    await session.state.erase_traces()
    return session.redirect("/goodbye", sign_out=True, forget_browser=True)


@get("/goodbye")
async def goodbye(request: AppRequest) -> Response[Any]:
    """Shows the page after a deletion."""
    return (await open_session(request)).render("goodbye.html")


@post("/rest")
async def start_rest(request: AppRequest) -> Response[Any]:
    """Pauses: releases the person's leases."""
    session = await require_session(request)
    await session.read_form()
    await session.state.write(lambda tx: people.release_leases(tx, session.user.id))
    return session.redirect("/rest")


@get("/rest")
async def rest_page(request: AppRequest) -> Response[Any]:
    """Shows how long a break lasts and the help contacts."""
    return (await require_session(request)).render("rest.html")


@get("/help")
async def help_page(request: AppRequest) -> Response[Any]:
    """Shows the instructions, the keys and the help contacts."""
    return (await open_session(request)).render("help.html")


HANDLERS = (
    home,
    consent_page,
    save_consent,
    settings_page,
    save_settings,
    change_phrase,
    delete_account,
    goodbye,
    start_rest,
    rest_page,
    help_page,
)
