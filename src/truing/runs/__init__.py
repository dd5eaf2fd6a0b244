"""The run folder on disk: `Run` reads one, `RunWriter` writes one (append-only, crash-safe,
resumable).
"""
