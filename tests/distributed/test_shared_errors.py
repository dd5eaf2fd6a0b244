"""A process that fails alone ends the others, which wait for it, with its message."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from truing.distributed.shared_errors import share_errors

SCRIPT = """
import sys
import torch, torch.distributed as dist
from truing.core.errors import ProcessFailed
from truing.distributed.shared_errors import share_errors

dist.init_process_group("gloo")
rank = dist.get_rank()
try:
    with share_errors():
        dist.all_reduce(torch.ones(1))
        if rank == 1:
            raise ValueError("only here")
        dist.all_reduce(torch.ones(1))  # waits for process 1 for ever
except ProcessFailed as error:
    print(f"{rank}: ended by another: {error}", flush=True)
    sys.exit(1)
except ValueError as error:
    print(f"{rank}: own error: {error}", flush=True)
    sys.exit(1)
"""


def test_without_other_processes_errors_pass_through() -> None:
    with pytest.raises(ValueError, match="mine"), share_errors():
        raise ValueError("mine")


@pytest.mark.slow
def test_one_message_and_no_process_is_left(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    processes = []
    for rank in range(2):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29641",
            "OMP_NUM_THREADS": "1",
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", str(script)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    started = time.monotonic()
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert outputs[1].strip() == "1: own error: only here"
    assert outputs[0].strip() in (
        "",  # ended by force
        "0: ended by another: another process of the run failed: process 1: ValueError: only here",
    )
    assert time.monotonic() - started < 240
