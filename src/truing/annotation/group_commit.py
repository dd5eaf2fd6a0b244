"""Group commit: writes that are waiting for the disk share one transaction, and so one disk sync.

SQLite has one writer, and with `synchronous=FULL` each commit waits for the disk. The thread that
gets the writer lock runs every job queued so far, each in its own savepoint, and commits once. No
caller returns before that commit is on disk, so a crash loses nothing that was acknowledged.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

MAX_BATCH = 16  # jobs in one transaction; the first job of a batch waits for the last


class WriteJob:
    """A queued write and its outcome: the result of `work`, or the error that it raised."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        """Sets the outcome; a finished job is not run again."""
        # `done` last: the waiting thread reads result and error as soon as it sees done.
        self.result, self.error, self.done = result, error, True


class GroupCommitQueue:
    """A queue of writes from many threads; `run_batch` runs and finishes a batch of jobs."""

    def __init__(self, run_batch: Callable[[Sequence[WriteJob]], None]) -> None:
        self._run_batch = run_batch
        self._queue: deque[WriteJob] = deque()
        self._writer_lock = threading.Lock()

    def run(self, work: Callable[[Any], Any]) -> Any:
        """Runs `work`, maybe on another caller's thread; returns its result or raises its error."""
        job = WriteJob(work)
        self._queue.append(job)
        # More than MAX_BATCH jobs may be queued before this one, so one batch may not reach it.
        while not job.done:
            with self._writer_lock:
                if not job.done:  # another thread may have run it while this one waited
                    self._run_next_batch()
        if job.error is not None:
            raise job.error
        return job.result

    def run_alone(self, work: Callable[[], None]) -> None:
        """Runs `work` while no batch runs; the queued writes wait."""
        with self._writer_lock:
            work()

    def _run_next_batch(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(MAX_BATCH, len(self._queue)))]
        try:
            self._run_batch(batch)
        except BaseException as error:
            # KeyboardInterrupt too: the other callers of this batch must not wait for ever.
            for job in batch:
                if not job.done:
                    job.finish(error=error)
            raise
