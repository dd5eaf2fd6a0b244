"""Templates and static files of the pages of this project."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Response

from truing.core.errors import RequestRejected

_TYPES = {
    # Litestar adds the character set.
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def read_static_files(*folders: Path) -> dict[str, bytes]:
    """Returns the static files of some folders by name; of one name, that of the last folder."""
    return {
        path.name: path.read_bytes()
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.suffix in _TYPES
    }


def static_response(files: Mapping[str, bytes], name: str) -> Response[bytes]:
    """Returns a static file; its links hold a hash of the contents, so browsers may cache it.

    Raises RequestRejected if there is none of that name.
    """
    content = files.get(name)
    if content is None:
        raise RequestRejected("missing", "There is no such file.")
    return Response(
        content,
        media_type=_TYPES[name[name.rindex(".") :]],
        headers={"cache-control": "public, max-age=31536000, immutable"},
    )


def load_templates(
    folder: Path, filters: Mapping[str, Callable[..., Any]], static: Mapping[str, bytes]
) -> Environment:
    """Returns the templates of a folder; `version` in them is a hash of the static files."""
    templates = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.filters.update(filters)
    # The version is part of the links to static files, which browsers cache for a year.
    version = hashlib.sha256(b"".join(static.values())).hexdigest()[:12]
    templates.globals.update(version=version)
    return templates
