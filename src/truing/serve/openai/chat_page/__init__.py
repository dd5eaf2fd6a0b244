"""The chat page at `/` of `truing serve`: try a configuration, see which rail decided what and why.

`pages.ChatPage` holds the page and its files; the page itself uses the API alone.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "pages": "ChatPage STATIC_PATHS",
    },
)
