"""HTTP requests to model endpoints.

`client` (Endpoint), `retry` (RetryPolicy), `limits` (adaptive concurrency, rate limits, budgets).
"""
