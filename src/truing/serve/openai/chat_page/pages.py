"""The chat page and its static files, read once. It holds no data: what it shows, its script gets
from the API, with the key that its reader enters.
"""

from __future__ import annotations

from pathlib import Path

from litestar import Response

from truing.serve.page_files import load_templates, read_static_files, static_response
from truing.serve.page_headers import SECURITY_HEADERS

_PACKAGE = Path(__file__).parent
_SHARED_STATIC = _PACKAGE.parents[1] / "annotation" / "static"
_SHARED_FILES = ("app.css", "theme.js", "wheel.svg")
STATIC_PATHS = frozenset(f"/static/{name}" for name in (*_SHARED_FILES, "chat.css", "chat.js"))
"""They need no key: the page and its files hold no data."""
_HEADERS = {name.decode(): value.decode() for name, value in SECURITY_HEADERS.items()}


class ChatPage:
    """The page; with `needs_key` it asks for an API key before anything else."""

    def __init__(self, *, needs_key: bool) -> None:
        shared = read_static_files(_SHARED_STATIC)
        self.static = {
            **{name: shared[name] for name in _SHARED_FILES},
            **read_static_files(_PACKAGE / "static"),
        }
        templates = load_templates(_PACKAGE, {}, self.static)
        self._html = templates.get_template("page.html").render(needs_key=needs_key)

    def render(self) -> Response[str]:
        """Returns the page."""
        headers = {**_HEADERS, "cache-control": "no-store", "vary": "accept"}
        return Response(self._html, media_type="text/html", headers=headers)

    def file(self, name: str) -> Response[bytes] | None:
        """Returns a static file; None if there is none of the name."""
        if name not in self.static:
            return None
        response = static_response(self.static, name)
        response.headers.update(_HEADERS)
        return response
