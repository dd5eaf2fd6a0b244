"""Virtual environments with a peer package that is no dependency of truing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def peer_interpreter(name: str, requirement: str, parent: Path) -> str:
    """Returns the interpreter of an environment with a package.

    That is `TRUING_PEERS/name` if it exists; otherwise the environment is built below `parent`. The
    test is skipped if the package cannot be installed; with CI=true it fails instead.
    """
    ready_made = Path(os.environ.get("TRUING_PEERS") or ".") / name / "bin" / "python"
    if os.environ.get("TRUING_PEERS") and ready_made.exists():
        return str(ready_made.absolute())
    python = parent / name / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(parent / name)], check=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    installed = subprocess.run([*command, requirement], capture_output=True, text=True)
    if installed.returncode:
        reason = f"{name} cannot be installed: {installed.stderr[-500:]}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return str(python)
