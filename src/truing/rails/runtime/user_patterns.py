"""Patterns that users write: no text can hold up the process, whatever the pattern.

RE2 runs them in linear time where it can. Others (look-around, back-references) run in a process of
their own, which is killed at the time limit; the answer is then None: could not tell.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import re
import select
import subprocess
import sys
import threading
from functools import lru_cache

from truing.core.linear_regex import LinearRegex, NotLinear, SearchMode

WORKER_COUNT = 2
SEARCH_SECONDS = 2.0  # of one search in a worker
WAIT_SECONDS = 10.0  # for a worker that is free

# Reads a search a line, and writes true or false. The alarm ends a worker whose parent died, and
# the memory limit one whose pattern grows.
_WORKER_SOURCE = f"""
import json, re, resource, signal, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
for line in sys.stdin:
    pattern, flags, mode, text = json.loads(line)
    signal.alarm({int(SEARCH_SECONDS) + 10})
    found = getattr(re.compile(pattern, flags), mode)(text) is not None
    signal.alarm(0)
    print("true" if found else "false", flush=True)
"""


class UserPattern:
    """A pattern to be found in a text, or to match all of it (`mode`).

    Raises re.error, with the reason, if it is no pattern.
    """

    def __init__(
        self, pattern: str, mode: SearchMode = "search", *, ignore_case: bool = False
    ) -> None:
        self.pattern, self.mode = pattern, mode
        self._flags = int(re.IGNORECASE) if ignore_case else 0
        re.compile(pattern, self._flags)  # compiling does not backtrack; it names what is wrong
        try:
            self._linear: LinearRegex | None = LinearRegex(pattern, mode, ignore_case=ignore_case)
        except NotLinear:
            self._linear = None

    async def matches(self, text: str) -> bool | None:
        """Returns whether the pattern matches; None if that is not known within the time limit."""
        if self._linear is not None and self._linear.can_read(text):
            return self._linear.matches(text)
        request = json.dumps([self.pattern, self._flags, self.mode, text])
        return await asyncio.to_thread(_search_in_worker, request)


@lru_cache(maxsize=256)
def load_user_pattern(
    pattern: str, mode: SearchMode = "search", ignore_case: bool = False
) -> UserPattern:
    """Returns the pattern, compiled once; raises re.error."""
    return UserPattern(pattern, mode, ignore_case=ignore_case)


class _Worker:
    """A process that searches; it is started at the first search, and again after a time-out."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def search(self, request: str) -> bool | None:
        """Returns the answer to a request; None after the time limit, or if the worker died."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WORKER_SOURCE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={},  # no secret of this process
            )
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(request + "\n")
            stdin.flush()
            readable, _, _ = select.select([stdout], [], [], SEARCH_SECONDS)
            reply = stdout.readline() if readable else ""
        except OSError:
            reply = ""
        if reply in ("true\n", "false\n"):
            return reply == "true\n"
        self.stop()
        return None

    def stop(self) -> None:
        """Kills the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                # The rest of a request that the killed worker did not read cannot be flushed.
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
            self.process = None


_free_workers = [_Worker() for _ in range(WORKER_COUNT)]
_free_count = threading.Semaphore(WORKER_COUNT)


def _search_in_worker(request: str) -> bool | None:
    if not _free_count.acquire(timeout=WAIT_SECONDS):
        return None
    worker = _free_workers.pop()
    try:
        return worker.search(request)
    finally:
        _free_workers.append(worker)
        _free_count.release()


@atexit.register
def _stop_workers() -> None:
    for worker in _free_workers:
        worker.stop()
