"""The Python blocks of README and docs run, each page in its own process; links have a target."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
]
ALL = [
    *PAGES,
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*/*.md")),
    *sorted((ROOT / "benchmarks").glob("**/*.md")),
    *sorted((ROOT / "examples").glob("**/*.md")),
]
_BLOCK = re.compile(r"(?ms)^(<!-- no-run -->\s*\n)?```python\n(.*?)^```")


def _code(page: Path) -> str:
    return "\n".join(
        code for skip, code in _BLOCK.findall(page.read_text(encoding="utf-8")) if not skip
    )


@pytest.mark.parametrize("page", [p for p in PAGES if _code(p)], ids=lambda p: p.name)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "TRUING_OFFLINE_DOCS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _code(page)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, f"{page.name}:\n{done.stderr[-3000:]}"


@pytest.mark.parametrize(
    "page", [p for p in ALL if p.exists()], ids=lambda p: str(p.relative_to(ROOT))
)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        if not (page.parent / target.split("#")[0]).exists():
            dead.append(target)
    assert dead == []


def _find_commands(text: str) -> list[str]:
    """Returns the bash blocks of a page and the commands in its indented lines."""
    blocks = re.findall(r"(?ms)^```(?:bash|sh)\n(.*?)^```", text)
    outside = re.sub(r"(?ms)^```.*?^```", "", text)
    # A backslash at the end of a line goes on in the next.
    lines = re.findall(r"(?m)^ {4}\s*((?:truing|python) (?:.*\\\n)*.*)$", outside)
    return [*blocks, *lines]


def test_commands_of_pages_are_found() -> None:
    page = "```bash\ntruing doctor\n```\n\n    truing run \\\n      --out x\n    truing ui\n"
    assert _find_commands(page) == [
        "truing doctor\n",
        "truing run \\\n      --out x",
        "truing ui",
    ]


@pytest.mark.parametrize(
    "page", [p for p in ALL if p.exists()], ids=lambda p: str(p.relative_to(ROOT))
)
def test_commands_of_a_page_are_read_by_bash(page: Path) -> None:
    faults = []
    commands = _find_commands(page.read_text(encoding="utf-8"))
    # In one shell where all is well; one by one only to name the fault.
    if commands and not _is_bash("\n".join(commands)):
        faults = [command for command in commands if not _is_bash(command)] or commands
    assert faults == []


def _is_bash(commands: str) -> bool:
    done = subprocess.run(["bash", "-n"], input=commands, text=True, capture_output=True)
    return done.returncode == 0


def test_generated_references_are_what_commands_and_docstrings_say() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for page, text in (
        ("cli.md", module.render()),
        ("reference/python.md", module.render_python()),
    ):
        written = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert written == text, f"docs/{page}: run `make docs`"
