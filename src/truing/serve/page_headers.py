"""What all pages of this project are sent with: security headers, and a status for each error."""

from __future__ import annotations

from collections.abc import Mapping

from litestar.types import Message

# HTTP status by `RequestRejected.kind`.
STATUS_BY_KIND = {
    "sign-in": 401,
    "forbidden": 403,
    "form": 403,
    "timeout": 408,
    "host": 421,
    "consent": 403,
    "budget": 403,
    "break": 403,
    "missing": 404,
    "late": 409,
    "order": 409,
    "closed": 409,
    "gone": 410,
    "used": 410,
    "long": 413,
    "invalid": 422,
    "slow": 429,
}
# The pages show text from models and strangers: no script, style or frame from anywhere else may
# load.
SECURITY_HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; "
    b"img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    b"frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"x-frame-options": b"DENY",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
}


def add_headers(message: Message, defaults: Mapping[bytes, bytes]) -> None:
    """Adds headers to the start of a response, except those that it already has."""
    if message["type"] != "http.response.start":
        return
    headers = list(message.get("headers", []))
    present = {name.lower() for name, _ in headers}
    message["headers"] = headers + [
        (name, value) for name, value in defaults.items() if name not in present
    ]
