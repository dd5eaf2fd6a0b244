"""The HTTP client of all endpoints (retries, caches, transcripts) and the limits on how fast it may send."""
