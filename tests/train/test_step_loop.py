"""The loop of every training run: log before checkpoint, slices, and that each slice gets on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import PlanError
from truing.train.step_loop import SliceLimit, ends_in_any_process, run_steps
from truing.train.training_log import TrainingLog, read_log


class CountingRun:
    """A run of so many steps that remembers what it was asked; it resumes from `saved`."""

    def __init__(self, steps: int, saved: int = 0) -> None:
        self.steps, self.step = steps, saved
        self.saves: list[int] = []

    @property
    def is_finished(self) -> bool:
        return self.step >= self.steps

    def take_step(self) -> dict[str, Any]:
        self.step += 1
        return {"loss": float(self.step)}

    def save_checkpoint(self) -> None:
        self.saves.append(self.step)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5))
def test_slices_take_every_step_once_and_save_their_last(
    steps: int, save_every: int, slice_steps: int
) -> None:
    saved, taken = 0, 0
    for _ in range(steps + 1):
        run = CountingRun(steps, saved)
        limit = SliceLimit(steps=slice_steps)
        result = run_steps(run, None, save_every=save_every, limit=limit)
        taken += result.steps
        assert 1 <= result.steps <= slice_steps
        assert run.saves[-1] == run.step and len(set(run.saves)) == len(run.saves)
        saved = run.saves[-1]
        if result.finished:
            break
    assert taken == steps


def test_a_slice_that_is_over_before_it_begins_still_takes_a_step() -> None:
    now = [0.0]
    limit = SliceLimit(minutes=1, clock=lambda: now[0])
    now[0] = 3600.0  # loading the model took an hour
    assert run_steps(CountingRun(5), None, save_every=10, limit=limit).steps == 1


def test_a_requested_stop_ends_the_slice_after_the_step() -> None:
    limit = SliceLimit()
    run = CountingRun(5)
    limit.request_stop()
    result = run_steps(run, None, save_every=10, limit=limit)
    assert (result.steps, result.finished, run.saves) == (1, False, [1])


def test_a_finished_run_takes_no_step_and_keeps_its_checkpoint() -> None:
    run = CountingRun(5, saved=5)
    assert run_steps(run, None, save_every=2).finished
    assert run.saves == []


def test_the_log_is_closed_after_an_error_and_counts_from_an_offset(tmp_path: Path) -> None:
    class Failing(CountingRun):
        def take_step(self) -> dict[str, Any]:
            if self.step == 2:
                raise ValueError("at the third step")
            return super().take_step()

    log = TrainingLog(tmp_path, tensorboard=False)
    with pytest.raises(ValueError, match="third"):
        run_steps(Failing(5), log, save_every=10, first_step=7)
    assert [row["step"] for row in read_log(tmp_path)] == [8, 9]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "max_steps = 0: must be above 0"),
        ({"minutes": float("nan")}, "max_minutes = nan: must be above 0"),
    ],
)
def test_faults(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        SliceLimit(**fields)


_ASK = """
import os, sys
from truing.train.step_loop import SliceLimit, ends_in_any_process
limit = SliceLimit(steps=1)
if os.environ["RANK"] in sys.argv[1:]:
    limit.count_step()
print(ends_in_any_process(limit, "cpu"), ends_in_any_process(None, "cpu"))
"""


def test_one_process_answers_for_itself() -> None:
    limit = SliceLimit(steps=1)
    assert not ends_in_any_process(limit, "cpu") and not ends_in_any_process(None, "cpu")
    limit.count_step()
    assert ends_in_any_process(limit, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize(("ended", "answer"), [(("1",), "True False"), ((), "False False")])
def test_a_slice_between_runs_ends_in_all_processes(ended: tuple[str, ...], answer: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _ASK, *ended],
            env={**os.environ, **group, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in processes] == [answer] * 2
