"""The folder of a run's draws, labels and looks, and appending to its files."""

from __future__ import annotations

from pathlib import Path

from truing.runs.append_only_file import AppendOnlyFile
from truing.runs.folder import Run


def labels_folder(run: Run | str | Path) -> Path:
    """Returns the folder of a run's draws and labels."""
    return (run.path if isinstance(run, Run) else Path(run)) / "labels"


def append_lines(path: Path, lines: bytes) -> None:
    """Appends whole lines to a file, and waits until they are on disk."""
    file = AppendOnlyFile(path)
    try:
        file.append(lines)
        file.sync()
    finally:
        file.close()
