"""Whether a run folder is being written, seen from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from truing.runs.folder import Manifest, RunWriter
from truing.runs.write_lock import is_being_written

_ASK = "import sys; from pathlib import Path; from truing.runs.write_lock import is_being_written; print(is_being_written(Path(sys.argv[1])))"


def _ask_elsewhere(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _ASK, str(folder)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_an_open_writer_is_seen_until_it_closes(tmp_path: Path) -> None:
    assert not is_being_written(tmp_path)
    writer = RunWriter(tmp_path / "run", Manifest())
    assert is_being_written(tmp_path / "run")
    assert _ask_elsewhere(tmp_path / "run") == "True"
    writer.close()
    assert not is_being_written(tmp_path / "run")


def test_a_link_in_the_place_of_the_lock_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    assert not is_being_written(tmp_path)
