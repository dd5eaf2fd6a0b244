"""Virtual environments with a peer package that is no dependency of truing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tests.requirements import skip_or_fail


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
        skip_or_fail(f"{name} cannot be installed: {installed.stderr[-500:]}")
    return str(python)


def run_tests_with_extra(
    extra: str,
    tests: str,
    root: Path,
    parent: Path,
    *,
    more: Sequence[str] = (),
    development_packages: bool = False,
) -> dict[str, int]:
    """Runs tests in an environment with an extra; returns how many passed, failed, were skipped ...

    `tests` are words for pytest: a path, and `-k` if only some of its tests are meant. Raises
    AssertionError with pytest's words if it ran none or one failed. `more` are further packages.
    With `development_packages` those of this interpreter are used too, so that torch is not
    installed a second time.
    """
    packages = extra if development_packages else f"{extra},serve"
    python = peer_interpreter(extra, f"{root}[{packages}]", parent)
    # The checkout's own code, not a copy that an environment made earlier may hold.
    path = [str(root / "src")]
    further = list(more)
    if development_packages:
        path.append(sysconfig.get_path("purelib"))
    else:
        further += ["pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.120"]
    if further:
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *further], check=True)
    process = subprocess.run(
        [python, "-m", "pytest", "-p", "no:cacheprovider", "-rs", *tests.split()],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-1000:]
    last_line = process.stdout.strip().rpartition("\n")[2]
    outcomes = re.findall(r"(\d+) (passed|failed|skipped|xfailed|xpassed|errors?)", last_line)
    return {outcome: int(count) for count, outcome in outcomes}
