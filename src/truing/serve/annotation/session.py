"""One request: who sends it, what its form says, and how it is answered.

Forms carry a mark that only this server can make of the session's cookie (CSRF), and what a browser says of a
request's origin is checked besides. A script's request (`x-fetch`) gets JSON, a plain form gets a page.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from litestar import MediaType, Request, Response
from litestar.datastructures import Cookie, State
from msgspec import Struct

from truing.annotation import people, wellbeing
from truing.annotation.store import Refused, Tx
from truing.annotation.study import new_id
from truing.serve.annotation.app_state import House

Asked = Request[Any, Any, State]
SESSION, VISITOR = "truing_session", "truing_visitor"
_FORM = "application/x-www-form-urlencoded"


class Me(Struct, frozen=True, kw_only=True):
    """The signed-in person, as pages need to know them."""

    id: str
    pseudonym: str
    roles: frozenset[str]
    blur: bool
    consented: bool
    standing: wellbeing.Standing

    @property
    def works(self) -> bool:
        """Whether this person reads texts (and so needs consent and care), not only administers."""
        return bool(self.roles - {"admin"})


class Form:
    """The fields of a form; what is absent is empty."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self._fields = fields

    def text(self, name: str) -> str:
        """The first value of a field."""
        return (self._fields.get(name) or [""])[0]

    def many(self, name: str) -> tuple[str, ...]:
        """All values of a field, in order."""
        return tuple(self._fields.get(name, ()))

    def number(self, name: str) -> int | None:
        """A small whole number, or none."""
        value = self.text(name)
        return int(value) if value.isascii() and value.isdigit() and len(value) < 6 else None

    def starting(self, prefix: str) -> dict[str, str]:
        """Fields whose name begins so, without that beginning."""
        return {
            k[len(prefix) :]: v[0] for k, v in self._fields.items() if k.startswith(prefix) and v
        }


class Visit:
    """A request on its way through the house; `me` is none where nobody has signed in."""

    def __init__(self, request: Asked, me: Me | None, token: str, *, fresh: bool = False) -> None:
        self.request, self.token, self._me, self._fresh = request, token, me, fresh
        self.house: House = request.app.state.house
        self.by_script = request.headers.get("x-fetch") == "1"

    @property
    def me(self) -> Me:
        """The signed-in person; Refused ``sign-in`` without one."""
        if self._me is None:
            raise Refused("sign-in", "Please sign in.")
        return self._me

    @property
    def signed_in(self) -> bool:
        """Whether there is a person."""
        return self._me is not None

    @property
    def csrf(self) -> str:
        """The mark that this visitor's forms carry."""
        return self.house.mark("form", self.token)

    async def form(self) -> Form:
        """The request's form; Refused unless it carries the mark and comes from these pages."""
        if self.request.headers.get("content-type", "").split(";")[0].strip().lower() != _FORM:
            raise Refused("form", "This page takes its own forms alone.")
        self._check_origin()
        body = (await self.request.body()).decode("utf-8", "replace")
        try:
            pairs = parse_qsl(body, keep_blank_values=True, max_num_fields=2000, errors="replace")
        except ValueError as error:
            raise Refused("invalid", "The form has too many fields.") from error
        fields: dict[str, list[str]] = {}
        for name, value in pairs:
            fields.setdefault(name, []).append(value)
        form = Form(fields)
        if self._fresh or not hmac.compare_digest(
            form.text("csrf").encode("utf-8", "replace"), self.csrf.encode()
        ):
            raise Refused(
                "form",
                "This form is out of date or did not come from this site. Load the page again.",
            )
        return form

    def _check_origin(self) -> None:
        headers = self.request.headers
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refused("form", "This form came from another site.")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            raise Refused("form", "This form came from another site.")

    def page(self, template: str, /, *, status: int = 200, **values: Any) -> Response[str]:
        """A page for this visitor. `key` makes its form count once."""
        html = self.house.render(
            template,
            me=self._me,
            csrf=self.csrf,
            key=new_id() + new_id(),
            path=self.request.url.path,
            serving=bool(self.house.models),
            **values,
        )
        cookies = [self._cookie(VISITOR, self.token, None)] if self._fresh else []
        return Response(html, media_type=MediaType.HTML, status_code=status, cookies=cookies)

    def go(self, where: str, *, session: str | None = None) -> Response[Any]:
        """On to another page, by a redirect or, for a script, by JSON; `session` sets the cookie, empty ends it."""
        cookies = []
        if session is not None:
            age = int(people.LOGIN_SECONDS) if session else 0
            cookies = [self._cookie(SESSION, session, age), self._cookie(VISITOR, "", 0)]
        if self.by_script:
            return Response({"go": where}, status_code=200, cookies=cookies)
        return Response(b"", status_code=303, headers={"location": where}, cookies=cookies)

    def _cookie(self, name: str, value: str, age: int | None) -> Cookie:
        return Cookie(
            name,
            path="/",
            value=value,
            max_age=age,
            httponly=True,
            samesite="lax",
            secure=self.house.rules.https,
        )

    @property
    def address(self) -> str:
        """Where the request comes from, for limits of rate."""
        return self.request.client.host if self.request.client else "unknown"


def _look(tx: Tx, token: str, house: House) -> Me | None:
    person = people.who(tx, token)
    if person is None:
        return None
    return Me(
        id=person.id,
        pseudonym=person.pseudonym,
        roles=people.roles_of(person),
        blur=person.blur,
        consented=person.consented is not None,
        standing=wellbeing.standing(tx, person, house.study),
    )


async def arrive(request: Asked) -> Visit:
    """The visit of anybody, signed in or not."""
    house: House = request.app.state.house
    token = request.cookies.get(SESSION, "")
    me = await house.read(lambda tx: _look(tx, token, house)) if token else None
    if me is not None:
        house.people.check(me.id)
        return Visit(request, me, token)
    visitor = request.cookies.get(VISITOR, "")
    fresh = not 16 <= len(visitor) <= 64
    return Visit(request, None, secrets.token_urlsafe(24) if fresh else visitor, fresh=fresh)


async def enter(request: Asked, *roles: str) -> Visit:
    """The visit of somebody who has signed in, has one of the roles (any, if none is named) and has given consent."""
    visit = await arrive(request)
    me = visit.me
    if roles and not me.roles & set(roles):
        raise Refused("forbidden", "Your account has no part in this page.")
    if roles and not me.consented and me.works:
        raise Refused("consent", "Say first which categories you agree to see.")
    return visit
