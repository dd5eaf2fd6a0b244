"""Group commit: writes that wait for the same disk share one transaction, and so one wait.

SQLite has one writer, and with `synchronous=FULL` each commit waits until the disk has it. Whoever gets the writer's place
runs everything that has come meanwhile, each work in a savepoint of its own, and commits once; nobody is answered
before that commit is on disk. So a crash loses nothing that was acknowledged, and fifty people cost a few waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

MOST = 16  # works in one transaction; the first in line waits for the last


class Job:
    """A work in line, and what became of it: its result, or the error that it raised."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        """Sets what became of it; from now on nobody runs it again."""
        self.result, self.error, self.done = result, error, True


class Together:
    """A line of writes from many threads; `run` carries a batch out and finishes each of its jobs."""

    def __init__(self, run: Callable[[Sequence[Job]], None]) -> None:
        self._run = run
        self._line: deque[Job] = deque()
        self._writer = threading.Lock()

    def __call__(self, work: Callable[[Any], Any]) -> Any:
        """Runs a work in its turn, perhaps on the thread of another; gives its result or raises its error."""
        job = Job(work)
        self._line.append(job)
        while not job.done:
            with self._writer:
                if not job.done:
                    self._carry_out()
        if job.error is not None:
            raise job.error
        return job.result

    def _carry_out(self) -> None:
        batch = [self._line.popleft() for _ in range(min(MOST, len(self._line)))]
        try:
            self._run(batch)
        except BaseException as error:  # an interrupt: nobody else may wait for ever
            for job in batch:
                if not job.done:
                    job.finish(error=error)
            raise
