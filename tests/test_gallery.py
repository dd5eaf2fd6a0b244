"""The gallery of reports: each is there, small, whole, and names no machine."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

GALLERY = Path(__file__).resolve().parents[1] / "docs" / "gallery"
NAMES = sorted(path.stem for path in GALLERY.glob("*.html"))


def _load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_gallery", GALLERY / "make_gallery.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_report_of_the_page_is_there_with_its_commands() -> None:
    sections = _load_script().read_sections((GALLERY / "README.md").read_text(encoding="utf-8"))
    assert sorted(sections) == NAMES and len(NAMES) >= 2
    assert all("--out " in commands for commands in sections.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_report_is_one_small_file_that_loads_nothing(name: str) -> None:
    html = (GALLERY / f"{name}.html").read_text(encoding="utf-8")
    assert len(html.encode()) < 1_000_000
    assert "</html>" in html and "<script src" not in html and "<link" not in html
    # No address of the machine, and no absolute path: below a folder of the root, or of a drive.
    assert "localhost" not in html and not re.search(r"\b(127|10|192\.168)(\.\d{1,3}){2,3}\b", html)
    roots = {path.name for path in Path("/").iterdir() if path.is_dir()} - {"a", "p"}
    assert not re.search(rf"[\s\"'=(]/({'|'.join(map(re.escape, sorted(roots)))})/\w", html)


def test_the_gallery_does_not_bloat_the_repository() -> None:
    files = [*GALLERY.glob("*.html"), *GALLERY.glob("*.png")]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert {path.stem for path in GALLERY.glob("*.png")} == set(NAMES)
