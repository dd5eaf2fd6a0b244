"""`truing rails check`: what can be known of a configuration without running it.

`check.check_rails_config` returns a report; `diagram` draws the flows. The other modules each find
one kind of fault (`name_checks`, `reachability`), read `actions.py` as text (`action_sources`), or
count the LLM calls of a turn (`llm_call_counts`).
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "check": "RailsCheckReport check_rails_config",
        "diagram": "render_svg render_tree",
    },
)
