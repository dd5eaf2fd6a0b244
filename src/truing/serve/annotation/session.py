"""The session of a request: who sends it, reading its form, rendering and redirecting.

A form carries a CSRF token: an HMAC of the session's cookie that only this server can compute. What
the browser says about the request's origin is checked too. A script's request (header `x-fetch`)
gets JSON, a browser's form a redirect or a page.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from litestar import MediaType, Request, Response
from litestar.datastructures import Cookie, State
from litestar.params import Parameter
from msgspec import Struct

from truing.annotation import people, wellbeing
from truing.annotation.store import RequestRejected, Transaction
from truing.annotation.study import new_id
from truing.serve.annotation.app_state import AppState
from truing.serve.forms import FormData, read_form

AppRequest = Request[Any, Any, State]
# Litestar 3 will need the marker; `FromPath` would need 2.25.
PathParam = Annotated[str, Parameter()]
# The login; the token of a visitor's forms; that somebody has signed in with this browser before.
SESSION_COOKIE, VISITOR_COOKIE = "truing_session", "truing_visitor"
BROWSER_COOKIE, BROWSER_SECONDS = "truing_browser", 180 * 86400


class CurrentUser(Struct, frozen=True, kw_only=True):
    """The signed-in person, as handlers and templates need them."""

    id: str
    pseudonym: str
    roles: frozenset[str]
    blur: bool
    consented: bool
    exposure: wellbeing.ExposureStatus

    @property
    def reads_texts(self) -> bool:
        """Whether a role of this person shows them texts, so that consent is needed."""
        return bool(self.roles - {"admin"})


class RequestSession:
    """The session of one request.

    `token` is the login token or, before sign-in, the random token of the visitor cookie; the CSRF
    token is made from it. `new_visitor`: the cookie has yet to be set, so no form can be valid.
    """

    def __init__(
        self,
        request: AppRequest,
        user: CurrentUser | None,
        token: str,
        *,
        new_visitor: bool = False,
    ) -> None:
        self.request, self.token, self._user, self._new_visitor = request, token, user, new_visitor
        self.state: AppState = request.app.state.annotation
        self.from_script = request.headers.get("x-fetch") == "1"

    @property
    def user(self) -> CurrentUser:
        """The signed-in person; raises RequestRejected without one."""
        if self._user is None:
            raise RequestRejected("sign-in", "Please sign in.")
        return self._user

    @property
    def signed_in(self) -> bool:
        """Whether somebody is signed in."""
        return self._user is not None

    @property
    def csrf_token(self) -> str:
        """The token that the forms of this session carry."""
        return self.state.form_token(self.token)

    async def read_form(self) -> FormData:
        """Returns the request's form; raises RequestRejected without a valid CSRF token."""
        token = None if self._new_visitor else self.csrf_token
        return await read_form(self.request, self.state.limits.body_seconds, token)

    def render(self, template: str, /, *, status: int = 200, **values: Any) -> Response[str]:
        """Returns a page. The template gets a fresh `key`, with which a form counts once."""
        html = self.state.render(
            template,
            user=self._user,
            csrf=self.csrf_token,
            key=new_id() + new_id(),
            path=self.request.url.path,
            has_models=bool(self.state.models),
            **values,
        )
        cookies = []
        if self._new_visitor:
            cookies = [self._make_cookie(VISITOR_COOKIE, self.token, None)]
        return Response(html, media_type=MediaType.HTML, status_code=status, cookies=cookies)

    def redirect(
        self,
        path: str,
        *,
        login: people.NewLogin | None = None,
        sign_out: bool = False,
        forget_browser: bool = False,
    ) -> Response[Any]:
        """Redirects to a path; a script gets it as JSON.

        `login` sets the cookies of a new login, `sign_out` deletes them, except that of a known
        browser, which `forget_browser` deletes.
        """
        cookies = []
        if login is not None:
            cookies = [
                self._make_cookie(SESSION_COOKIE, login.token, int(people.LOGIN_SECONDS)),
                self._make_cookie(BROWSER_COOKIE, login.browser_token, BROWSER_SECONDS),
                self._make_cookie(VISITOR_COOKIE, "", 0),
            ]
        if sign_out:
            cookies += [self._make_cookie(name, "", 0) for name in (SESSION_COOKIE, VISITOR_COOKIE)]
        if forget_browser:
            cookies.append(self._make_cookie(BROWSER_COOKIE, "", 0))
        if self.from_script:
            return Response({"go": path}, status_code=200, cookies=cookies)
        return Response(b"", status_code=303, headers={"location": path}, cookies=cookies)

    def _make_cookie(self, name: str, value: str, max_age: int | None) -> Cookie:
        return Cookie(
            _cookie_name(self.state, name),
            path="/",
            value=value,
            max_age=max_age,
            httponly=True,
            samesite="lax",
            secure=self.state.limits.https,
        )

    @property
    def login_token(self) -> str:
        """The login token that the browser sent; empty if it sent none."""
        return _read_cookie(self.request, SESSION_COOKIE)

    @property
    def browser_token(self) -> str:
        """What the browser sent as proof that somebody has signed in with it; may be forged."""
        return _read_cookie(self.request, BROWSER_COOKIE)

    @property
    def address(self) -> str:
        """The client's address, for rate limits."""
        return self.request.client.host if self.request.client else "unknown"


def _cookie_name(state: AppState, name: str) -> str:
    # Browsers take a cookie of this prefix from this very host only, and only over https: a page
    # on another host of the same domain cannot set one.
    return f"__Host-{name}" if state.limits.https else name


def _read_cookie(request: AppRequest, name: str) -> str:
    return request.cookies.get(_cookie_name(request.app.state.annotation, name), "")


def _load_user(tx: Transaction, token: str, state: AppState) -> CurrentUser | None:
    person = people.find_signed_in(tx, token)
    if person is None:
        return None
    return CurrentUser(
        id=person.id,
        pseudonym=person.pseudonym,
        roles=people.roles_of(person),
        blur=person.blur,
        consented=person.consented is not None,
        exposure=wellbeing.exposure_status(tx, person, state.study),
    )


async def open_session(request: AppRequest) -> RequestSession:
    """Returns the session of a request, signed in or not; counts it against the rate limit."""
    state: AppState = request.app.state.annotation
    token = _read_cookie(request, SESSION_COOKIE)
    user = await state.read(lambda tx: _load_user(tx, token, state)) if token else None
    if user is not None:
        state.request_throttle.check(user.id)
        return RequestSession(request, user, token)
    visitor = _read_cookie(request, VISITOR_COOKIE)
    if 16 <= len(visitor) <= 64:
        return RequestSession(request, None, visitor)
    return RequestSession(request, None, secrets.token_urlsafe(24), new_visitor=True)


async def require_session(request: AppRequest, *roles: str) -> RequestSession:
    """Returns the session of a signed-in person.

    With `roles`, raises RequestRejected unless the person has one of them and has given consent.
    """
    session = await open_session(request)
    user = session.user
    if roles and not user.roles & set(roles):
        raise RequestRejected("forbidden", "Your account has no access to this page.")
    if roles and not user.consented and user.reads_texts:
        raise RequestRejected("consent", "Choose first which categories you agree to see.")
    return session
