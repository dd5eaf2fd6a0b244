"""The bounded scan of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.serve.ui.run_scan import ScanLimits, run_id, scan_folder


def _make_run(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "manifest.json").touch()


def test_runs_and_files_are_found_without_following_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    _make_run(outside / "run")
    folder = tmp_path / "folder"
    _make_run(folder / "plan" / "a" / "data")
    _make_run(folder / ".hidden")
    (folder / "link").symlink_to(outside)
    (folder / "log.eval").touch()
    (folder / "other.txt").touch()
    (folder / "link.eval").symlink_to(outside / "run" / "manifest.json")
    scan = scan_folder(folder, (".eval",))
    assert list(scan.runs.values()) == [Path("plan/a/data")]
    assert scan.files == [Path("log.eval")]
    assert scan.cut == ""
    assert scan.runs[run_id(Path("plan/a/data"))] == Path("plan/a/data")


def test_a_folder_that_is_a_run_itself(tmp_path: Path) -> None:
    _make_run(tmp_path / "run")
    assert list(scan_folder(tmp_path / "run").runs.values()) == [Path()]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (ScanLimits(entries=1000), "first 1,000 files"),
        (ScanLimits(entries_of_folder=600), "first 600 entries"),
        (ScanLimits(runs=1), "1 runs"),
        (ScanLimits(seconds=-1), "s only"),
    ],
)
def test_every_bound_is_kept_and_named(tmp_path: Path, limits: ScanLimits, reason: str) -> None:
    for name in ("a", "b", "c"):
        _make_run(tmp_path / name)
    (tmp_path / "many").mkdir()
    for number in range(1200):
        (tmp_path / "many" / str(number)).touch()
    assert reason in scan_folder(tmp_path, limits=limits).cut


def test_a_folder_that_cannot_be_listed_is_left_out(tmp_path: Path) -> None:
    assert scan_folder(tmp_path / "nowhere").runs == {}
