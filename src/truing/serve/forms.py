"""Forms that the pages of this project submit: reading the fields, and where they come from."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from litestar import Request
from litestar.datastructures import Headers, State

from truing.core.errors import RequestRejected

_FORM_TYPE = "application/x-www-form-urlencoded"
_MAX_FIELDS = 2000


class FormData:
    """The fields of a submitted form; a missing field is empty."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self._fields = fields

    def text(self, name: str) -> str:
        """Returns the first value of a field."""
        return (self._fields.get(name) or [""])[0]

    def values(self, name: str) -> tuple[str, ...]:
        """Returns all values of a field, in order."""
        return tuple(self._fields.get(name, ()))

    def integer(self, name: str) -> int | None:
        """Returns a whole number of up to five digits, or none."""
        return parse_whole_number(self.text(name), 5)

    def with_prefix(self, prefix: str) -> dict[str, str]:
        """Returns the fields whose names begin with `prefix`, by the rest of the name."""
        return {
            name[len(prefix) :]: values[0]
            for name, values in self._fields.items()
            if name.startswith(prefix) and values
        }


def parse_whole_number(text: str, max_digits: int) -> int | None:
    """Returns a number of decimal digits alone, or None: what comes from a browser may be anything.

    With up to 18 digits it fits the 64-bit integers of databases.
    """
    is_number = text.isascii() and text.isdigit() and len(text) <= max_digits
    return int(text) if is_number else None


async def read_fields(request: Request[Any, Any, State], body_seconds: float) -> FormData:
    """Returns the form of a request from a page of this site; its CSRF token is not yet checked.

    Raises RequestRejected for another content type or origin, too many fields, or a body that
    takes longer than `body_seconds`.
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type != _FORM_TYPE:
        raise RequestRejected("form", "Only forms of these pages are accepted.")
    if is_from_another_site(request.headers):
        raise RequestRejected("form", "This form came from another site.")
    body = (await _read_body(request, body_seconds)).decode("utf-8", "replace")
    try:
        pairs = parse_qsl(
            body, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="replace"
        )
    except ValueError as error:
        raise RequestRejected("invalid", "The form has too many fields.") from error
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return FormData(fields)


async def read_form(
    request: Request[Any, Any, State], body_seconds: float, csrf_token: str | None
) -> FormData:
    """Returns the form of a request whose field `csrf` is the token of the session.

    `csrf_token` is None in a session that has just begun: no form can come from it. Raises
    RequestRejected as `read_fields`, and without the right token.
    """
    form = await read_fields(request, body_seconds)
    submitted = form.text("csrf").encode("utf-8", "replace")
    if csrf_token is None or not hmac.compare_digest(submitted, csrf_token.encode()):
        raise RequestRejected(
            "form",
            "This form is out of date or did not come from this site. Load the page again.",
        )
    return form


async def _read_body(request: Request[Any, Any, State], seconds: float) -> bytes:
    # Otherwise a client that sends a byte a minute would hold its connection for ever.
    try:
        async with asyncio.timeout(seconds):
            return await request.body()
    except TimeoutError as error:
        raise RequestRejected("timeout", "The form took too long to arrive.") from error


def is_from_another_site(headers: Headers) -> bool:
    """Returns whether a browser says that a request was made by a page of another site.

    Browsers send these headers and scripts of other sites cannot change them; other clients may
    omit them, and are left to the CSRF token.
    """
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")
