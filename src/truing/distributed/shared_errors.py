"""Ends all processes of a run when one of them fails, with one message.

    with share_errors():
        ...                      # collectives; any process may raise

A process that fails alone leaves the others waiting in a collective, for half an hour by default.
Here it first tells the others, through the store of the process group.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

from truing.core.errors import ProcessFailed

_KEY = "truing/failed"
_POLL_SECONDS = 0.5
_GRACE_SECONDS = 30.0  # for a process that waits in a collective to be released by itself


@contextmanager
def share_errors() -> Iterator[None]:
    """Raises the error of a process in that process, and ProcessFailed in all others.

    A process that still waits in a collective after half a minute is ended. Of several errors at
    the same time the first counts. With one process it has no effect.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        yield
        return
    watcher = _Watcher(dist.distributed_c10d._get_default_store(), dist.get_rank())
    try:
        yield
    except BaseException as error:
        # After the error of another process, one in this process is its consequence.
        if watcher.report(error) or isinstance(error, KeyboardInterrupt):
            raise
        raise ProcessFailed(f"another process of the run failed: {watcher.failure}") from error
    finally:
        watcher.close()


class _Watcher:
    """Looks every half second whether another process has failed."""

    def __init__(self, store: Any, rank: int) -> None:
        # A connection of its own: a blocking call of the main thread may occupy the shared one.
        self._store = store.clone() if hasattr(store, "clone") else store
        self._rank = rank
        self.failure = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="truing-errors", daemon=True)
        self._thread.start()

    def report(self, error: BaseException) -> bool:
        """Reports an error to the others; returns False if another process failed before."""
        if self.failure:
            return False
        message = f"process {self._rank}: {type(error).__name__}: {error}"
        try:
            first = self._store.compare_set(_KEY, "", message).decode()
        except RuntimeError as store_error:
            # The process that holds the store has ended.
            self.failure = str(store_error)
            return False
        if first != message:
            self.failure = first
            return False
        # The others must have read it before this process ends, and perhaps the store with it.
        time.sleep(2 * _POLL_SECONDS)
        return True

    def close(self) -> None:
        """Stops watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(_POLL_SECONDS):
            try:
                if not self._store.check([_KEY]):
                    continue
                message = self._store.get(_KEY).decode()
            except RuntimeError:
                return
            if message.startswith(f"process {self._rank}: "):
                return
            self.failure = message
            if not self._closed.wait(_GRACE_SECONDS):
                os._exit(1)
            return
