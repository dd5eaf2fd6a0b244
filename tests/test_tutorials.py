"""The pages of docs/tutorials run from top to bottom, as their notebooks do: shell and Python."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs" / "tutorials").glob("*.md")), ROOT / "docs/how-to/incident.md"]
_BLOCK = re.compile(r"(?ms)^(<!-- no-run -->\s*\n)?```(python|bash)\n(.*?)^```\s*?$")


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _script(page: str) -> str:
    """Returns one shell script of all blocks of a page, in their order."""
    parts = ["set -e"]
    for skipped, language, code in _BLOCK.findall(page):
        if not skipped:
            is_python = language == "python"
            parts.append(f"python - <<'END_OF_BLOCK'\n{code}END_OF_BLOCK" if is_python else code)
    return "\n".join(parts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs_from_top_to_bottom(page: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    script = _script(page.read_text(encoding="utf-8").replace("8123", port))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{page.name}:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert list(tmp_path.glob("runs/**/manifest.json")), "the page made no run"


def test_a_notebook_has_the_blocks_of_its_page_in_order() -> None:
    page = (ROOT / "docs" / "tutorials" / "endpoint.md").read_text(encoding="utf-8")
    notebook = _load("make_site").make_notebook(page)
    cells = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    blocks = [
        ("%%bash\n" if language == "bash" else "") + code.rstrip()
        for _, language, code in _BLOCK.findall(page)
    ]
    assert cells == blocks and len(cells) >= 4
    assert "# Measure an endpoint" in notebook["cells"][0]["source"]


def test_links_of_the_site_are_rewritten_and_a_dead_one_is_named() -> None:
    site = _load("make_site")
    paths = site.site_paths()
    text = "[a](../benchmarks/README.md#x) [b](how-to/python.md)\n```text\n[c](nowhere.md)\n```\n"
    rewritten = site.rewrite_links(text, "docs/gate.md", paths)
    assert rewritten == text.replace("../benchmarks/README.md#x", "benchmarks/index.md#x")
    with pytest.raises(ValueError, match=r"docs/gate.md: nowhere.md leads nowhere"):
        site.rewrite_links("[c](nowhere.md)", "docs/gate.md", paths)


def test_every_page_of_the_navigation_exists() -> None:
    site = _load("make_site")
    import tomllib

    def targets(entries: list[dict[str, object]]) -> list[str]:
        found: list[str] = []
        for entry in entries:
            for target in entry.values():
                found += targets(target) if isinstance(target, list) else [str(target)]
        return found

    nav = tomllib.loads(site.CONFIG.read_text(encoding="utf-8"))["project"]["nav"]
    named = targets(nav)
    standing = set(site.site_paths().values())
    assert [page for page in named if page not in standing] == []
    # Logs, decisions and benchmarks are reached from their own lists.
    listed = ("log/", "decisions/", "benchmarks/")
    pages = {p for p in standing if p.endswith(".md") and not p.startswith(listed)}
    assert pages - set(named) == set(), "pages that the navigation does not name"
