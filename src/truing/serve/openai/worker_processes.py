"""Several processes behind one port: started, replaced when they die, reloaded, drained.

    WorkerProcesses(serve_in_worker, 4, report=print).run()

The processes share one listening socket, which this one holds open: a connection that arrives
while a process ends waits for another one, and none is refused.

- SIGHUP starts new processes, which read the configurations anew. When all of them are ready the
  old ones finish their requests and end. If one of the new ones fails, the old ones stay.
- SIGTERM and SIGINT end all: this process gives up the port, and what the others have accepted is
  answered.
- A process that dies is replaced.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from truing.core.errors import UserError

_POLL_SECONDS = 0.2
START_SECONDS = 300.0  # in which a process must be ready: models are loaded, encoders downloaded
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.5, 30.0
_READY, _FAILED, _REPLACED = "ready", "failed", "replaced"


class WorkerLink:
    """The connection of a worker to the process that started it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.is_replaced = False  # others have taken over: this process leaves the port to them

    def report_ready(self) -> None:
        """Says that the worker answers requests."""
        self._connection.send((_READY, ""))

    def report_failure(self, message: str) -> None:
        """Says why the worker does not start."""
        self._connection.send((_FAILED, message))

    def end_with_parent(self) -> None:
        """Lets this process drain and end where it is replaced, or the one that started it dies."""

        def watch() -> None:
            with contextlib.suppress(EOFError, OSError):
                self.is_replaced = self._connection.recv() == _REPLACED
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=watch, name="truing-parent", daemon=True).start()


WorkerTarget = Callable[[WorkerLink], None]


def _run_worker(target: WorkerTarget, connection: Connection) -> None:
    link = WorkerLink(connection)
    # The terminal sends Ctrl-C to all processes; this one ends when its parent says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        target(link)
    except UserError as error:
        link.report_failure(str(error))
        raise SystemExit(1) from None


class _Worker:
    """A process and what it has said."""

    def __init__(self, target: WorkerTarget) -> None:
        # A new interpreter: a fork would share threads' locks and the state of libraries.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.process: Any = context.Process(target=_run_worker, args=(target, theirs))
        self.process.start()
        theirs.close()
        self.ready = False
        self.failure = ""
        self._started = time.monotonic()

    def is_late(self, start_seconds: float) -> bool:
        """Whether the process should have been ready by now, and is not."""
        return not self.ready and time.monotonic() - self._started > start_seconds

    def kill(self) -> None:
        """Ends the process at once."""
        self.process.kill()
        self.process.join()

    @property
    def handles(self) -> list[Any]:
        """What to wait for: a message, or the end of the process."""
        return [self.process.sentinel, *([] if self.ready else [self._connection])]

    def read_messages(self) -> None:
        """Notes what the process has said since."""
        with contextlib.suppress(EOFError, OSError):
            while self._connection.poll():
                kind, message = self._connection.recv()
                self.ready = self.ready or kind == _READY
                self.failure = message if kind == _FAILED else self.failure

    @property
    def alive(self) -> bool:
        return bool(self.process.is_alive())

    def drain(self, *, is_replaced: bool) -> None:
        """Lets the process answer what it has accepted, and end."""
        if is_replaced and self.ready:
            with contextlib.suppress(OSError):
                self._connection.send(_REPLACED)
        elif self.alive:
            self.process.terminate()

    def finish(self, deadline: float) -> None:
        """Waits for the end of the process until a time of the monotonic clock, then kills it."""
        self.process.join(max(0.0, deadline - time.monotonic()))
        if self.alive:
            self.kill()
        self._connection.close()


