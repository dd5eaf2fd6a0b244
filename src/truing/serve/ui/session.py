"""The session of a request: who may look at the pages, reading a form, rendering, redirecting.

Without a password, a request is let in if its connection comes from a process of this user, or if
it has the token of the link that the command prints; both get a cookie. With one, only the password
opens a session. A form carries a CSRF token: an HMAC of the session's cookie.
"""

from __future__ import annotations

import hmac
from typing import Annotated, Any
from urllib.parse import quote, unquote, urlencode

from litestar import MediaType, Request, Response
from litestar.datastructures import Cookie, State
from litestar.params import Parameter

from truing.annotation.store import RequestRejected
from truing.serve.forms import FormData, read_form
from truing.serve.ui.app_state import UiState
from truing.serve.ui.peer_owner import is_same_user

AppRequest = Request[Any, Any, State]
PathParam = Annotated[str, Parameter()]
_COOKIE = "truing_ui"
NAME_COOKIE = "truing_ui_name"
_NAME_SECONDS = 365 * 86400
_MAX_ENCODED_NAME = 600


class RequestSession:
    """The session of one request; `is_new`: its cookie has yet to be set."""

    def __init__(self, request: AppRequest, token: str, *, is_new: bool) -> None:
        self.request, self.token, self._is_new = request, token, is_new
        self.state: UiState = request.app.state.ui
        self.from_script = request.headers.get("x-fetch") == "1"

    @property
    def csrf_token(self) -> str:
        """The token that the forms of this session carry."""
        return self.state.form_token(self.token)

    @property
    def person(self) -> str:
        """The name under which this browser labels; empty if nobody has given one."""
        encoded = self.request.cookies.get(NAME_COOKIE, "")[:_MAX_ENCODED_NAME]
        return unquote(encoded, errors="replace")[:60]

    async def read_form(self) -> FormData:
        """Returns the request's form; raises RequestRejected without a valid CSRF token."""
        token = None if self._is_new else self.csrf_token
        return await read_form(self.request, self.state.options.body_seconds, token)

    def render(self, template: str, /, *, status: int = 200, **values: Any) -> Response[str]:
        """Returns a page."""
        html = self.state.render(
            template,
            csrf=self.csrf_token,
            path=self.request.url.path,
            has_password=self.state.options.password_hash is not None,
            person=self.person,
            **values,
        )
        return Response(
            html, media_type=MediaType.HTML, status_code=status, cookies=self._cookies()
        )

    def redirect(self, path: str, *, name: str | None = None) -> Response[Any]:
        """Redirects to a path, which a script gets as JSON; `name` is kept as the person's name."""
        cookies = self._cookies()
        if name is not None:
            # A header holds Latin-1 only, and people's names other letters too.
            cookies.append(make_cookie(NAME_COOKIE, quote(name, safe=""), _NAME_SECONDS))
        if self.from_script:
            return Response({"go": path}, status_code=200, cookies=cookies)
        return Response(b"", status_code=303, headers={"location": path}, cookies=cookies)

    def _cookies(self) -> list[Cookie]:
        return [session_cookie(self.request, self.token)] if self._is_new else []


def make_cookie(name: str, value: str, max_age: int | None) -> Cookie:
    """Returns a cookie of these pages."""
    return Cookie(name, path="/", value=value, max_age=max_age, httponly=True, samesite="lax")


def session_cookie(request: AppRequest, token: str) -> Cookie:
    """Returns the cookie of a session, for as long as the browser is open."""
    return make_cookie(_cookie_name(request), token, None)


def _cookie_name(request: AppRequest) -> str:
    # Cookies do not tell ports apart: two apps on one machine would sign each other out.
    return f"{_COOKIE}_{request.app.state.ui.options.port}"


def open_session(request: AppRequest) -> RequestSession:
    """Returns the session of a request; raises RequestRejected for who may not look."""
    state: UiState = request.app.state.ui
    token = request.cookies.get(_cookie_name(request), "")
    if token and state.is_session(token):
        return RequestSession(request, token, is_new=False)
    if state.options.password_hash is None and (_has_link(request, state) or _is_owner(request)):
        return RequestSession(request, state.new_session(), is_new=True)
    raise RequestRejected("sign-in", "Please sign in.")


def _has_link(request: AppRequest, state: UiState) -> bool:
    token = request.query_params.get("token", "")
    return hmac.compare_digest(token.encode("utf-8", "replace"), state.link_token.encode())


def _is_owner(request: AppRequest) -> bool:
    client, server = request.scope.get("client"), request.scope.get("server")
    if not client or not server or server[1] is None:
        return False
    return is_same_user((client[0], client[1]), (server[0], server[1]))


def with_query(path: str, **values: Any) -> str:
    """Returns a path with those query parameters that are not empty."""
    parameters = {
        name: value
        for name, value in values.items()
        if value is not None and value is not False and value != "" and value not in ((), [])
    }
    return f"{path}?{urlencode(parameters, doseq=True)}" if parameters else path
