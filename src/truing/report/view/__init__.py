"""The viewer: runs as one page that is opened from disk; no server, no script from elsewhere, text
only if asked.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "page": "collect_page render_page",
    },
)
