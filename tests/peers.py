"""Environments with peers: packages that truing is compared with or works with, each in one of its own.

They are folders of `TRUING_PEERS` (by default `.venv-peers` in the checkout), built when a test
first needs them and kept for the next run. What cannot be installed skips its tests with pip's
last words; with CI=true they fail.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.requirements import skip_or_fail

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("TRUING_PEERS") or ROOT / ".venv-peers").absolute()
# Lists what an environment was built for: one that lacks it is unfinished or of an older list.
MARKER = "requirements.txt"
TEST_TOOLS = ("pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.120")


@dataclass(frozen=True)
class Peer:
    """What an environment is built of.

    With `shares_packages` the development packages are seen too, behind its own, so that torch is
    not installed a second time.
    """

    requirements: tuple[str, ...]
    shares_packages: bool = False


def truing_with(*extras: str) -> tuple[str, ...]:
    """Returns the requirements of truing with these extras; its code is the checkout's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return (*project["dependencies"], *(line for extra in extras for line in optional[extra]))


PEERS = {
    "agentdojo": Peer(truing_with("agentdojo")),
    "evalstats": Peer(("evalstats>=0.3.3",)),
    "garak": Peer(("garak",), shares_packages=True),
    "inspect": Peer(("inspect-ai", "openai", "pandas", "pyarrow")),
    "krippendorff": Peer(("krippendorff>=0.8",)),
    # langchain-openai is what the page has its readers install beside the extra.
    "langchain": Peer((*truing_with("langchain", "serve"), "langchain-openai", *TEST_TOOLS)),
    "litellm": Peer((*truing_with("litellm", "serve"), *TEST_TOOLS)),
    "lm-eval": Peer(("lm-eval[hf]>=0.4.13",), shares_packages=True),
    "nemoguardrails-0.17": Peer(("nemoguardrails==0.17.0",)),
    "nemoguardrails-0.24": Peer(("nemoguardrails==0.24.1",)),
    "openai-agents": Peer((*truing_with("openai-agents", "serve"), *TEST_TOOLS)),
    "ppi": Peer(("ppi-python",)),
    "presidio": Peer((*truing_with("presidio", "serve"), *TEST_TOOLS)),
    "pyrit": Peer(("pyrit",)),
    "ray": Peer((*truing_with("ray"), "s3fs", "moto[server]"), shares_packages=True),
    "trl": Peer(("trl==1.16.0",), shares_packages=True),
    "wandb": Peer(truing_with("wandb"), shares_packages=True),
}


@functools.cache
def peer_python(name: str) -> str:
    """Returns the interpreter of a peer's environment, which is built if it is absent or unfinished."""
    peer = PEERS[name]
    folder = FOLDER / name
    python, marker = folder / "bin" / "python", folder / MARKER
    listed = "\n".join(peer.requirements) + "\n"
    if marker.exists() and marker.read_text(encoding="utf-8") == listed:
        return str(python)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    if peer.shares_packages:
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "development_packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _install(name, [*command, *peer.requirements], folder)
    marker.write_text(listed, encoding="utf-8")
    return str(python)


def peer_program(name: str, program: str) -> str:
    """Returns the path of a program that a peer's environment installs."""
    return str(Path(peer_python(name)).with_name(program))


@functools.cache
def promptfoo_program() -> str:
    """Returns the program of promptfoo, which npm installs."""
    folder = FOLDER / "promptfoo"
    program = folder / "node_modules" / ".bin" / "promptfoo"
    if not program.exists():
        npm = shutil.which("npm") or skip_or_fail("npm is not installed, which promptfoo needs")
        folder.mkdir(parents=True, exist_ok=True)
        _install("promptfoo", [npm, "install", "--no-audit", "--no-fund", "promptfoo"], folder)
    return str(program)


def _install(name: str, command: list[str], folder: Path) -> None:
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if installed.returncode:
        skip_or_fail(f"{name} cannot be installed: {installed.stderr[-500:]}")


def run_tests_with_peer(name: str, *tests: str) -> dict[str, int]:
    """Runs tests in a peer's environment; returns how many passed, failed, were skipped ...

    `tests` are words for pytest: paths, and `-k` if only some of their tests are meant. Raises
    AssertionError with pytest's words if it ran none or one failed.
    """
    process = subprocess.run(
        [peer_python(name), "-m", "pytest", "-p", "no:cacheprovider", "-rs", *tests],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-1000:]
    last_line = process.stdout.strip().rpartition("\n")[2]
    outcomes = re.findall(r"(\d+) (passed|failed|skipped|xfailed|xpassed|errors?)", last_line)
    return {outcome: int(count) for count, outcome in outcomes}
