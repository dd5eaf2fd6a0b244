"""The recipe of benchmarks/rlhf on the real model, in its shortest form."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_recipe_runs_and_resumes(data_dir: Path, tmp_path: Path, root: Path) -> None:
    recipe = str(root / "benchmarks" / "rlhf" / "recipe.py")
    options = ["--out", str(tmp_path), "--judge-steps", "3", "--methods", "grpo"]
    for steps in ("1", "2"):
        process = subprocess.run(
            [sys.executable, recipe, *options, "--steps", steps],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "TRUING_DATA": str(data_dir)},
        )
        assert process.returncode == 0, process.stderr[-3000:]
        assert f"| grpo | {steps} |" in process.stdout
    assert (tmp_path / "grpo" / "truing.json").is_file()
    assert (tmp_path / "grpo" / "training.html").is_file()
