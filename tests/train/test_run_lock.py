"""One process at a time trains into a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.core.errors import RunError
from truing.train.run_lock import lock_run_folder


def test_a_locked_folder_is_refused_until_it_is_released(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with (
        lock_run_folder(folder),
        pytest.raises(RunError, match="another process is training"),
        lock_run_folder(folder),
    ):
        pass
    with lock_run_folder(folder):
        assert (folder / "lock").exists()