def forget_metrics(pid: int) -> None:
    """Takes a process that has ended out of the gauges of `/metrics`; its counts stay."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)  # type: ignore[no-untyped-call]


class WorkerProcesses:
    """Runs `target` in `count` processes until a signal ends them.

    `drain_seconds` is the longest that a process may take to answer what it has accepted,
    `start_seconds` until it is ready; `report` is told of what happens, in one line each;
    `on_stopping` is called before all end.
    """

    def __init__(
        self,
        target: WorkerTarget,
        count: int,
        *,
        drain_seconds: float,
        report: Callable[[str], None],
        on_ended: Callable[[int], None] = lambda pid: None,
        on_stopping: Callable[[], None] = lambda: None,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self._target, self._count, self._start_seconds = target, count, start_seconds
        self._drain_seconds, self._report = drain_seconds, report
        self._on_ended, self._on_stopping = on_ended, on_stopping
        self._workers: list[_Worker] = []
        self._leaving: list[tuple[_Worker, float]] = []
        self._stopping = False
        self._reload_requested = False
        self._retry_seconds, self._retry_at = _FIRST_RETRY_SECONDS, 0.0

    def run(self) -> int:
        """Starts the processes and waits for a signal; returns the exit status.

        Raises UserError where the first processes do not start.
        """
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        try:
            self._workers, failure = self._start_ready()
            if failure and not self._stopping:
                raise UserError(failure)
            while not self._stopping:
                self._wait(self._workers)
                if self._reload_requested:
                    self._reload()
                self._replace_dead()
                self._end_leaving()
        finally:
            self._stop()
        return 0

    def _on_stop(self, number: int, frame: Any) -> None:
        self._stopping = True

    def _on_reload(self, number: int, frame: Any) -> None:
        self._reload_requested = True

    def _wait(self, workers: list[_Worker]) -> None:
        handles = [handle for worker in workers for handle in worker.handles]
        # Signals do not interrupt the wait: their handlers only set a flag.
        wait(handles, timeout=_POLL_SECONDS) if handles else time.sleep(_POLL_SECONDS)
        for worker in workers:
            worker.read_messages()

    def _start_ready(self) -> tuple[list[_Worker], str]:
        """Starts processes and waits until all answer; returns none, and why, if one fails.

        Those that serve meanwhile are replaced when they die, as at any other time.
        """
        workers = [_Worker(self._target) for _ in range(self._count)]
        while not self._stopping:
            self._wait([*workers, *self._workers])
            if all(worker.ready for worker in workers):
                return workers, ""
            failure = next(filter(None, (self._find_start_failure(w) for w in workers)), "")
            if failure:
                self._let_go(workers)
                return [], failure
            self._replace_dead()
            self._end_leaving()
        return workers, ""

    def _find_start_failure(self, worker: _Worker) -> str:
        """Returns why a process does not become ready; "" if it still may."""
        if worker.ready:
            return ""
        if not worker.alive:
            worker.read_messages()
            return worker.failure or f"a worker ended with status {worker.process.exitcode}"
        if worker.is_late(self._start_seconds):
            return f"a worker did not start in {self._start_seconds:g} s"
        return ""

    def _reload(self) -> None:
        self._reload_requested = False
        self._report("reloading")
        workers, failure = self._start_ready()
        if failure:
            self._report(f"not reloaded, the old configurations stay: {failure}")
        elif self._stopping:
            self._let_go(workers)
        else:
            old, self._workers = self._workers, workers
            self._let_go(old, are_replaced=True)
            self._report("reloaded")

    def _let_go(self, workers: list[_Worker], *, are_replaced: bool = False) -> None:
        deadline = time.monotonic() + self._drain_seconds
        for worker in workers:
            worker.drain(is_replaced=are_replaced)
            self._leaving.append((worker, deadline))

    def _replace_dead(self) -> None:
        for worker in self._workers:
            if worker.alive and worker.is_late(self._start_seconds):
                worker.failure = f"it did not start in {self._start_seconds:g} s"
                worker.kill()
        dead = [worker for worker in self._workers if not worker.alive]
        if any(worker.ready for worker in self._workers if worker.alive) and not dead:
            self._retry_seconds = _FIRST_RETRY_SECONDS
        if not dead or time.monotonic() < self._retry_at:
            return
        for worker in dead:
            worker.read_messages()
            reason = worker.failure or f"status {worker.process.exitcode}"
            self._report(f"a worker ended ({reason}) and is replaced")
            self._workers.remove(worker)
            self._finish(worker, time.monotonic())
            self._workers.append(_Worker(self._target))
        # A process that cannot start must not be started in a busy loop.
        self._retry_at = time.monotonic() + self._retry_seconds
        self._retry_seconds = min(2 * self._retry_seconds, _LAST_RETRY_SECONDS)

    def _end_leaving(self) -> None:
        remaining = []
        for worker, deadline in self._leaving:
            if worker.alive and time.monotonic() < deadline:
                remaining.append((worker, deadline))
            else:
                self._finish(worker, deadline)
        self._leaving = remaining

    def _finish(self, worker: _Worker, deadline: float) -> None:
        pid = worker.process.pid
        worker.finish(deadline)
        self._on_ended(pid)

    def _stop(self) -> None:
        # Connections after the end of the workers' grace are refused, and do not wait here.
        self._on_stopping()
        self._let_go(self._workers)
        for worker, deadline in self._leaving:
            self._finish(worker, deadline)
        self._workers, self._leaving = [], []
