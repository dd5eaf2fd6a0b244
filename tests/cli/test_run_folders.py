"""Run folders on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.cli.run_folders import find_runs, open_run, short_run_names
from truing.core.errors import RunError
from truing.runs.folder import Manifest, RunWriter


def make_run(folder: Path) -> Path:
    RunWriter(folder, Manifest(plan_hash="p", model="m", created="now")).close()
    return folder


def test_find_runs_looks_two_levels_down(tmp_path: Path) -> None:
    shallow = make_run(tmp_path / "a")
    deep = make_run(tmp_path / "b" / "safety")
    make_run(tmp_path / "c" / "x" / "y")
    assert find_runs(tmp_path) == [shallow, deep]
    assert find_runs(shallow) == [shallow]
    with pytest.raises(RunError, match="neither a run folder"):
        find_runs(tmp_path / "nowhere")


def test_open_run_names_the_runs_of_a_folder(tmp_path: Path) -> None:
    for name in "abcdefgh":
        make_run(tmp_path / name)
    assert open_run(tmp_path / "a").path == tmp_path / "a"
    with pytest.raises(RunError, match=r"holds 8 runs; name one: .*/a, .*/f$"):
        open_run(tmp_path)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["one/safety", "two/safety"], ["one/safety", "two/safety"]),
        (["one/safety"], ["safety"]),
        (["x/y", "x/y"], None),
    ],
)
def test_short_run_names(paths: list[str], names: list[str] | None) -> None:
    result = short_run_names([Path(p) for p in paths])
    if names is None:  # equal paths: the whole path, and an end
        assert result[0] == result[1]
    else:
        assert result == names
