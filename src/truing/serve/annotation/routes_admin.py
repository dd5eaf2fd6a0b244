"""Routes of administration: people, invitations, flags, progress, the audit log."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post

from truing.annotation import overview, people, queue, wellbeing
from truing.annotation.store import RequestRejected, Transaction
from truing.serve.annotation.session import AppRequest, PathParam, RequestSession, require_session
from truing.serve.forms import parse_whole_number

_AUDIT_PAGE = 100  # lines


@get("/admin")
async def admin_page(request: AppRequest) -> Response[Any]:
    """Shows flags, people, invitations and progress."""
    session = await require_session(request, "admin")

    def load(tx: Transaction) -> dict[str, Any]:
        return {
            "flags": overview.list_flags(tx),
            "people": overview.list_people(tx),
            "invitations": overview.list_invitations(tx),
            "progress": queue.count_progress(tx),
            "demographics": wellbeing.count_demographics(tx),
        }

    values = await session.state.read(load)
    return session.render("admin.html", roles=people.ROLES, **values)


@post("/admin/invitations")
async def create_invitation(request: AppRequest) -> Response[Any]:
    """Creates an invitation and shows its link, this once."""
    session = await require_session(request, "admin")
    form = await session.read_form()
    roles, note = form.values("role"), form.text("note")
    token = await session.state.write(
        lambda tx: people.create_invitation(tx, roles, by=session.user.id, note=note)
    )
    link = _invitation_link(session, token)
    return session.render("invited.html", link=link, roles=roles, known="")


def _invitation_link(session: RequestSession, token: str) -> str:
    # Behind a proxy that terminates TLS, the request itself arrives over http.
    scheme = "https" if session.state.limits.https else session.request.url.scheme
    return f"{scheme}://{session.request.headers.get('host', '')}/join/{token}"


@post("/admin/people/{name:str}/phrase")
async def reset_phrase(request: AppRequest, name: PathParam) -> Response[Any]:
    """Creates a link by which a person sets a new pass phrase and shows it, this once."""
    session = await require_session(request, "admin")
    await session.read_form()
    token = await session.state.write(
        lambda tx: people.create_phrase_reset(tx, name, by=session.user.id)
    )
    link = _invitation_link(session, token)
    return session.render("invited.html", link=link, roles=(), known=name)


@post("/admin/invitations/{invitation:str}/revoke")
async def revoke_invitation(request: AppRequest, invitation: PathParam) -> Response[Any]:
    """Revokes an invitation."""
    session = await require_session(request, "admin")
    await session.read_form()
    await session.state.write(
        lambda tx: overview.revoke_invitation(tx, invitation, by=session.user.id)
    )
    return session.redirect("/admin#invitations")


@post("/admin/people/{person:str}/{change:str}")
async def set_active(request: AppRequest, person: PathParam, change: PathParam) -> Response[Any]:
    """Suspends or restores an account."""
    session = await require_session(request, "admin")
    await session.read_form()
    if change not in ("suspend", "restore"):
        raise RequestRejected("missing", "There is no such page.")
    await session.state.write(
        lambda tx: people.set_active(tx, person, change == "restore", by=session.user.id)
    )
    return session.redirect("/admin#people")


@post("/admin/flags/{flag:str}")
async def resolve_flag(request: AppRequest, flag: PathParam) -> Response[Any]:
    """Closes a flag."""
    session = await require_session(request, "admin")
    form = await session.read_form()
    resolution = form.text("resolution")
    await session.state.write(
        lambda tx: overview.resolve_flag(tx, flag, resolution, by=session.user.id)
    )
    return session.redirect("/admin#flags")


@get("/admin/audit")
async def audit_page(request: AppRequest) -> Response[Any]:
    """Shows the audit log, newest first."""
    session = await require_session(request, "admin")
    text = request.query_params.get("before", "")
    before = parse_whole_number(text, 17)
    lines = await session.state.read(lambda tx: overview.read_audit_log(tx, before, _AUDIT_PAGE))
    older = lines[-1].id if len(lines) == _AUDIT_PAGE else None
    return session.render("audit.html", lines=lines, older=older)


HANDLERS = (
    admin_page,
    create_invitation,
    reset_phrase,
    revoke_invitation,
    set_active,
    resolve_flag,
    audit_page,
)
