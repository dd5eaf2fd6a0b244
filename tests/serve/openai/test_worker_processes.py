"""Processes behind one socket: ready, replaced, reloaded and ended, with a small server in each."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.serve.openai.live import wait_until

from truing.core.errors import PlanError, UserError
from truing.serve.openai.worker_processes import WorkerLink, WorkerProcesses


def answer_with_word(listener: socket.socket, folder: Path, link: WorkerLink) -> None:
    """Answers each connection with `pid word`, with the word of the file at the start."""
    link.end_with_parent()
    word = (folder / "word").read_text()
    if word == "wrong":
        raise PlanError("the word is wrong")
    if word == "hang":
        threading.Event().wait()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    listener.settimeout(0.05)
    link.report_ready()
    while not stopping.is_set():
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(f"{os.getpid()} {word}".encode())


class Service:
    """Two workers; `run` needs the main thread for its signals, so a test drives it from another
    one.
    """

    def __init__(self, folder: Path, count: int = 2, start_seconds: float = 60) -> None:
        self.folder = folder
        (folder / "word").write_text("first")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.reports: list[str] = []
        self.ended: list[int] = []
        self.workers = WorkerProcesses(
            partial(answer_with_word, self.listener, folder),
            count,
            drain_seconds=10,
            report=self.reports.append,
            on_ended=self.ended.append,
            start_seconds=start_seconds,
        )

    def ask(self) -> tuple[int, str]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            pid, word = connection.makefile().read().split()
        return int(pid), word

    def answers(self, word: str, pids: int = 2) -> bool:
        seen = [self.ask() for _ in range(12)]
        return {w for _, w in seen} == {word} and len({pid for pid, _ in seen}) <= pids


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    made = Service(tmp_path)
    yield made
    for number, handler in handlers.items():
        signal.signal(number, handler)
    made.listener.close()


@pytest.mark.slow
def test_replaced_reloaded_and_ended(service: Service) -> None:
    """All signals and the death of a process in one service: each start costs a second."""
    errors: list[BaseException] = []

    def drive() -> None:
        try:
            first, word = service.ask()
            assert word == "first"
            os.kill(first, signal.SIGKILL)
            assert wait_until(lambda: first in service.ended, 60)
            assert "status -9) and is replaced" in service.reports[0]
            # The new process reads the word when it starts, which must still be the first.
            assert wait_until(lambda: [w.ready for w in service.workers._workers] == [True] * 2, 60)

            (service.folder / "word").write_text("wrong")
            os.kill(os.getpid(), signal.SIGHUP)
            assert wait_until(lambda: len(service.reports) >= 3, 60)
            assert service.reports[-1] == (
                "not reloaded, the old configurations stay: the word is wrong"
            )
            assert service.answers("first")

            (service.folder / "word").write_text("second")
            os.kill(os.getpid(), signal.SIGHUP)
            # Every connection during the reload is answered, by the old or by the new processes.
            assert wait_until(lambda: service.ask()[1] == "second", 60)
            assert wait_until(lambda: service.reports[-1] == "reloaded", 60)
            assert wait_until(lambda: len(service.ended) >= 5, 60)
            assert service.answers("second")
        except BaseException as error:
            errors.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=drive)
    thread.start()
    assert service.workers.run() == 0
    thread.join()
    assert not errors, errors
    assert not service.workers._workers and not service.workers._leaving


def test_a_service_that_does_not_start_says_why(service: Service) -> None:
    (service.folder / "word").write_text("wrong")
    started = time.monotonic()
    with pytest.raises(UserError, match="the word is wrong"):
        service.workers.run()
    assert time.monotonic() - started < 60
    assert len(service.ended) == 2


@pytest.mark.slow
def test_a_new_process_that_hangs_does_not_stop_the_old_ones(service: Service) -> None:
    """It is given up after its time; until then, an old process that dies is replaced."""
    errors: list[BaseException] = []
    workers = service.workers

    def drive() -> None:
        try:
            first, _ = service.ask()
            (service.folder / "word").write_text("hang")
            workers._start_seconds = 15
            os.kill(os.getpid(), signal.SIGHUP)
            assert wait_until(lambda: service.reports[-1:] == ["reloading"], 60)
            (service.folder / "word").write_text("first")
            # Those that hang have read their word once they run.
            time.sleep(5)
            os.kill(first, signal.SIGKILL)
            assert wait_until(lambda: first in service.ended, 60)
            assert "is replaced" in service.reports[-1]
            assert wait_until(
                lambda: any("did not start in 15 s" in line for line in service.reports), 60
            )
            assert wait_until(lambda: len(workers._workers) == 2, 60)
            assert service.ask()[1] == "first"
            # The next reload works.
            workers._start_seconds = 60
            (service.folder / "word").write_text("second")
            os.kill(os.getpid(), signal.SIGHUP)
            assert wait_until(lambda: service.reports[-1] == "reloaded", 60)
        except BaseException as error:
            errors.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=drive)
    thread.start()
    assert workers.run() == 0
    thread.join()
    assert not errors, errors
