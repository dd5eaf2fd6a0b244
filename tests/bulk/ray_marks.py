"""The marks of tests on a real Ray, which leaves its processes to the operating system."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

RAY_MARKS = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    *(
        pytest.mark.filterwarnings(f"ignore::{category}")
        for category in (
            "ResourceWarning",
            "pytest.PytestUnraisableExceptionWarning",
            "DeprecationWarning",
            "FutureWarning",
        )
    ),
]


def on_ray(test: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a test these marks."""
    for mark in RAY_MARKS:
        test = mark(test)
    return test


def find_ray_processes(name: str) -> list[int]:
    """Returns the processes with a name in their title, of the cluster that this one started."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()[1:]]
    parents = {int(row[0]): int(row[1]) for row in rows}

    def is_descendant(pid: int) -> bool:
        # Others on this machine may have clusters of their own.
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    titled = (int(row[0]) for row in rows if row[2].startswith("ray::") and name in row[2])
    return [pid for pid in titled if is_descendant(pid)]
