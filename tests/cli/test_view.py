"""`truing view`: a page in the run folder."""

from __future__ import annotations

from pathlib import Path

from tests.cli.command_line import run_truing, truing
from tests.cli.scripted_runs import evaluate_scripted


def test_the_page_is_written_into_the_private_run_folder(tmp_path: Path) -> None:
    runs = [
        evaluate_scripted(tmp_path / name, name, "--limit", 40) for name in ("comply", "refuse")
    ]
    assert "30 rows (10 left out)" in run_truing("view --limit 30", *runs)
    page = runs[0] / "view.html"
    assert "comply / refuse" in page.read_text()
    assert page.stat().st_mode & 0o077 == 0


def test_wrong_arguments(tmp_path: Path) -> None:
    assert truing("view").status == 1
    assert truing("view", tmp_path / "nowhere").status == 1
    assert truing("view --limit 0", tmp_path).status == 1
