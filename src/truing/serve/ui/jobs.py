"""Actions on runs: the commands of truing as processes of their own, one at a time.

A process and not a thread: a judge may need gigabytes and hours, its memory is freed afterwards,
pages stay fast meanwhile, and whoever stops a job stops only that. What is done stays done: the
commands continue where they were stopped.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from msgspec import Struct

from truing.annotation.store import RequestRejected
from truing.serve.ui.background import describe_error

JobStatus = Literal[
    "waiting", "running", "stopping", "done", "finding", "inconclusive", "failed", "stopped"
]
MAX_WAITING = 20
_MAX_KEPT = 100
_MAX_OUTPUT_CHARACTERS = 40_000
STOP_SECONDS = 10.0
"""After so long, a process that was told to stop is killed."""
# The exit statuses of the commands: 2 a finding (a gate that failed), 3 inconclusive.
_STATUS_OF_EXIT: dict[int, JobStatus] = {0: "done", 2: "finding", 3: "inconclusive"}
# -P: Python would else import modules from the working directory, which may be a received folder.
PROGRAM = (sys.executable, "-P", "-m", "truing")


class Job(Struct, kw_only=True):
    """One action. `title` says what it does, `run` is the id of the run concerned, `result` a link.

    `words` are the arguments of `truing`; they may hold what must not be shown, and `shown` is the
    command for people.
    """

    id: str
    title: str
    run: str
    words: tuple[str, ...]
    shown: str
    result: str = ""
    status: JobStatus = "waiting"
    output: str = ""
    started: float = 0.0
    seconds: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.status not in ("waiting", "running", "stopping")


class JobQueue:
    """Runs jobs one after another, and remembers the newest."""

    def __init__(
        self, program: Sequence[str] = PROGRAM, *, stop_seconds: float = STOP_SECONDS
    ) -> None:
        self._program, self._stop_seconds = tuple(program), stop_seconds
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._pool = ThreadPoolExecutor(1, "jobs")
        self._lock = threading.Lock()
        self._process_ended = threading.Condition(self._lock)
        self._process: subprocess.Popen[str] | None = None
        self._closing = False

    def add(self, title: str, run: str, words: Sequence[str], shown: str, result: str = "") -> Job:
        """Queues a job; raises RequestRejected if many are waiting."""
        job = Job(
            id=secrets.token_hex(6),
            title=title,
            run=run,
            words=tuple(words),
            shown=shown,
            result=result,
        )
        with self._lock:
            if sum(not other.is_over for other in self._jobs.values()) >= MAX_WAITING:
                raise RequestRejected("slow", "Many actions are waiting. Let some of them end.")
            self._jobs[job.id] = job
            for old in [j for j in self._jobs.values() if j.is_over][: -_MAX_KEPT or None]:
                del self._jobs[old.id]
            self._pool.submit(self._run, job)
        return job

    def newest(self, run: str | None = None) -> list[Job]:
        """Returns the jobs, the newest first, of one run if it is given."""
        with self._lock:
            jobs = list(reversed(self._jobs.values()))
        return [job for job in jobs if run is None or job.run == run]

    def find(self, id_: str) -> Job:
        """Returns a job; raises RequestRejected if there is none."""
        job = self._jobs.get(id_)
        if job is None:
            raise RequestRejected("missing", "There is no such action (any more).")
        return job

    def stop(self, id_: str) -> None:
        """Stops a job, by force if it does not end in time; one that is over stays as it is."""
        job = self.find(id_)
        with self._lock:
            if job.status == "waiting":
                job.status = "stopped"
            elif job.status == "running" and self._process is not None:
                job.status = "stopping"
                _signal(self._process, signal.SIGTERM)
                timer = threading.Timer(self._stop_seconds, self._kill, (self._process,))
                timer.daemon = True
                timer.start()

    def _kill(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            if self._process is process:
                _signal(process, signal.SIGKILL)

    def _run(self, job: Job) -> None:
        with self._lock:
            if job.status != "waiting" or self._closing:
                job.status = "stopped"
                return
            job.status, job.started = "running", time.time()
            try:
                self._process = process = subprocess.Popen(
                    (*self._program, *job.words),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            except OSError as error:
                job.status, job.output = "failed", describe_error(error)
                return
        assert process.stdout is not None
        with process.stdout:
            for line in iter(lambda: process.stdout.readline(4_000), ""):  # type: ignore[union-attr]
                job.output = (job.output + line)[-_MAX_OUTPUT_CHARACTERS:]
        status = process.wait()
        with self._lock:
            self._process = None
            job.seconds = time.time() - job.started
            self._process_ended.notify_all()
            if job.status == "running":
                job.status = _STATUS_OF_EXIT.get(status, "failed")
            elif job.status == "stopping":
                job.status = "stopped"

    def close(self) -> None:
        """Stops the running job and drops the others."""
        with self._process_ended:
            self._closing = True
            process = self._process
            if process is not None:
                _signal(process, signal.SIGTERM)
                self._process_ended.wait_for(lambda: self._process is None, self._stop_seconds)
        if process is not None:
            self._kill(process)
        self._pool.shutdown(wait=True, cancel_futures=True)


def _signal(process: subprocess.Popen[str], number: int) -> None:
    # The whole session: a judge may have started processes of its own. No SIGINT, which a server
    # in the background passes on to its children as ignored.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def quote_words(words: Sequence[str]) -> str:
    """Returns a command as one would type it."""
    return shlex.join(["truing", *words])


def path_argument(path: Path) -> str:
    """Returns a path as an argument that cannot be taken for a flag."""
    return str(path.resolve())
