"""The same numbers as lm-evaluation-harness, from the same files, in float32 on one thread each.

Its environment has this project's torch and transformers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.peers import FOLDER, peer_python

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1600)]


def test_sums_and_accuracies_are_lm_eval_s(root: Path, data_dir: Path) -> None:
    peer_python("lm-eval")
    command = [
        sys.executable,
        str(root / "benchmarks" / "likelihood" / "run.py"),
        "--repeat",
        "1",
        "--threads",
        "1",
        "--bbq",
        "12",
        "--truthfulqa",
        "4",
    ]
    environment = {**os.environ, "TRUING_DATA": str(data_dir), "TRUING_PEERS": str(FOLDER)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    made = [json.loads(line) for line in done.stdout.splitlines()]
    assert [m["task"] for m in made] == ["bbq", "truthfulqa"]
    for task in made:
        assert task["difference"] < 1e-4  # of a sum, over the root of its tokens
        assert task["acc"] == task["acc_norm"] == 0
