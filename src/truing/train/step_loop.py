"""The loop of every training run (supervised, moderation, RL): steps, log, checkpoints, slices.

A slice is a part of a run that one call takes, bounded by steps or minutes.

    limit = SliceLimit(minutes=30)
    result = run_steps(run, log, save_every=50, limit=limit)
    if not result.finished: ...              # the same call continues from the checkpoint
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

from truing.core.errors import PlanError
from truing.distributed.process_group import ProcessGroup, launched_processes
from truing.hf.loading import select_device
from truing.train.training_log import TrainingLog


class StepwiseRun(Protocol):
    """A run that is taken step by step.

    With several processes, all of them call each method, since the methods communicate.
    """

    @property
    def step(self) -> int:
        """The number of steps that are done."""
        ...

    @property
    def is_finished(self) -> bool:
        """Whether the last step is done."""
        ...

    def take_step(self) -> dict[str, Any]:
        """Takes one step, adds 1 to `step`, and returns the values to log."""
        ...

    def save_checkpoint(self) -> None:
        """Writes a checkpoint of the state after the last step."""
        ...


class SliceLimit:
    """Ends a slice of a run after a number of steps or minutes, or when a stop is requested.

    One limit may serve several runs that follow each other: steps and minutes are counted from
    its construction. Raises PlanError if a number is not above 0.
    """

    def __init__(
        self,
        *,
        steps: int | None = None,
        minutes: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        faults = [
            f"{name} = {value}: must be above 0"
            for name, value in (("max_steps", steps), ("max_minutes", minutes))
            if value is not None and not value > 0
        ]
        if faults:
            raise PlanError(*faults)
        self._steps_left = steps
        self._clock = clock
        self._deadline = None if minutes is None else clock() + 60 * minutes
        self._stop_requested = False

    def request_stop(self) -> None:
        """Ends the slice after the step under way (for signal handlers)."""
        self._stop_requested = True

    def count_step(self) -> None:
        """Counts one step."""
        if self._steps_left is not None:
            self._steps_left -= 1

    @property
    def is_reached(self) -> bool:
        """Whether the slice has to end."""
        if self._stop_requested or (self._steps_left is not None and self._steps_left <= 0):
            return True
        return self._deadline is not None and self._clock() >= self._deadline


def ends_in_any_process(limit: SliceLimit | None, device: str) -> bool:
    """Returns whether the slice ends between two runs, in every process alike; all must call.

    The clocks of processes differ: one that went on alone would wait for the others for ever.
    """
    if limit is None:
        return False
    # Joined anew, since a run may have left the group at its end.
    with launched_processes(select_device(device)) as processes:
        return processes.any_true(limit.is_reached)


class LoopResult(Struct, frozen=True):
    """What a call of `run_steps` did.

    `values` are the logged values of its last step, `steps` the number of steps that it took.
    `finished` is False if the slice ended before the run did.
    """

    values: dict[str, Any]
    steps: int
    finished: bool


def run_steps(
    run: StepwiseRun,
    log: TrainingLog | None,
    *,
    save_every: int,
    limit: SliceLimit | None = None,
    first_step: int = 0,
) -> LoopResult:
    """Takes the remaining steps of a run, or those of a slice, and saves a checkpoint at its end.

    A slice takes at least one step, however long loading took, so that every slice makes progress.
    `log` is None in all processes but the main one; `first_step` is added to the step numbers in
    it. The log is closed at the end.
    """
    processes = ProcessGroup()
    steps_before = run.step
    # A resumed run starts from a checkpoint of its current step; a new run (step 0) has none yet.
    saved_step = run.step or None
    metrics: dict[str, Any] = {}
    try:
        while not run.is_finished:
            metrics = run.take_step()
            # The log comes before the checkpoint: a crash between them repeats the step, and the
            # resumed log drops its line.
            if log is not None:
                log.write(first_step + run.step, metrics)
            if run.step % save_every == 0:
                run.save_checkpoint()
                saved_step = run.step
            if limit is not None:
                limit.count_step()
                # The clocks of processes differ; all must take the same number of steps.
                if processes.any_true(limit.is_reached):
                    break
        if saved_step != run.step:
            run.save_checkpoint()
    finally:
        if log is not None:
            log.close()
    return LoopResult(metrics, run.step - steps_before, run.is_finished)
