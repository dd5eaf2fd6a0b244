"""Runs a judge in a process of its own, so that its memory can be measured and is freed afterwards.

A comparison may name more judges than fit into memory together. Every judge is built twice: once to
learn its name and version before anything is judged, and once to judge.
"""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from truing.core.errors import PlanError, TruingError, UserError
from truing.core.private_files import restrict_umask
from truing.core.protocols import Judge
from truing.core.types import Lineage

if TYPE_CHECKING:
    from truing.evaluation.judge_sets import JudgingTime

_PEAK_MEMORY = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)
# How long an exiting process may take to free a large model.
_EXIT_SECONDS = 30.0


class JudgeDescription(Struct, frozen=True):
    """What identifies a judge; known as soon as it is built."""

    name: str
    question: str
    lineage: Lineage


class Described(Struct, frozen=True, tag="described"):
    """Event of the judge process: the judge is built."""

    judge: JudgeDescription


class Progress(Struct, frozen=True, tag="progress"):
    """Event of the judge process: an answer of the current folder is judged."""

    done: int
    total: int
    failures: int


class Judged(Struct, frozen=True, tag="judged"):
    """Event of the judge process: a folder is judged. Times and memory are as in `JudgingTime`.

    `peak_bytes` is the peak memory since the process started.
    """

    folder: str
    rows: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int | None


class Fault(Struct, frozen=True, tag="fault"):
    """Event of the judge process, its last: a TruingError, as the user has to see it."""

    messages: tuple[str, ...]


Event = Described | Progress | Judged | Fault
_decode_event: Callable[[bytes], Event] = msgspec.json.Decoder(Event).decode


class JudgeTask(Struct, frozen=True):
    """The task of a judge process: build the judge of `spec`, and judge the run folders with it."""

    spec: str
    folders: tuple[str, ...] = ()
    concurrency: int = 16


class JudgeProcessDied(Exception):
    """The judge process ended without a result; `reason` says how."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def describe_judge(spec: str) -> JudgeDescription:
    """Builds a judge in another process and returns its description.

    Raises PlanError with the judge's faults, or if the process died.
    """
    try:
        with _events(JudgeTask(spec)) as events:
            for event in events:
                if isinstance(event, Described):
                    return event.judge
                if isinstance(event, Fault):
                    raise PlanError(*event.messages)
    except JudgeProcessDied as death:
        raise PlanError(f"{spec}: cannot be built: {death.reason}") from death
    raise PlanError(f"{spec}: cannot be built: its process said nothing")


def judge_folders(
    task: JudgeTask,
    *,
    on_progress: Callable[[int, int, int], None],
    on_judged: Callable[[Judged], None],
) -> None:
    """Judges run folders in another process; `on_judged` is called after each of them.

    Raises UserError with what the process reports, and JudgeProcessDied if it ended otherwise.
    """
    with _events(task) as events:
        for event in events:
            if isinstance(event, Progress):
                on_progress(event.done, event.total, event.failures)
            elif isinstance(event, Judged):
                on_judged(event)
            elif isinstance(event, Fault):
                raise UserError(*event.messages)


@contextmanager
def _events(task: JudgeTask) -> Iterator[Iterator[Event]]:
    """Starts the process and yields its events; it is stopped if the block is left early."""
    # A fresh interpreter: a fork would share, and count, the memory of this process, and torch does
    # not work in a fork.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    # No daemon: a judge may start processes of its own.
    process = context.Process(target=run_task, args=(msgspec.json.encode(task), sender))
    process.start()
    # With the sending end closed in this process, the death of the other one raises EOFError below.
    sender.close()

    def receive() -> Iterator[Event]:
        while True:
            try:
                yield _decode_event(receiver.recv_bytes())
            except EOFError:
                process.join(_EXIT_SECONDS)
                if process.exitcode != 0:
                    raise JudgeProcessDied(_describe_exit(process.exitcode)) from None
                return

    try:
        yield receive()
    finally:
        receiver.close()
        process.join(0.2)  # a finished process gets the time to exit by itself
        if process.is_alive():
            process.terminate()
            process.join(_EXIT_SECONDS)


def _describe_exit(status: int | None) -> str:
    if status == -9:  # SIGKILL, which the kernel sends when memory runs out
        return "its process was killed, most likely for lack of memory"
    if status is not None and status < 0:
        return f"its process was ended by signal {-status}"
    return f"its process ended with status {status}"


def run_task(encoded: bytes, sender: Connection) -> None:
    """Runs in the judge process: builds the judge, describes it, and judges the folders."""
    from truing.evaluation.judge_sets import judge_set
    from truing.runs.folder import Run
    from truing.specs.resolve import resolve

    task = msgspec.json.decode(encoded, type=JudgeTask)
    restrict_umask()

    def send(event: Event) -> None:
        sender.send_bytes(msgspec.json.encode(event))

    try:
        judge: Judge = resolve(task.spec, "judge")
        send(Described(JudgeDescription(judge.name, judge.question, judge.lineage)))
        for folder in task.folders:
            time = judge_set(
                Run(Path(folder)),
                judge,
                concurrency=task.concurrency,
                progress=lambda done, total, failures: send(Progress(done, total, failures)),
            )
            send(_judged_event(folder, time))
    except UserError as error:
        send(Fault(error.faults))
    except TruingError as error:
        send(Fault((str(error),)))
    except (BrokenPipeError, KeyboardInterrupt):
        # The parent has gone. All judgements are stored, and a traceback would help nobody.
        os._exit(1)
    finally:
        sender.close()


def _judged_event(folder: str, time: JudgingTime) -> Judged:
    return Judged(folder, time.rows, time.seconds, time.cpu_seconds, peak_memory())


def peak_memory(status_file: Path = Path("/proc/self/status")) -> int | None:
    """Returns the peak resident memory of this process in bytes; None outside Linux."""
    # Not getrusage(): its maximum includes the process that this one was started from.
    try:
        match = _PEAK_MEMORY.search(status_file.read_text(encoding="ascii", errors="replace"))
    except OSError:
        return None
    return int(match.group(1)) * 1024 if match else None
