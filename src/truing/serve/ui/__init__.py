"""`truing ui`: pages over a folder of runs. Lists them, shows and searches their rows.

`create_app` (app.py) builds the ASGI app around a `UiState` (app_state.py). `run_scan.py` and
`run_state.py` find the runs, `row_index.py` indexes the rows of one, `row_reader.py` selects and
reads them. Runs are somebody else's data: nothing in them names a file outside, and all is escaped.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "app": "create_app",
        "app_state": "UiOptions UiState",
    },
)
