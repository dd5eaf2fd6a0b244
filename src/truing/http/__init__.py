"""HTTP requests to model endpoints.

`client` (Endpoint), `replies` and `bounds` (what is read of a reply), `retry` (RetryPolicy),
`limits` (adaptive concurrency, rate limits, budgets).
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "bounds": "BoundExceeded ReplyBounds",
        "client": (
            "Endpoint StreamError bearer_headers find_endpoints join_url read_budget "
            "share_budgets validate_url"
        ),
        "limits": (
            "BACKOFF_CALLBACK INITIAL_CONCURRENCY RATE_LIMITS RESERVE_REQUEST SharedBudgets "
            "close_connections"
        ),
        "retry": "RequestError RetryPolicy backoff_delay",
    },
)
