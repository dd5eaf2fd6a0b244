"""The recipe on the real model, in its shortest form: the chain from pairs to a policy under a constraint."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_recipe_runs_and_resumes(data_dir: Path, tmp_path: Path, root: Path) -> None:
    command = [
        sys.executable,
        str(root / "benchmarks" / "rlhf" / "recipe.py"),
        "--out",
        str(tmp_path),
        "--judge-steps",
        "3",
        "--methods",
        "grpo",
    ]
    environment = {**os.environ, "TRUING_DATA": str(data_dir)}
    for steps in ("1", "2"):
        done = subprocess.run(
            [*command, "--steps", steps],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"| grpo | {steps} |" in done.stdout
    assert (tmp_path / "grpo" / "truing.json").is_file() and (
        tmp_path / "grpo" / "training.html"
    ).is_file()
    assert not (tmp_path / "grpo" / "checkpoint-0").exists()
