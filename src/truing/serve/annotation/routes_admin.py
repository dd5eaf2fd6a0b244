"""Administration: people, invitations, what waits for a look, progress, the audit log."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post

from truing.annotation import overview, people, queue, wellbeing
from truing.annotation.store import Refused, Tx
from truing.serve.annotation.session import Asked, Visit, enter

_AUDIT_PAGE = 100


@get("/admin")
async def admin_page(request: Asked) -> Response[Any]:
    """Flags first, then people, open invitations and progress."""
    visit = await enter(request, "admin")

    def work(tx: Tx) -> dict[str, Any]:
        return {
            "flags": overview.flags(tx),
            "people": overview.folk(tx),
            "invitations": overview.invitations(tx),
            "progress": queue.progress(tx),
            "slices": wellbeing.slices(tx),
        }

    return visit.page("admin.html", roles=people.ROLES, **await visit.house.read(work))


@post("/admin/invitations")
async def invite(request: Asked) -> Response[Any]:
    """Makes an invitation link, shown this once."""
    visit = await enter(request, "admin")
    form, house = await visit.form(), visit.house
    roles, note = form.many("role"), form.text("note")
    token = await house.write(lambda tx: people.invite(tx, roles, by=visit.me.id, note=note))
    return visit.page("invited.html", link=_link(visit, token), roles=roles, known="")


def _link(visit: Visit, token: str) -> str:
    scheme = "https" if visit.house.rules.https else visit.request.url.scheme
    return f"{scheme}://{visit.request.headers.get('host', '')}/join/{token}"


@post("/admin/people/{name:str}/phrase")
async def renew(request: Asked, name: str) -> Response[Any]:
    """Makes a link by which a person sets a new pass phrase, shown this once."""
    visit = await enter(request, "admin")
    await visit.form()
    token = await visit.house.write(lambda tx: people.renewal(tx, name, by=visit.me.id))
    return visit.page("invited.html", link=_link(visit, token), roles=(), known=name)


@post("/admin/invitations/{invitation:str}/revoke")
async def revoke(request: Asked, invitation: str) -> Response[Any]:
    """Takes an invitation back."""
    visit = await enter(request, "admin")
    await visit.form()
    await visit.house.write(lambda tx: overview.revoke(tx, invitation, by=visit.me.id))
    return visit.go("/admin#invitations")


@post("/admin/people/{person:str}/{change:str}")
async def change(request: Asked, person: str, change: str) -> Response[Any]:
    """Suspends or restores an account."""
    visit = await enter(request, "admin")
    await visit.form()
    if change not in ("suspend", "restore"):
        raise Refused("missing", "There is no such page.")
    await visit.house.write(
        lambda tx: people.set_active(tx, person, change == "restore", by=visit.me.id)
    )
    return visit.go("/admin#people")


@post("/admin/flags/{flag:str}")
async def resolve(request: Asked, flag: str) -> Response[Any]:
    """Closes a flag with a word on what was done."""
    visit = await enter(request, "admin")
    form = await visit.form()
    await visit.house.write(
        lambda tx: overview.resolve(tx, flag, form.text("resolution"), by=visit.me.id)
    )
    return visit.go("/admin#flags")


@get("/admin/audit")
async def log(request: Asked) -> Response[Any]:
    """The audit log, newest first."""
    visit = await enter(request, "admin")
    given = request.query_params.get("before", "")
    before = int(given) if given.isascii() and given.isdigit() and len(given) < 18 else None
    lines = await visit.house.read(lambda tx: overview.log(tx, before, _AUDIT_PAGE))
    return visit.page(
        "audit.html", lines=lines, more=lines[-1].id if len(lines) == _AUDIT_PAGE else None
    )


HANDLERS = (admin_page, invite, renew, revoke, change, resolve, log)
