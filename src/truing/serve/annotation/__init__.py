"""Web pages for red teaming and rating by people: server-rendered HTML with plain JS and CSS.

`create_app` (app.py) builds the ASGI app around an `AppState` (app_state.py: database, models,
templates, limits). `session.py` has the session of a request; `routes_*.py` the handlers;
`live_pairs.py` the pairs of answers that are being generated. Nothing is loaded from other servers.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "app": "create_app",
        "app_state": "AppState HashingQueue ServerLimits Throttle",
    },
)
